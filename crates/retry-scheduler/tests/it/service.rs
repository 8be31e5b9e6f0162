//! The service as a whole.

use std::time::Duration;

use common::service::{self, Args};
use proto_schemas::ledger::{Fact, Outcome};
use proto_schemas::stream::config_key::Key;
use proto_schemas::stream::{DELIVERIES, LEDGER};
use retry_scheduler::RetryScheduler;
use tokio_util::sync::CancellationToken;

use crate::support::*;

async fn until(what: &str, mut met: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
    while !met().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn it_records_retries_and_stops_when_told() {
    let nats = OwnNats::start().await;
    let bus = nats.bus().await;
    let bucket = bus.config_bucket().await.unwrap();
    bucket.put(&Key::Filled, b"1".to_vec()).await.unwrap();
    let database = database().await;
    let stop = CancellationToken::new();
    let args = Args::local("127.0.0.1:0".parse().unwrap());
    let mut config = config(&nats.server.url(), &database);
    // What is recorded here is old, and is not to leave while it is looked at.
    config.retention = Duration::from_secs(100 * 365 * 24 * 3600);
    let running = service::start::<RetryScheduler>(config, args, stop.clone())
        .await
        .unwrap();

    let mut attempt = finished(first(1, webhook(1)), Outcome::Failed);
    attempt.ladder = vec![Duration::ZERO; 2];
    for fact in [Fact::AttemptFinished(attempt), accepted(key(1), &[webhook(1)])] {
        bus.publish(proto_schemas::subject::LEDGER, Default::default(), fact.encode())
            .await
            .unwrap()
            .stored()
            .await
            .unwrap();
    }
    until("the second attempt is released", async || {
        bus.count(DELIVERIES, "deliveries.>").await.unwrap() == 1
    })
    .await;
    until("the ledger is worked off", async || {
        bus.count(LEDGER, "ledger.>").await.unwrap() == 0
    })
    .await;
    assert!(running.health.is_ready());

    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), running.wait())
        .await
        .expect("it stops")
        .unwrap();
}
