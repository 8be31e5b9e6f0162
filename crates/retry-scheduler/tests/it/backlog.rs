//! A long backlog of one webhook costs others nothing: what is looked at is its head.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use proto_schemas::id::{EventKey, OrderKey, WebhookId};
use store::pending_deliveries::{self, Deferred, KeptBack, Then};
use uuid::Uuid;

use crate::support::*;

const BACKLOG: u64 = 100_000;
const AT_ONCE: u64 = 5_000;

/// What a look may take, on a machine that does much else; measured, it is a few milliseconds.
const MOST: Duration = Duration::from_millis(250);

async fn numbers(mut add: impl AsyncFnMut(Vec<u64>)) {
    for begin in (0..BACKLOG).step_by(usize::try_from(AT_ONCE).unwrap()) {
        add((begin..begin + AT_ONCE).collect()).await;
    }
}

/// The shortest of a few tries: what it takes when nothing else is in the way.
async fn shortest(mut look: impl AsyncFnMut()) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        look().await;
        shortest = shortest.min(begun.elapsed());
    }
    shortest
}

#[tokio::test]
async fn a_hundred_thousand_parked_deliveries_of_a_webhook_slow_no_look() {
    let ledger = Ledger::start().await;
    let (dead, quick) = (webhook(1), webhook(2));
    numbers(async |numbers| {
        let parked = numbers.into_iter().map(|number| Deferred {
            attempt: first(number, dead),
            reason: "the webhook's lane is full".into(),
            then: Then::Parked(START),
        });
        let mut connection = ledger.store.connection().await.unwrap();
        pending_deliveries::defer(&mut connection, parked.collect(), START)
            .await
            .unwrap();
    })
    .await;
    for number in 0..30 {
        ledger.record(&[accepted(key(number), &[dead])]).await;
    }
    ledger
        .record(&[accepted(key(BACKLOG), &[quick]), deferred(first(BACKLOG, quick))])
        .await;
    let took = shortest(async || {
        let mut transaction = ledger.store.begin().await.unwrap();
        let claimed = pending_deliveries::claim_parked(&mut transaction, Timestamp::MAX, room(20), 500).await;
        assert_eq!(claimed.unwrap().len(), 21, "20 of one, and the other's");
        transaction.rollback().await.unwrap();
    })
    .await;
    println!("claiming beside {BACKLOG} parked deliveries took {took:?}");
    assert!(took < MOST, "{took:?}");
}

async fn keep_back(ledger: &Ledger, webhook: WebhookId, key_of: impl Fn(u64) -> OrderKey) {
    numbers(async |numbers| {
        let rows = numbers.into_iter().map(|number| KeptBack {
            event: key(number),
            project: PROJECT,
            webhook,
            key: Some(key_of(number)),
            held: None,
        });
        let mut connection = ledger.store.connection().await.unwrap();
        pending_deliveries::keep_back(&mut connection, rows.collect(), START)
            .await
            .unwrap();
    })
    .await;
    for number in 0..30 {
        ledger.record(&[accepted(key(number), &[webhook])]).await;
    }
}

#[tokio::test]
async fn a_hundred_thousand_deliveries_of_one_key_or_of_as_many_keys_slow_no_look() {
    let ledger = Ledger::start().await;
    let (one, many) = (webhook(1), webhook(2));
    keep_back(&ledger, one, |_| OrderKey::WHOLE).await;
    keep_back(&ledger, many, |number| {
        OrderKey::from_uuid(Uuid::from_u128(number.into()))
    })
    .await;
    for (webhook, released) in [(one, 1), (many, 20)] {
        let took = shortest(async || {
            let mut transaction = ledger.store.begin().await.unwrap();
            let all = EventKey::from_uuid(Uuid::max());
            let claimed =
                pending_deliveries::claim_ordered(&mut transaction, &[webhook], all, START, room(20), 500).await;
            assert_eq!(claimed.unwrap().unwrap().len(), released);
            transaction.rollback().await.unwrap();
        })
        .await;
        println!("claiming {released} in order of {BACKLOG} took {took:?}");
        assert!(took < MOST, "{took:?}");
    }
    // The next of a key is found as soon.
    let took = shortest(async || {
        let mut transaction = ledger.store.begin().await.unwrap();
        let settled = pending_deliveries::settle(&mut transaction, &[first(0, one)]).await;
        assert_eq!(settled.unwrap(), 1);
        transaction.rollback().await.unwrap();
    })
    .await;
    println!("settling one of {BACKLOG} took {took:?}");
    assert!(took < MOST, "{took:?}");
}

fn room(per_webhook: u32) -> pending_deliveries::Room {
    pending_deliveries::Room { per_webhook, ..ROOM }
}
