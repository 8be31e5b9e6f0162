//! What is told goes out, whatever waits in front of it.

use common::clock::Clock;
use proto_schemas::operational;
use proto_schemas::stream::EVENTS;
use retry_scheduler::announce::Announcer;
use retry_scheduler::metrics::Metrics;
use serde_json::json;
use store::operational_events::{self, OperationalEvent};

use crate::support::*;

fn raised(id: String, reason: String) -> OperationalEvent {
    OperationalEvent {
        id,
        project: PROJECT,
        webhook: None,
        event_type: operational::EVENT_REJECTED,
        reason,
        detail: json!({}),
        occurred_at: START,
    }
}

#[tokio::test]
async fn what_fits_no_message_is_deleted_and_holds_up_nothing_behind_it() {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    ledger.create_webhook(webhook(1)).await;
    let announcer = Announcer {
        store: ledger.store.clone(),
        bus: nats.bus().await,
        clock: Clock::from(ledger.clock.clone()),
        mails: false,
        patience: ledger.patience.clone(),
        metrics: Metrics::default(),
    };
    // As many as one look takes, each twice as long once its quotation marks are escaped; an earlier release wrote them.
    let huge = "\"".repeat(600 * 1024);
    let mut transaction = ledger.store.begin().await.unwrap();
    for n in 0..500 {
        let raised = raised(
            format!("op_r_{n:03}"),
            if n % 100 == 0 { huge.clone() } else { "so".into() },
        );
        operational_events::insert(&mut transaction, &[raised]).await.unwrap();
    }
    operational_events::insert(&mut transaction, &[raised("op_r_last".into(), "so".into())])
        .await
        .unwrap();
    transaction.commit().await.unwrap();

    assert_eq!(announcer.publish().await.unwrap(), 501);
    assert_eq!(announcer.publish().await.unwrap(), 0, "none is left");
    let told = announcer.bus.count(EVENTS, "events.>").await.unwrap();
    assert_eq!(told, 501 - 5, "all but those that fit no message");
}
