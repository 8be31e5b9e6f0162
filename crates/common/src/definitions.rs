//! What a data-plane service knows: every project, token, webhook and event type, in memory, kept true by a watch on the
//! CONFIG bucket.
//!
//! ingest, dispatcher and retry-scheduler read this and never Postgres. A change arrives as config-api publishes it, within
//! milliseconds. Nobody begins to work by a bucket that config-api has not filled: what is not there yet would be taken for
//! what there is not.
//!
//! While NATS is away the last state stands, and it stands as well where only the bucket is: what is owed goes on being
//! delivered. But then a revoked token is still good, and a change is not in force, so that is said: in the log, in a metric
//! and, after [`STALE_AFTER`], in the readiness.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use opentelemetry::metrics::Gauge;
use proto_schemas::DecodeError;
use proto_schemas::definition::{self, Project, SchemaCheck, Token, Webhook};
use proto_schemas::event::Event;
use proto_schemas::id::{OrderKey, ProjectId, WebhookId};
use proto_schemas::stream::config_key::Key;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bus::bucket::Entry;
use crate::bus::{self, Bus, ConfigBucket};
use crate::health::Health;
use crate::model::{Filter, Pattern, filter};
use crate::render::Expressions;

mod compiled;
mod event_types;
mod order;

use self::compiled::Compiled;
pub use self::event_types::{EventType, Version};
use self::order::Order;
pub use self::order::check_key;

/// The readiness condition kept here.
const READY: &str = "definitions";

/// How long changes may be missed until that counts against readiness. A leader of the bucket is chosen anew in less.
pub const STALE_AFTER: Duration = Duration::from_secs(30);

/// How long to wait before the watch is begun again.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Every definition there is. Reading takes no lock, but for schemas that are compiled.
#[derive(Debug, Default)]
pub struct Definitions {
    projects: papaya::HashMap<ProjectId, Arc<Project>>,
    /// By name and by id as text: what a path or subject may hold.
    project_ids: papaya::HashMap<String, ProjectId>,
    tokens: papaya::HashMap<String, Arc<Token>>,
    webhooks: papaya::HashMap<WebhookId, Arc<Webhook>>,
    subscribers: papaya::HashMap<ProjectId, Arc<[Subscriber]>>,
    event_attributes: papaya::HashMap<ProjectId, Arc<Expressions>>,
    own_types: papaya::HashMap<ProjectId, Arc<EventTypes>>,
    catalogues: papaya::HashMap<String, Arc<EventTypes>>,
    compiled: Arc<Compiled>,
    /// Counts the changes of webhooks.
    changes: watch::Sender<u64>,
}

type EventTypes = HashMap<String, Arc<EventType>>;

/// A webhook and what its events are matched by.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// The webhook.
    pub webhook: Arc<Webhook>,
    patterns: Vec<Pattern>,
    /// An error for one this release cannot read, which no event passes; config-api lets none through.
    filter: Option<Result<Filter, filter::Error>>,
    order: Order,
}

impl Subscriber {
    /// The webhook, with what its events are matched by compiled.
    #[must_use]
    pub fn of(webhook: &Arc<Webhook>) -> Self {
        // A pattern this release cannot read matches nothing; config-api lets none through.
        let patterns = webhook
            .events
            .iter()
            .filter_map(|text| Pattern::parse(text).ok())
            .collect();
        Self {
            webhook: Arc::clone(webhook),
            patterns,
            filter: webhook.filter.as_deref().map(Filter::parse),
            order: Order::of(&webhook.ordering),
        }
    }

    /// What its delivery of this event is kept in order by; `None`: nothing. `data` is the payload as JSON, asked for
    /// only where the order is by something in it.
    pub fn order_key<'a>(
        &self,
        event: &Event,
        data: impl FnOnce() -> Option<&'a serde_json::Value>,
    ) -> Option<OrderKey> {
        self.order.key(event, &self.webhook.project_name, data)
    }

    /// Whether the webhook wants events of this type.
    #[must_use]
    pub fn wants(&self, event_type: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(event_type))
    }

    /// Whether the webhook wants this event of a type that it wants: by its attributes, then by its filter. `subject` is
    /// asked for only where there is a filter.
    pub fn accepts<'a>(&self, event: &Event, subject: impl FnOnce() -> &'a filter::Subject) -> bool {
        self.finds_attributes(event) && self.passes(subject)
    }

    /// Whether the event has the attributes that the webhook wants.
    #[must_use]
    pub fn finds_attributes(&self, event: &Event) -> bool {
        let mut wanted = self.webhook.attributes.iter();
        wanted.all(|(name, value)| event.attributes.get(name) == Some(value))
    }

    /// Whether an event passes the webhook's filter, if it has one.
    pub fn passes<'a>(&self, subject: impl FnOnce() -> &'a filter::Subject) -> bool {
        match &self.filter {
            None => true,
            Some(Ok(filter)) => filter.matches(subject()),
            Some(Err(_)) => false,
        }
    }
}

impl Definitions {
    /// Loads what is in the bucket, then keeps watching it until `stop`. Returns once config-api has filled it and everything
    /// that was there has been read; the readiness condition `definitions` says how far that is, and, later, whether
    /// changes are missed.
    ///
    /// # Errors
    /// [`bus::Error`] where the bucket cannot be opened, or `stop` came first.
    pub async fn watch(bus: &Bus, health: &Health, stop: &CancellationToken) -> Result<Arc<Self>, bus::Error> {
        health.set(READY, Err("still being read from NATS".to_owned()));
        let bucket = bus.config_bucket().await?;
        let definitions = Arc::new(Self::default());
        let (loaded, ready) = oneshot::channel();
        let meter = opentelemetry::global::meter("posthaste");
        let watcher = Watcher {
            definitions: Arc::clone(&definitions),
            by_project: BTreeMap::new(),
            types: BTreeMap::new(),
            is_filled: false,
            loaded: Some(loaded),
            health: health.clone(),
            missing: None,
            revision: meter
                .u64_gauge("posthaste_definitions_revision")
                .with_description("Revision of the CONFIG bucket up to which definitions are in force here")
                .build(),
            stale: meter
                .f64_gauge("posthaste_definitions_stale_seconds")
                .with_description(
                    "For how long changes of definitions have not been heard of, NATS being there; 0: they are",
                )
                .build(),
        };
        tokio::spawn(watcher.run(bucket, stop.clone()));
        tokio::select! {
            _ = ready => Ok(definitions),
            () = stop.cancelled() => Err(bus::Error::Disconnected),
        }
    }

    /// The project that a path or subject names, by name or id.
    #[must_use]
    pub fn project(&self, name_or_id: &str) -> Option<Arc<Project>> {
        let id = *self.project_ids.pin().get(name_or_id)?;
        self.projects.pin().get(&id).filter(|project| !project.deleted).cloned()
    }

    /// What a project's events get as attributes that their producers did not give; `None` where there is nothing.
    #[must_use]
    pub fn event_attributes(&self, project: ProjectId) -> Option<Arc<Expressions>> {
        self.event_attributes.pin().get(&project).cloned()
    }

    /// The token with this SHA-256, in lower-case hexadecimal; expiry and revocation are the caller's to check.
    #[must_use]
    pub fn token(&self, hash: &str) -> Option<Arc<Token>> {
        self.tokens.pin().get(hash).cloned()
    }

    /// A webhook, deleted ones included.
    #[must_use]
    pub fn webhook(&self, id: WebhookId) -> Option<Arc<Webhook>> {
        self.webhooks.pin().get(&id).cloned()
    }

    /// Tells of every webhook that is changed from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The webhooks of a project, deleted ones left out.
    #[must_use]
    pub fn subscribers(&self, project: ProjectId) -> Arc<[Subscriber]> {
        self.subscribers.pin().get(&project).cloned().unwrap_or_default()
    }

    /// What events of this type are checked by, if the project has them checked: its own type, or else its catalogue's.
    #[must_use]
    pub fn event_type(&self, project: &Project, name: &str) -> Option<Arc<EventType>> {
        if project.schema_check == SchemaCheck::Off {
            return None;
        }
        let own = self.own_types.pin();
        if let Some(found) = own.get(&project.id).and_then(|types| types.get(name)) {
            return Some(Arc::clone(found));
        }
        let catalogues = self.catalogues.pin();
        let types = catalogues.get(project.catalogue.as_ref()?)?;
        types.get(name).cloned()
    }
}

/// Whose event types.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Project(ProjectId),
    Catalogue(String),
}

impl Definitions {
    fn attributes_from(&self, id: ProjectId, project: &Project) {
        let compiled = self.event_attributes.pin();
        if project.event_attributes.is_empty() {
            compiled.remove(&id);
            return;
        }
        match Expressions::compile(&project.event_attributes) {
            Ok(expressions) => drop(compiled.insert(id, Arc::new(expressions)).is_some()),
            // The earlier ones stand, as does an earlier definition that cannot be read.
            Err((name, fault)) => tracing::error!(
                project = %project.name, attribute = name, reason = fault.reason,
                "an attribute of the project's events cannot be worked out"
            ),
        }
    }
}

/// The one writer of a [`Definitions`].
struct Watcher {
    definitions: Arc<Definitions>,
    by_project: BTreeMap<ProjectId, BTreeMap<WebhookId, Subscriber>>,
    types: BTreeMap<Owner, EventTypes>,
    /// Whether config-api has filled the bucket.
    is_filled: bool,
    /// Told once everything has been read; until then, the lists per project are not built.
    loaded: Option<oneshot::Sender<()>>,
    health: Health,
    /// Set while changes are missed.
    missing: Option<Missing>,
    /// How far the bucket's changes are in force here; behind what the bucket says, this process is out of date.
    revision: Gauge<u64>,
    stale: Gauge<f64>,
}

/// Changes are missed.
struct Missing {
    since: Instant,
    /// Whether it was too long, and said.
    is_told: bool,
}

impl Watcher {
    /// What is known stays known, even while there is no bucket at all: one that was deleted comes back, made anew by
    /// config-api, and is read from its beginning.
    async fn run(mut self, bucket: ConfigBucket, stop: CancellationToken) {
        self.stale.record(0.0, &[]);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.follow(&bucket) => self.missed(outcome),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN_AFTER) => {}
            }
        }
    }

    async fn follow(&mut self, bucket: &ConfigBucket) -> Result<(), bus::Error> {
        let mut entries = std::pin::pin!(bucket.watch().await?);
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            let (caught_up, revision) = (entry.caught_up, entry.revision);
            if let Err(error) = self.apply(entry) {
                tracing::error!(%error, "a definition cannot be read; the earlier one stands");
            }
            self.revision.record(revision, &[]);
            if caught_up {
                self.caught_up();
            }
        }
        Ok(())
    }

    /// The watch is over, which it should not be.
    fn missed(&mut self, outcome: Result<(), bus::Error>) {
        let missing = self.missing.get_or_insert_with(|| {
            if let Err(error) = outcome {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the watch on definitions broke; starting it again"
                );
            }
            Missing {
                since: Instant::now(),
                is_told: false,
            }
        });
        let stale = missing.since.elapsed();
        self.stale.record(stale.as_secs_f64(), &[]);
        if self.loaded.is_some() || stale < STALE_AFTER {
            return;
        }
        if !std::mem::replace(&mut missing.is_told, true) {
            tracing::error!(
                "NO CHANGE OF DEFINITIONS IS HEARD OF: revoked tokens are still good here, and webhooks are as they were; \
                 look at the bucket CONFIG and at config-api"
            );
        }
        let reason = "changes are not heard of: the bucket CONFIG is not there, or cannot be watched";
        self.health.set(READY, Err(reason.to_owned()));
    }

    fn apply(&mut self, entry: Entry) -> Result<(), DecodeError> {
        // An empty value is a deleted key: somebody's hand, since definitions are never deleted. It repairs itself when
        // config-api publishes the next time.
        let (Some(key), false) = (entry.key, entry.value.is_empty()) else {
            return Ok(());
        };
        match key {
            Key::Project(id) => {
                let project = Arc::new(Project::decode(entry.value)?);
                let ids = self.definitions.project_ids.pin();
                ids.insert(project.name.clone(), id);
                ids.insert(id.to_string(), id);
                self.definitions.attributes_from(id, &project);
                self.definitions.projects.pin().insert(id, project);
            }
            Key::Token(hash) => {
                self.definitions
                    .tokens
                    .pin()
                    .insert(hash, Arc::new(Token::decode(entry.value)?));
            }
            Key::Webhook(project, id) => {
                let webhook = Arc::new(Webhook::decode(entry.value)?);
                let webhooks = self.by_project.entry(project).or_default();
                match webhook.deleted {
                    true => drop(webhooks.remove(&id)),
                    false => drop(webhooks.insert(id, Subscriber::of(&webhook))),
                }
                self.definitions.webhooks.pin().insert(id, webhook);
                if self.loaded.is_none() {
                    self.list(project);
                }
                self.definitions.changes.send_modify(|changes| *changes += 1);
            }
            Key::EventType(project, _) => self.apply_type(Owner::Project(project), entry.value)?,
            Key::CatalogueType(catalogue, _) => self.apply_type(Owner::Catalogue(catalogue), entry.value)?,
            Key::Filled => self.is_filled = true,
        }
        Ok(())
    }

    fn apply_type(&mut self, owner: Owner, value: Bytes) -> Result<(), DecodeError> {
        let event_type = definition::EventType::decode(value)?;
        let types = self.types.entry(owner.clone()).or_default();
        match event_type.deleted {
            true => drop(types.remove(&event_type.name)),
            false => {
                let compiled = &self.definitions.compiled;
                types.insert(
                    event_type.name.clone(),
                    Arc::new(EventType::among(&event_type, compiled)),
                );
            }
        }
        if self.loaded.is_none() {
            self.list_types(&owner);
        }
        Ok(())
    }

    fn list_types(&self, owner: &Owner) {
        let types = Arc::new(self.types.get(owner).cloned().unwrap_or_default());
        match owner {
            Owner::Project(project) => drop(self.definitions.own_types.pin().insert(*project, types)),
            Owner::Catalogue(name) => drop(self.definitions.catalogues.pin().insert(name.clone(), types)),
        }
    }

    fn list(&self, project: ProjectId) {
        if let Some(webhooks) = self.by_project.get(&project) {
            self.definitions
                .subscribers
                .pin()
                .insert(project, webhooks.values().cloned().collect());
        }
    }

    /// Everything that is in the bucket has been read.
    fn caught_up(&mut self) {
        if self.missing.take().is_some() {
            tracing::info!("definitions are watched again");
            self.stale.record(0.0, &[]);
        }
        if !self.is_filled {
            let reason = "config-api has not put all of them into NATS yet";
            return self.health.set(READY, Err(reason.to_owned()));
        }
        self.health.set(READY, Ok(()));
        let Some(loaded) = self.loaded.take() else { return };
        for project in self.by_project.keys() {
            self.list(*project);
        }
        for owner in self.types.keys() {
            self.list_types(owner);
        }
        let _ = loaded.send(());
    }
}
