//! What follows from an attempt: nothing, another attempt, or the end. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proto_schemas::id::AttemptRef;
use proto_schemas::ledger::{AttemptFinished, ErrorClass, Outcome};

/// Longest a receiver can put us off with `Retry-After`.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest wait between two attempts, whatever a definition says. Keeps the sums in range, too.
pub const DELAY_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How much longer than its delay a wait may be, so that what failed together is not tried again together.
pub const SPREAD: f64 = 0.1;

/// The attempt from which on one that is refused for where it leads ends its delivery: a name may lead to the wrong place for
/// a moment, but what does so for days is looked up for nothing.
pub const REFUSED_MAX: u32 = 3;
/// What is said then. The same of every address.
const REFUSED: &str = "no request may go to where the webhook leads";

/// What follows from an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextStep {
    /// Nothing: the receiver has the event.
    Settled,
    /// Another attempt.
    Again {
        /// When.
        due_at: Timestamp,
        /// Why the last one failed, in a few words.
        reason: String,
    },
    /// The end.
    Dead {
        /// Why, in a few words.
        reason: String,
    },
}

/// What follows from `fact`, as seen at `now`.
///
/// The next delay counts from the end of the request, which for a dispatcher whose clock is ahead is now. Whatever the
/// ladder and the receiver say, whichever is later holds, plus up to [`SPREAD`] of it. An attempt that was refused for where
/// it leads has no other after the third, however long the ladder is.
#[must_use]
pub fn decide(fact: &AttemptFinished, now: Timestamp) -> NextStep {
    let attempt = fact.attempt.attempt;
    match fact.outcome {
        Outcome::Delivered => return NextStep::Settled,
        Outcome::FailedForGood => {
            return NextStep::Dead {
                reason: format!("no later attempt can succeed; the last: {}", cause(fact)),
            };
        }
        Outcome::Failed if fact.error_class == Some(ErrorClass::RefusedAddress) && attempt >= REFUSED_MAX => {
            return NextStep::Dead {
                reason: REFUSED.to_owned(),
            };
        }
        Outcome::Failed => {}
    }
    // The ladder has a delay for each attempt, the first included.
    let Some(delay) = usize::try_from(attempt).ok().and_then(|next| fact.ladder.get(next)) else {
        let attempts = if attempt == 1 { "attempt" } else { "attempts" };
        return NextStep::Dead {
            reason: format!("gave up after {attempt} {attempts}; the last: {}", cause(fact)),
        };
    };
    let retry_after = fact.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
    let delay = (*delay).min(DELAY_MAX).max(retry_after);
    let delay = delay.mul_f64(1.0 + SPREAD * place(&fact.attempt));
    let ended_at = later(fact.started_at, fact.duration).min(now);
    NextStep::Again {
        due_at: later(ended_at, delay),
        reason: format!("attempt {attempt}: {}", cause(fact)),
    }
}

/// Why the attempt failed, in a few words: the status where there was one, else what went wrong.
fn cause(fact: &AttemptFinished) -> String {
    match (fact.status, fact.error_class) {
        (Some(status), _) => status.to_string(),
        (None, Some(class)) if fact.error.is_empty() => class.as_str().to_owned(),
        (None, Some(class)) => format!("{}: {}", class.as_str(), fact.error),
        (None, None) => fact.error.clone(),
    }
}

/// Where in the spread the attempt has its place, from 0 to 1. Made of its identity instead of being drawn: that spreads
/// as well, and an entry recorded twice comes to the same instant.
fn place(attempt: &AttemptRef) -> f64 {
    // FNV-1a, then the finalizer of SplitMix64, since FNV leaves the last bytes' mark in the low bits only.
    let bytes = (attempt.event.as_uuid().into_bytes().into_iter())
        .chain(attempt.webhook.as_uuid().into_bytes())
        .chain(attempt.run.to_be_bytes())
        .chain(attempt.attempt.to_be_bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    f64::from((hash >> 32) as u32) / f64::from(u32::MAX)
}

/// The instant `wait` after `instant`; the last there is, beyond it.
pub(crate) fn later(instant: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait)
        .ok()
        .and_then(|wait| instant.checked_add(wait).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use proto_schemas::id::{EventKey, ProjectId, WebhookId};
    use proto_schemas::ledger::ErrorClass;
    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_770_000_000, 0);

    fn fact(attempt: u32, outcome: Outcome, ladder: &[u64]) -> AttemptFinished {
        AttemptFinished {
            attempt: AttemptRef {
                event: EventKey::of_message(NOW, 7),
                project: ProjectId::from_uuid(Uuid::from_u128(1)),
                webhook: WebhookId::from_uuid(Uuid::from_u128(2)),
                run: 0,
                attempt,
                release: 0,
                handed_out_before: 0,
            },
            event_id: "evt".into(),
            event_type: "invoice.paid".into(),
            webhook_revision: 1,
            started_at: NOW,
            duration: Duration::from_secs(2),
            outcome,
            status: Some(503),
            error_class: Some(ErrorClass::Status),
            error: "503 Service Unavailable".into(),
            response_headers: Vec::new(),
            response_body: Bytes::new(),
            response_truncated: false,
            retry_after: None,
            request_sha256: Bytes::new(),
            handed_out: 1,
            ladder: ladder.iter().copied().map(Duration::from_secs).collect(),
            fail_after: None,
            trial: None,
            exchange: proto_schemas::ledger::Exchange::default(),
        }
    }

    fn wait(step: &NextStep, from: Timestamp) -> Duration {
        match step {
            NextStep::Again { due_at, .. } => Duration::try_from(due_at.duration_since(from)).unwrap(),
            other => panic!("{other:?} has no next attempt"),
        }
    }

    #[test]
    fn a_delivered_attempt_is_the_end() {
        assert_eq!(decide(&fact(1, Outcome::Delivered, &[0, 60]), NOW), NextStep::Settled);
    }

    #[test]
    fn a_failed_attempt_waits_for_the_next_delay_of_its_ladder() {
        let ended = later(NOW, Duration::from_secs(2));
        let step = decide(
            &fact(1, Outcome::Failed, &[0, 60, 300]),
            later(ended, Duration::from_secs(9)),
        );
        assert!((60.0..=66.0).contains(&wait(&step, ended).as_secs_f64()), "{step:?}");
        assert!(
            matches!(&step, NextStep::Again { reason, .. } if reason == "attempt 1: 503"),
            "{step:?}"
        );
    }

    #[test]
    fn after_the_last_delay_it_is_dead_and_says_why() {
        let step = decide(&fact(3, Outcome::Failed, &[0, 60, 300]), NOW);
        assert_eq!(
            step,
            NextStep::Dead {
                reason: "gave up after 3 attempts; the last: 503".into()
            }
        );
        let step = decide(&fact(1, Outcome::Failed, &[0]), NOW);
        assert_eq!(
            step,
            NextStep::Dead {
                reason: "gave up after 1 attempt; the last: 503".into()
            }
        );
    }

    #[test]
    fn what_cannot_succeed_is_not_tried_again() {
        let mut fact = fact(1, Outcome::FailedForGood, &[0, 60]);
        (fact.status, fact.error_class, fact.error) =
            (None, Some(ErrorClass::Webhook), "the webhook is deleted".into());
        let reason = "no later attempt can succeed; the last: webhook: the webhook is deleted".into();
        assert_eq!(decide(&fact, NOW), NextStep::Dead { reason });
    }

    #[test]
    fn what_is_refused_for_where_it_leads_is_tried_three_times_and_not_for_days() {
        let refused = |attempt, ladder: &[u64]| {
            let fact = AttemptFinished {
                status: None,
                error_class: Some(ErrorClass::RefusedAddress),
                error: "target address not allowed".into(),
                ..fact(attempt, Outcome::Failed, ladder)
            };
            decide(&fact, NOW)
        };
        let ladder = [0, 60, 300, 3600, 86_400];
        for attempt in [1, 2] {
            assert!(matches!(refused(attempt, &ladder), NextStep::Again { .. }), "{attempt}");
        }
        let dead = |reason: &str| NextStep::Dead { reason: reason.into() };
        for attempt in [3, 4] {
            assert_eq!(
                refused(attempt, &ladder),
                dead("no request may go to where the webhook leads")
            );
        }
        // A ladder may be over before.
        assert_eq!(
            refused(2, &[0, 60]),
            dead("gave up after 2 attempts; the last: refused_address: target address not allowed")
        );
        let step = decide(&fact(3, Outcome::Failed, &ladder), NOW);
        assert!(matches!(step, NextStep::Again { .. }), "{step:?}");
    }

    #[test]
    fn a_429_waits_for_its_retry_after() {
        let mut fact = fact(1, Outcome::Failed, &[0, 1]);
        fact.retry_after = Some(Duration::from_secs(3600));
        let step = decide(&fact, later(NOW, Duration::from_secs(2)));
        assert!(
            wait(&step, later(NOW, Duration::from_secs(2))) >= Duration::from_secs(3600),
            "{step:?}"
        );
    }

    #[test]
    fn a_receiver_cannot_put_us_off_for_more_than_a_day() {
        let mut fact = fact(1, Outcome::Failed, &[0, 1]);
        fact.retry_after = Some(Duration::from_secs(10 * 365 * 86_400));
        let waits = wait(&decide(&fact, NOW), NOW).as_secs_f64();
        assert!((86_400.0..=86_400.0 * 1.1).contains(&waits), "{waits}");
    }

    #[test]
    fn a_definition_cannot_put_an_attempt_off_for_more_than_30_days() {
        let days = 24 * 3600;
        let waits = wait(&decide(&fact(1, Outcome::Failed, &[0, 400 * days]), NOW), NOW).as_secs_f64();
        let most = 30.0 * 86_400.0;
        assert!((most..=most * 1.1).contains(&waits), "{waits}");
    }

    #[test]
    fn a_reason_is_the_status_or_else_what_went_wrong() {
        for (status, class, error, reason) in [
            (Some(503), Some(ErrorClass::Status), "503 Service Unavailable", "503"),
            (Some(200), Some(ErrorClass::Body), "the response broke off", "200"),
            (
                None,
                Some(ErrorClass::Connect),
                "connection refused",
                "connect: connection refused",
            ),
            (None, Some(ErrorClass::Timeout), "", "timeout"),
            (None, None, "of an older release", "of an older release"),
        ] {
            let fact = AttemptFinished {
                status,
                error_class: class,
                error: error.into(),
                ..fact(1, Outcome::Failed, &[0])
            };
            assert_eq!(cause(&fact), reason);
        }
    }

    #[test]
    fn an_attempt_has_the_same_place_in_every_release() {
        // Of two releases side by side each may record it, and what the first one said holds.
        let attempt = |sequence, attempt| AttemptRef {
            event: EventKey::of_message(NOW, sequence),
            attempt,
            ..fact(1, Outcome::Failed, &[]).attempt
        };
        let places = [(7, 1), (7, 2), (8, 1), (9, 1)].map(|(sequence, number)| place(&attempt(sequence, number)));
        let expected = [1_132_660_583, 1_192_139_283, 3_069_200_194, 2_918_099_009_u32];
        assert_eq!(places.map(|place| place * f64::from(u32::MAX)), expected.map(f64::from));
    }

    #[test]
    fn a_dispatcher_whose_clock_is_ahead_delays_nothing() {
        let mut fact = fact(1, Outcome::Failed, &[0, 10]);
        fact.started_at = later(NOW, Duration::from_secs(86_400));
        assert!(wait(&decide(&fact, NOW), NOW) <= Duration::from_secs(11));
    }

    #[test]
    fn deliveries_that_failed_together_are_spread_evenly() {
        let places: Vec<f64> = (0..1000)
            .map(|sequence| {
                let event = EventKey::of_message(NOW, sequence);
                place(&AttemptRef {
                    event,
                    ..fact(1, Outcome::Failed, &[]).attempt
                })
            })
            .collect();
        for tenth in 0..10 {
            let from = f64::from(tenth) / 10.0;
            let there = places
                .iter()
                .filter(|place| (from..from + 0.1).contains(*place))
                .count();
            assert!(
                (60..=140).contains(&there),
                "{there} of 1000 between {from} and {}",
                from + 0.1
            );
        }
    }

    fn any_fact() -> impl Strategy<Value = AttemptFinished> {
        let outcome = prop_oneof![
            Just(Outcome::Delivered),
            Just(Outcome::Failed),
            Just(Outcome::FailedForGood)
        ];
        let ladder = proptest::collection::vec(any::<u64>().prop_map(|delay| delay >> (delay % 64)), 1..6);
        (
            1..8_u32,
            outcome,
            ladder,
            any::<Option<u64>>(),
            any::<u32>(),
            -100_000..100_000_i64,
            any::<u64>(),
        )
            .prop_map(|(attempt, outcome, ladder, retry_after, micros, started, sequence)| {
                let mut fact = fact(attempt, outcome, &[]);
                fact.attempt.event = EventKey::of_message(NOW, sequence);
                fact.ladder = ladder.into_iter().map(Duration::from_millis).collect();
                fact.retry_after = retry_after.map(Duration::from_millis);
                fact.duration = Duration::from_micros(micros.into());
                fact.started_at = NOW.checked_add(SignedDuration::from_secs(started)).unwrap();
                fact
            })
    }

    proptest! {
        #[test]
        fn deciding_twice_comes_to_the_same(fact in any_fact()) {
            prop_assert_eq!(decide(&fact, NOW), decide(&fact, NOW));
        }

        #[test]
        fn there_are_as_many_attempts_as_the_ladder_has_delays(fact in any_fact()) {
            match decide(&fact, NOW) {
                NextStep::Settled => prop_assert_eq!(fact.outcome, Outcome::Delivered),
                NextStep::Again { .. } => {
                    prop_assert_eq!(fact.outcome, Outcome::Failed);
                    prop_assert!((fact.attempt.attempt as usize) < fact.ladder.len());
                }
                NextStep::Dead { reason } => {
                    prop_assert!(
                        fact.outcome == Outcome::FailedForGood
                            || fact.outcome == Outcome::Failed && fact.attempt.attempt as usize >= fact.ladder.len()
                    );
                    prop_assert!(!reason.is_empty());
                }
            }
        }

        #[test]
        fn jitter_only_ever_adds_and_at_most_a_tenth(fact in any_fact()) {
            if let NextStep::Again { due_at, .. } = decide(&fact, NOW) {
                let ended = later(fact.started_at, fact.duration).min(NOW);
                let asked = fact.ladder[fact.attempt.attempt as usize].min(DELAY_MAX)
                    .max(fact.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX));
                let waits = Duration::try_from(due_at.duration_since(ended)).unwrap();
                prop_assert!(waits >= asked, "{waits:?} < {asked:?}");
                prop_assert!(waits <= asked.mul_f64(1.0 + SPREAD) + Duration::from_micros(1), "{waits:?} > {asked:?}");
            }
        }
    }
}
