//! How fast held deliveries go once their webhook is active again. Pure.
//!
//! Each delivery has its place in time, an interval after the one before; where the next place is, is noted in the
//! transaction that releases, so the rate holds over all processes and over their restarts.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proto_schemas::definition::RateLimit;

/// How far in the past places may be taken that nobody took: as much as a look may be late without slowing the drain.
pub const LATENESS: Duration = Duration::from_millis(100);

/// What a drain allows now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// How many deliveries.
    pub most: u32,
    /// The place of the first of them.
    first: Timestamp,
    interval: Duration,
}

/// What a rate allows at `now`, where the next place was noted as `next_at`.
#[must_use]
pub fn allowance(rate: RateLimit, next_at: Option<Timestamp>, now: Timestamp) -> Allowance {
    let interval = (rate.window / rate.requests.max(1)).max(Duration::from_micros(1));
    // Noted by a lower rate, it would hold up the higher one that is wanted since.
    let latest = now.saturating_add(interval).unwrap_or(Timestamp::MAX);
    let earliest = now.saturating_sub(LATENESS).unwrap_or(Timestamp::MIN);
    let first = next_at.unwrap_or(now).clamp(earliest, latest);
    let most = match Duration::try_from(now.duration_since(first)) {
        Ok(since) => u32::try_from(since.as_nanos() / interval.as_nanos() + 1).unwrap_or(u32::MAX),
        // It is in the future.
        Err(_) => 0,
    };
    Allowance { most, first, interval }
}

impl Allowance {
    /// The next place, when `taken` deliveries were released.
    #[must_use]
    pub fn next_at(self, taken: u32) -> Timestamp {
        let ahead = SignedDuration::try_from(self.interval.saturating_mul(taken)).unwrap_or(SignedDuration::MAX);
        self.first.saturating_add(ahead).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_770_000_000, 0);

    fn rate(requests: u32, window: u64) -> RateLimit {
        RateLimit {
            requests,
            window: Duration::from_millis(window),
        }
    }

    fn at(millis: i64) -> Timestamp {
        NOW + SignedDuration::from_millis(millis)
    }

    #[test]
    fn the_first_goes_at_once_and_the_next_an_interval_later() {
        let first = allowance(rate(50, 1000), None, NOW);
        assert_eq!((first.most, first.next_at(1)), (1, at(20)));
        assert_eq!(allowance(rate(50, 1000), Some(at(20)), at(19)).most, 0);
        assert_eq!(allowance(rate(50, 1000), Some(at(20)), at(20)).most, 1);
    }

    #[test]
    fn a_late_look_makes_up_for_it_and_a_pause_does_not() {
        assert_eq!(allowance(rate(50, 1000), Some(at(20)), at(80)).most, 4);
        assert_eq!(allowance(rate(50, 1000), Some(at(20)), at(60_000)).most, 6);
    }

    #[test]
    fn a_higher_rate_holds_at_once() {
        let slow = allowance(rate(1, 3_600_000), None, NOW).next_at(1);
        assert_eq!(slow, at(3_600_000));
        assert_eq!(allowance(rate(10, 1000), Some(slow), NOW).next_at(0), at(100));
    }

    proptest! {
        #[test]
        fn in_no_stretch_of_time_go_more_than_the_rate_and_its_lateness_allow(
            requests in 1..5_000_u32, window in 100..3_600_000_u64,
            looks in proptest::collection::vec((0..3_000_i64, 0..40_u32), 1..80),
        ) {
            let rate = rate(requests, window);
            let interval = (rate.window / requests).max(Duration::from_micros(1));
            let (mut now, mut next_at, mut gone) = (NOW, None, Vec::new());
            for (pause, free) in looks {
                now += SignedDuration::from_millis(pause);
                let allowed = allowance(rate, next_at, now);
                let taken = allowed.most.min(free);
                next_at = Some(allowed.next_at(taken));
                gone.extend(std::iter::repeat_n(now, taken as usize));
            }
            for (first, begin) in gone.iter().enumerate() {
                for (last, end) in gone.iter().enumerate().skip(first) {
                    let stretch = Duration::try_from(end.duration_since(*begin)).unwrap() + LATENESS;
                    let most = stretch.as_nanos() / interval.as_nanos() + 1;
                    prop_assert!((last - first + 1) as u128 <= most, "{} in {stretch:?}", last - first + 1);
                }
            }
        }
    }
}
