//! The one writer of [`Definitions`]: a watch on the CONFIG bucket, begun again whenever it broke or the connection was away.
//!
//! Each watch begins with everything that is in the bucket. What was known and is not there any more is forgotten, once
//! config-api has said that everything is there. A bucket that is not the one that was known, or is an older state of it, is
//! read only when config-api has filled it since: until then, what is known here is nearer to the truth.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use jiff::Timestamp;
use opentelemetry::metrics::Gauge;
use proto_schemas::DecodeError;
use proto_schemas::definition::{self, Project, Token, Webhook};
use proto_schemas::id::{ProjectId, WebhookId};
use proto_schemas::stream::config_key::Key;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Definitions, EventType, EventTypes, READY, STALE_AFTER, Subscriber};
use crate::bus::bucket::{Entry, Found};
use crate::bus::{self, ConfigBucket};
use crate::health::Health;
use crate::render::Expressions;

/// How long to wait before the watch is begun again.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// How often to look for how long changes have been missed.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long to wait for another change before the lists are made anew: of many at once they are made once.
const LISTED_WITHIN: Duration = Duration::from_millis(10);

/// Whose event types.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Project(ProjectId),
    Catalogue(String),
}

/// Why the bucket is not watched.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// It tells less than what is known here.
    #[error("the bucket CONFIG is another one, or an older state of it, and config-api has not filled it since")]
    Behind,
    /// NATS does not tell.
    #[error(transparent)]
    Bus(#[from] bus::Error),
}

/// The one writer of a [`Definitions`].
pub(super) struct Watcher {
    definitions: Arc<Definitions>,
    by_project: BTreeMap<ProjectId, BTreeMap<WebhookId, Arc<Subscriber>>>,
    types: BTreeMap<Owner, EventTypes>,
    /// Whether anything has been read since the lists were made.
    is_unlisted: bool,
    /// Whose webhooks have changed since then.
    unlisted: BTreeSet<ProjectId>,
    unlisted_types: BTreeSet<Owner>,
    /// What has been read of the bucket since the watch began, until that is everything.
    reading: Option<Reading>,
    /// How far the bucket was that is in force here.
    known: Option<Known>,
    /// Told once everything has been read; until then, the lists per project are not built.
    loaded: Option<oneshot::Sender<()>>,
    health: Health,
    /// Set while changes are missed.
    missing: Option<Missing>,
    /// How far the bucket's changes are in force here; behind what the bucket says, this process is out of date.
    revision: Gauge<u64>,
    stale: Gauge<f64>,
}

/// A bucket that is being read from its beginning.
#[derive(Debug, Default)]
struct Reading {
    found: HashSet<Key>,
    /// Whether config-api has filled it.
    is_filled: bool,
}

/// What is in force here.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Of which bucket.
    made_at: Timestamp,
    /// Up to which revision of it.
    revision: u64,
    /// When that was put there, by NATS's clock.
    at: Timestamp,
}

/// Changes are missed.
struct Missing {
    since: Instant,
    /// What was said to be why.
    why: String,
    /// Whether it was too long, and said.
    is_told: bool,
}

impl Watcher {
    pub(super) fn new(definitions: &Arc<Definitions>, health: &Health, loaded: oneshot::Sender<()>) -> Self {
        let meter = opentelemetry::global::meter("posthaste");
        Self {
            definitions: Arc::clone(definitions),
            by_project: BTreeMap::new(),
            types: BTreeMap::new(),
            is_unlisted: false,
            unlisted: BTreeSet::new(),
            unlisted_types: BTreeSet::new(),
            reading: None,
            known: None,
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
        }
    }

    /// What is known stays known, even while there is no bucket at all: one that was deleted comes back, made anew by
    /// config-api, and is read from its beginning.
    pub(super) async fn run(mut self, bucket: ConfigBucket, stop: CancellationToken) {
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

    async fn follow(&mut self, bucket: &ConfigBucket) -> Result<(), Error> {
        let found = bucket.look().await?;
        if !self.is_up_to_date(found, bucket).await? {
            return Err(Error::Behind);
        }
        let mut entries = std::pin::pin!(bucket.watch().await?);
        self.reading = Some(Reading::default());
        loop {
            let entry = tokio::select! {
                biased;
                entry = entries.next() => entry,
                () = tokio::time::sleep(LISTED_WITHIN), if self.is_unlisted && self.loaded.is_none() => {
                    self.list();
                    continue;
                }
                () = tokio::time::sleep(TELL_EVERY), if self.missing.is_some() && bucket.is_connected() => {
                    self.tell_missing();
                    continue;
                }
            };
            let Some(entry) = entry else { return Ok(()) };
            let entry = entry?;
            let (caught_up, is_last) = (entry.caught_up, entry.is_last);
            let (revision, at) = (entry.revision, entry.at);
            if let Err(error) = self.apply(entry) {
                tracing::error!(%error, "a definition cannot be read; the earlier one stands");
            }
            self.known = Some(Known {
                made_at: found.made_at,
                revision,
                at,
            });
            self.is_unlisted = true;
            if caught_up {
                self.caught_up();
            }
            // At first the lists wait for everything to be there.
            if is_last && self.loaded.is_none() {
                self.list();
            }
        }
    }

    /// Whether the bucket knows all that is known here.
    async fn is_up_to_date(&self, found: Found, bucket: &ConfigBucket) -> Result<bool, Error> {
        let Some(known) = self.known else { return Ok(true) };
        if found.made_at == known.made_at && found.revision >= known.revision {
            return Ok(true);
        }
        let filled_at = bucket.filled_at().await?;
        Ok(filled_at.is_some_and(|filled_at| filled_at > known.at))
    }

    /// The watch is over: it broke, or the connection was away.
    fn missed(&mut self, outcome: Result<(), Error>) {
        let missing = self.missing.get_or_insert_with(|| Missing {
            since: Instant::now(),
            why: String::new(),
            is_told: false,
        });
        if let Err(error) = outcome {
            let why = error.to_string();
            if missing.why != why {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "definitions are not watched; trying again"
                );
                missing.why = why;
            }
        }
        self.tell_missing();
    }

    /// Says for how long changes have been missed.
    fn tell_missing(&mut self) {
        let Some(missing) = &mut self.missing else { return };
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
        let reason = "changes are not heard of: the bucket CONFIG is not there, cannot be watched, or was not filled by \
                      config-api";
        self.health.set(READY, Err(reason.to_owned()));
    }

    fn apply(&mut self, entry: Entry) -> Result<(), DecodeError> {
        let Some(key) = entry.key else { return Ok(()) };
        if let Some(reading) = &mut self.reading {
            reading.found.insert(key.clone());
        }
        if entry.value.is_empty() {
            self.apply_removal(key);
            return Ok(());
        }
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
            Key::Webhook(project, id) => self.apply_webhook(project, id, Webhook::decode(entry.value)?),
            Key::EventType(project, _) => self.apply_type(Owner::Project(project), entry.value)?,
            Key::CatalogueType(catalogue, _) => self.apply_type(Owner::Catalogue(catalogue), entry.value)?,
            Key::Filled => {
                if let Some(reading) = &mut self.reading {
                    reading.is_filled = true;
                }
            }
        }
        Ok(())
    }

    /// An empty value is a deleted key. config-api deletes those of tokens and of deleted webhooks, when they are long gone;
    /// a token is none where it is not known. All else is somebody's hand, and repairs itself when config-api publishes the
    /// next time.
    fn apply_removal(&mut self, key: Key) {
        let is_gone = match &key {
            Key::Token(_) => true,
            Key::Webhook(_, id) => self.definitions.webhook(*id).is_some_and(|known| known.deleted),
            _ => false,
        };
        if is_gone {
            self.forget(key);
        }
    }

    fn apply_webhook(&mut self, project: ProjectId, id: WebhookId, webhook: Webhook) {
        let known = self.definitions.webhooks.pin();
        // Most of what is read once more is as it was.
        if known.get(&id).is_some_and(|known| **known == webhook) {
            return;
        }
        let webhook = Arc::new(webhook);
        let webhooks = self.by_project.entry(project).or_default();
        match webhook.deleted {
            true => drop(webhooks.remove(&id)),
            false => drop(webhooks.insert(id, Arc::new(Subscriber::of(&webhook)))),
        }
        known.insert(id, webhook);
        self.unlisted.insert(project);
        self.definitions.changes.send_modify(|changes| *changes += 1);
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
        self.unlisted_types.insert(owner);
        Ok(())
    }

    /// Makes the lists anew of what has changed since they were made: with that, everything that was read is in force.
    fn list(&mut self) {
        self.is_unlisted = false;
        for project in std::mem::take(&mut self.unlisted) {
            let webhooks = self.by_project.get(&project).map(BTreeMap::values);
            let subscribers = webhooks.into_iter().flatten().cloned().collect();
            self.definitions.subscribers.pin().insert(project, subscribers);
        }
        for owner in std::mem::take(&mut self.unlisted_types) {
            let types = Arc::new(self.types.get(&owner).cloned().unwrap_or_default());
            match owner {
                Owner::Project(project) => drop(self.definitions.own_types.pin().insert(project, types)),
                Owner::Catalogue(name) => drop(self.definitions.catalogues.pin().insert(name, types)),
            }
        }
        if let Some(known) = self.known {
            self.revision.record(known.revision, &[]);
        }
    }

    /// Everything that was in the bucket when the watch began has been read.
    fn caught_up(&mut self) {
        let Some(reading) = self.reading.take_if(|reading| reading.is_filled) else {
            // Who works already works on by what is known, which is said if it takes long.
            if self.reading.is_some() && self.loaded.is_some() {
                let reason = "config-api has not put all of them into NATS yet";
                self.health.set(READY, Err(reason.to_owned()));
            }
            return;
        };
        self.forget_all_but(&reading.found);
        self.list();
        if self.missing.take().is_some() {
            tracing::info!("definitions are watched again");
            self.stale.record(0.0, &[]);
        }
        self.health.set(READY, Ok(()));
        if let Some(loaded) = self.loaded.take() {
            let _ = loaded.send(());
        }
    }

    /// Forgets what is known and not in the bucket.
    fn forget_all_but(&mut self, found: &HashSet<Key>) {
        let mut gone = self.keys();
        gone.retain(|key| !found.contains(key));
        if !gone.is_empty() {
            tracing::warn!(
                definitions = gone.len(),
                "definitions that were known here are not in the bucket CONFIG any more, which config-api has filled"
            );
        }
        for key in gone {
            self.forget(key);
        }
    }

    /// Everything that is known.
    fn keys(&self) -> Vec<Key> {
        let (projects, tokens) = (self.definitions.projects.pin(), self.definitions.tokens.pin());
        let webhooks = self.definitions.webhooks.pin();
        let types = self.types.iter().flat_map(|(owner, types)| {
            types.keys().map(move |name| match owner {
                Owner::Project(project) => Key::EventType(*project, name.clone()),
                Owner::Catalogue(catalogue) => Key::CatalogueType(catalogue.clone(), name.clone()),
            })
        });
        let mut keys: Vec<Key> = projects.keys().map(|id| Key::Project(*id)).collect();
        keys.extend(tokens.keys().map(|hash| Key::Token(hash.clone())));
        keys.extend(webhooks.values().map(|it| Key::Webhook(it.project, it.id)));
        keys.extend(types);
        keys
    }

    fn forget(&mut self, key: Key) {
        let known = &self.definitions;
        match key {
            Key::Project(id) => {
                known.project_ids.pin().retain(|_, named| *named != id);
                known.event_attributes.pin().remove(&id);
                known.projects.pin().remove(&id);
            }
            Key::Token(hash) => drop(known.tokens.pin().remove(&hash).is_some()),
            Key::Webhook(project, id) => {
                if let Some(webhooks) = self.by_project.get_mut(&project) {
                    webhooks.remove(&id);
                }
                known.webhooks.pin().remove(&id);
                self.unlisted.insert(project);
                known.changes.send_modify(|changes| *changes += 1);
            }
            Key::EventType(project, name) => self.forget_type(Owner::Project(project), &name),
            Key::CatalogueType(catalogue, name) => self.forget_type(Owner::Catalogue(catalogue), &name),
            Key::Filled => {}
        }
    }

    fn forget_type(&mut self, owner: Owner, name: &str) {
        if let Some(types) = self.types.get_mut(&owner) {
            types.remove(name);
        }
        self.unlisted_types.insert(owner);
    }
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
