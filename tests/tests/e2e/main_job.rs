//! A published event arrives signed, is retried, and is on record.

use std::collections::BTreeMap;
use std::time::Duration;

use posthaste_tests::{Answer, Api, Cluster, Producer, Receiver, eventually};
use reqwest::Method;
use serde_json::{Value, json};

async fn attempts(api: &Api, project: &str, filter: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} attempts in the log"), || async {
        let found = api
            .list(&format!("/v1/projects/{project}/attempts?{filter}"))
            .await
            .unwrap();
        (found.len() >= count).then_some(found)
    })
    .await
}

#[tokio::test]
async fn an_event_published_on_nats_arrives_signed_and_is_on_record() {
    let cluster = Cluster::start().await.unwrap();
    let (api, receiver) = (&cluster.admin, Receiver::start().await);
    api.create_project("acme").await.unwrap();
    let hook = cluster
        .create_webhook("acme", "orders", &receiver.url, json!({ "events": ["order.*"] }))
        .await
        .unwrap();
    let secret = hook["secret"].as_str().unwrap();

    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let body = r#"{"total": 150.00, "z": 1, "a": 2}"#;
    producer
        .publish("events.acme.order.paid", &[("Nats-Msg-Id", "acme:order-1")], body)
        .await
        .unwrap();
    producer.publish("events.acme.invoice.paid", &[], "{}").await.unwrap();

    let received = eventually("the request", || async { receiver.received().first().cloned() }).await;
    assert_eq!(received.event_id(), "order-1");
    let verifier = standardwebhooks::Webhook::new(secret).unwrap();
    verifier.verify(&received.body, &received.headers).unwrap();
    // The data is the producer's bytes, its number and key order as they were.
    assert!(
        String::from_utf8_lossy(&received.body).contains(&format!(r#""data":{body}"#)),
        "{received:?}"
    );
    assert_eq!(received.json()["type"], "order.paid");

    let log = attempts(api, "acme", "event_id=order-1", 1).await;
    assert_eq!(
        (&log[0]["outcome"], &log[0]["status"], &log[0]["attempt"]),
        (&json!("delivered"), &json!(200), &json!(1))
    );
    assert_eq!(log[0]["webhook"], hook["id"]);

    // The event nobody wanted is on record, too, and went nowhere.
    let events = eventually("both events on record", || async {
        let events = api.list("/v1/projects/acme/events").await.unwrap();
        (events.len() == 2).then_some(events)
    })
    .await;
    assert_eq!(events[0]["type"], "invoice.paid", "newest first");
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn an_event_posted_over_http_arrives_once_however_often_it_is_posted() {
    let cluster = Cluster::start().await.unwrap();
    let (api, receiver) = (&cluster.admin, Receiver::start().await);
    api.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "all", &receiver.url, json!({}))
        .await
        .unwrap();

    let event = json!({ "type": "order.paid", "data": { "n": 1 }, "id": "o-1", "timestamp": "2024-01-15T10:30:00Z" });
    let (status, answer) = api.intake("/v1/projects/acme/events", &event).await.unwrap();
    assert_eq!((status.as_u16(), &answer["id"]), (202, &json!("o-1")));
    let (status, answer) = api.intake("/v1/projects/acme/events", &event).await.unwrap();
    assert_eq!((status.as_u16(), &answer["duplicate"]), (202, &json!(true)));
    let batch = json!({ "events": [{ "type": "order.paid", "data": 2 }, { "type": "no type", "data": 3 }] });
    let (status, answer) = api.intake("/v1/projects/acme/events/batch", &batch).await.unwrap();
    assert_eq!(status.as_u16(), 207, "{answer}");
    assert_eq!(
        (&answer["items"][0]["status"], &answer["items"][1]["status"]),
        (&json!(202), &json!(422))
    );

    let log = attempts(api, "acme", "status=delivered", 2).await;
    assert_eq!((log.len(), receiver.count()), (2, 2));
    let first = receiver
        .received()
        .into_iter()
        .find(|received| received.event_id() == "o-1")
        .unwrap();
    assert_eq!(first.json()["timestamp"], "2024-01-15T10:30:00Z");
}

#[tokio::test]
async fn a_failing_receiver_is_retried_on_its_ladder_with_the_same_id_and_a_new_signature() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    let receiver = Receiver::scripted(|_, before| Answer::status(if before < 2 { 503 } else { 200 })).await;
    api.create_project("acme").await.unwrap();
    let ladder = json!({ "retry": { "delays": ["0s", "1s", "1s"] } });
    let hook = cluster
        .create_webhook("acme", "shaky", &receiver.url, ladder)
        .await
        .unwrap();
    api.intake(
        "/v1/projects/acme/events",
        &json!({ "type": "a", "data": 1, "id": "e1" }),
    )
    .await
    .unwrap();

    let log = attempts(api, "acme", "event_id=e1", 3).await;
    let by_number: BTreeMap<u64, &Value> = log
        .iter()
        .map(|attempt| (attempt["attempt"].as_u64().unwrap(), attempt))
        .collect();
    assert_eq!(by_number.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(
        (&by_number[&1]["status"], &by_number[&1]["outcome"]),
        (&json!(503), &json!("failed"))
    );
    assert!(by_number[&1]["next_attempt_at"].is_string(), "{}", by_number[&1]);
    assert_eq!(by_number[&3]["outcome"], "delivered");

    let received = receiver.received();
    let verifier = standardwebhooks::Webhook::new(hook["secret"].as_str().unwrap()).unwrap();
    for (earlier, later) in received.iter().zip(&received[1..]) {
        assert!(
            later.at - earlier.at >= Duration::from_secs(1),
            "a delay is never undercut"
        );
        assert_ne!(earlier.headers["webhook-timestamp"], later.headers["webhook-timestamp"]);
    }
    for request in &received {
        assert_eq!(request.event_id(), "e1");
        verifier.verify(&request.body, &request.headers).unwrap();
    }
    let pending = api.list("/v1/projects/acme/deliveries?state=scheduled").await.unwrap();
    assert!(pending.is_empty(), "{pending:?}");
}

#[tokio::test]
async fn a_receiver_that_is_down_for_good_ends_dead_with_a_reason() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    let gone = Receiver::start().await.url.clone();
    api.create_project("acme").await.unwrap();
    let ladder = json!({ "retry": { "delays": ["0s", "0s"] } });
    let hook = cluster.create_webhook("acme", "down", &gone, ladder).await.unwrap();
    api.intake(
        "/v1/projects/acme/events",
        &json!({ "type": "a", "data": 1, "id": "e1" }),
    )
    .await
    .unwrap();

    let dead = eventually("the dead delivery", || async {
        api.list("/v1/projects/acme/deliveries?state=dead").await.unwrap().pop()
    })
    .await;
    assert_eq!((&dead["event_id"], &dead["webhook"]), (&json!("e1"), &hook["id"]));
    assert!(dead["reason"].as_str().unwrap().contains("2 attempts"), "{dead}");
    let log = attempts(api, "acme", "event_id=e1", 2).await;
    assert!(
        log.iter()
            .all(|attempt| attempt["error_class"] == "connect" && attempt["status"].is_null()),
        "{log:?}"
    );
}

#[tokio::test]
async fn a_410_ends_a_delivery_at_once() {
    let cluster = Cluster::start().await.unwrap();
    let (api, receiver) = (&cluster.admin, Receiver::scripted(|_, _| Answer::status(410)).await);
    api.create_project("acme").await.unwrap();
    cluster
        .create_webhook(
            "acme",
            "gone",
            &receiver.url,
            json!({ "retry": { "delays": ["0s", "0s", "0s"] } }),
        )
        .await
        .unwrap();
    api.intake("/v1/projects/acme/events", &json!({ "type": "a", "data": 1 }))
        .await
        .unwrap();
    eventually("the dead delivery", || async {
        api.list("/v1/projects/acme/deliveries?state=dead").await.unwrap().pop()
    })
    .await;
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn a_slow_receiver_delays_nobody_else_and_loses_nothing() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    let slow = Receiver::scripted(|_, _| Answer {
        after: Duration::from_millis(400),
        ..Answer::status(200)
    })
    .await;
    let quick = Receiver::start().await;
    api.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "slow", &slow.url, json!({ "events": ["slow"] }))
        .await
        .unwrap();
    cluster
        .create_webhook("acme", "quick", &quick.url, json!({ "events": ["quick"] }))
        .await
        .unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    producer.publish_many("acme", "slow", 150).await;
    // Ten at once, 400 ms each: 150 take six seconds, far more than a lane lets wait in the pipe.
    let parked = eventually("parked deliveries", || async {
        let parked = api.list("/v1/projects/acme/deliveries?state=parked").await.unwrap();
        (!parked.is_empty()).then_some(parked)
    })
    .await;
    assert!(parked[0]["reason"].as_str().unwrap().contains("lane"), "{}", parked[0]);
    let before = slow.count();
    producer.publish("events.acme.quick", &[], "1").await.unwrap();
    eventually("the quick one", || async { (quick.count() == 1).then_some(()) }).await;
    assert!(slow.count() < 150, "the quick one overtook the {before} slow ones");
    eventually("every slow one", || async { (slow.count() >= 150).then_some(()) }).await;
    let log = attempts(api, "acme", "status=delivered", 151).await;
    assert_eq!((log.len(), slow.count()), (151, 150), "each once");
    let page = api
        .ok(Method::GET, "/v1/projects/acme/deliveries?state=parked", None)
        .await
        .unwrap();
    assert_eq!(page["items"], json!([]));
}
