//! A definition takes effect within a second of the API's answer.

use std::time::{Duration, Instant};

use posthaste_tests::{Cluster, Producer, Receiver, eventually, eventually_within};
use reqwest::Method;
use serde_json::json;

/// What the API promises.
const SOON: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_webhook_created_changed_paused_or_deleted_takes_effect_within_a_second() {
    let cluster = Cluster::start().await.unwrap();
    let (api, first, second) = (&cluster.admin, Receiver::start().await, Receiver::start().await);
    api.create_project("acme").await.unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();

    api.create_webhook("acme", "one", &first.url, json!({})).await.unwrap();
    let begun = Instant::now();
    eventually_within(SOON, "an event at the new webhook", || async {
        producer.publish("events.acme.a", &[], "1").await.unwrap();
        (first.count() > 0).then_some(())
    })
    .await;
    assert!(begun.elapsed() < SOON);

    let path = "/v1/projects/acme/webhooks/one";
    api.ok(Method::PATCH, path, Some(&json!({ "url": second.url })))
        .await
        .unwrap();
    eventually_within(SOON, "an event at the new url", || async {
        producer.publish("events.acme.a", &[], "1").await.unwrap();
        (second.count() > 0).then_some(())
    })
    .await;

    let paused = api
        .ok(Method::PATCH, path, Some(&json!({ "active": false })))
        .await
        .unwrap();
    assert_eq!(paused["state"], "paused");
    // The pause is known once an event has been skipped for it; from then on nothing may arrive.
    eventually_within(SOON, "an event skipped because of the pause", || async {
        producer.publish("events.acme.paused", &[], "1").await.unwrap();
        let skipped = api.list("/v1/projects/acme/deliveries?state=skipped").await.unwrap();
        skipped
            .iter()
            .any(|delivery| delivery["reason"] == "paused")
            .then_some(())
    })
    .await;
    let count = second.count();
    producer.publish_many("acme", "paused", 20).await;
    eventually("the skipped ones on record", || async {
        (api.list("/v1/projects/acme/deliveries?state=skipped")
            .await
            .unwrap()
            .len()
            >= 21)
            .then_some(())
    })
    .await;
    assert_eq!(second.count(), count, "nothing is sent to a paused webhook");

    api.ok(Method::DELETE, path, None).await.unwrap();
    let (status, _) = api.call(Method::GET, path, None).await.unwrap();
    assert_eq!(status.as_u16(), 404);
}
