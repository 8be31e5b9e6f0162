//! Servers, a database and a bus per test, and facts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser as _;
use common::bus::{Bus, ConfigBucket, Message};
use common::clock::{Clock, Manual};
use common::definitions::Definitions;
use common::health::Health;
use jiff::Timestamp;
use posthaste::local::{Folder, Nats, Postgres, nats, postgres};
use proto_schemas::definition;
use proto_schemas::event::Event;
use proto_schemas::id::{AttemptRef, EventKey, OrderKey, ProjectId, WebhookId};
use proto_schemas::ledger::{
    AttemptFinished, Deferral, DeliveryDeferred, ErrorClass, EventAccepted, EventRejected, Fact, Outcome,
};
use proto_schemas::stream::config_key::Key;
use retry_scheduler::Config;
use retry_scheduler::metrics::Metrics;
use retry_scheduler::partitions::Partitions;
use retry_scheduler::patience::Patience;
use retry_scheduler::record::Recorder;
use retry_scheduler::release::Releaser;
use retry_scheduler::rescue::Rescuer;
use retry_scheduler::wake::Wake;
use store::pending_deliveries::{self, DeliveryKey, Drain, Room};
use store::projects::Project;
use store::webhooks::Webhook;
use store::{Connection, Database, Store, attempts, log, projects, webhooks};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// When every test begins.
pub(crate) const START: Timestamp = Timestamp::constant(1_770_000_000, 0);
pub(crate) const RESCUE_AFTER: Duration = Duration::from_secs(300);
/// Room for everything there is.
pub(crate) const ROOM: Room = Room {
    per_webhook: 10_000,
    one_from: u32::MAX,
};
pub(crate) const PROJECT: ProjectId = ProjectId::from_uuid(Uuid::from_u128(0xa));

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    config: Config,
}

/// Settings, as a command line gives them.
pub(crate) fn config(nats_url: &str, database_url: &str) -> Config {
    let arguments = [
        "retry-scheduler",
        "--nats-url",
        nats_url,
        "--database-url",
        database_url,
    ];
    Arguments::parse_from(arguments).config
}

/// One server for all tests of this process; it ends with the process.
async fn postgres() -> &'static Postgres {
    static SERVER: OnceCell<(Folder, Postgres)> = OnceCell::const_new();
    let start = async || {
        let folder = Folder::temporary().unwrap();
        let server = Postgres::start(&folder.path().join("postgres"), &postgres::Options::default())
            .await
            .unwrap();
        (folder, server)
    };
    &SERVER.get_or_init(start).await.1
}

/// The URL of a database of the test's own, empty.
pub(crate) async fn database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    postgres().await.create_database(&name).await.unwrap()
}

/// A NATS of the test's own.
pub(crate) struct OwnNats {
    pub(crate) server: Nats,
    _folder: Folder,
}

impl OwnNats {
    pub(crate) async fn start() -> Self {
        let folder = Folder::temporary().unwrap();
        let server = Nats::start(&folder.path().join("nats"), &nats::Options::default())
            .await
            .unwrap();
        Self {
            server,
            _folder: folder,
        }
    }

    pub(crate) async fn bus(&self) -> Bus {
        Bus::connect(
            &config(&self.server.url(), "postgres:///").nats,
            "test",
            std::time::Duration::from_secs(30),
        )
        .await
        .unwrap()
    }
}

/// Postgres and the recorder, under a clock that stands still.
pub(crate) struct Ledger {
    pub(crate) store: Store,
    pub(crate) clock: Manual,
    pub(crate) wake: Wake,
    pub(crate) patience: Patience,
    pub(crate) recorder: Arc<Recorder>,
}

impl Ledger {
    pub(crate) async fn start() -> Self {
        Self::on(&database().await).await
    }

    pub(crate) async fn on(database_url: &str) -> Self {
        let config = config("nats://nowhere", database_url).postgres;
        let database = Database::connect(&config, "test", Duration::from_secs(10))
            .await
            .unwrap();
        database.migrate().await.unwrap();
        let store = database.of_all_projects();
        let clock = Manual::at(START);
        let wake = Wake::default();
        let patience = Patience {
            health: Health::new(),
            stop: CancellationToken::new(),
        };
        let recorder = Recorder {
            store: store.clone(),
            clock: Clock::from(clock.clone()),
            partitions: Arc::new(Partitions::new(store.clone())),
            wake: wake.clone(),
            patience: patience.clone(),
            metrics: Metrics::default(),
        };
        Self {
            store,
            clock,
            wake,
            patience,
            recorder: Arc::new(recorder),
        }
    }

    /// Of no webhook anything is known.
    pub(crate) fn releaser(&self, bus: &Bus, per_webhook: u32) -> Releaser {
        self.releaser_by(bus, per_webhook, Arc::default())
    }

    pub(crate) fn releaser_by(&self, bus: &Bus, per_webhook: u32, definitions: Arc<Definitions>) -> Releaser {
        Releaser {
            definitions,
            store: self.store.clone(),
            bus: bus.clone(),
            clock: Clock::from(self.clock.clone()),
            wake: self.wake.clone(),
            per_webhook,
            doubt_after: RESCUE_AFTER,
            patience: self.patience.clone(),
            metrics: Metrics::default(),
        }
    }

    pub(crate) fn rescuer(&self, bus: &Bus) -> Rescuer {
        Rescuer {
            store: self.store.clone(),
            bus: bus.clone(),
            clock: Clock::from(self.clock.clone()),
            wake: self.wake.clone(),
            doubt_after: RESCUE_AFTER,
            patience: self.patience.clone(),
            metrics: Metrics::default(),
        }
    }

    /// Makes the project, and a webhook of it.
    pub(crate) async fn create_webhook(&self, id: WebhookId) {
        let project = Project {
            id: PROJECT,
            name: "acme".into(),
            profile: "standard".into(),
            schema_check: None,
            alert_emails: Vec::new(),
            created_at: START,
        };
        let webhook = Webhook {
            name: "one".into(),
            url: "https://example.com/".into(),
            events: vec!["*".into()],
            ..Webhook::blank(id, PROJECT, START)
        };
        let mut connection = self.store.connection().await.unwrap();
        projects::insert(&mut connection, &project).await.unwrap();
        webhooks::insert(&mut connection, &webhook).await.unwrap();
    }

    /// Records facts as one batch.
    pub(crate) async fn record(&self, facts: &[Fact]) {
        let verdict = self.recorder.record(messages(facts)).await;
        assert_eq!(verdict, common::bus::Verdict::Done);
    }

    /// Notes a release as [`Releaser`] does, without a NATS. Gives back the attempt in its new release.
    pub(crate) async fn released(&self, attempt: AttemptRef) -> AttemptRef {
        let next = AttemptRef {
            release: attempt.release + 1,
            ..attempt
        };
        let mut connection = self.store.connection().await.unwrap();
        pending_deliveries::mark_released(&mut connection, &[next], START, START)
            .await
            .unwrap();
        next
    }

    /// Every pending delivery that is scheduled, released, parked or held: its state, attempt and release. Only of events on record.
    pub(crate) async fn pending(&self) -> BTreeMap<DeliveryKey, (&'static str, u32, u32)> {
        let mut transaction = self.store.begin().await.unwrap();
        let never = Timestamp::MAX;
        let scheduled = pending_deliveries::claim_scheduled(&mut transaction, never, 10_000)
            .await
            .unwrap();
        let released = pending_deliveries::doubtful(&mut transaction, never, 10_000)
            .await
            .unwrap();
        let parked = pending_deliveries::claim_parked(&mut transaction, never, ROOM, 10_000)
            .await
            .unwrap();
        let held = async |connection: &mut Connection| {
            let webhooks = pending_deliveries::webhooks_held(connection).await?;
            Ok(webhooks
                .into_iter()
                .map(|webhook| Drain { webhook, most: 10_000 })
                .collect())
        };
        let held = pending_deliveries::claim_held(&mut transaction, held, never, ROOM, 10_000)
            .await
            .unwrap();
        transaction.rollback().await.unwrap();
        let state = |state: &'static str, attempts: Vec<AttemptRef>| {
            attempts
                .into_iter()
                .map(move |attempt| (DeliveryKey::from(&attempt), (state, attempt.attempt, attempt.release)))
        };
        state("scheduled", scheduled)
            .chain(state("released", released))
            .chain(state("parked", parked))
            .chain(state("held", held.into_iter().map(|claimed| claimed.attempt).collect()))
            .collect()
    }

    /// How many pending deliveries are in `state`.
    pub(crate) async fn count(&self, state: &str) -> u64 {
        let mut connection = self.store.connection().await.unwrap();
        let counts = pending_deliveries::count(&mut connection).await.unwrap();
        counts
            .iter()
            .find(|count| count.state == state)
            .map_or(0, |count| count.deliveries)
    }

    /// The deliveries as the API tells them.
    pub(crate) async fn deliveries(&self) -> Vec<log::Delivery> {
        let mut connection = self.store.connection().await.unwrap();
        let filter = log::DeliveryFilter::default();
        log::deliveries(&mut connection, PROJECT, &filter, None, 10_000)
            .await
            .unwrap()
            .deliveries
    }

    /// What is on record of an attempt.
    pub(crate) async fn made(&self, attempt: AttemptRef) -> Option<attempts::Made> {
        let mut connection = self.store.connection().await.unwrap();
        attempts::made(&mut connection, &[(&attempt).into()])
            .await
            .unwrap()
            .pop()
    }
}

/// Facts as stream LEDGER hands them out.
pub(crate) fn messages(facts: &[Fact]) -> Vec<Message> {
    let numbered = facts.iter().zip(1..);
    numbered
        .map(|(fact, sequence)| message(proto_schemas::subject::LEDGER, fact.encode(), sequence))
        .collect()
}

pub(crate) fn message(subject: &str, payload: impl Into<Bytes>, sequence: u64) -> Message {
    Message {
        subject: subject.into(),
        headers: None,
        payload: payload.into(),
        sequence,
        stored_at: START,
        handed_out: 1,
    }
}

pub(crate) fn webhook(number: u128) -> WebhookId {
    WebhookId::from_uuid(Uuid::from_u128(number))
}

pub(crate) fn key(number: u64) -> EventKey {
    EventKey::of_message(START, number)
}

/// The first attempt, straight from ingest, to deliver event `number` to webhook `webhook`.
pub(crate) fn first(number: u64, webhook: WebhookId) -> AttemptRef {
    AttemptRef {
        event: key(number),
        project: PROJECT,
        webhook,
        run: 0,
        attempt: 1,
        release: 0,
        handed_out_before: 0,
    }
}

pub(crate) fn event(key: EventKey) -> Event {
    Event {
        key,
        id: key.derived_event_id(),
        project: PROJECT,
        event_type: "invoice.paid".into(),
        occurred_at: key.accepted_at(),
        accepted_at: key.accepted_at(),
        attributes: BTreeMap::from([("colour".into(), "grün".into())]),
        content_type: "application/json".into(),
        payload: Bytes::from_static(br#"{"amount": 3.0}"#),
        traceparent: String::new(),
    }
}

pub(crate) fn accepted(key: EventKey, owed: &[WebhookId]) -> Fact {
    Fact::EventAccepted(EventAccepted {
        event: event(key),
        owed: owed.to_vec(),
        skipped: Vec::new(),
        warnings: Vec::new(),
        held: Vec::new(),
        ordered: Vec::new(),
    })
}

/// An event owed to one webhook, which is paused and holds it.
pub(crate) fn accepted_held(key: EventKey, webhook: WebhookId) -> Fact {
    kept_back(key, webhook, true, None)
}

/// An event owed to one webhook, whose deliveries go out in order.
pub(crate) fn accepted_ordered(key: EventKey, webhook: WebhookId, by: OrderKey) -> Fact {
    kept_back(key, webhook, false, Some(by))
}

fn kept_back(key: EventKey, webhook: WebhookId, held: bool, by: Option<OrderKey>) -> Fact {
    match accepted(key, &[webhook]) {
        Fact::EventAccepted(fact) => Fact::EventAccepted(EventAccepted {
            held: held.then_some(webhook).into_iter().collect(),
            ordered: by.map(|by| (webhook, by)).into_iter().collect(),
            ..fact
        }),
        other => other,
    }
}

pub(crate) fn rejected(key: EventKey) -> Fact {
    Fact::EventRejected(EventRejected {
        key,
        project: Some(PROJECT),
        subject: "events.acme.x".into(),
        reason: "not_json".into(),
        detail: "the body is not JSON".into(),
        payload: Bytes::from_static(b"{"),
        payload_size: 1,
        received_at: START,
    })
}

pub(crate) fn delivered(attempt: AttemptRef) -> Fact {
    Fact::AttemptFinished(finished(attempt, Outcome::Delivered))
}

/// A 503; the ladder has three attempts, a minute apart.
pub(crate) fn failed(attempt: AttemptRef) -> Fact {
    Fact::AttemptFinished(finished(attempt, Outcome::Failed))
}

pub(crate) fn finished(attempt: AttemptRef, outcome: Outcome) -> AttemptFinished {
    let delivered = outcome == Outcome::Delivered;
    AttemptFinished {
        attempt,
        event_id: attempt.event.derived_event_id(),
        event_type: "invoice.paid".into(),
        webhook_revision: 1,
        started_at: START,
        duration: Duration::from_millis(20),
        outcome,
        status: Some(if delivered { 200 } else { 503 }),
        error_class: (!delivered).then_some(ErrorClass::Status),
        error: if delivered {
            String::new()
        } else {
            "503 Service Unavailable".into()
        },
        response_headers: vec![("content-type".into(), "text/plain".into())],
        response_body: Bytes::from_static(b"hello"),
        response_truncated: false,
        retry_after: None,
        request_sha256: Bytes::from_static(&[7; 32]),
        handed_out: 1,
        ladder: vec![Duration::ZERO, Duration::from_secs(60), Duration::from_secs(60)],
        fail_after: None,
        trial: None,
        exchange: proto_schemas::ledger::Exchange::default(),
    }
}

pub(crate) fn deferred(attempt: AttemptRef) -> Fact {
    not_made(attempt, Deferral::Park, "the lane is full")
}

pub(crate) fn held(attempt: AttemptRef) -> Fact {
    not_made(attempt, Deferral::Hold, "the webhook is paused")
}

pub(crate) fn cancelled(attempt: AttemptRef) -> Fact {
    not_made(attempt, Deferral::Cancel, "the webhook was deleted")
}

fn not_made(attempt: AttemptRef, kind: Deferral, reason: &str) -> Fact {
    Fact::DeliveryDeferred(DeliveryDeferred {
        attempt,
        reason: reason.into(),
        retry_in: Duration::from_secs(2),
        deferred_at: START,
        kind,
    })
}

/// The definition of a webhook of the project.
pub(crate) fn definition(webhook: WebhookId) -> definition::Webhook {
    definition::Webhook {
        name: webhook.to_string(),
        project_name: "acme".into(),
        url: "https://example.com/".into(),
        ..definition::Webhook::blank(webhook, PROJECT)
    }
}

/// Definitions as a service has them in memory, and the bucket they come from.
pub(crate) struct Defined {
    pub(crate) definitions: Arc<Definitions>,
    bucket: ConfigBucket,
    stop: CancellationToken,
}

impl Defined {
    pub(crate) async fn over(bus: &Bus) -> Self {
        let stop = CancellationToken::new();
        let bucket = bus.config_bucket().await.unwrap();
        bucket.put(&Key::Filled, b"1".to_vec()).await.unwrap();
        let definitions = Definitions::watch(bus, &Health::new(), &stop).await.unwrap();
        Self {
            definitions,
            bucket,
            stop,
        }
    }

    /// Puts a definition in force.
    pub(crate) async fn put(&self, webhook: &definition::Webhook) {
        let mut changes = self.definitions.changes();
        let key = Key::Webhook(webhook.project, webhook.id);
        self.bucket.put(&key, webhook.encode()).await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), changes.changed())
            .await
            .expect("the definition arrives")
            .unwrap();
    }
}

impl Drop for Defined {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
