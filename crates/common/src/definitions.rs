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

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proto_schemas::definition::{Project, SchemaCheck, Token, Webhook};
use proto_schemas::event::Event;
use proto_schemas::id::{OrderKey, ProjectId, WebhookId};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::bus::{self, Bus};
use crate::health::Health;
use crate::model::{Filter, Pattern, filter};
use crate::render::Expressions;

mod compiled;
mod event_types;
mod order;
mod watcher;

use self::compiled::Compiled;
pub use self::event_types::{EventType, Version};
use self::order::Order;
pub use self::order::check_key;
use self::watcher::Watcher;

/// The readiness condition kept here.
const READY: &str = "definitions";

/// How long changes may be missed until that counts against readiness. A leader of the bucket is chosen anew in less.
pub const STALE_AFTER: Duration = Duration::from_secs(30);

/// Every definition there is. Reading takes no lock, but for schemas that are compiled.
#[derive(Debug, Default)]
pub struct Definitions {
    projects: papaya::HashMap<ProjectId, Arc<Project>>,
    /// By name and by id as text: what a path or subject may hold.
    project_ids: papaya::HashMap<String, ProjectId>,
    tokens: papaya::HashMap<String, Arc<Token>>,
    webhooks: papaya::HashMap<WebhookId, Arc<Webhook>>,
    subscribers: papaya::HashMap<ProjectId, Arc<[Arc<Subscriber>]>>,
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
        let watcher = Watcher::new(&definitions, health, loaded);
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
    pub fn subscribers(&self, project: ProjectId) -> Arc<[Arc<Subscriber>]> {
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
