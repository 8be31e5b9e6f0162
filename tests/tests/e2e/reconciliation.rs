//! Nothing is missing, and where something is, it is named and made good.

use std::time::Duration;

use async_nats::jetstream;
use axum::http::Method;
use posthaste_tests::{Cluster, Producer, Receiver, Role, Setup, eventually_within};
use serde_json::{Value, json};

async fn sums(cluster: &Cluster) -> Value {
    cluster
        .admin
        .ok(Method::GET, "/v1/projects/acme/reconciliation", None)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_message_stolen_from_the_pipe_is_missed_within_a_minute_named_and_made_good() {
    let setup = Setup {
        env: vec![("POSTHASTE_REPAIR_AFTER", "20s".to_owned())],
        ..Setup::default()
    };
    let mut cluster = Cluster::start_with(setup).await.unwrap();
    let receiver = Receiver::start().await;
    cluster.admin.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "all", &receiver.url, json!({}))
        .await
        .unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    producer.publish_many("acme", "order.paid", 20).await;
    eventually_within(Duration::from_secs(30), "everything delivered", || async {
        (receiver.count() == 20).then_some(())
    })
    .await;

    // With nobody to take it, the next delivery stays in the stream, where it can be stolen.
    cluster.terminate(Role::Dispatcher).await.unwrap();
    let jetstream = jetstream::new(async_nats::connect(cluster.nats.url()).await.unwrap());
    let stream = jetstream.get_stream("DELIVERIES").await.unwrap();
    let before = stream.get_info().await.unwrap().state.last_sequence;
    let (status, answer) = cluster
        .admin
        .intake(
            "/v1/projects/acme/events",
            &json!({ "type": "order.paid", "data": {}, "id": "stolen" }),
        )
        .await
        .unwrap();
    assert_eq!(status.as_u16(), 202, "{answer}");
    eventually_within(Duration::from_secs(30), "the duty in the stream", || async {
        let last = stream.get_info().await.ok()?.state.last_sequence;
        (last > before).then_some(())
    })
    .await;
    assert!(stream.delete_message(before + 1).await.unwrap());
    cluster.restart(Role::Dispatcher).await.unwrap();

    let missed = eventually_within(Duration::from_secs(60), "the difference", || async {
        let sums = sums(&cluster).await;
        (sums["difference"] != 0).then_some(sums)
    })
    .await;
    assert_eq!(missed["difference"], 1, "{missed}");
    assert_eq!(missed["deliveries"], 21, "{missed}");
    assert_eq!(missed["states"]["delivered"], 20, "{missed}");
    assert_eq!(missed["missing"]["items"][0]["event_id"], "stolen", "{missed}");
    let (_, metrics) = cluster.text(Role::RetryScheduler, "/metrics").await.unwrap();
    let gauge = metrics
        .lines()
        .find(|line| line.starts_with("posthaste_reconciliation_difference"));
    assert!(gauge.is_some_and(|line| line.ends_with(" 1")), "{gauge:?}");

    eventually_within(Duration::from_secs(60), "it is delivered after all", || async {
        (receiver.count() == 21).then_some(())
    })
    .await;
    let whole = eventually_within(Duration::from_secs(30), "no difference", || async {
        let sums = sums(&cluster).await;
        (sums["states"]["delivered"] == 21).then_some(sums)
    })
    .await;
    assert_eq!(whole["difference"], 0, "{whole}");
    assert_eq!(whole["missing"]["items"], json!([]), "{whole}");
}
