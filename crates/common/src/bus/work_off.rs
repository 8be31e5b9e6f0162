//! Works a stream off: pull, hold, hand out, ack.
//!
//! In: the messages of a work-queue stream. Out: one verdict for each, turned into an ack. Guarantee: a message is acked
//! only after its handler has said [`Verdict::Done`]; until then JetStream keeps it and hands it out again once this
//! process is dead (10 s without a sign of progress). A crash here loses nothing and repeats what was being worked on.
//!
//! Three things keep repeats rare while the process lives: messages being worked on show progress every 3 s; a message
//! handed out again while it is still held is not handed to a second handler; and the latest finished messages are
//! remembered, so one whose ack was lost with a connection is acked again instead of being worked again ([`super::holds`]).
//!
//! Whoever works a stream off makes its consumers where they are absent, at the start and when they turn out to be gone.
//!
//! A stream with shares has a puller for each ([`super::credit`] says how many messages it may hold), so that what one
//! project has waiting is not in front of another's message.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, consumer::PullConsumer, consumer::pull::BatchConfig};
use async_nats::{HeaderMap, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::try_join_all;
use jiff::Timestamp;
use proto_schemas::stream::{Consumer, Shares, Stream};
use proto_schemas::subject;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::credit::{Credit, PLACE_BYTES, Permit};
use super::holds::{Held, Holds, Place, nak};
use super::streams;
use super::{Bus, Error};

/// A message handed out by JetStream.
#[derive(Debug, Clone)]
pub struct Message {
    /// What it was published on.
    pub subject: Subject,
    /// Its headers, if any.
    pub headers: Option<HeaderMap>,
    /// Its body.
    pub payload: Bytes,
    /// Its sequence within the stream.
    pub sequence: u64,
    /// When JetStream stored it.
    pub stored_at: Timestamp,
    /// How often it has been handed out, this time included.
    pub handed_out: u32,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// What it causes is durable: remove it.
    Done,
    /// Not done: hand it out again, to whoever is free, after this long.
    Again(Duration),
}

/// How to work a stream off.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Messages held at once, of 16 KiB or less; larger ones count several times. The bound on memory, and on what a crash
    /// repeats. A stream with shares adds a few for each, which are kept for it alone.
    pub max_held: usize,
    /// How long to wait, once told to stop, for the messages being worked on.
    pub drain: Duration,
}

impl Bus {
    /// Works `stream` off with one handler call per message, many at once, until `stop`.
    ///
    /// # Errors
    /// [`Error`] where the consumers cannot be made or opened; anything later is waited out.
    pub async fn work_off<F, R>(
        &self,
        stream: Stream,
        options: Options,
        stop: CancellationToken,
        handler: F,
    ) -> Result<(), Error>
    where
        F: Fn(Message) -> R + Send + Sync + 'static,
        R: Future<Output = Verdict> + Send + 'static,
    {
        let pullers = self.refusals.explain(Puller::start_all(self, stream, options)).await?;
        let handlers = TaskTracker::new();
        let handler = Arc::new(handler);
        let mut pulling = JoinSet::new();
        for mut puller in pullers {
            let (handler, handlers, stop) = (Arc::clone(&handler), handlers.clone(), stop.clone());
            pulling.spawn(async move {
                while let Some((message, held)) = puller.next(&stop).await {
                    let handling = handler(message);
                    handlers.spawn(async move {
                        let verdict = handling.await;
                        held.settle(verdict).await;
                    });
                }
                puller.hand_back().await;
            });
        }
        if stream.shares == Shares::Transformed {
            let (bus, stop) = (self.clone(), stop.clone());
            pulling.spawn(async move { bus.work_off_strays(stream, stop, |message| handler(message)).await });
        }
        // A puller ends only when told to; should one panic, its share waits for no one else to notice.
        while let Some(ended) = pulling.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        handlers.close();
        if tokio::time::timeout(options.drain, handlers.wait()).await.is_err() {
            tracing::warn!(
                stream = stream.name,
                left = handlers.len(),
                "stopped before every message was done"
            );
        }
        self.flush().await;
        Ok(())
    }

    /// Works `stream`, which has no shares, off in batches: whatever is there, up to `max_batch`, one batch at a time, until `stop`. After the
    /// first message of a batch, `linger` is waited for more. The verdict holds for the whole batch.
    ///
    /// # Errors
    /// As [`Bus::work_off`].
    pub async fn work_off_batches<F, R>(
        &self,
        stream: Stream,
        options: Options,
        max_batch: usize,
        linger: Duration,
        stop: CancellationToken,
        mut handler: F,
    ) -> Result<(), Error>
    where
        F: FnMut(Vec<Message>) -> R,
        R: Future<Output = Verdict> + Send,
    {
        let mut puller = self.refusals.explain(Puller::start(self, stream, options)).await?;
        loop {
            let Some((message, held)) = puller.next(&stop).await else {
                break;
            };
            let (mut messages, mut holds) = (vec![message], vec![held]);
            let deadline = Instant::now() + linger;
            while messages.len() < max_batch {
                match tokio::time::timeout_at(deadline, puller.next(&stop)).await {
                    Ok(Some((message, held))) => {
                        messages.push(message);
                        holds.push(held);
                    }
                    Ok(None) | Err(_) => break,
                }
            }
            let verdict = handler(messages).await;
            for held in holds {
                held.settle(verdict).await;
            }
        }
        puller.hand_back().await;
        self.flush().await;
        Ok(())
    }
}

/// Pull requests on credit: as many messages are asked for as may still be held.
struct Puller {
    bus: Bus,
    stream: Stream,
    consumer: PullConsumer,
    inbox: Subject,
    messages: Subscriber,
    credit: Credit,
    /// Messages that are asked for and have not come.
    expected: usize,
    /// Places taken for them.
    reserved: Vec<Permit>,
    /// When a pull request that went unanswered (its connection broke) is given up on.
    answer_by: Instant,
    connected: tokio::sync::watch::Receiver<bool>,
    /// Set when a request was refused: what to put right, after a pause, before the next one.
    refused: bool,
    holds: Arc<Holds>,
}

/// How long one pull request stays open at the server.
const PULL_EXPIRES: Duration = Duration::from_secs(20);
/// The same for one that has taken places that other shares may need.
const BUSY_PULL_EXPIRES: Duration = Duration::from_secs(1);
/// How long after that its end is believed lost.
const PULL_GRACE: Duration = Duration::from_secs(5);
/// What the server says when the next message is larger than what is left of the bytes that were asked for.
const TOO_MANY_BYTES: &str = "Message Size Exceeds MaxBytes";
/// What it says after the last message of a request, where bytes are left.
const ALL_HAVE_COME: &str = "Batch Completed";
/// How long to wait after a request was refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);
/// How long, once told to stop, to wait for messages that are still on their way here.
const HAND_BACK_WITHIN: Duration = Duration::from_secs(2);
impl Puller {
    /// One for a stream without shares.
    async fn start(bus: &Bus, stream: Stream, options: Options) -> Result<Self, Error> {
        streams::set_up_consumers(&bus.jetstream, stream).await?;
        let holds = Holds::new(bus);
        let consumer = Consumer {
            name: stream.consumer.to_owned(),
            filter: None,
        };
        Self::open(bus, stream, &consumer, Credit::alone(options.max_held), holds).await
    }

    /// One for each consumer of the stream.
    async fn start_all(bus: &Bus, stream: Stream, options: Options) -> Result<Vec<Self>, Error> {
        streams::set_up_consumers(&bus.jetstream, stream).await?;
        let consumers = stream.consumers();
        let holds = Holds::new(bus);
        let credits = match stream.shares {
            Shares::None => vec![Credit::alone(options.max_held)],
            Shares::Published | Shares::Transformed => Credit::shared(options.max_held, consumers.len()),
        };
        let opening = consumers
            .iter()
            .zip(credits)
            .map(|(consumer, credit)| Self::open(bus, stream, consumer, credit, Arc::clone(&holds)));
        try_join_all(opening).await
    }

    async fn open(
        bus: &Bus,
        stream: Stream,
        consumer: &Consumer,
        credit: Credit,
        holds: Arc<Holds>,
    ) -> Result<Self, Error> {
        let fail = |source: async_nats::Error| Error::SetUp {
            what: format!("consumer {} of stream {}", consumer.name, stream.name),
            source,
        };
        let consumer: PullConsumer = bus
            .jetstream
            .get_consumer_from_stream(&consumer.name, stream.name)
            .await
            .map_err(|error| fail(error.into()))?;
        let inbox = Subject::from(bus.client.new_inbox());
        let messages = bus
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| fail(error.into()))?;
        Ok(Self {
            bus: bus.clone(),
            stream,
            consumer,
            inbox,
            messages,
            credit,
            expected: 0,
            reserved: Vec::new(),
            answer_by: Instant::now(),
            connected: bus.connected.clone(),
            refused: false,
            holds,
        })
    }

    /// The next message to work on; `None` once told to stop.
    async fn next(&mut self, stop: &CancellationToken) -> Option<(Message, Held)> {
        loop {
            if self.expected == 0 {
                let permit = tokio::select! {
                    biased;
                    () = stop.cancelled() => return None,
                    permit = self.credit.first() => permit,
                };
                self.ask(permit, stop).await;
                if self.expected == 0 {
                    continue;
                }
            }
            let raw = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                raw = self.messages.next() => raw?,
                () = tokio::time::sleep_until(self.answer_by) => {
                    self.expect(Vec::new());
                    continue;
                }
                changed = self.connected.changed() => {
                    changed.ok()?;
                    // What was asked for over the old connection may never come.
                    if *self.connected.borrow_and_update() {
                        self.expect(Vec::new());
                    }
                    continue;
                }
            };
            match raw.status {
                None | Some(StatusCode::OK) => {}
                Some(status) => {
                    self.request_ended(status, raw.description.as_deref());
                    continue;
                }
            }
            if let Some(found) = self.hold(raw) {
                return Some(found);
            }
        }
    }

    /// Asks for as many messages as may be held.
    async fn ask(&mut self, first: Permit, stop: &CancellationToken) {
        if std::mem::take(&mut self.refused) {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(REFUSED_PAUSE) => {}
            }
            // The consumer may be gone with its server's disk, and the stream with it; making what is absent harms nothing
            // that is there.
            if let Err(error) = self.make_what_is_absent().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "NATS has no consumer to pull from"
                );
                self.refused = true;
                return;
            }
        }
        let permits = self.credit.more(first);
        let expires = match permits.iter().any(Permit::is_shared) {
            true => BUSY_PULL_EXPIRES,
            false => PULL_EXPIRES,
        };
        let request = BatchConfig {
            batch: permits.len(),
            // In any case one message, whatever its size.
            max_bytes: (permits.len() * PLACE_BYTES).max(2 * self.bus.max_payload()),
            expires: Some(expires),
            ..BatchConfig::default()
        };
        if let Err(error) = self.consumer.request_batch(request, self.inbox.clone()).await {
            tracing::warn!(%error, "could not ask NATS for messages; trying again");
            self.refused = true;
            return;
        }
        // Only now: were this future dropped before, nothing would have been asked for.
        self.expect(permits);
        self.answer_by = Instant::now() + expires + PULL_GRACE;
    }

    async fn make_what_is_absent(&self) -> Result<(), Error> {
        let Bus { jetstream, config, .. } = &self.bus;
        let making = async {
            streams::set_up(jetstream, config).await?;
            streams::set_up_consumers(jetstream, self.stream).await
        };
        self.bus.refusals.explain(making).await
    }

    /// So many messages are asked for, in the one open request, and none besides.
    fn expect(&mut self, places: Vec<Permit>) {
        self.expected = places.len();
        self.reserved = places;
    }

    /// A status message ends the one open request; but for the one that says that all that was asked for has come, which the
    /// next request may have overtaken.
    fn request_ended(&mut self, status: StatusCode, description: Option<&str>) {
        let says = |text| description.is_some_and(|description| description.starts_with(text));
        if says(ALL_HAVE_COME) {
            return;
        }
        self.expect(Vec::new());
        self.credit.not_used_up();
        if !says(TOO_MANY_BYTES) && !matches!(status, StatusCode::TIMEOUT | StatusCode::NOT_FOUND) {
            tracing::debug!(%status, description, "a pull request was refused");
            self.refused = true;
        }
    }

    /// Hands what has come and nobody has begun back to JetStream, so that another process has it at once and not after
    /// `ack_wait`.
    async fn hand_back(mut self) {
        if self.messages.drain().await.is_err() {
            return;
        }
        // The server ends the subscription after what it had sent before it heard of that.
        let rest = async {
            while let Some(raw) = self.messages.next().await {
                // What ends a request has nobody to reply to.
                let Some(reply) = raw.reply else { continue };
                if self.bus.client.publish(reply, nak(Duration::ZERO)).await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(HAND_BACK_WITHIN, rest).await.is_err() {
            tracing::debug!("some messages were not handed back; JetStream hands them out again by itself");
        }
    }

    /// Takes a message in, unless it is held already or was finished before.
    fn hold(&mut self, raw: async_nats::Message) -> Option<(Message, Held)> {
        let mut place = || self.reserved.pop().or_else(|| self.credit.take());
        let first = place();
        let more = (1..raw.length.div_ceil(PLACE_BYTES)).map_while(|_| place()).collect();
        self.expected = self.expected.saturating_sub(1);
        if self.expected == 0 {
            self.reserved.clear();
        }
        let reply = raw.reply.clone()?;
        let raw = jetstream::Message {
            message: raw,
            context: self.bus.jetstream.clone(),
        };
        let info = match raw.info() {
            Ok(info) => info,
            Err(error) => {
                tracing::warn!(%error, "a message that is not JetStream's came to a pull inbox; ignored");
                return None;
            }
        };
        let stored_at = super::instant(info.published.unix_timestamp_nanos());
        let (sequence, handed_out) = (info.stream_sequence, u32::try_from(info.delivered).unwrap_or(u32::MAX));
        let stored = Place { sequence, stored_at };
        let held = self.holds.begin(stored, reply, (first, more))?;
        let jetstream::Message { message: raw, .. } = raw;
        let message = Message {
            subject: match subject::published(self.stream, &raw.subject) {
                Cow::Borrowed(_) => raw.subject,
                Cow::Owned(published) => published.into(),
            },
            headers: raw.headers,
            payload: raw.payload,
            sequence,
            stored_at,
            handed_out,
        };
        Some((message, held))
    }
}
