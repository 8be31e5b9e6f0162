//! How far a profile or a webhook may go with retries and timeouts.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// How many attempts a delivery may have. Above fifty a receiver is not retried but besieged.
pub const ATTEMPTS: RangeInclusive<usize> = 1..=50;

/// Longest delay before one attempt. The record of an event is kept for longer than a ladder of a few of these.
pub const DELAY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Total time one request may be given. Below, no connection over a continent is made; above, a lane is blocked by a
/// receiver that will not answer.
pub const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// How many attributes an event may have.
pub const ATTRIBUTES_MAX: usize = 32;
/// How many bytes their names and values may come to together. They travel in a header, and with every delivery.
pub const ATTRIBUTES_BYTES_MAX: usize = 4096;

/// How many webhooks a project may have. Who an event is owed to stands in one message of NATS, together with the event,
/// and that message has to fit whoever they are: see `ingest`'s check of `--max-event-bytes`.
pub const WEBHOOKS_MAX: usize = 10_000;

/// How many webhooks a project may have had within a day, those counted that it has. A deleted one is known to every service
/// for a while, so who makes and deletes them in turn would fill all of them.
pub const WEBHOOKS_A_DAY_MAX: usize = 20_000;

/// How many tokens a project may have that are good for something. Every one is in the memory of every `ingest`.
pub const TOKENS_MAX: usize = 1_000;

/// Whether an event may have these attributes.
#[must_use]
pub fn attributes_fit(attributes: &BTreeMap<String, String>) -> bool {
    attributes.len() <= ATTRIBUTES_MAX && attributes_bytes(attributes) <= ATTRIBUTES_BYTES_MAX
}

/// How many bytes they come to.
#[must_use]
pub fn attributes_bytes(attributes: &BTreeMap<String, String>) -> usize {
    attributes.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// Whether these can be the delays before each attempt.
///
/// # Errors
/// Which delay is wrong, where it is one of them, and why.
pub fn check_ladder(delays: &[Duration]) -> Result<(), (Option<usize>, String)> {
    if !ATTEMPTS.contains(&delays.len()) {
        let (least, most) = (ATTEMPTS.start(), ATTEMPTS.end());
        return Err((
            None,
            format!("give {least} to {most} delays, one for each attempt, the first one's included"),
        ));
    }
    match delays.iter().position(|delay| *delay > DELAY_MAX) {
        Some(index) => Err((Some(index), "a delay is at most 7 days".to_owned())),
        None => Ok(()),
    }
}

/// Whether this can be a request's timeout.
///
/// # Errors
/// Why not.
pub fn check_timeout(timeout: Duration) -> Result<(), String> {
    match TIMEOUT.contains(&timeout) {
        true => Ok(()),
        false => Err("a timeout is from 100ms to 1m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ladder_has_one_to_fifty_delays_of_at_most_a_week() {
        assert!(check_ladder(&[]).is_err());
        let week = Duration::from_secs(604_800);
        assert!(check_ladder(&[week]).is_ok());
        assert!(check_ladder(&[Duration::ZERO; 50]).is_ok());
        assert!(check_ladder(&[Duration::ZERO; 51]).is_err());
        let (place, _) = check_ladder(&[Duration::ZERO, week + Duration::from_millis(1)]).unwrap_err();
        assert_eq!(place, Some(1));
    }

    #[test]
    fn a_timeout_is_at_most_a_minute() {
        for (millis, good) in [(0, false), (99, false), (100, true), (60_000, true), (60_001, false)] {
            assert_eq!(check_timeout(Duration::from_millis(millis)).is_ok(), good, "{millis}");
        }
    }

    #[test]
    fn an_event_has_at_most_32_attributes_of_4096_bytes_names_included() {
        let attributes = |count: usize, bytes: usize| {
            // The first has what is left for all of them.
            let value = |number| "x".repeat(if number == 0 { bytes - 3 * count } else { 0 });
            (0..count)
                .map(|number| (format!("a{number:02}"), value(number)))
                .collect()
        };
        for (count, bytes, fit) in [
            (0, 0, true),
            (32, 4096, true),
            (33, 99, false),
            (1, 4097, false),
            (32, 4097, false),
        ] {
            let attributes: BTreeMap<_, _> = attributes(count, bytes);
            assert_eq!(attributes_bytes(&attributes), bytes);
            assert_eq!(attributes_fit(&attributes), fit, "{count} of {bytes} bytes");
        }
    }
}
