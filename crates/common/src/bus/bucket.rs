//! The CONFIG bucket: every definition ingest and dispatcher work by.
//!
//! What is in it can be published again, so it may be lost: who fills it hears that it was deleted
//! ([`ConfigBucket::lost`]), and makes it anew ([`ConfigBucket::restore`]).

use std::time::Duration;

use async_nats::jetstream::{self, kv};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use proto_schemas::stream::CONFIG_BUCKET;
use proto_schemas::stream::config_key::{Key, NEVER_USED};
use tokio::sync::watch;

use super::refusals::Refusals;
use super::{Bus, Error, instant, streams};

/// The CONFIG bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConfigBucket {
    store: kv::Store,
    jetstream: jetstream::Context,
    connected: watch::Receiver<bool>,
    replicas: u8,
    refusals: Refusals,
}

/// How long to wait for what stands under a key; where nothing does, nothing comes.
const THERE_WITHIN: Duration = Duration::from_secs(1);

/// How far a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// When it was made. No other bucket has the same.
    pub made_at: Timestamp,
    /// The revision of its last change.
    pub revision: u64,
}

/// What stands under a key, and what has to stand there still when something else is put in its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// The definition's bytes; `None` where there is none.
    pub value: Option<Bytes>,
    revision: u64,
}

/// One definition as the bucket holds it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it defines; `None` for a kind a newer release has added.
    pub key: Option<Key>,
    /// The definition's bytes.
    pub value: Bytes,
    /// Its revision: counts every change of the bucket.
    pub revision: u64,
    /// When it was put there, by NATS's clock.
    pub at: Timestamp,
    /// Whether no further one is on its way just now.
    pub is_last: bool,
    /// Whether everything that was in the bucket when the watch began has now been seen.
    pub caught_up: bool,
}

impl ConfigBucket {
    pub(super) async fn open(bus: &Bus) -> Result<Self, Error> {
        let refusals = bus.refusals.clone();
        let opening = async { bus.jetstream.get_key_value(CONFIG_BUCKET).await.map_err(fail) };
        let store = refusals.explain(opening).await?;
        Ok(Self {
            store,
            jetstream: bus.jetstream.clone(),
            connected: bus.connected.clone(),
            replicas: bus.config.nats_replicas,
            refusals,
        })
    }

    /// When the bucket was made, as it was found when it was opened. No other has the same.
    #[must_use]
    pub fn made_at(&self) -> Timestamp {
        made_at(&self.store)
    }

    /// Resolves when the bucket may not be there any more, or not be the same: some ten seconds after it was deleted, or
    /// when the connection has been away. It asks for nothing meanwhile; the server sends a sign of life for a watch.
    pub async fn lost(&self) {
        let mut connected = self.connected.clone();
        if connected.wait_for(|up| *up).await.is_err() {
            return;
        }
        let gone = async {
            if let Ok(mut watch) = self.store.watch(NEVER_USED).await {
                while let Some(Ok(_)) = watch.next().await {}
            }
        };
        tokio::select! { () = gone => {}, () = self.connected_again() => {} }
    }

    /// Whether there is a connection right now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// Resolves when the connection has been away and is there again, from when it is called on.
    fn connected_again(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut link = self.connected.clone();
        link.mark_unchanged();
        async move {
            // Every word of it counts: what is away for no longer than it takes to look is seen as nothing but there.
            let heard = match link.changed().await {
                Ok(()) => link.wait_for(|up| *up).await.is_ok(),
                Err(_) => false,
            };
            if !heard {
                std::future::pending::<()>().await;
            }
        }
    }

    /// How far the bucket is that is there now.
    ///
    /// # Errors
    /// [`Error`] where there is none, or JetStream does not answer.
    pub async fn look(&self) -> Result<Found, Error> {
        let looking = async { self.jetstream.get_key_value(CONFIG_BUCKET).await.map_err(fail) };
        let store = self.refusals.explain(looking).await?;
        Ok(Found {
            made_at: made_at(&store),
            revision: store.stream.cached_info().state.last_sequence,
        })
    }

    /// When config-api last said that everything is there, by NATS's clock; `None` where it has not.
    ///
    /// # Errors
    /// [`Error`] where there is no bucket, or JetStream does not answer.
    pub async fn filled_at(&self) -> Result<Option<Timestamp>, Error> {
        // A watch, because that is what every service may do.
        let opening = async { self.store.watch_with_history(Key::Filled.to_text()).await.map_err(fail) };
        let mut watch = self.refusals.explain(opening).await?;
        match tokio::time::timeout(THERE_WITHIN, watch.next()).await {
            Ok(Some(entry)) => {
                let entry = entry.map_err(fail)?;
                Ok((!entry.value.is_empty()).then(|| instant(entry.created.unix_timestamp_nanos())))
            }
            Ok(None) | Err(_) => Ok(None),
        }
    }

    /// Makes the bucket where it is not there; when the one that is there now was made. With another time than before, it
    /// is another one, and has to be filled.
    ///
    /// # Errors
    /// [`Error`] where JetStream does not answer, or cannot make it.
    pub async fn restore(&self) -> Result<Timestamp, Error> {
        let store = streams::set_up_bucket(&self.jetstream, self.replicas).await?;
        Ok(made_at(&store))
    }

    /// What stands under a key, for [`ConfigBucket::replace`].
    ///
    /// # Errors
    /// [`Error`] where JetStream does not answer.
    pub async fn held(&self, key: &Key) -> Result<Held, Error> {
        let reading = async { self.store.entry(key.to_text()).await.map_err(fail) };
        let Some(entry) = self.refusals.explain(reading).await? else {
            return Ok(Held::default());
        };
        Ok(Held {
            value: (entry.operation == kv::Operation::Put).then_some(entry.value),
            revision: entry.revision,
        })
    }

    /// Puts a definition in the place of what was held there; resolves once JetStream has it.
    ///
    /// What is given up here may still be sent when the connection comes back; by then another process may have stored a
    /// newer one, and that stays. For the same to hold of a definition, read it after what it is to replace.
    ///
    /// # Errors
    /// [`Error::Superseded`] where another one was stored meanwhile; any other [`Error`] where it was not stored.
    pub async fn replace(&self, key: &Key, held: &Held, value: Vec<u8>) -> Result<(), Error> {
        let putting = async {
            let put = self.store.update(key.to_text(), value.into(), held.revision).await;
            put.map(drop).map_err(unstored)
        };
        self.refusals.explain(putting).await
    }

    /// Has what was held under a key leave the bucket; resolves once JetStream has noted it.
    ///
    /// # Errors
    /// As [`ConfigBucket::replace`].
    pub async fn remove(&self, key: &Key, held: &Held) -> Result<(), Error> {
        let removing = async {
            let removed = self.store.delete_expect_revision(key.to_text(), Some(held.revision));
            removed.await.map_err(unstored)
        };
        self.refusals.explain(removing).await
    }

    /// Stores a definition in the place of whatever is there.
    ///
    /// # Errors
    /// As [`ConfigBucket::replace`].
    pub async fn put(&self, key: &Key, value: Vec<u8>) -> Result<(), Error> {
        let held = self.held(key).await?;
        self.replace(key, &held, value).await
    }

    /// Reads a definition.
    ///
    /// # Errors
    /// [`Error`] where JetStream does not answer.
    pub async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let getting = async { self.store.get(key.to_text()).await.map_err(fail) };
        self.refusals.explain(getting).await
    }

    /// Every key there is, as text; for the comparison with what should be there.
    ///
    /// # Errors
    /// [`Error`] where JetStream does not answer.
    pub async fn keys(&self) -> Result<Vec<String>, Error> {
        let listing = async {
            let keys = self.store.keys().await.map_err(fail)?;
            keys.try_collect().await.map_err(fail)
        };
        self.refusals.explain(listing).await
    }

    /// Everything there is, then every change as it is made. Of an empty bucket nothing comes until something is put there.
    ///
    /// It ends when the connection has been away and is there again: the client would go on behind the last revision that it
    /// was given, and if the bucket is another one by now, or an older state of it, that revision is yet to come. Begin it
    /// again.
    ///
    /// # Errors
    /// [`Error`] where the watch cannot begin.
    pub async fn watch(&self) -> Result<impl Stream<Item = Result<Entry, Error>> + Send + use<>, Error> {
        let connected_again = self.connected_again();
        let opening = async { self.store.watch_with_history(">").await.map_err(fail) };
        let watch = self.refusals.explain(opening).await?;
        let entries = watch.filter_map(|entry| async move {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return Some(Err(fail(error))),
            };
            let caught_up = entry.delta == 0 || entry.seen_current;
            Some(Ok(Entry {
                key: Key::parse(&entry.key),
                value: entry.value,
                revision: entry.revision,
                at: instant(entry.created.unix_timestamp_nanos()),
                is_last: entry.delta == 0,
                caught_up,
            }))
        });
        Ok(entries.take_until(connected_again))
    }
}

fn made_at(store: &kv::Store) -> Timestamp {
    instant(store.stream.cached_info().created.unix_timestamp_nanos())
}

fn unstored(error: kv::UpdateError) -> Error {
    match error.kind() {
        kv::UpdateErrorKind::WrongLastRevision => Error::Superseded,
        _ => fail(error),
    }
}

fn fail(error: impl Into<async_nats::Error>) -> Error {
    Error::SetUp {
        what: format!("bucket {CONFIG_BUCKET}"),
        source: error.into(),
    }
}
