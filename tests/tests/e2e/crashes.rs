//! SIGKILL, three times, in the middle of 2,000 events: every accepted event arrives, duplicates have the same id and
//! are no more than what was in flight, and every attempt is recorded once. SIGTERM in its place: no duplicates either.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use posthaste_tests::{Answer, Cluster, Producer, Receiver, Role, eventually_within};
use serde_json::json;

const EVENTS: usize = 2_000;
const KILLS: usize = 3;
/// In flight at once: one webhook's lane, and as many again whose ack was still in the process when it was killed.
const IN_FLIGHT: usize = 2 * 10;

struct Run {
    cluster: Cluster,
    receiver: Receiver,
}

impl Run {
    /// A cluster with one webhook, whose receiver takes a moment for each event so that some are always in flight.
    async fn start() -> Self {
        let cluster = Cluster::start().await.unwrap();
        let receiver = Receiver::scripted(|_, _| Answer {
            after: Duration::from_millis(5),
            ..Answer::status(200)
        })
        .await;
        cluster.admin.create_project("acme").await.unwrap();
        cluster
            .create_webhook("acme", "all", &receiver.url, json!({}))
            .await
            .unwrap();
        Self { cluster, receiver }
    }

    /// Publishes, while `disturb` is called each time another quarter of the events has arrived.
    async fn publish_while(&mut self, mut disturb: impl AsyncFnMut(&mut Cluster)) {
        let producer = Producer::connect(&self.cluster.nats.url()).await.unwrap();
        let publishing = tokio::spawn(async move { producer.publish_many("acme", "order.paid", EVENTS).await });
        for kill in 1..=KILLS {
            let enough = EVENTS * kill / (KILLS + 1);
            eventually_within(Duration::from_secs(120), "enough events for the next kill", || async {
                (self.receiver.count() >= enough).then_some(())
            })
            .await;
            disturb(&mut self.cluster).await;
        }
        publishing.await.unwrap();
    }

    /// Every event is there; the duplicates are at most `most_duplicates`; the log has each attempt once.
    async fn check(&self, most_duplicates: usize) {
        let wanted: BTreeSet<String> = (0..EVENTS).map(|n| format!("e{n}")).collect();
        eventually_within(Duration::from_secs(120), "every event at the receiver", || async {
            let arrived: BTreeSet<String> = self
                .receiver
                .received()
                .iter()
                .map(|request| request.event_id())
                .collect();
            (arrived == wanted).then_some(())
        })
        .await;
        let log = eventually_within(Duration::from_secs(120), "every attempt in the log", || async {
            let log = self.cluster.admin.list("/v1/projects/acme/attempts").await.ok()?;
            (log.len() >= EVENTS).then_some(log)
        })
        .await;
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for attempt in &log {
            assert_eq!(attempt["outcome"], "delivered", "{attempt}");
            *seen
                .entry(attempt["event_id"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
        assert_eq!(seen.len(), EVENTS, "every event has its attempt");
        assert!(seen.values().all(|times| *times == 1), "no attempt is recorded twice");
        let duplicates = self.receiver.count() - EVENTS;
        assert!(
            duplicates <= most_duplicates,
            "{duplicates} duplicates, at most {most_duplicates} were in flight"
        );
        let waiting = self
            .cluster
            .admin
            .list("/v1/projects/acme/deliveries?state=scheduled")
            .await
            .unwrap();
        assert!(waiting.is_empty(), "{waiting:?}");
    }
}

#[tokio::test]
async fn killing_dispatcher_loses_nothing_and_repeats_only_what_was_in_flight() {
    let mut run = Run::start().await;
    run.publish_while(async |cluster| {
        cluster.kill(Role::Dispatcher).unwrap();
        cluster.restart(Role::Dispatcher).await.unwrap();
    })
    .await;
    run.check(KILLS * IN_FLIGHT).await;
}

#[tokio::test]
async fn killing_ingest_loses_nothing_and_repeats_nothing() {
    let mut run = Run::start().await;
    run.publish_while(async |cluster| {
        cluster.kill(Role::Ingest).unwrap();
        cluster.restart(Role::Ingest).await.unwrap();
    })
    .await;
    run.check(0).await;
}

#[tokio::test]
async fn killing_retry_scheduler_loses_nothing_and_repeats_nothing() {
    let mut run = Run::start().await;
    run.publish_while(async |cluster| {
        cluster.kill(Role::RetryScheduler).unwrap();
        cluster.restart(Role::RetryScheduler).await.unwrap();
    })
    .await;
    run.check(0).await;
}

#[tokio::test]
async fn killing_nats_server_loses_nothing_that_was_accepted() {
    let mut run = Run::start().await;
    run.publish_while(async |cluster| {
        cluster.nats.kill().unwrap();
        cluster.nats.restart().await.unwrap();
    })
    .await;
    run.check(KILLS * IN_FLIGHT).await;
}

#[tokio::test]
async fn a_rolling_restart_of_every_service_loses_nothing_and_repeats_nothing() {
    let mut run = Run::start().await;
    run.publish_while(async |cluster| {
        for role in Role::ALL {
            cluster.terminate(role).await.unwrap();
            cluster.restart(role).await.unwrap();
        }
    })
    .await;
    run.check(0).await;
}
