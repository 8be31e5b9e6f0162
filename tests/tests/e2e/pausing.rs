//! What a webhook that gets nothing just now is owed: held, and delivered once it does; or cancelled, when it is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use posthaste_tests::{Answer, Cluster, Producer, Receiver, Role, eventually, eventually_within};
use reqwest::Method;
use serde_json::{Value, json};

struct World {
    cluster: Cluster,
    receiver: Receiver,
    producer: Producer,
    /// What the receiver answers.
    status: Arc<AtomicU16>,
}

const WEBHOOK: &str = "/v1/projects/acme/webhooks/one";

impl World {
    async fn start(more: Value) -> Self {
        let cluster = Cluster::start().await.unwrap();
        cluster.admin.create_project("acme").await.unwrap();
        let status = Arc::new(AtomicU16::new(200));
        let receiver = Receiver::scripted({
            let status = Arc::clone(&status);
            move |_, _| Answer::status(status.load(Ordering::Relaxed))
        })
        .await;
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

    async fn act(&self, action: &str) {
        let path = format!("{WEBHOOK}:{action}");
        self.cluster.admin.ok(Method::POST, &path, None).await.unwrap();
        self.cluster.definitions_in_force().await.unwrap();
    }

    async fn sums(&self) -> Value {
        let path = "/v1/projects/acme/reconciliation";
        self.cluster.admin.ok(Method::GET, path, None).await.unwrap()
    }

    /// Waits until so many deliveries are in this state.
    async fn until(&self, state: &str, count: usize) {
        eventually_within(Duration::from_secs(90), state, || async {
            let sums = self.sums().await;
            (sums["states"][state] == count && sums["difference"] == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_held_while_a_webhook_is_paused_is_delivered_at_its_pace_though_the_scheduler_is_killed() {
    const EVENTS: usize = 60;
    let more = json!({ "pause": "hold", "drain_rate": { "requests": 20, "per": "1s" } });
    let mut world = World::start(more).await;
    world.act("pause").await;
    world.producer.publish_many("acme", "a", EVENTS).await;
    world.until("held", EVENTS).await;
    assert_eq!(world.receiver.count(), 0);
    let path = "/v1/projects/acme/deliveries?state=held";
    let held = world.cluster.admin.list(path).await.unwrap();
    assert!(
        held.iter().all(|it| it["reason"] == "the webhook is paused"),
        "{held:?}"
    );

    world.act("resume").await;
    let resumed = Instant::now();
    eventually("a part of it", || async {
        (world.receiver.count() >= EVENTS / 3).then_some(())
    })
    .await;
    world.cluster.kill(Role::RetryScheduler).unwrap();
    world.cluster.restart(Role::RetryScheduler).await.unwrap();
    world.until("delivered", EVENTS).await;
    let received = world.receiver.received();
    let took = received.last().unwrap().at.duration_since(received[0].at);
    // The last one begins its 50 ms at the end; some came a look too late and were made up for.
    let least = Duration::from_millis(50) * u32::try_from(EVENTS - 4).unwrap();
    assert!(took >= least, "{took:?} is faster than 20 a second");
    assert!(resumed.elapsed() >= took);
    let mut ids: Vec<String> = received.iter().map(|request| request.event_id()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), EVENTS);
    assert_eq!(received.len(), EVENTS, "nothing came twice");
}

#[tokio::test]
async fn what_waits_for_a_failed_webhook_is_kept_and_goes_out_at_once_when_it_is_restarted() {
    let world = World::start(json!({ "fail_after": 3, "retry": { "delays": ["0s", "1s"] } })).await;
    world.status.store(503, Ordering::Relaxed);
    world.producer.publish_many("acme", "a", 3).await;
    // The second attempts become due after the webhook has failed.
    world.until("held", 3).await;
    let path = "/v1/projects/acme/deliveries?state=held";
    for delivery in world.cluster.admin.list(path).await.unwrap() {
        assert_eq!(delivery["reason"], "the webhook has failed");
        assert_eq!(delivery["attempts"], 1);
    }
    world.status.store(200, Ordering::Relaxed);
    world.act("restart").await;
    eventually_within(Duration::from_secs(10), "what waited", || async {
        (world.receiver.count() == 6).then_some(())
    })
    .await;
    world.until("delivered", 3).await;
}

#[tokio::test]
async fn what_waits_for_a_webhook_that_is_deleted_is_cancelled_with_the_reason() {
    let world = World::start(json!({ "fail_after": 0, "retry": { "delays": ["0s", "1h"] } })).await;
    world.status.store(503, Ordering::Relaxed);
    world.producer.publish_many("acme", "a", 5).await;
    world.until("scheduled", 5).await;
    world.cluster.admin.ok(Method::DELETE, WEBHOOK, None).await.unwrap();
    world.until("cancelled", 5).await;
    let path = "/v1/projects/acme/deliveries?state=cancelled";
    let cancelled = world.cluster.admin.list(path).await.unwrap();
    assert_eq!(cancelled.len(), 5);
    for delivery in cancelled {
        assert_eq!(delivery["reason"], "the webhook was deleted");
        assert!(delivery["updated_at"].is_string());
    }
}
