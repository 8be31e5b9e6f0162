//! What is released, when, and how much at once.

use std::time::Duration;

use common::bus::Bus;
use proto_schemas::delivery::DeliveryDue;
use proto_schemas::id::AttemptRef;
use proto_schemas::ledger::Fact;
use proto_schemas::stream::{DELIVERIES, LEDGER};
use proto_schemas::subject;
use store::pending_deliveries::{self, DeliveryKey};

use crate::support::*;

async fn duties(bus: &Bus) -> usize {
    bus.count(DELIVERIES, "deliveries.>").await.unwrap()
}

#[tokio::test]
async fn a_scheduled_delivery_is_released_when_it_is_due_and_not_before() {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let releaser = ledger.releaser(&bus, 20);
    let attempt = first(1, webhook(1));
    ledger.record(&[accepted(key(1), &[webhook(1)]), failed(attempt)]).await;

    ledger.clock.advance(Duration::from_secs(59));
    releaser.look().await.unwrap();
    assert_eq!(duties(&bus).await, 0);

    ledger.clock.advance(Duration::from_secs(8));
    releaser.look().await.unwrap();
    releaser.look().await.unwrap();
    assert_eq!(ledger.pending().await[&DeliveryKey::from(&attempt)], ("released", 2, 1));
    let found = take(&bus, 1).await;
    let next = AttemptRef {
        attempt: 2,
        release: 1,
        ..attempt
    };
    assert_eq!(
        found,
        [DeliveryDue {
            event: event(key(1)),
            webhook: webhook(1),
            run: 0,
            attempt: 2,
            release: 1,
            trial: None,
            handed_out_before: 0,
        }]
    );
    assert_eq!(found[0].attempt_ref(), next);
}

/// Takes `count` duties out of DELIVERIES.
async fn take(bus: &Bus, count: usize) -> Vec<DeliveryDue> {
    use std::sync::{Arc, Mutex};
    let taken = Arc::new(Mutex::new(Vec::new()));
    let stop = tokio_util::sync::CancellationToken::new();
    let options = common::bus::Options {
        max_held: 100,
        drain: Duration::from_secs(5),
    };
    let (into, enough) = (Arc::clone(&taken), stop.clone());
    let working = bus.work_off(DELIVERIES, options, stop, move |message| {
        let (taken, enough) = (Arc::clone(&into), enough.clone());
        async move {
            let mut taken = taken.lock().unwrap();
            taken.push(DeliveryDue::decode(message.payload).unwrap());
            if taken.len() == count {
                enough.cancel();
            }
            common::bus::Verdict::Done
        }
    });
    tokio::time::timeout(Duration::from_secs(10), working)
        .await
        .expect("the duties came")
        .unwrap();
    std::mem::take(&mut *taken.lock().unwrap())
}

#[tokio::test]
async fn releases_of_one_webhook_are_bounded_and_oldest_first() {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let releaser = ledger.releaser(&bus, 3);
    // Two busy webhooks and a quiet one; the newest events were parked first.
    for number in (0..10).rev() {
        ledger
            .record(&[
                accepted(key(number), &[webhook(1), webhook(2)]),
                deferred(first(number, webhook(1))),
                deferred(first(number, webhook(2))),
            ])
            .await;
    }
    ledger
        .record(&[accepted(key(99), &[webhook(3)]), deferred(first(99, webhook(3)))])
        .await;

    releaser.look().await.unwrap();
    assert_eq!(duties(&bus).await, 0, "nothing is released before its time");
    ledger.clock.advance(Duration::from_secs(2));
    for _ in 0..3 {
        releaser.look().await.unwrap();
    }
    let released = |number| {
        let count = async |webhook| {
            bus.count(DELIVERIES, &subject::delivery(PROJECT, webhook))
                .await
                .unwrap()
        };
        count(webhook(number))
    };
    assert_eq!((released(1).await, released(2).await, released(3).await), (3, 3, 1));
    let pending = ledger.pending().await;
    for number in 0..10 {
        let state = if number < 3 { "released" } else { "parked" };
        assert_eq!(
            pending[&DeliveryKey::from(&first(number, webhook(1)))].0,
            state,
            "event {number}"
        );
    }

    // Room is made by what is settled, one way or the other.
    let release = |number| AttemptRef {
        release: 1,
        ..first(number, webhook(1))
    };
    ledger.record(&[delivered(release(1)), failed(release(2))]).await;
    releaser.look().await.unwrap();
    assert_eq!((released(1).await, released(2).await), (5, 3));
}

#[tokio::test]
async fn a_delivery_whose_event_is_not_on_record_is_in_nobodys_way() {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let releaser = ledger.releaser(&bus, 1);
    // Of the first, what was accepted is not on record, and will not be.
    ledger
        .record(&[
            deferred(first(1, webhook(1))),
            accepted(key(2), &[webhook(1)]),
            deferred(first(2, webhook(1))),
        ])
        .await;
    ledger.clock.advance(Duration::from_secs(2));
    releaser.look().await.unwrap();
    let found = take(&bus, 1).await.remove(0);
    assert_eq!(found.event.key, key(2));
}

#[tokio::test]
async fn a_lane_that_has_no_room_is_left_alone_until_it_said_it_may() {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let releaser = ledger.releaser(&bus, 3);
    for number in 0..10 {
        ledger
            .record(&[
                accepted(key(number), &[webhook(1)]),
                deferred(first(number, webhook(1))),
            ])
            .await;
    }
    ledger.clock.advance(Duration::from_secs(2));
    releaser.look().await.unwrap();
    assert_eq!(duties(&bus).await, 3);
    // All three come back: the seven behind them are due, and must not be sent after them.
    let again: Vec<_> = (0..3)
        .map(|number| {
            deferred(AttemptRef {
                release: 1,
                ..first(number, webhook(1))
            })
        })
        .collect();
    ledger.record(&again).await;
    releaser.look().await.unwrap();
    assert_eq!(duties(&bus).await, 3);
    ledger.clock.advance(Duration::from_secs(2));
    releaser.look().await.unwrap();
    assert_eq!(duties(&bus).await, 6);
}

#[tokio::test]
async fn how_often_an_attempt_was_handed_out_is_known_over_its_releases_and_not_beyond_it() {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let releaser = ledger.releaser(&bus, 3);
    let handed_out = AttemptRef {
        handed_out_before: 2,
        ..first(1, webhook(1))
    };
    ledger
        .record(&[accepted(key(1), &[webhook(1)]), deferred(handed_out)])
        .await;
    ledger.clock.advance(Duration::from_secs(2));
    releaser.look().await.unwrap();
    let again = take(&bus, 1).await.remove(0);
    assert_eq!((again.release, again.handed_out_before), (1, 2));

    ledger.record(&[failed(again.attempt_ref())]).await;
    ledger.clock.advance(Duration::from_secs(70));
    releaser.look().await.unwrap();
    let next = take(&bus, 1).await.remove(0);
    assert_eq!((next.attempt, next.handed_out_before), (2, 0));
}

#[tokio::test]
async fn a_webhook_whose_attempts_fail_gets_one_parked_delivery_at_a_time_until_one_is_delivered() {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let releaser = ledger.releaser(&bus, 3);
    ledger.create_webhook(webhook(1)).await;
    let mut facts = Vec::new();
    for number in 0..5 {
        facts.extend([accepted(key(number), &[webhook(1)]), failed(first(number, webhook(1)))]);
    }
    for number in 5..15 {
        facts.extend([
            accepted(key(number), &[webhook(1)]),
            deferred(first(number, webhook(1))),
        ]);
    }
    ledger.record(&facts).await;
    ledger.clock.advance(Duration::from_secs(2));
    let release = |number, release| AttemptRef {
        release,
        ..first(number, webhook(1))
    };
    for _ in 0..3 {
        releaser.look().await.unwrap();
    }
    assert_eq!(duties(&bus).await, 1);

    // The breaker is open: it comes back, and nobody is sent after it before its time.
    ledger.record(&[deferred(release(5, 1))]).await;
    releaser.look().await.unwrap();
    assert_eq!(duties(&bus).await, 1);
    ledger.clock.advance(Duration::from_secs(2));
    releaser.look().await.unwrap();
    releaser.look().await.unwrap();
    assert_eq!(duties(&bus).await, 2);

    ledger.record(&[delivered(release(5, 2))]).await;
    releaser.look().await.unwrap();
    releaser.look().await.unwrap();
    assert_eq!(duties(&bus).await, 5);
}

#[tokio::test]
async fn a_release_that_was_published_and_not_committed_is_not_published_twice() {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let attempt = first(1, webhook(1));
    ledger.record(&[accepted(key(1), &[webhook(1)]), failed(attempt)]).await;
    ledger.clock.advance(Duration::from_secs(70));

    // A process that dies in between.
    let next = AttemptRef {
        attempt: 2,
        release: 1,
        ..attempt
    };
    let duty = DeliveryDue::encode_parts(&event(key(1)), next);
    let subject = subject::delivery(PROJECT, webhook(1));
    let storing = bus
        .publish_once(subject, &next.delivery_message_id(), duty)
        .await
        .unwrap();
    storing.stored().await.unwrap();

    ledger.releaser(&bus, 20).look().await.unwrap();
    assert_eq!(duties(&bus).await, 1);
    assert_eq!(ledger.pending().await[&DeliveryKey::from(&attempt)], ("released", 2, 1));
}

#[tokio::test]
async fn schedulers_side_by_side_release_each_delivery_once() {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let mut facts = Vec::new();
    for number in 0..1200 {
        let attempt = first(number, webhook(u128::from(number % 50)));
        facts.push(accepted(attempt.event, &[attempt.webhook]));
        facts.push(if number % 2 == 0 {
            failed(attempt)
        } else {
            deferred(attempt)
        });
    }
    for batch in facts.chunks(1000) {
        ledger.record(batch).await;
    }
    ledger.clock.advance(Duration::from_secs(70));
    let releasers = (0..3).map(|_| {
        let releaser = ledger.releaser(&bus, 10);
        tokio::spawn(async move {
            for _ in 0..4 {
                releaser.look().await.unwrap();
            }
        })
    });
    for releaser in releasers.collect::<Vec<_>>() {
        releaser.await.unwrap();
    }
    // Every second event was parked, so 25 webhooks have parked deliveries.
    assert_eq!(duties(&bus).await, 600 + 25 * 10);
    assert_eq!(ledger.count("released").await, 600 + 25 * 10);
    assert_eq!(ledger.count("scheduled").await, 0);
}

#[tokio::test]
async fn while_nats_is_away_nothing_is_released_and_nothing_is_lost() {
    let (ledger, mut nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let attempt = first(1, webhook(1));
    ledger.record(&[accepted(key(1), &[webhook(1)]), failed(attempt)]).await;
    ledger.clock.advance(Duration::from_secs(70));
    let releaser = ledger.releaser(&bus, 20);

    nats.server.kill().unwrap();
    releaser.look().await.unwrap_err();
    assert_eq!(
        ledger.pending().await[&DeliveryKey::from(&attempt)],
        ("scheduled", 2, 0)
    );

    nats.server.restart().await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while releaser.look().await.is_err() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it is released once NATS is back"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ledger.pending().await[&DeliveryKey::from(&attempt)], ("released", 2, 1));
    assert_eq!(duties(&bus).await, 1);
}

#[tokio::test]
async fn the_next_due_time_within_a_span_is_known() {
    let ledger = Ledger::start().await;
    ledger.record(&[failed(first(1, webhook(1)))]).await;
    let due_at = ledger.made(first(1, webhook(1))).await.unwrap().next_attempt_at;
    let mut connection = ledger.store.connection().await.unwrap();
    let until = |seconds: i64| START.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
    assert_eq!(
        pending_deliveries::next_due(&mut connection, START, until(30))
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        pending_deliveries::next_due(&mut connection, START, until(90))
            .await
            .unwrap(),
        due_at
    );
    assert_eq!(
        pending_deliveries::next_due(&mut connection, until(90), until(190))
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn a_new_process_releases_nothing_before_the_ledger_is_on_record() {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let attempt = first(1, webhook(1));
    ledger
        .record(&[accepted(key(1), &[webhook(1)]), deferred(attempt)])
        .await;
    ledger.clock.advance(Duration::from_secs(10));
    // The process before published the release, and died; the attempt was made, and Postgres was away.
    let news = delivered(AttemptRef { release: 1, ..attempt });
    bus.publish(proto_schemas::subject::LEDGER, Default::default(), news.encode())
        .await
        .unwrap()
        .stored()
        .await
        .unwrap();

    let stop = tokio_util::sync::CancellationToken::new();
    let (releaser, end) = (ledger.releaser(&bus, 20), stop.clone());
    let releasing = tokio::spawn(async move { releaser.run(&end).await });
    // Time enough to release it, if it were to.
    let mut looks = 0;
    while looks < 20 && !releasing.is_finished() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        looks += 1;
    }
    let (recorder, end, from) = (ledger.recorder.clone(), stop.clone(), bus.clone());
    let recording = tokio::spawn(async move {
        let options = common::bus::Options {
            max_held: 10,
            drain: Duration::from_secs(5),
        };
        let record = |messages| recorder.record(messages);
        from.work_off_batches(LEDGER, options, 10, Duration::ZERO, end, record)
            .await
            .unwrap();
    });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !ledger.pending().await.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "it is settled");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    releasing.await.unwrap();
    recording.await.unwrap();
    assert_eq!(duties(&bus).await, 0);
}

#[tokio::test]
async fn what_is_too_large_to_be_released_ends_and_holds_up_nothing_else() {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    // It was accepted when messages could be larger.
    let mut large = accepted(key(1), &[webhook(1)]);
    if let Fact::EventAccepted(fact) = &mut large {
        fact.event.payload = vec![b'1'; bus.max_payload()].into();
    }
    let attempts = [first(1, webhook(1)), first(2, webhook(1))];
    ledger
        .record(&[
            large,
            accepted(key(2), &[webhook(1)]),
            failed(attempts[0]),
            failed(attempts[1]),
        ])
        .await;
    ledger.clock.advance(Duration::from_secs(70));
    ledger.releaser(&bus, 20).look().await.unwrap();
    assert_eq!(duties(&bus).await, 1, "the other one");
    let pending = ledger.pending().await;
    let state = |attempt: &AttemptRef| pending.get(&DeliveryKey::from(attempt)).map(|(state, ..)| *state);
    assert_eq!((state(&attempts[0]), state(&attempts[1])), (None, Some("released")));
}
