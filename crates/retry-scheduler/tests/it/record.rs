//! What the recorder makes of ledger entries, however they come.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::bus::Verdict;
use posthaste::local::{Folder, Postgres, postgres};
use proto_schemas::id::{AttemptRef, EventKey, WebhookId};
use proto_schemas::ledger::{Fact, Outcome, SkipReason};
use store::log::{self, State};
use store::pending_deliveries::{self, Deferred, DeliveryKey, Then};
use store::{attempts, events};

use crate::support::*;

#[tokio::test]
async fn a_batch_of_every_kind_is_recorded() {
    let ledger = Ledger::start().await;
    let (paid, late) = (webhook(1), webhook(2));
    let mut fact = accepted(key(1), &[paid, late]);
    if let Fact::EventAccepted(fact) = &mut fact {
        fact.skipped = vec![(webhook(3), SkipReason::Paused), (webhook(4), SkipReason::Filtered)];
    }
    let facts = [
        fact,
        delivered(first(1, paid)),
        deferred(first(1, late)),
        rejected(key(2)),
        accepted(key(3), &[]),
    ];
    ledger.record(&facts).await;

    let deliveries = ledger.deliveries().await;
    let state = |webhook: WebhookId| deliveries.iter().find(|delivery| delivery.webhook == webhook).unwrap();
    assert_eq!(state(paid).state, State::Delivered);
    assert_eq!(state(late).state, State::Parked);
    assert_eq!(state(late).reason.as_deref(), Some("the lane is full"));
    assert_eq!(
        (state(webhook(3)).state, state(webhook(3)).reason.as_deref()),
        (State::Skipped, Some("paused"))
    );
    assert_eq!(
        (state(webhook(4)).state, state(webhook(4)).reason.as_deref()),
        (State::Skipped, Some("filtered"))
    );
    assert_eq!(deliveries.len(), 4);

    let mut connection = ledger.store.connection().await.unwrap();
    let mut events = events::load(&mut connection, &[key(1), key(2), key(3)]).await.unwrap();
    events.sort_by_key(|event| event.key);
    assert_eq!(
        events,
        [event(key(1)), event(key(3))],
        "an event comes back as it went in"
    );
    let rejected = log::rejected_events(&mut connection, Some(PROJECT), None, 10)
        .await
        .unwrap();
    assert_eq!(rejected.len(), 1);
}

#[tokio::test]
async fn a_delivery_that_succeeds_first_time_is_never_pending() {
    let ledger = Ledger::start().await;
    ledger
        .record(&[accepted(key(1), &[webhook(1)]), delivered(first(1, webhook(1)))])
        .await;
    assert_eq!(ledger.pending().await.len(), 0);
    assert_eq!(
        ledger.made(first(1, webhook(1))).await.map(|made| made.delivered),
        Some(true)
    );
}

#[tokio::test]
async fn an_attempt_that_failed_schedules_the_next_until_the_ladder_ends() {
    let ledger = Ledger::start().await;
    let attempt = first(1, webhook(1));
    let delivery = DeliveryKey::from(&attempt);
    ledger.record(&[accepted(key(1), &[webhook(1)]), failed(attempt)]).await;
    assert_eq!(ledger.pending().await[&delivery], ("scheduled", 2, 0));
    let next = ledger.made(attempt).await.unwrap().next_attempt_at.unwrap();
    let wait = next.duration_since(START).as_secs_f64();
    assert!((60.0..=66.1).contains(&wait), "{wait}");
    assert_eq!(
        ledger.deliveries().await[0].next_attempt_at,
        Some(next),
        "the log and the schedule say the same"
    );

    let second = ledger.released(AttemptRef { attempt: 2, ..attempt }).await;
    ledger.record(&[failed(second)]).await;
    assert_eq!(ledger.pending().await[&delivery], ("scheduled", 3, 1));

    let third = ledger.released(AttemptRef { attempt: 3, ..second }).await;
    ledger.record(&[failed(third)]).await;
    assert_eq!(ledger.pending().await.len(), 0);
    let deliveries = ledger.deliveries().await;
    assert_eq!((deliveries[0].state, deliveries[0].attempts), (State::Dead, 3));
    assert_eq!(
        deliveries[0].reason.as_deref(),
        Some("gave up after 3 attempts; the last: 503")
    );
    assert_eq!(ledger.made(third).await.unwrap().next_attempt_at, None);
}

/// A delivery's life up to a point, the facts that may then be under way, and what they must come to.
struct Story {
    name: &'static str,
    begin: fn(AttemptRef) -> Vec<Step>,
    facts: fn(AttemptRef) -> Vec<Fact>,
    end: Option<(&'static str, u32, u32)>,
}

enum Step {
    Fact(Box<Fact>),
    Released(AttemptRef),
}

fn at(attempt: AttemptRef, number: u32, release: u32) -> AttemptRef {
    AttemptRef {
        attempt: number,
        release,
        ..attempt
    }
}

fn handed_out_twice(attempt: AttemptRef, outcome: Outcome) -> Fact {
    let mut fact = finished(attempt, outcome);
    fact.handed_out = 2;
    Fact::AttemptFinished(fact)
}

fn told(fact: Fact) -> Step {
    Step::Fact(Box::new(fact))
}

fn parked_and_released(attempt: AttemptRef) -> Vec<Step> {
    vec![told(deferred(attempt)), Step::Released(attempt)]
}

fn failed_and_released(attempt: AttemptRef) -> Vec<Step> {
    vec![told(failed(attempt)), Step::Released(at(attempt, 2, 0))]
}

const STORIES: [Story; 13] = [
    Story {
        name: "deferred by a process that died, then made by another: failed",
        begin: |_| Vec::new(),
        facts: |a| vec![deferred(a), handed_out_twice(a, Outcome::Failed)],
        end: Some(("scheduled", 2, 0)),
    },
    Story {
        name: "deferred by a process that died, then made by another: delivered",
        begin: |_| Vec::new(),
        facts: |a| vec![deferred(a), handed_out_twice(a, Outcome::Delivered)],
        end: None,
    },
    Story {
        name: "deferred, told three times",
        begin: |_| Vec::new(),
        facts: |a| vec![deferred(a), deferred(a), deferred(a)],
        end: Some(("parked", 1, 0)),
    },
    Story {
        name: "failed, told three times",
        begin: |_| Vec::new(),
        facts: |a| vec![failed(a), failed(a), failed(a)],
        end: Some(("scheduled", 2, 0)),
    },
    Story {
        name: "released, the old deferral told again, delivered",
        begin: parked_and_released,
        facts: |a| vec![deferred(a), delivered(at(a, 1, 1)), delivered(at(a, 1, 1))],
        end: None,
    },
    Story {
        name: "released, the old deferral told again, failed",
        begin: parked_and_released,
        facts: |a| vec![deferred(a), failed(at(a, 1, 1))],
        end: Some(("scheduled", 2, 1)),
    },
    Story {
        name: "released, the old deferral told again, nothing else yet",
        begin: parked_and_released,
        facts: |a| vec![deferred(a), deferred(a)],
        end: Some(("released", 1, 1)),
    },
    Story {
        name: "released and deferred again, the old deferral told again",
        begin: parked_and_released,
        facts: |a| vec![deferred(a), deferred(at(a, 1, 1))],
        end: Some(("parked", 1, 1)),
    },
    Story {
        name: "a second attempt delivers, the first is told again",
        begin: failed_and_released,
        facts: |a| vec![failed(a), delivered(at(a, 2, 1)), failed(a)],
        end: None,
    },
    Story {
        name: "a second attempt is deferred, the first is told again",
        begin: failed_and_released,
        facts: |a| vec![failed(a), deferred(at(a, 2, 1)), failed(a)],
        end: Some(("parked", 2, 1)),
    },
    Story {
        name: "a second attempt fails, everything is told again",
        begin: failed_and_released,
        facts: |a| vec![failed(a), failed(at(a, 2, 1)), failed(at(a, 2, 1)), deferred(a)],
        end: Some(("scheduled", 3, 1)),
    },
    Story {
        name: "the release was published and not committed, and the attempt made",
        begin: |a| vec![told(deferred(a))],
        facts: |a| vec![deferred(a), failed(at(a, 1, 1))],
        end: Some(("scheduled", 2, 1)),
    },
    Story {
        name: "the release was published and not committed, and found no room",
        begin: |a| vec![told(failed(a))],
        facts: |a| vec![failed(a), deferred(at(a, 2, 1)), deferred(a)],
        end: Some(("parked", 2, 1)),
    },
];

#[tokio::test]
async fn facts_come_to_the_same_in_any_order_and_in_any_batches() {
    let ledger = Ledger::start().await;
    let mut number = 0_u64;
    for story in &STORIES {
        let count = (story.facts)(first(0, webhook(1))).len();
        for order in orders(count) {
            for cuts in 0..1_u32 << (count - 1) {
                number += 1;
                let attempt = first(number, webhook(1));
                ledger.record(&[accepted(key(number), &[webhook(1)])]).await;
                for step in (story.begin)(attempt) {
                    match step {
                        Step::Fact(fact) => ledger.record(&[*fact]).await,
                        Step::Released(attempt) => drop(ledger.released(attempt).await),
                    }
                }
                let facts = (story.facts)(attempt);
                let mut batch = Vec::new();
                for (place, fact) in order.iter().enumerate() {
                    batch.push(facts[*fact].clone());
                    if cuts >> place & 1 == 1 {
                        ledger.record(&std::mem::take(&mut batch)).await;
                    }
                }
                ledger.record(&batch).await;
                let found = ledger.pending().await.remove(&DeliveryKey::from(&attempt));
                assert_eq!(
                    found, story.end,
                    "{}, in the order {order:?} cut by {cuts:b}",
                    story.name
                );
            }
        }
    }
}

/// Every order of `count` things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else {
        return vec![Vec::new()];
    };
    let shorter = orders(last);
    shorter
        .iter()
        .flat_map(|order| {
            (0..count).map(move |place| {
                let mut order = order.clone();
                order.insert(place, last);
                order
            })
        })
        .collect()
}

#[tokio::test]
async fn a_deferral_told_again_postpones_nothing() {
    let ledger = Ledger::start().await;
    let attempt = first(1, webhook(1));
    ledger
        .record(&[accepted(key(1), &[webhook(1)]), deferred(attempt)])
        .await;
    ledger.clock.advance(Duration::from_secs(2));
    ledger.record(&[deferred(attempt)]).await;
    let mut transaction = ledger.store.begin().await.unwrap();
    let now = START.checked_add(jiff::SignedDuration::from_secs(2)).unwrap();
    let due = pending_deliveries::claim_parked(&mut transaction, now, ROOM, 20)
        .await
        .unwrap();
    assert_eq!(due, [attempt]);
}

#[tokio::test]
async fn the_record_and_what_follows_from_it_agree() {
    let ledger = Ledger::start().await;
    // The request was made twice, and the receiver answered differently: the first that is recorded holds.
    for (number, outcomes) in [
        (1, [Outcome::Delivered, Outcome::Failed]),
        (2, [Outcome::Failed, Outcome::Delivered]),
    ] {
        let attempt = first(number, webhook(1));
        let facts = outcomes.map(|outcome| handed_out_twice(attempt, outcome));
        ledger.record(&[accepted(key(number), &[webhook(1)])]).await;
        for fact in facts.clone() {
            ledger.record(&[fact]).await;
        }
        ledger.record(&facts).await;
        let delivered = ledger.made(attempt).await.unwrap().delivered;
        assert_eq!(delivered, outcomes[0] == Outcome::Delivered);
        assert_eq!(
            ledger.pending().await.contains_key(&DeliveryKey::from(&attempt)),
            !delivered
        );
    }
}

#[tokio::test]
async fn recorders_with_the_same_entries_record_them_once() {
    let ledger = Ledger::start().await;
    let mut facts = Vec::new();
    for number in 0..200 {
        let attempt = first(number, webhook(u128::from(number % 7)));
        facts.push(accepted(attempt.event, &[attempt.webhook]));
        facts.push(match number % 4 {
            0 => delivered(attempt),
            1 => failed(attempt),
            2 => deferred(attempt),
            _ => handed_out_twice(attempt, Outcome::Delivered),
        });
    }
    let recorders = [7, 50, 400, 33].map(|size| {
        let mut facts = facts.clone();
        if size % 2 == 1 {
            facts.reverse();
        }
        let recorder = Arc::clone(&ledger.recorder);
        tokio::spawn(async move {
            for batch in facts.chunks(size) {
                assert_eq!(recorder.record(messages(batch)).await, Verdict::Done);
            }
        })
    });
    for recorder in recorders {
        recorder.await.unwrap();
    }
    let pending = ledger.pending().await;
    assert_eq!(
        pending
            .values()
            .filter(|pending| **pending == ("scheduled", 2, 0))
            .count(),
        50
    );
    assert_eq!(
        pending.values().filter(|pending| **pending == ("parked", 1, 0)).count(),
        50
    );
    assert_eq!(pending.len(), 100);
    let deliveries = ledger.deliveries().await;
    assert_eq!(deliveries.len(), 200);
    assert_eq!(
        deliveries
            .iter()
            .filter(|delivery| delivery.state == State::Delivered)
            .count(),
        100
    );
}

#[tokio::test]
async fn an_entry_nobody_can_read_is_set_aside_and_the_rest_recorded() {
    let ledger = Ledger::start().await;
    let good = accepted(key(1), &[webhook(1)]);
    let batch = vec![
        message("ledger.event-accepted", &b"\xff\xff not protobuf"[..], 1),
        message(proto_schemas::subject::LEDGER, good.encode(), 2),
    ];
    assert_eq!(ledger.recorder.record(batch.clone()).await, Verdict::Done);
    assert_eq!(ledger.recorder.record(batch).await, Verdict::Done, "and again");
    assert_eq!(ledger.deliveries().await.len(), 1);
}

#[tokio::test]
async fn an_entry_no_column_takes_is_set_aside_and_the_rest_recorded() {
    let ledger = Ledger::start().await;
    // Beyond the last instant there is: no day, so no partition.
    let nowhere = EventKey::from_uuid(uuid::Uuid::from_u128(u128::MAX));
    let mut facts: Vec<_> = (0..20).map(|number| accepted(key(number), &[webhook(1)])).collect();
    facts.insert(
        13,
        failed(AttemptRef {
            event: nowhere,
            ..first(0, webhook(1))
        }),
    );
    facts.insert(3, accepted(nowhere, &[webhook(1)]));
    ledger.record(&facts).await;
    assert_eq!(ledger.deliveries().await.len(), 20);
    assert_eq!(
        ledger.count("dead").await,
        1,
        "the delivery whose attempt could not be recorded ends"
    );
}

#[tokio::test]
async fn text_that_postgres_cannot_hold_is_mended() {
    let ledger = Ledger::start().await;
    let mut event = accepted(key(1), &[webhook(1)]);
    if let Fact::EventAccepted(fact) = &mut event {
        fact.event.attributes.insert("a\0".into(), "b\0c".into());
        fact.event.traceparent = "\0".into();
    }
    let mut attempt = finished(first(1, webhook(1)), Outcome::Failed);
    attempt.error = "sent \0".into();
    attempt.response_headers = vec![("x".into(), "\0".into())];
    attempt.response_body = Bytes::from_static(b"\0");
    ledger.record(&[event, Fact::AttemptFinished(attempt)]).await;

    let mut connection = ledger.store.connection().await.unwrap();
    let events = events::load(&mut connection, &[key(1)]).await.unwrap();
    assert_eq!(events[0].attributes["a\u{fffd}"], "b\u{fffd}c");
    assert!(ledger.made(first(1, webhook(1))).await.is_some());
}

#[tokio::test]
async fn a_fact_of_a_day_without_partition_makes_one() {
    let ledger = Ledger::start().await;
    let long_ago = EventKey::of_message("2024-02-29T23:59:59.999Z".parse().unwrap(), 1);
    let ahead = EventKey::of_message("2031-01-01T00:00:00Z".parse().unwrap(), 1);
    let late = AttemptRef {
        event: long_ago,
        ..first(0, webhook(1))
    };
    ledger.record(&[accepted(ahead, &[webhook(1)]), delivered(late)]).await;
    assert!(ledger.made(late).await.is_some());
    assert_eq!(ledger.deliveries().await.len(), 1);
}

#[tokio::test]
async fn an_attempt_may_be_recorded_before_its_event() {
    let ledger = Ledger::start().await;
    let attempt = first(1, webhook(1));
    ledger.record(&[failed(attempt)]).await;
    assert_eq!(ledger.count("scheduled").await, 1);
    assert_eq!(
        ledger.pending().await.len(),
        0,
        "it is not released as long as there is nothing to deliver"
    );
    ledger.record(&[accepted(key(1), &[webhook(1)])]).await;
    assert_eq!(
        ledger.pending().await[&DeliveryKey::from(&attempt)],
        ("scheduled", 2, 0)
    );
}

#[tokio::test]
async fn a_large_batch_is_cut_into_transactions_and_recorded_whole() {
    let ledger = Ledger::start().await;
    let facts: Vec<_> = (0..60)
        .map(|number| match accepted(key(number), &[webhook(1)]) {
            Fact::EventAccepted(mut fact) => {
                fact.event.payload = Bytes::from(vec![b' '; 512 * 1024]);
                Fact::EventAccepted(fact)
            }
            other => other,
        })
        .collect();
    ledger.record(&facts).await;
    assert_eq!(ledger.deliveries().await.len(), 60);
}

#[tokio::test]
async fn a_batch_waits_for_postgres_to_come_back() {
    let folder = Folder::temporary().unwrap();
    let mut server = Postgres::start(&folder.path().join("postgres"), &postgres::Options::default())
        .await
        .unwrap();
    let ledger = Ledger::on(&server.url()).await;
    ledger.record(&[accepted(key(1), &[webhook(1)])]).await;

    server.kill().unwrap();
    let recorder = Arc::clone(&ledger.recorder);
    let facts = [accepted(key(2), &[webhook(1)]), failed(first(2, webhook(1)))];
    let recording = tokio::spawn(async move { recorder.record(messages(&facts)).await });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while ledger.patience.health.is_ready() {
        assert!(tokio::time::Instant::now() < deadline, "it says that it is not ready");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!recording.is_finished());
    server.restart().await.unwrap();
    assert_eq!(recording.await.unwrap(), Verdict::Done);
    assert!(ledger.patience.health.is_ready());
    assert_eq!(ledger.pending().await.len(), 1);

    server.kill().unwrap();
    let recorder = Arc::clone(&ledger.recorder);
    let recording = tokio::spawn(async move { recorder.record(messages(&[accepted(key(3), &[])])).await });
    ledger.patience.stop.cancel();
    assert_eq!(
        recording.await.unwrap(),
        Verdict::Again(Duration::ZERO),
        "told to stop, it hands the batch back"
    );
}

#[tokio::test]
async fn a_delivery_parked_and_made_in_the_same_instant_is_not_made_again() {
    let ledger = Ledger::start().await;
    let nats = OwnNats::start().await;
    let bus = nats.bus().await;
    let attempt = first(1, webhook(1));
    ledger.record(&[accepted(key(1), &[webhook(1)])]).await;

    // Two recorders; neither sees what the other is about to commit.
    let made = handed_out_twice(attempt, Outcome::Delivered);
    let Fact::AttemptFinished(made) = &made else { panic!() };
    let parking = Deferred {
        attempt,
        reason: "the lane is full".into(),
        then: Then::Parked(START),
    };
    let mut parks = ledger.store.begin().await.unwrap();
    let mut records = ledger.store.begin().await.unwrap();
    pending_deliveries::defer(&mut parks, vec![parking], START)
        .await
        .unwrap();
    let new = attempts::NewAttempt {
        fact: made,
        next_attempt_at: None,
    };
    attempts::insert(&mut records, &[new]).await.unwrap();
    records.commit().await.unwrap();
    parks.commit().await.unwrap();
    assert_eq!(ledger.pending().await[&DeliveryKey::from(&attempt)], ("parked", 1, 0));

    ledger.releaser(&bus, 20).look().await.unwrap();
    assert_eq!(ledger.pending().await.len(), 0);
    assert_eq!(
        bus.count(proto_schemas::stream::DELIVERIES, "deliveries.>")
            .await
            .unwrap(),
        0
    );
}
