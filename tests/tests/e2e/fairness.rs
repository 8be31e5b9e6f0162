//! Fair shares between projects: whatever one has waiting, another's event goes out at once.

use std::time::Duration;

use async_nats::jetstream;
use futures::TryStreamExt as _;
use posthaste_tests::{Cluster, Producer, Receiver, Role, eventually_within};
use proto_schemas::id::{ProjectId, WebhookId};
use proto_schemas::stream::SHARES;
use proto_schemas::subject;
use serde_json::json;

/// Events of the project that has too many.
const BACKLOG: usize = 4_000;

/// The share of a project in stream EVENTS, where producers call it by its name: FNV-1a, as the server reckons.
fn share_of_events(project: &str) -> u32 {
    let hash = project.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash % u32::from(SHARES)
}

/// What comes before the webhook in the subject of a project's deliveries.
fn share_of_deliveries(project: &str) -> String {
    let delivery = subject::delivery(
        project.parse::<ProjectId>().unwrap(),
        WebhookId::from_uuid(uuid::Uuid::nil()),
    );
    delivery.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// A project with a webhook for everything; its id.
async fn project(cluster: &Cluster, name: &str, url: &str) -> String {
    let project = cluster.admin.create_project(name).await.unwrap();
    cluster.create_webhook(name, "all", url, json!({})).await.unwrap();
    project["id"].as_str().unwrap().to_owned()
}

/// Waits until a stream holds that many messages.
async fn held(cluster: &Cluster, stream: &str, messages: u64) {
    let jetstream = jetstream::new(async_nats::connect(cluster.nats.url()).await.unwrap());
    let stream = jetstream.get_stream(stream).await.unwrap();
    eventually_within(Duration::from_secs(60), "the backlog in the stream", || async {
        (stream.get_info().await.ok()?.state.messages >= messages).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_projects_backlog_is_not_in_front_of_another_projects_event() {
    let mut cluster = Cluster::start().await.unwrap();
    let (crowd, single) = (Receiver::start().await, Receiver::start().await);
    let crowded = project(&cluster, "crowded", &crowd.url).await;
    // Two projects may have a share in common; here it is about two that do not.
    let mut names = (0..).map(|n| format!("single-{n}"));
    let name = loop {
        let name = names.next().unwrap();
        if share_of_events(&name) == share_of_events("crowded") {
            continue;
        }
        let id = project(&cluster, &name, &single.url).await;
        if share_of_deliveries(&id) != share_of_deliveries(&crowded) {
            break name;
        }
    };
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();

    // In front of each of the two that share what they can do between projects.
    for (round, role, stream) in [(1, Role::Ingest, "EVENTS"), (2, Role::Dispatcher, "DELIVERIES")] {
        cluster.terminate(role).await.unwrap();
        let event_type = format!("round.{round}");
        let many = (0..BACKLOG).map(|n| (format!("crowded:{round}-{n}"), "crowded"));
        publish(&producer, &event_type, many.collect()).await;
        publish(&producer, &event_type, vec![(format!("{name}:{round}"), &name)]).await;
        held(&cluster, stream, BACKLOG as u64 + 1).await;
        if round == 1 {
            assert_eq!(
                shares_held(&cluster).await,
                2,
                "each project's events are in a share of their own"
            );
        }
        let before = crowd.count();
        cluster.restart(role).await.unwrap();
        eventually_within(Duration::from_secs(60), "the single event", || async {
            (single.count() == round).then_some(())
        })
        .await;
        let ahead = crowd.count() - before;
        assert!(
            ahead < BACKLOG / 2,
            "{ahead} of {BACKLOG} went ahead in front of {}",
            role.name()
        );
        eventually_within(Duration::from_secs(120), "the backlog delivered", || async {
            (crowd.count() == round * BACKLOG).then_some(())
        })
        .await;
    }
}

async fn publish(producer: &Producer, event_type: &str, events: Vec<(String, &str)>) {
    use futures::StreamExt as _;
    futures::stream::iter(events)
        .for_each_concurrent(128, async |(id, project)| {
            let subject = format!("events.{project}.{event_type}");
            producer.publish(&subject, &[("Nats-Msg-Id", &id)], "{}").await.unwrap();
        })
        .await;
}

/// How many shares of stream EVENTS have something in them.
async fn shares_held(cluster: &Cluster) -> usize {
    let jetstream = jetstream::new(async_nats::connect(cluster.nats.url()).await.unwrap());
    let stream = jetstream.get_stream("EVENTS").await.unwrap();
    let subjects: Vec<(String, usize)> = stream
        .info_with_subjects(">")
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    let shares: std::collections::HashSet<_> = subjects
        .iter()
        .filter_map(|(subject, _)| subject.split('.').nth(1))
        .collect();
    shares.len()
}
