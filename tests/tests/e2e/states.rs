//! What stops a webhook, and what starts it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use posthaste_tests::{Answer, Api, Cluster, Producer, Receiver, Role, eventually, eventually_within};
use reqwest::Method;
use serde_json::{Value, json};

struct World {
    cluster: Cluster,
    receiver: Receiver,
    producer: Producer,
    /// What the receiver answers.
    status: Arc<AtomicU16>,
}

impl World {
    /// A webhook that fails after five failures in a row and never tries again.
    async fn start(status: u16) -> Self {
        let cluster = Cluster::start().await.unwrap();
        cluster.admin.create_project("acme").await.unwrap();
        let status = Arc::new(AtomicU16::new(status));
        let receiver = Receiver::scripted({
            let status = Arc::clone(&status);
            move |_, _| Answer::status(status.load(Ordering::Relaxed))
        })
        .await;
        let more = json!({ "fail_after": 5, "retry": false });
        cluster
            .create_webhook("acme", "one", &receiver.url, more)
            .await
            .unwrap();
        let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
        Self {
            cluster,
            receiver,
            producer,
            status,
        }
    }

    fn api(&self) -> &Api {
        &self.cluster.admin
    }

    async fn publish(&self, id: &str) {
        let id = format!("acme:{id}");
        self.producer
            .publish("events.acme.a", &[("Nats-Msg-Id", &id)], "1")
            .await
            .unwrap();
    }

    async fn webhook(&self) -> Value {
        let path = "/v1/projects/acme/webhooks/one";
        self.api().ok(Method::GET, path, None).await.unwrap()
    }

    /// Waits until the webhook is stopped, and that is in force; gives the webhook.
    async fn stopped(&self, state: &str) -> Value {
        let webhook = eventually(state, || async {
            let webhook = self.webhook().await;
            (webhook["state"] == state).then_some(webhook)
        })
        .await;
        // The API knows of it a moment before ingest does.
        eventually_within(Duration::from_secs(10), "an event that is skipped", || async {
            self.producer.publish("events.acme.probe", &[], "1").await.unwrap();
            let path = "/v1/projects/acme/deliveries?state=skipped";
            (!self.api().list(path).await.unwrap().is_empty()).then_some(())
        })
        .await;
        webhook
    }

    /// The state and reason of an event's delivery.
    async fn delivery(&self, event: &str) -> (String, String) {
        eventually("the delivery on record", || async {
            let path = format!("/v1/projects/acme/deliveries?event_id={event}");
            let found = self.api().list(&path).await.unwrap();
            let found = found.first()?;
            let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
            (text("state") != "queued").then(|| (text("state"), text("reason")))
        })
        .await
    }

    async fn restart(&self) {
        let path = "/v1/projects/acme/webhooks/one:restart";
        let restarted = self.api().ok(Method::POST, path, None).await.unwrap();
        assert_eq!(restarted["state"], "active");
        self.cluster.definitions_in_force().await.unwrap();
    }
}

#[tokio::test]
async fn five_failures_in_a_row_fail_a_webhook_until_it_is_restarted() {
    let world = World::start(503).await;
    for n in 0..4 {
        world.publish(&format!("bad{n}")).await;
    }
    eventually("four failures", || async {
        (world.webhook().await["health"]["failures_in_a_row"] == 4).then_some(())
    })
    .await;
    assert_eq!(world.webhook().await["state"], "active");
    world.publish("bad4").await;
    let failed = world.stopped("failed").await;
    assert_eq!(
        failed["state_reason"],
        "5 failed attempts in a row; the last: the receiver answered 503 Service Unavailable"
    );
    assert!(failed["state_since"].is_string());

    let before = world.receiver.count();
    world.publish("meanwhile").await;
    assert_eq!(
        world.delivery("meanwhile").await,
        ("skipped".to_owned(), "disabled".to_owned())
    );
    assert_eq!(world.receiver.count(), before);

    world.status.store(200, Ordering::Relaxed);
    world.restart().await;
    world.publish("afterwards").await;
    assert_eq!(world.delivery("afterwards").await.0, "delivered");
    let health = world.webhook().await["health"].clone();
    assert_eq!(health["failures_in_a_row"], 0);
    assert!(health["last_delivered_at"].is_string());
}

#[tokio::test]
async fn a_receiver_that_is_gone_disables_its_webhook() {
    let world = World::start(410).await;
    world.publish("first").await;
    let disabled = world.stopped("disabled").await;
    assert_eq!(disabled["state_reason"], "the receiver answered 410 Gone");
    let before = world.receiver.count();
    world.publish("second").await;
    assert_eq!(world.delivery("second").await.0, "skipped");
    assert_eq!(world.receiver.count(), before);
}

#[tokio::test]
async fn killing_retry_scheduler_counts_no_failure_twice() {
    const EVENTS: usize = 300;
    let mut world = World::start(503).await;
    let never = json!({ "fail_after": 0 });
    let path = "/v1/projects/acme/webhooks/one";
    world.api().ok(Method::PATCH, path, Some(&never)).await.unwrap();
    world.cluster.definitions_in_force().await.unwrap();
    let producer = world.producer.clone();
    let publishing = tokio::spawn(async move { producer.publish_many("acme", "a", EVENTS).await });
    for kill in 1..=3 {
        eventually("enough attempts for the next kill", || async {
            (world.receiver.count() >= EVENTS * kill / 4).then_some(())
        })
        .await;
        world.cluster.kill(Role::RetryScheduler).unwrap();
        world.cluster.restart(Role::RetryScheduler).await.unwrap();
    }
    publishing.await.unwrap();
    eventually("every attempt on record", || async {
        let log = world.api().list("/v1/projects/acme/attempts").await.unwrap();
        (log.len() == EVENTS).then_some(())
    })
    .await;
    assert_eq!(world.webhook().await["health"]["failures_in_a_row"], EVENTS);
}
