//! What comes of messages that no producer should send: a fact each, whatever is in them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use bytes::Bytes;
use clap::Parser as _;
use common::bus::{self, Bus, Message, Verdict};
use common::definitions::Definitions;
use common::health::Health;
use ingest::fan_out::FanOut;
use jiff::Timestamp;
use posthaste::local::{Folder, Nats, nats};
use proto_schemas::definition::{Ordering, Project, SchemaCheck, Webhook};
use proto_schemas::id::{ProjectId, WebhookId};
use proto_schemas::ledger::{EventRejected, Fact, REJECTED_PAYLOAD_MAX};
use proto_schemas::stream::config_key::Key;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PROJECT: ProjectId = ProjectId::from_uuid(Uuid::from_u128(1));

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    nats: bus::Config,
}

/// A NATS, and the stage over it with no bound of its own on an event's size.
struct World {
    fan_out: FanOut,
    jetstream: jetstream::Context,
    max_payload: usize,
    sequence: u64,
    stop: CancellationToken,
    _nats: Nats,
    _folder: Folder,
}

impl World {
    /// With as many webhooks that get everything in order.
    async fn new(webhooks: u128) -> Self {
        let folder = Folder::temporary().unwrap();
        let nats = Nats::start(&folder.path().join("nats"), &nats::Options::default())
            .await
            .unwrap();
        let arguments = Arguments::parse_from(["test", "--nats-url", &nats.url()]);
        let bus = Bus::connect(&arguments.nats, "ingest", Duration::from_secs(30))
            .await
            .unwrap();
        let bucket = bus.config_bucket().await.unwrap();
        let project = Project {
            id: PROJECT,
            name: "acme".into(),
            deleted: false,
            schema_check: SchemaCheck::Off,
            catalogue: None,
            event_attributes: Vec::new(),
        };
        bucket.put(&Key::Project(PROJECT), project.encode()).await.unwrap();
        for number in 0..webhooks {
            let id = WebhookId::from_uuid(Uuid::from_u128(number));
            let webhook = Webhook {
                events: vec!["*".into()],
                ordering: Ordering::Webhook,
                ..Webhook::blank(id, PROJECT)
            };
            bucket.put(&Key::Webhook(PROJECT, id), webhook.encode()).await.unwrap();
        }
        bucket.put(&Key::Filled, b"1".to_vec()).await.unwrap();
        let stop = CancellationToken::new();
        let definitions = Definitions::watch(&bus, &Health::new(), &stop).await.unwrap();
        Self {
            max_payload: bus.max_payload(),
            fan_out: FanOut::new(bus, Arc::clone(&definitions), usize::MAX),
            jetstream: jetstream::new(async_nats::connect(nats.url()).await.unwrap()),
            sequence: 0,
            stop,
            _nats: nats,
            _folder: folder,
        }
    }

    /// What a message comes to.
    async fn work(&mut self, headers: &[(&str, &str)], payload: impl Into<Bytes>, handed_out: u32) -> Fact {
        self.sequence += 1;
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.insert(*name, *value));
        let message = Message {
            subject: "events.acme.order.paid".into(),
            headers: Some(map),
            payload: payload.into(),
            sequence: self.sequence,
            stored_at: Timestamp::UNIX_EPOCH,
            handed_out,
        };
        let working = self.fan_out.work(message, &self.stop);
        let worked = tokio::time::timeout(Duration::from_secs(20), working).await;
        assert_eq!(worked.expect("it is not repeated for ever"), Verdict::Done);
        let ledger = self.jetstream.get_stream("LEDGER").await.unwrap();
        let last = ledger.cached_info().state.last_sequence;
        let entry = ledger.get_raw_message(last).await.unwrap();
        let mut facts = Fact::decode_all(entry.payload).unwrap();
        facts.pop().unwrap().unwrap()
    }

    async fn rejected(
        &mut self,
        headers: &[(&str, &str)],
        payload: impl Into<Bytes>,
        handed_out: u32,
    ) -> EventRejected {
        match self.work(headers, payload, handed_out).await {
            Fact::EventRejected(rejected) => rejected,
            other => panic!("{other:?}"),
        }
    }
}

fn text(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

#[tokio::test]
async fn what_would_make_a_message_that_nats_does_not_take_is_set_aside_before_any_of_it_is_sent() {
    let mut world = World::new(3).await;
    let max = world.max_payload;
    // With its envelope and its webhooks it is larger than a message; a duty alone would be, too.
    for bytes in [max, max - 100] {
        let rejected = world.rejected(&[], text(bytes), 1).await;
        assert_eq!(rejected.reason, "too_large");
        assert!(
            rejected.detail.contains("max_payload") && rejected.detail.contains("3 webhooks"),
            "{}",
            rejected.detail
        );
        assert_eq!(rejected.payload_size, bytes as u64);
    }
    let deliveries = world.jetstream.get_stream("DELIVERIES").await.unwrap();
    assert_eq!(
        deliveries.cached_info().state.last_sequence,
        0,
        "nothing of it was sent"
    );
    // And one that fits by a little is an event.
    let fact = world.work(&[], text(max - 1024), 1).await;
    assert!(matches!(fact, Fact::EventAccepted(accepted) if accepted.ordered.len() == 3));
}

#[tokio::test]
async fn what_is_kept_of_a_rejected_message_is_bounded() {
    let mut world = World::new(0).await;
    let huge = format!("{{{}", "x".repeat(900 * 1024));
    let rejected = world.rejected(&[], huge.clone(), 1).await;
    assert_eq!(
        (rejected.payload.len(), rejected.payload_size),
        (REJECTED_PAYLOAD_MAX, huge.len() as u64)
    );
    let quoted = format!("\"{}\"", "\u{7f}".repeat(180_000));
    for (headers, body) in [
        (vec![("Posthaste-Attributes", quoted.as_str())], "1"),
        (vec![("Content-Type", "application/cloudevents+json")], quoted.as_str()),
    ] {
        let rejected = world.rejected(&headers, body.to_owned(), 1).await;
        assert!(rejected.detail.len() <= 4096, "{} bytes", rejected.detail.len());
    }
}

#[tokio::test]
async fn a_message_that_ended_its_process_again_and_again_is_set_aside() {
    let mut world = World::new(0).await;
    assert!(matches!(world.work(&[], "1", 20).await, Fact::EventAccepted(_)));
    let rejected = world.rejected(&[], "1", 21).await;
    assert_eq!(rejected.reason, "poison");
    assert!(rejected.detail.contains("21 times"), "{}", rejected.detail);
}
