//! The oldest days leave, and nothing else does.

use std::time::Duration;

use common::clock::Clock;
use proto_schemas::delivery::TrialKind;
use proto_schemas::id::{AttemptRef, EventKey};
use retry_scheduler::metrics::Metrics;
use retry_scheduler::retention::Retention;
use store::retention::Gone;
use store::tests::NewTest;

use crate::support::{Ledger, PROJECT, START, accepted, delivered, failed, first, key, rejected, webhook};

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Ledger {
    fn retention(&self, days: u32) -> Retention {
        Retention {
            store: self.store.clone(),
            clock: Clock::from(self.clock.clone()),
            keep: DAY * days,
            patience: self.patience.clone(),
            metrics: Metrics::default(),
        }
    }
}

#[tokio::test]
async fn what_is_older_than_is_kept_leaves_with_all_that_hangs_on_it() {
    let ledger = Ledger::start().await;
    let old = EventKey::of_message(START - 10 * DAY, 1);
    let of_old = |number| AttemptRef {
        event: old,
        ..first(0, webhook(number))
    };
    let young = first(1, webhook(1));
    ledger
        .record(&[
            accepted(old, &[webhook(1), webhook(2)]),
            delivered(of_old(1)),
            failed(of_old(2)),
            rejected(EventKey::of_message(START - 10 * DAY, 2)),
            accepted(key(1), &[webhook(1)]),
            failed(young),
            rejected(key(2)),
        ])
        .await;
    assert_eq!(ledger.retention(11).look().await.unwrap(), Gone::default());
    assert!(ledger.made(of_old(1)).await.is_some());

    let gone = ledger.retention(9).look().await.unwrap();
    assert_eq!(
        gone,
        Gone {
            partitions: 2,
            deliveries: 1,
            rejected: 1
        }
    );
    assert!(ledger.made(of_old(1)).await.is_none() && ledger.made(of_old(2)).await.is_none());
    assert!(ledger.made(young).await.is_some());
    assert_eq!(ledger.pending().await.len(), 1, "the young one still waits");
    assert_eq!(ledger.retention(9).look().await.unwrap(), Gone::default());

    // A fact of that day that comes even later is recorded all the same.
    ledger
        .record(&[accepted(old, &[webhook(1)]), delivered(of_old(1))])
        .await;
    assert!(ledger.made(of_old(1)).await.is_some());
}

#[tokio::test]
async fn a_day_that_somebody_reads_is_left_for_the_next_time() {
    let ledger = Ledger::start().await;
    let old = EventKey::of_message(START - 10 * DAY, 1);
    ledger.record(&[accepted(old, &[])]).await;
    let mut reader = ledger.store.begin().await.unwrap();
    store::events::load(&mut reader, &[old]).await.unwrap();
    ledger.retention(9).look().await.unwrap_err();
    drop(reader);
    assert_eq!(ledger.retention(9).look().await.unwrap().partitions, 2);
}

#[tokio::test]
async fn old_tests_leave_as_well() {
    let ledger = Ledger::start().await;
    ledger.create_webhook(webhook(1)).await;
    let mut connection = ledger.store.connection().await.unwrap();
    let ids = [
        EventKey::of_message(START - 10 * DAY, 1),
        EventKey::of_message(START, 1),
    ];
    for id in ids {
        let test = NewTest {
            id,
            project: PROJECT,
            kind: TrialKind::Test,
            webhook: None,
            target: webhook(1),
            event_type: "a",
            due: b"",
            holds_secrets: false,
            created_at: id.accepted_at(),
        };
        store::tests::insert(&mut connection, &test).await.unwrap();
    }
    assert_eq!(ledger.retention(9).look().await.unwrap().rejected, 1);
    let left = store::tests::page(&mut connection, PROJECT, None, None, 9)
        .await
        .unwrap();
    assert_eq!(left.iter().map(|test| test.id).collect::<Vec<_>>(), [ids[1]]);
}
