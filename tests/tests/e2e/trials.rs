//! Tests and endpoint checks, over the real programs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use posthaste::local::Folder;
use posthaste_tests::{Answer, Api, Cluster, Producer, Receiver, Role, Setup, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// A profile whose webhooks' endpoints are checked.
const CHECKED: &str = r#"
name = "checked"
description = "endpoints are checked"
[body]
kind = "raw"
[signature]
standard_webhooks = true
[retry]
delays = ["0s"]
[request]
timeout = "5s"
success = ["2xx"]
[webhooks]
endpoint_check = true
"#;

async fn act(api: &Api, webhook: &str, action: &str, body: Option<&Value>) -> Value {
    let path = format!("/v1/projects/acme/webhooks/{webhook}:{action}");
    api.ok(Method::POST, &path, body).await.unwrap()
}

/// What became of a test.
async fn finished(api: &Api, test: &Value) -> Value {
    let path = format!("/v1/projects/acme/tests/{}", test["id"].as_str().unwrap());
    eventually("the test's end", || async {
        let test = api.ok(Method::GET, &path, None).await.unwrap();
        (test["status"] != "pending").then_some(test)
    })
    .await
}

async fn webhook(api: &Api, name: &str) -> Value {
    let path = format!("/v1/projects/acme/webhooks/{name}");
    api.ok(Method::GET, &path, None).await.unwrap()
}

/// Waits for a state; gives the webhook.
async fn in_state(api: &Api, name: &str, state: &str) -> Value {
    eventually(state, || async {
        let webhook = webhook(api, name).await;
        (webhook["state"] == state).then_some(webhook)
    })
    .await
}

#[tokio::test]
async fn a_webhook_is_tested_whatever_its_state_and_the_test_changes_nothing() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    api.create_project("acme").await.unwrap();
    let (good, bad) = (
        Receiver::start().await,
        Receiver::scripted(|_, _| Answer::status(503)).await,
    );
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = format!("http://{port}/");
    for (name, url) in [("good", &good.url), ("bad", &bad.url), ("dead", &nobody)] {
        let more =
            json!({ "fail_after": 1, "active": name != "good", "headers": [{ "key": "x-team", "value": "blue" }] });
        api.create_webhook("acme", name, url, more).await.unwrap();
    }

    let sample = json!({ "type": "invoice.paid", "data": { "amount": 3 } });
    let test = act(api, "good", "test", Some(&sample)).await;
    let test = finished(api, &test).await;
    assert_eq!(
        (&test["status"], &test["error_message"]),
        (&json!("completed"), &Value::Null)
    );
    let received = good.received().pop().unwrap();
    assert_eq!(received.event_id(), test["event_id"].as_str().unwrap());
    assert_eq!(received.headers["posthaste-test"], "true");
    assert!(
        received.headers.contains_key("webhook-signature"),
        "it is signed like any other"
    );
    assert_eq!(received.json()["data"]["amount"], 3);
    assert_eq!(test["request"]["method"], "POST");
    assert_eq!(test["request"]["body"].as_str().unwrap().as_bytes(), received.body);
    assert_eq!(
        test["request"]["headers"][0],
        json!({ "key": "x-team", "value": "blue" })
    );
    assert_eq!(test["attempt"]["status"], 200);

    let test = finished(api, &act(api, "bad", "test", None).await).await;
    assert_eq!(test["status"], "failed");
    assert_eq!(test["error_message"], "the receiver answered 503 Service Unavailable");
    let test = finished(api, &act(api, "dead", "test", None).await).await;
    assert_eq!(
        (&test["status"], &test["error_class"]),
        (&json!("failed"), &json!("connect"))
    );
    assert!(!test["error_message"].as_str().unwrap().is_empty());

    for (name, state) in [("good", "paused"), ("bad", "active"), ("dead", "active")] {
        let webhook = webhook(api, name).await;
        assert_eq!(webhook["state"], state);
        let untouched = json!({ "failures_in_a_row": 0, "last_delivered_at": null, "last_failed_at": null });
        assert_eq!(webhook["health"], untouched, "{name}");
    }
    assert_eq!(bad.count(), 1, "a test is made once, whatever the ladder says");
    assert!(api.list("/v1/projects/acme/deliveries").await.unwrap().is_empty());
    let log = api.list("/v1/projects/acme/attempts").await.unwrap();
    assert!(log.iter().all(|attempt| attempt["trial"] == "test"), "{log:?}");
    assert_eq!(log.len(), 3);
}

#[tokio::test]
async fn a_webhook_gets_events_once_its_endpoint_has_passed_the_check() {
    let folder = Folder::temporary().unwrap();
    std::fs::write(folder.path().join("checked.toml"), CHECKED).unwrap();
    let setup = Setup {
        env: vec![("POSTHASTE_PROFILES_DIR", folder.path().display().to_string())],
        ..Setup::default()
    };
    let cluster = Cluster::start_with(setup).await.unwrap();
    let api = &cluster.admin;
    let project = json!({ "name": "acme", "profile": "checked" });
    api.ok(Method::POST, "/v1/projects", Some(&project)).await.unwrap();
    let status = Arc::new(AtomicU16::new(204));
    let receiver = Receiver::scripted({
        let status = Arc::clone(&status);
        move |_, _| Answer::status(status.load(Ordering::Relaxed))
    })
    .await;
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();

    let created = api
        .create_webhook("acme", "one", &receiver.url, json!({}))
        .await
        .unwrap();
    assert_eq!(created["state"], "pending");
    let refused = "the endpoint check failed: the receiver answered 204 No Content; a check is passed with 200";
    eventually("what is wrong", || async {
        (webhook(api, "one").await["state_reason"] == refused).then_some(())
    })
    .await;
    let check = receiver.received().pop().unwrap();
    assert!(check.body.is_empty());
    assert!(!check.headers.contains_key("webhook-signature"));

    status.store(200, Ordering::Relaxed);
    let test = finished(api, &act(api, "one", "check", None).await).await;
    assert_eq!((&test["kind"], &test["status"]), (&json!("check"), &json!("completed")));
    in_state(api, "one", "active").await;
    // In force a moment later: until then events are passed over.
    let before = receiver.count();
    eventually("an event at the webhook", || async {
        producer.publish("events.acme.a", &[], "1").await.unwrap();
        (receiver.count() > before).then_some(())
    })
    .await;

    // A check of a webhook that has passed one stops nothing, whatever it comes to.
    status.store(500, Ordering::Relaxed);
    let test = finished(api, &act(api, "one", "check", None).await).await;
    assert_eq!(test["status"], "failed");
    assert_eq!(webhook(api, "one").await["state"], "active");

    // Another url has to pass anew.
    let moved = json!({ "url": format!("{}/moved", receiver.url) });
    let changed = api
        .ok(Method::PATCH, "/v1/projects/acme/webhooks/one", Some(&moved))
        .await;
    assert_eq!(changed.unwrap()["state"], "pending");
}

#[tokio::test]
async fn a_test_is_made_even_if_config_api_dies_as_soon_as_it_has_answered() {
    let mut cluster = Cluster::start().await.unwrap();
    cluster.admin.create_project("acme").await.unwrap();
    let receiver = Receiver::start().await;
    cluster
        .create_webhook("acme", "one", &receiver.url, json!({}))
        .await
        .unwrap();
    // Without NATS the test cannot leave the outbox before config-api is gone.
    cluster.nats.kill().unwrap();
    let test = act(&cluster.admin, "one", "test", None).await;
    cluster.kill(Role::ConfigApi).unwrap();
    cluster.nats.restart().await.unwrap();
    cluster.restart(Role::ConfigApi).await.unwrap();
    let test = finished(&cluster.admin, &test).await;
    assert_eq!(test["status"], "completed");
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn a_receiver_sees_no_more_than_its_rate() {
    const PER_WINDOW: usize = 5;
    const WINDOW: Duration = Duration::from_millis(500);
    const EVENTS: usize = 40;
    let cluster = Cluster::start().await.unwrap();
    cluster.admin.create_project("acme").await.unwrap();
    let receiver = Receiver::start().await;
    let limit = json!({ "rate_limit": { "requests": PER_WINDOW, "per": "500ms" } });
    cluster
        .create_webhook("acme", "slow", &receiver.url, limit)
        .await
        .unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    producer.publish_many("acme", "a", EVENTS).await;
    eventually("every event", || async { (receiver.count() >= EVENTS).then_some(()) }).await;

    let mut at: Vec<_> = receiver.received().iter().map(|request| request.at).collect();
    at.sort();
    // Requests begin in the dispatcher as far apart as that; on their way they may come a little closer.
    let slack = Duration::from_millis(150);
    for group in at.windows(PER_WINDOW + 1) {
        let apart = group[PER_WINDOW] - group[0];
        assert!(apart + slack >= WINDOW, "{} requests within {apart:?}", PER_WINDOW + 1);
    }
    assert_eq!(
        receiver.count(),
        EVENTS,
        "none was lost on the way to Postgres and back"
    );
}
