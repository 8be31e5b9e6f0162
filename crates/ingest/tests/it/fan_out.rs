//! What comes of messages that no producer should send: a fact each, whatever is in them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use bytes::Bytes;
use common::bus::{Bus, Message, Options, Verdict};
use common::definitions::Definitions;
use common::health::Health;
use ingest::fan_out::FanOut;
use jiff::Timestamp;
use posthaste::local::{Folder, Nats};
use proto_schemas::definition::{Ordering, Project, SchemaCheck, Webhook};
use proto_schemas::id::WebhookId;
use proto_schemas::ledger::{EventRejected, Fact, REJECTED_PAYLOAD_MAX};
use proto_schemas::stream::config_key::Key;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{PROJECT, own_nats};

/// A NATS, and the stage over it with no bound of its own on an event's size.
struct World {
    fan_out: FanOut,
    bus: Bus,
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
        Self::with(webhooks, Ordering::Webhook).await
    }

    async fn with(webhooks: u128, ordering: Ordering) -> Self {
        let (folder, nats, bus) = own_nats().await;
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
                ordering: ordering.clone(),
                ..Webhook::blank(id, PROJECT)
            };
            bucket.put(&Key::Webhook(PROJECT, id), webhook.encode()).await.unwrap();
        }
        bucket.put(&Key::Filled, b"1".to_vec()).await.unwrap();
        let stop = CancellationToken::new();
        let definitions = Definitions::watch(&bus, &Health::new(), &stop).await.unwrap();
        Self {
            max_payload: bus.max_payload(),
            fan_out: FanOut::new(bus.clone(), Arc::clone(&definitions), usize::MAX),
            bus,
            jetstream: jetstream::new(async_nats::connect(nats.url()).await.unwrap()),
            sequence: 0,
            stop,
            _nats: nats,
            _folder: folder,
        }
    }

    fn message(&mut self, headers: &[(&str, &str)], payload: impl Into<Bytes>, handed_out: u32) -> Message {
        self.sequence += 1;
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.insert(*name, *value));
        Message {
            subject: "events.acme.order.paid".into(),
            headers: Some(map),
            payload: payload.into(),
            sequence: self.sequence,
            stored_at: Timestamp::UNIX_EPOCH,
            handed_out,
        }
    }

    /// Changes what a stream was made with.
    async fn alter(&self, stream: &str, change: impl FnOnce(&mut jetstream::stream::Config)) {
        let mut config = (self.jetstream.get_stream(stream).await.unwrap().cached_info().config).clone();
        change(&mut config);
        self.jetstream.update_stream(config).await.unwrap();
    }

    async fn stored_in(&self, stream: &str) -> u64 {
        let stream = self.jetstream.get_stream(stream).await.unwrap();
        stream.cached_info().state.last_sequence
    }

    /// What a message comes to.
    async fn work(&mut self, headers: &[(&str, &str)], payload: impl Into<Bytes>, handed_out: u32) -> Fact {
        let message = self.message(headers, payload, handed_out);
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
    assert_eq!(world.stored_in("DELIVERIES").await, 0, "nothing of it was sent");
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

#[tokio::test]
async fn for_however_long_the_ledger_refuses_no_duty_is_stored_twice() {
    let mut world = World::with(3, Ordering::None).await;
    world.work(&[], "1", 1).await;
    assert_eq!(world.stored_in("DELIVERIES").await, 3);
    // Full; and what JetStream knows of duties it has stored is soon forgotten.
    world.alter("LEDGER", |it| it.max_messages = 1).await;
    world
        .alter("DELIVERIES", |it| it.duplicate_window = Duration::from_millis(100))
        .await;
    let message = world.message(&[], "2", 1);
    let mut working = std::pin::pin!(world.fan_out.work(message, &world.stop));
    let meanwhile = tokio::time::timeout(Duration::from_secs(3), &mut working).await;
    assert!(meanwhile.is_err(), "it is tried again and again");
    world.alter("LEDGER", |it| it.max_messages = -1).await;
    let worked = tokio::time::timeout(Duration::from_secs(20), working).await;
    assert_eq!(worked.unwrap(), Verdict::Done);
    assert_eq!(
        (world.stored_in("DELIVERIES").await, world.stored_in("LEDGER").await),
        (6, 2)
    );
}

#[tokio::test]
async fn an_event_for_more_webhooks_than_can_be_served_at_once_goes_to_all() {
    let mut world = World::with(30, Ordering::None).await;
    // Six of them at once.
    world.work(&[], text(600 * 1024), 1).await;
    assert_eq!(world.stored_in("DELIVERIES").await, 30);
}

#[tokio::test]
async fn what_is_held_of_large_messages_has_a_bound_in_bytes() {
    const EVENTS: usize = 60;
    let world = World::new(0).await;
    for _ in 0..EVENTS {
        let subject = "events.acme.order.paid";
        let stored = world.bus.publish(subject, HeaderMap::new(), text(500 * 1024)).await;
        stored.unwrap().stored().await.unwrap();
    }
    let (handed_out, mut seen) = tokio::sync::watch::channel(0);
    let (go, _) = tokio::sync::watch::channel(false);
    let (bus, stop, going) = (world.bus.clone(), world.stop.clone(), go.clone());
    let working = tokio::spawn(async move {
        let options = Options {
            max_held: 64,
            drain: Duration::from_secs(5),
        };
        bus.work_off(proto_schemas::stream::EVENTS, options, stop, move |_| {
            handed_out.send_modify(|count| *count += 1);
            let mut go = going.subscribe();
            async move {
                go.wait_for(|go| *go).await.unwrap();
                Verdict::Done
            }
        })
        .await
    });
    tokio::time::timeout(Duration::from_secs(20), seen.wait_for(|count| *count > 2))
        .await
        .unwrap()
        .unwrap();
    // 80 places of 16 KiB, and two requests that may overshoot by a message or two.
    let more = tokio::time::timeout(Duration::from_secs(3), seen.wait_for(|count| *count > 10));
    let is_bound = more.await.is_err();
    assert!(is_bound, "{} of 500 KiB are held", *seen.borrow());
    go.send_replace(true);
    tokio::time::timeout(Duration::from_secs(30), seen.wait_for(|count| *count == EVENTS))
        .await
        .expect("it goes on")
        .unwrap();
    world.stop.cancel();
    working.await.unwrap().unwrap();
}
