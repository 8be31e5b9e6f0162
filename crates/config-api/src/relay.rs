//! Outbox → CONFIG and DELIVERIES.
//!
//! In come keys of definitions that have changed, committed to the outbox together with the change; out goes, for each,
//! the definition as it then stands, to the CONFIG bucket. An entry is deleted in the transaction that read the
//! definition, and only after the bucket has acked it. A crash in between publishes the definition once more, which is
//! harmless; none is lost. One relay at a time works, over all processes, by a lock of Postgres. And one that has lost its
//! lock unawares replaces nothing but what was in the bucket before it read the definitions, so an older definition is
//! never published after a newer one.
//!
//! Tests go the same way, after the definitions: out goes the duty to make one, to stream DELIVERIES. Published once more
//! after a crash, it has the same message id, and its attempt the same identity, so it is recorded once.
//!
//! Besides, at start and every now and then, every definition is compared with what the bucket holds; when it holds all,
//! that is put there as well ([`Key::Filled`]), and nobody works by a bucket without it. A bucket that was deleted is made
//! anew and filled in this way as soon as that is noticed, which is some ten seconds later; who works by it has what was in
//! it in memory meanwhile. After a connection that was away NATS may have lost something, so everything is compared as well.
//! Deleted webhooks and dead tokens leave the bucket then, [`DELETED_KEPT`] and [`DEAD_TOKEN_KEPT`] after they went.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use common::bus::bucket::Held;
use common::bus::{self, Bus, ConfigBucket};
use common::catalogue::{Catalogues, EventType};
use common::clock::Clock;
use common::failpoint::{self, Point};
use common::profile::{Profile, Profiles};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use opentelemetry::metrics::Counter;
use proto_schemas::delivery::DeliveryDue;
use proto_schemas::id::{EventKey, ProjectId, WebhookId};
use proto_schemas::stream::config_key::Key;
use proto_schemas::subject;
use store::{Connection, Store, event_types, outbox, projects, tests, tokens, webhook_health, webhooks};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::resolve;

/// Entries worked on in one transaction.
const BATCH: u32 = 500;

/// Definitions on their way to the bucket at once.
const IN_FLIGHT: usize = 64;

/// How often to look for entries that another process has left behind.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How long to wait after a failure.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// How long a request that has changed a definition waits for its publication before it is answered anyway: a change is
/// promised to be in effect within a second of the answer.
const PUBLISHED_WITHIN: Duration = Duration::from_millis(900);

/// How long a deleted webhook stays a definition. What is owed to it ends within seconds of its deletion; what comes later,
/// out of a stream that was not worked off meanwhile, ends by what Postgres says, only less directly.
const DELETED_KEPT: Duration = Duration::from_secs(31 * 24 * 3600);

/// How long a token stays a definition that is good for nothing any more. One that is not known is refused like it.
const DEAD_TOKEN_KEPT: Duration = Duration::from_secs(24 * 3600);

/// What stands under [`Key::Filled`]; that something does is what counts.
const FILLED: &[u8] = b"1";

/// Why nothing was published. Everything that was to be is still in the outbox.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The outbox cannot be read, or the definitions.
    #[error("definitions cannot be read")]
    Store(#[from] store::Error),
    /// The bucket does not take them.
    #[error("definitions cannot be published")]
    Bus(#[from] bus::Error),
}

/// A definition's bytes; `None` for what is gone for so long that the bucket need not know of it.
type Definition = Option<Vec<u8>>;

/// Publishes definitions.
#[derive(Debug)]
pub struct Relay {
    store: Store,
    bus: Bus,
    bucket: ConfigBucket,
    profiles: Arc<Profiles>,
    catalogues: Arc<Catalogues>,
    clock: Clock,
    wanted: Arc<watch::Sender<u64>>,
    done: watch::Sender<u64>,
    published: Counter<u64>,
}

/// For whoever changes definitions.
#[derive(Debug, Clone)]
pub struct Publication {
    wanted: Arc<watch::Sender<u64>>,
    done: watch::Receiver<u64>,
}

impl Publication {
    /// Call it after the commit. Returns when the change is in the bucket, or after 900 ms; then it will be there later.
    pub async fn wait(&self) {
        let mut ticket = 0;
        self.wanted.send_modify(|wanted| {
            *wanted += 1;
            ticket = *wanted;
        });
        let mut done = self.done.clone();
        // A round that began after the commit has seen the entry, whichever process' relay has deleted it.
        let published = done.wait_for(|done| *done >= ticket);
        if tokio::time::timeout(PUBLISHED_WITHIN, published).await.is_err() {
            tracing::debug!("answered before the change was published");
        }
    }
}

impl Relay {
    /// A relay, and what wakes it.
    #[must_use]
    pub fn new(
        store: Store,
        bus: Bus,
        bucket: ConfigBucket,
        profiles: Arc<Profiles>,
        catalogues: Arc<Catalogues>,
        clock: Clock,
    ) -> (Self, Publication) {
        let wanted = Arc::new(watch::Sender::new(0));
        let (done, done_rx) = watch::channel(0);
        let published = opentelemetry::global::meter("config-api")
            .u64_counter("posthaste.definitions.published")
            .with_description("Definitions put into the CONFIG bucket")
            .build();
        let publication = Publication {
            wanted: Arc::clone(&wanted),
            done: done_rx,
        };
        (
            Self {
                store,
                bus,
                bucket,
                profiles,
                catalogues,
                clock,
                wanted,
                done,
                published,
            },
            publication,
        )
    }

    /// Publishes until `stop`, comparing everything every `resync_interval`, and when the bucket was lost.
    pub async fn run(self, resync_interval: Duration, stop: CancellationToken) {
        tokio::join!(self.publish(resync_interval, &stop), self.keep_bucket(&stop));
    }

    /// Has the bucket made anew and filled whenever it was deleted.
    async fn keep_bucket(&self, stop: &CancellationToken) {
        // When the bucket that has every definition was made; `None` while there is none such.
        let mut filled = Some(self.bucket.made_at());
        let mut failing = false;
        loop {
            if filled.is_some() {
                tokio::select! { () = stop.cancelled() => return, () = self.bucket.lost() => {} }
            }
            let outcome = async {
                let found = self.bucket.restore().await?;
                // The same one may be an older state of itself.
                if filled.take().is_some_and(|before| before != found) {
                    tracing::warn!("the CONFIG bucket was deleted; filling the one that has taken its place");
                }
                self.resync().await?;
                filled = Some(found);
                Ok(())
            };
            failing = report(outcome.await, failing);
            tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(SWEEP_EVERY) => {} }
        }
    }

    async fn publish(&self, resync_interval: Duration, stop: &CancellationToken) {
        let mut wanted = self.wanted.subscribe();
        let mut resync = tokio::time::interval_at(tokio::time::Instant::now() + resync_interval, resync_interval);
        resync.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            let ticket = *wanted.borrow_and_update();
            let outcome = self.drain().await;
            if outcome.is_ok() {
                self.done.send_replace(ticket);
            }
            failing = report(outcome, failing);
            let pause = if failing { RETRY_AFTER } else { SWEEP_EVERY };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                // While it fails, another wish changes nothing.
                _ = wanted.changed(), if !failing => {}
                _ = resync.tick(), if !failing => failing = report(self.resync().await, failing),
            }
        }
    }

    /// Works the outbox off. What cannot be published for a reason of its own stays there and holds nothing up.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn drain(&self) -> Result<(), Error> {
        if outbox::is_empty(&mut *self.store.connection().await?).await? {
            return Ok(());
        }
        let mut after = i64::MIN;
        loop {
            let mut transaction = self.store.begin().await?;
            outbox::lock(&mut transaction).await?;
            let entries = outbox::page(&mut transaction, after, BATCH).await?;
            let Some(last) = entries.last() else { return Ok(()) };
            after = last.id;
            let keys: Vec<Key> = entries.iter().filter_map(|entry| Key::parse(&entry.key)).collect();
            let held = self.held(&keys).await?;
            let definitions = self.definitions(&mut transaction, &keys).await?;
            let mut done: HashSet<String> = definitions.iter().map(|(key, _)| key.to_text()).collect();
            let tests: Vec<EventKey> = entries
                .iter()
                .filter_map(|entry| tests::of_outbox_key(&entry.key))
                .collect();
            let count = entries.len();
            failpoint::reach(Point::RelayRead);
            self.put(held, definitions).await?;
            failpoint::reach(Point::RelayPublished);
            done.extend(self.hand_out(&mut transaction, &tests).await?);
            if !tests.is_empty() {
                failpoint::reach(Point::RelayHandedOut);
            }
            let ids: Vec<i64> = entries
                .iter()
                .filter(|entry| done.contains(&entry.key))
                .map(|entry| entry.id)
                .collect();
            outbox::delete(&mut transaction, &ids).await?;
            failpoint::reach(Point::RelayDeleted);
            transaction.commit().await?;
            failpoint::reach(Point::RelayCommitted);
            if count < BATCH as usize {
                return Ok(());
            }
        }
    }

    /// Puts every definition into the bucket that is not there, or is there otherwise; what is long gone leaves it.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn resync(&self) -> Result<(), Error> {
        let published = self.bucket.keys().await?;
        let mut unaccounted: HashSet<Key> = published.iter().filter_map(|key| Key::parse(key)).collect();
        let mut differing = 0;
        let mut after = None;
        loop {
            let page = projects::page(&mut *self.store.connection().await?, after, BATCH).await?;
            let keys: Vec<Key> = page.iter().map(|project| Key::Project(project.id)).collect();
            differing += self.compare(&keys).await?;
            match page.last() {
                Some(last) => after = Some(last.id),
                None => break,
            }
        }
        let mut after = None;
        loop {
            let since = self.before(DEAD_TOKEN_KEPT);
            let page = tokens::good_since(&mut *self.store.connection().await?, since, after, BATCH).await?;
            let keys: Vec<Key> = page.iter().map(|token| Key::Token(hex::encode(token.hash))).collect();
            for key in &keys {
                unaccounted.remove(key);
            }
            differing += self.compare(&keys).await?;
            match page.last() {
                Some(last) => after = Some(last.id),
                None => break,
            }
        }
        let mut after = None;
        loop {
            let since = self.before(DELETED_KEPT);
            let page = webhooks::there_since(&mut *self.store.connection().await?, since, after, BATCH).await?;
            let keys: Vec<Key> = page
                .iter()
                .map(|(project, webhook)| Key::Webhook(*project, *webhook))
                .collect();
            for key in &keys {
                unaccounted.remove(key);
            }
            differing += self.compare(&keys).await?;
            match page.last() {
                Some((_, last)) => after = Some(*last),
                None => break,
            }
        }
        let gone = unaccounted.into_iter();
        let gone: Vec<Key> = gone
            .filter(|key| matches!(key, Key::Token(_) | Key::Webhook(..)))
            .collect();
        for keys in gone.chunks(BATCH as usize) {
            differing += self.compare(keys).await?;
        }
        differing += self.resync_event_types(&published).await?;
        // Again even where it is there: who knows more than the bucket did waits for it.
        match self.bucket.put(&Key::Filled, FILLED.to_vec()).await {
            // Another relay has found the same.
            Ok(()) | Err(bus::Error::Superseded) => {}
            Err(error) => return Err(error.into()),
        }
        if differing > 0 {
            tracing::info!(
                definitions = differing,
                "the CONFIG bucket did not have every definition as it stands; it has now"
            );
        }
        Ok(())
    }

    fn before(&self, kept: Duration) -> Timestamp {
        let now = self.clock.now();
        now.checked_sub(kept).unwrap_or(Timestamp::MIN)
    }

    /// The projects' own event types, and those of the catalogues that profiles name. A type that the bucket has and
    /// nobody else is published as gone: a catalogue changes with the program.
    async fn resync_event_types(&self, published: &[String]) -> Result<usize, Error> {
        let mut wanted: Vec<Key> = Vec::new();
        let named: BTreeSet<&str> = self
            .profiles
            .iter()
            .filter_map(|profile| profile.catalogue.as_deref())
            .collect();
        for name in named {
            let types = self.catalogues.get(name).into_iter().flatten();
            wanted.extend(types.map(|(event_type, _)| Key::CatalogueType(name.to_owned(), event_type.clone())));
        }
        let gone = published
            .iter()
            .filter_map(|key| Key::parse(key))
            .filter(|key| match key {
                Key::CatalogueType(..) => !wanted.contains(key),
                Key::EventType(..) => true,
                _ => false,
            });
        let gone: Vec<Key> = gone.collect();
        wanted.extend(gone);
        let mut differing = 0;
        for keys in wanted.chunks(BATCH as usize) {
            differing += self.compare(keys).await?;
        }
        let mut after = None;
        loop {
            let page = event_types::all(&mut *self.store.connection().await?, after.as_ref(), BATCH).await?;
            let keys: Vec<Key> = page
                .iter()
                .map(|(project, name)| Key::EventType(*project, name.clone()))
                .collect();
            differing += self.compare(&keys).await?;
            match page.into_iter().last() {
                Some(last) => after = Some(last),
                None => return Ok(differing),
            }
        }
    }

    /// Publishes those of the definitions that the bucket has otherwise; how many these were.
    async fn compare(&self, keys: &[Key]) -> Result<usize, Error> {
        if keys.is_empty() {
            return Ok(0);
        }
        let mut transaction = self.store.begin().await?;
        outbox::lock(&mut transaction).await?;
        let held = self.held(keys).await?;
        let definitions = self.definitions(&mut transaction, keys).await?;
        let count = self.put(held, definitions).await?;
        transaction.commit().await?;
        Ok(count)
    }

    /// Publishes the duties to make these tests; the keys of those that JetStream has stored. One that it does not take
    /// stays in the outbox, and holds up no definition.
    async fn hand_out(&self, connection: &mut Connection, ids: &[EventKey]) -> Result<Vec<String>, store::Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let duties = tests::duties(connection, ids).await?;
        let stored = stream::iter(duties)
            .map(|(id, due)| async move {
                let stored = async {
                    // What no release can read would stay for ever.
                    let Ok(duty) = DeliveryDue::decode(due.clone().into()) else {
                        return Ok(());
                    };
                    let subject = subject::delivery(duty.event.project, duty.webhook);
                    let message_id = duty.attempt_ref().delivery_message_id();
                    self.bus.publish_once(subject, &message_id, due).await?.stored().await?;
                    Ok::<_, bus::Error>(())
                };
                match stored.await {
                    Ok(()) => Some(tests::outbox_key(id)),
                    Err(error) => {
                        tracing::debug!(%error, test = %id, "a test waits in the outbox");
                        None
                    }
                }
            })
            .buffer_unordered(IN_FLIGHT)
            .filter_map(|stored| async { stored })
            .collect();
        Ok(stored.await)
    }

    /// What the bucket holds under these keys. To be asked before the definitions are read: what is read then is as new as
    /// what it is to replace.
    async fn held(&self, keys: &[Key]) -> Result<HashMap<Key, Held>, bus::Error> {
        let keys: HashSet<Key> = keys.iter().cloned().collect();
        stream::iter(keys)
            .map(|key| async move {
                let held = self.bucket.held(&key).await?;
                Ok((key, held))
            })
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await
    }

    /// Puts those of the definitions into the bucket that it has otherwise, and has those leave that are none any more; how
    /// many these were.
    async fn put(
        &self,
        mut held: HashMap<Key, Held>,
        definitions: Vec<(Key, Definition)>,
    ) -> Result<usize, bus::Error> {
        let differing: Vec<_> = definitions
            .into_iter()
            .map(|(key, definition)| (held.remove(&key).unwrap_or_default(), key, definition))
            .filter(|(held, _, definition)| held.value.as_deref() != definition.as_deref())
            .collect();
        let count = differing.len();
        stream::iter(differing)
            .map(|(held, key, definition)| async move {
                match definition {
                    Some(definition) => self.bucket.replace(&key, &held, definition).await,
                    None => self.bucket.remove(&key, &held).await,
                }
            })
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        self.published.add(count as u64, &[]);
        Ok(count)
    }

    /// The definitions under these keys as they stand, each once. Of what Postgres does not know nothing is said.
    async fn definitions(
        &self,
        connection: &mut Connection,
        keys: &[Key],
    ) -> Result<Vec<(Key, Definition)>, store::Error> {
        let mut definitions = Vec::with_capacity(keys.len());
        let mut types: HashMap<ProjectId, Vec<String>> = HashMap::new();
        let mut changed_projects: HashSet<ProjectId> = HashSet::new();
        let mut project_ids: Vec<ProjectId> = Vec::new();
        let mut token_hashes: Vec<Vec<u8>> = Vec::new();
        let mut webhook_ids: Vec<WebhookId> = Vec::new();
        for key in keys {
            match key {
                Key::Project(id) => {
                    project_ids.push(*id);
                    changed_projects.insert(*id);
                }
                Key::Token(hash) => token_hashes.extend(hex::decode(hash)),
                Key::Webhook(project, webhook) => {
                    project_ids.push(*project);
                    webhook_ids.push(*webhook);
                }
                Key::EventType(project, name) => types.entry(*project).or_default().push(name.clone()),
                Key::CatalogueType(catalogue, name) => {
                    let found = self.catalogues.event_type(catalogue, name).map(EventType::definition);
                    let definition = found.unwrap_or_else(|| resolve::no_event_type(name));
                    definitions.push((key.clone(), Some(definition.encode())));
                }
                // Not a definition, and never in the outbox.
                Key::Filled => {}
            }
        }
        let projects = projects::by_ids(connection, &project_ids).await?;
        let projects: HashMap<ProjectId, projects::Project> =
            projects.into_iter().map(|project| (project.id, project)).collect();
        for project in projects
            .values()
            .filter(|project| changed_projects.contains(&project.id))
        {
            let Some(profile) = self.profile(project) else { continue };
            let definition = resolve::project(project, profile).encode();
            definitions.push((Key::Project(project.id), Some(definition)));
        }
        if !token_hashes.is_empty() {
            let since = self.before(DEAD_TOKEN_KEPT);
            for token in tokens::by_hashes(connection, &token_hashes).await? {
                let definition = token.is_good_since(since).then(|| resolve::token(&token).encode());
                definitions.push((Key::Token(hex::encode(token.hash)), definition));
            }
        }
        if !webhook_ids.is_empty() {
            let since = self.before(DELETED_KEPT);
            let health = webhook_health::find(connection, &webhook_ids).await?;
            for webhook in webhooks::by_ids(connection, &webhook_ids).await? {
                let Some(project) = projects.get(&webhook.project) else {
                    continue;
                };
                let Some(profile) = self.profile(project) else { continue };
                let definition = webhook
                    .is_there_since(since)
                    .then(|| resolve::webhook(&webhook, health.get(&webhook.id), project, profile).encode());
                definitions.push((Key::Webhook(project.id, webhook.id), definition));
            }
        }
        for (project, names) in types {
            let versions = event_types::versions(connection, project, &names).await?;
            for name in names.into_iter().collect::<BTreeSet<_>>() {
                let versions: Vec<_> = versions.iter().filter(|version| version.name == name).collect();
                let definition = resolve::event_type(&name, &versions).encode();
                definitions.push((Key::EventType(project, name), Some(definition)));
            }
        }
        Ok(definitions)
    }

    fn profile(&self, project: &projects::Project) -> Option<&Profile> {
        let profile = self.profiles.get(&project.profile);
        if profile.is_none() {
            tracing::warn!(
                project = project.name,
                profile = project.profile,
                "not published: there is no such profile here; give every config-api the same --profiles-dir"
            );
        }
        profile
    }
}

/// Logs a first failure and the first success after it. Whether it is failing now.
fn report(outcome: Result<(), Error>, failing: bool) -> bool {
    match outcome {
        Ok(()) => {
            if failing {
                tracing::info!("definitions are published again");
            }
            false
        }
        Err(error) => {
            if !failing {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(error, "definitions wait in the outbox; trying again");
            }
            true
        }
    }
}
