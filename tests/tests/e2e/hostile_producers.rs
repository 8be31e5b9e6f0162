//! What a producer on NATS may send to be in others' way: it is set aside, and they are not kept waiting.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use posthaste_tests::{Cluster, Producer, Receiver, Setup, eventually, eventually_within};
use serde_json::{Value, json};

/// Of each kind, and far more than ingest holds at once here.
const EACH: usize = 60;

/// ingest holds 16 and what each share has of its own: those of one kind are more than a share ever gets.
async fn cluster() -> Cluster {
    Cluster::start_with(Setup {
        env: vec![("POSTHASTE_INGEST_MAX_HELD", "16".to_owned())],
        ..Setup::default()
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn nothing_a_producer_sends_makes_a_message_that_is_repeated_for_ever() {
    let cluster = cluster().await;
    let (api, receiver) = (&cluster.admin, Receiver::start().await);
    for project in ["acme", "other"] {
        api.create_project(project).await.unwrap();
        cluster
            .create_webhook(project, "all", &receiver.url, json!({}))
            .await
            .unwrap();
    }
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    // What JetStream takes, with headers of 64 KiB at most. What serde says of a text has six bytes for each that it does not
    // print: the last of these would be a rejection that is larger than a message of NATS.
    let media_type = format!("text/{}", "x".repeat(60_000));
    let quoted = |bytes: usize| format!("\"{}\"", "\u{7f}".repeat(bytes));
    let (body, attributes, cloud_event) = ("x".repeat(256 * 1024), quoted(60_000), quoted(200_000));
    let kinds: [(&[(&str, &str)], &str); 3] = [
        (&[("Content-Type", &media_type)], &body),
        (&[("Posthaste-Attributes", &attributes)], "1"),
        (&[("Content-Type", "application/cloudevents+json")], &cloud_event),
    ];
    let hostile = kinds.iter().flat_map(|kind| [kind; EACH]);
    futures::stream::iter(hostile)
        .for_each_concurrent(8, |(headers, body)| {
            let producer = &producer;
            async move { producer.publish("events.acme.hostile", headers, body).await.unwrap() }
        })
        .await;
    // Of others, and of the same project: behind all of it.
    let begun = Instant::now();
    for project in ["other", "acme"] {
        let subject = format!("events.{project}.good");
        producer
            .publish(&subject, &[("Posthaste-Id", project)], "1")
            .await
            .unwrap();
        eventually("the good event", || async {
            let received = receiver.received();
            received.iter().any(|it| it.event_id() == project).then_some(())
        })
        .await;
    }
    let waited = begun.elapsed();
    assert!(waited < Duration::from_secs(20), "{waited:?}");

    let rejected = eventually_within(Duration::from_secs(60), "every rejection on record", || async {
        let all = api.list("/v1/projects/acme/rejected-events").await.ok()?;
        (all.len() >= 3 * EACH).then_some(all)
    })
    .await;
    let of = |reason: &str| {
        rejected
            .iter()
            .filter(|it| it["reason"] == reason)
            .collect::<Vec<&Value>>()
    };
    for reason in ["content_type", "attributes", "malformed_cloudevent"] {
        let found = of(reason);
        assert_eq!(found.len(), EACH, "{reason}");
        for it in found {
            let detail = it["detail"].as_str().unwrap();
            assert!(!detail.is_empty() && detail.len() <= 4096, "{} bytes", detail.len());
        }
    }
    assert_eq!(receiver.count(), 2);
}
