//! Records ledger entries.
//!
//! In: batches of stream LEDGER. Out: rows, and a wake-up for [`crate::release`] and [`crate::ordered`] where something may
//! have become due.
//!
//! Guarantee: entries are acked when their rows are committed. Whatever Postgres is going through is waited out, the
//! batch held meanwhile. An entry that can never be recorded (bytes nobody can read, values no column takes) is set
//! aside in `poisoned_entries` with the reason, and holds up no other.
//!
//! A crash here means that the batch is handed out again, here or elsewhere. So entries come more than once, and two
//! recorders may have the same ones at the same time. What makes that harmless:
//! - A batch is one transaction: all of it is on record, or nothing.
//! - Rows are named by what they are about, and are written once. Only an attempt that was not on record before has
//!   consequences, so each has them once; one that was learns at most that it has been handed out again.
//! - A change of a pending delivery says how far the row must have come for it to be news ([`store::pending_deliveries`]).
//!   That makes the order within a batch immaterial, too.
//! - Tables are written in one order, and rows in the order of their keys, so that recorders do not deadlock.
//! - Deliveries that are kept back, held ones and those that go out in order, get their rows with their event, if that
//!   was not on record before: told again, it would bring back what was delivered since.
//! - A webhook's failures are counted under a lock on its row, and only by attempts that were not on record before.
//!
//! A webhook that its failures stop ([`crate::health`]) is noted in the outbox, from where config-api's relay brings its
//! state to ingest and dispatcher.
//!
//! One thing two recorders can do between them that neither would alone: park a delivery that is, in the same instant,
//! recorded as made (both facts exist where a dispatcher died after telling the first). [`crate::release`] looks at the
//! record before it releases, and settles it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::bus::{Message, Verdict};
use common::clock::Clock;
use common::failpoint::{self, Point};
use futures::FutureExt as _;
use jiff::Timestamp;
use proto_schemas::delivery::TrialKind;
use proto_schemas::id::{AttemptRef, EventKey, WebhookId};
use proto_schemas::ledger::{AttemptFinished, Deferral, DeliveryDeferred, EventAccepted, EventRejected, Fact, Outcome};
use proto_schemas::operational::is_operational;
use proto_schemas::stream::config_key::Key;
use store::attempts::{Added, AttemptKey, NewAttempt};
use store::operational_events::OperationalEvent;
use store::partitions::day;
use store::pending_deliveries::{Deferred, KeptBack, Step, Then};
use store::poisoned_entries::PoisonedEntry;
use store::{Connection, Error, Store};
use tokio::time::Instant;

use crate::health::{self, News};
use crate::metrics::Metrics;
use crate::next_step::{self, NextStep, later};
use crate::operational;
use crate::partitions::Partitions;
use crate::patience::{Patience, Stopped, chain};
use crate::wake::Wake;

/// Most facts of one transaction: beyond it, a row gets no cheaper.
const FACTS: usize = 1000;

/// Most ledger entries of one batch. Each has one fact or, from a busy process, a hundred.
pub const BATCH: usize = 500;

/// How long to wait for more entries after the first: what a quiet system's log is behind by.
pub const LINGER: Duration = Duration::from_millis(20);

/// Most bytes of facts in one transaction, as far as one entry fits: keeps a statement of large payloads well under
/// the statement timeout.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Bounds on how long a deferred delivery waits, whatever dispatcher proposes: not in a tight circle, and not for longer
/// than it takes a person to wonder.
const PARKED_MIN: Duration = Duration::from_secs(1);
const PARKED_MAX: Duration = Duration::from_secs(60);

/// The stage.
#[derive(Debug)]
pub struct Recorder {
    /// Where to.
    pub store: Store,
    /// What time it is.
    pub clock: Clock,
    /// Of the tables written.
    pub partitions: Arc<Partitions>,
    /// Wakes [`crate::release`] and [`crate::ordered`].
    pub wake: Wake,
    /// For when Postgres is away.
    pub patience: Patience,
    /// What is counted.
    pub metrics: Metrics,
}

/// A fact that could be read, and the message it came in.
#[derive(Debug)]
struct Entry {
    message: Message,
    fact: Fact,
    /// Its share of the message, in bytes.
    bytes: usize,
}

impl Recorder {
    /// Records a batch.
    pub async fn record(&self, messages: Vec<Message>) -> Verdict {
        match self.record_all(messages).await {
            Ok(()) => Verdict::Done,
            Err(Stopped) => Verdict::Again(Duration::ZERO),
        }
    }

    async fn record_all(&self, messages: Vec<Message>) -> Result<(), Stopped> {
        let mut entries = Vec::with_capacity(messages.len());
        for message in messages {
            let facts = match Fact::decode_all(message.payload.clone()) {
                Ok(facts) => facts,
                Err(error) => {
                    self.poison(&message, None, &error.to_string()).await?;
                    continue;
                }
            };
            let bytes = message.payload.len() / facts.len().max(1);
            for fact in facts {
                match fact {
                    Ok(fact) => entries.push(Entry {
                        message: message.clone(),
                        fact,
                        bytes,
                    }),
                    Err(error) => self.poison(&message, None, &error.to_string()).await?,
                }
            }
        }
        let mut parts = parts(&entries);
        while let Some(part) = parts.pop() {
            let Err(error) = self.patience.outwait(|| self.write(part).boxed()).await? else {
                continue;
            };
            match part {
                [entry] => self.poison(&entry.message, Some(&entry.fact), &chain(&error)).await?,
                // Some entry is at fault: halved until it stands alone.
                _ => {
                    let (first, rest) = part.split_at(part.len() / 2);
                    parts.push(rest);
                    parts.push(first);
                }
            }
        }
        Ok(())
    }

    async fn write(&self, part: &[Entry]) -> Result<(), Error> {
        match self.write_once(part).await {
            // A day that was known is gone: dropped as old, and now wanted again.
            Err(Error::NoPartition(_)) => {
                self.partitions.forget();
                self.write_once(part).await
            }
            written => written,
        }
    }

    /// One transaction.
    async fn write_once(&self, part: &[Entry]) -> Result<(), Error> {
        let begun = Instant::now();
        let now = self.clock.now();
        let mut rows = Rows::of(part, now);
        self.partitions.ensure(rows.days()).await?;
        failpoint::reach(Point::RecordRead);

        let mut transaction = self.store.begin().await?;
        let new = store::events::insert(&mut transaction, &rows.accepted).await?;
        failpoint::reach(Point::RecordEvents);
        let rejected = store::rejected_events::insert(&mut transaction, &rows.rejected).await?;
        failpoint::reach(Point::RecordRejected);
        let added = store::attempts::insert(&mut transaction, &rows.attempts).await?;
        failpoint::reach(Point::RecordAttempts);
        let steps: Vec<Step> = added.failed.iter().filter_map(|key| rows.steps.remove(key)).collect();
        let ended = rows.ended(&steps);
        let mut raised = rows.raised(&rejected, &steps);
        let settled = store::pending_deliveries::settle(&mut transaction, &rows.delivered).await?;
        failpoint::reach(Point::RecordSettled);
        let stepped = store::pending_deliveries::step(&mut transaction, steps, now).await?;
        failpoint::reach(Point::RecordStepped);
        store::pending_deliveries::replay::supersede(&mut transaction, &ended).await?;
        failpoint::reach(Point::RecordSuperseded);
        let deferred = rows.deferred.len();
        store::pending_deliveries::defer(&mut transaction, std::mem::take(&mut rows.deferred), now).await?;
        failpoint::reach(Point::RecordParked);
        let kept_back = kept_back(rows.accepted.iter().filter(|fact| new.contains(&fact.event.key)));
        let (held, ordered) = (rows.holds, kept_back.iter().any(|row| row.key.is_some()));
        store::pending_deliveries::keep_back(&mut transaction, kept_back, now).await?;
        failpoint::reach(Point::RecordKept);
        rows.note_health(&mut transaction, &added, &mut raised).await?;
        failpoint::reach(Point::RecordHealth);
        store::operational_events::insert(&mut transaction, &raised).await?;
        failpoint::reach(Point::RecordRaised);
        transaction.commit().await?;
        failpoint::reach(Point::RecordCommitted);

        // A delivery is due, or one that waits may follow one that is done. A newly parked one waits for a second at least;
        // a newly held one may be late, and its webhook active again.
        if settled + stepped > 0 {
            self.wake.all();
        } else if ordered {
            self.wake.ordered.notify_one();
        }
        if held {
            self.wake.release.notify_one();
        }
        self.metrics.batch(part.len(), begun.elapsed());
        self.metrics.recorded("event_accepted", rows.accepted.len());
        self.metrics.recorded("event_rejected", rows.rejected.len());
        self.metrics.recorded("attempt_finished", rows.attempts.len());
        self.metrics.recorded("delivery_deferred", deferred);
        Ok(())
    }

    /// Sets an entry aside. A delivery it is about could never be heard of again, and ends here.
    async fn poison(&self, message: &Message, fact: Option<&Fact>, reason: &str) -> Result<(), Stopped> {
        tracing::error!(
            sequence = message.sequence,
            subject = message.subject.as_str(),
            reason,
            "a ledger entry cannot be recorded; it is set aside in poisoned_entries"
        );
        self.metrics.poisoned();
        let entry = PoisonedEntry {
            stream_sequence: message.sequence,
            stored_at: message.stored_at,
            subject: message.subject.as_str(),
            reason,
            payload: &message.payload,
        };
        if let Err(error) = self.patience.outwait(|| self.set_aside(entry).boxed()).await? {
            tracing::error!(
                sequence = message.sequence,
                error = chain(&error),
                "nor can it be set aside; it is lost"
            );
        }
        if let Err(error) = self
            .patience
            .outwait(|| self.end_delivery(fact, reason).boxed())
            .await?
        {
            tracing::error!(
                sequence = message.sequence,
                error = chain(&error),
                "nor can its delivery be ended"
            );
        }
        Ok(())
    }

    async fn set_aside(&self, entry: PoisonedEntry<'_>) -> Result<(), Error> {
        let mut transaction = self.store.begin().await?;
        store::poisoned_entries::insert(&mut transaction, entry).await?;
        transaction.commit().await
    }

    async fn end_delivery(&self, fact: Option<&Fact>, reason: &str) -> Result<(), Error> {
        let (attempt, delivered) = match fact {
            // A trial is no delivery.
            Some(Fact::AttemptFinished(fact)) if fact.trial.is_some() => return Ok(()),
            Some(Fact::AttemptFinished(fact)) => (fact.attempt, fact.outcome == Outcome::Delivered),
            Some(Fact::DeliveryDeferred(fact)) => (fact.attempt, false),
            Some(Fact::EventAccepted(_) | Fact::EventRejected(_)) | None => return Ok(()),
        };
        let mut transaction = self.store.begin().await?;
        let now = self.clock.now();
        if delivered {
            store::pending_deliveries::settle(&mut transaction, &[attempt]).await?;
        } else {
            let reason = format!("attempt {} could not be recorded: {reason}", attempt.attempt);
            let events = store::events::load(&mut transaction, &[attempt.event]).await?;
            let raised: Vec<_> = events
                .iter()
                .filter_map(|event| operational::impossible(event, &attempt, &reason, now))
                .collect();
            let step = Step {
                after: attempt,
                reason,
                due_at: None,
            };
            if store::pending_deliveries::step(&mut transaction, vec![step], now).await? > 0 {
                store::operational_events::insert(&mut transaction, &raised).await?;
            }
        }
        transaction.commit().await
    }
}

/// Cuts a batch into what one transaction takes; the first part comes last, to be popped.
fn parts(entries: &[Entry]) -> Vec<&[Entry]> {
    let (mut facts, mut bytes) = (1, entries.first().map_or(0, |first| first.bytes));
    let mut parts: Vec<&[Entry]> = entries
        .chunk_by(|_, next| {
            (facts, bytes) = (facts + 1, bytes + next.bytes);
            let fits = facts <= FACTS && bytes <= BATCH_BYTES;
            if !fits {
                (facts, bytes) = (1, next.bytes);
            }
            fits
        })
        .collect();
    parts.reverse();
    parts
}

/// The rows a part of a batch comes to.
#[derive(Debug, Default)]
struct Rows<'a> {
    accepted: Vec<&'a EventAccepted>,
    rejected: Vec<&'a EventRejected>,
    attempts: Vec<NewAttempt<'a>>,
    /// What follows from those attempts that failed, if they are news.
    steps: HashMap<AttemptKey, Step>,
    /// Those attempts, and endpoint checks whatever they came to.
    failed: HashMap<AttemptKey, &'a AttemptFinished>,
    checks: Vec<&'a AttemptFinished>,
    /// Attempts that delivered and may have a pending row to be removed.
    delivered: Vec<AttemptRef>,
    deferred: Vec<Deferred>,
    /// Whether one of these, or an event's delivery, is held.
    holds: bool,
}

impl<'a> Rows<'a> {
    fn of(entries: &'a [Entry], now: Timestamp) -> Self {
        let mut rows = Self::default();
        for entry in entries {
            match &entry.fact {
                Fact::EventAccepted(fact) => {
                    rows.holds |= !fact.held.is_empty();
                    rows.accepted.push(fact);
                }
                Fact::EventRejected(fact) => rows.rejected.push(fact),
                Fact::AttemptFinished(fact) => rows.attempt(fact, now),
                Fact::DeliveryDeferred(fact) => rows.defer(fact, now),
            }
        }
        rows
    }

    fn attempt(&mut self, fact: &'a AttemptFinished, now: Timestamp) {
        if let Some(kind) = fact.trial {
            self.attempts.push(NewAttempt {
                fact,
                next_attempt_at: None,
            });
            if kind == TrialKind::Check {
                self.checks.push(fact);
            }
            return;
        }
        let (reason, due_at) = match next_step::decide(fact, now) {
            NextStep::Settled => {
                if may_be_pending(fact) {
                    self.delivered.push(fact.attempt);
                }
                self.attempts.push(NewAttempt {
                    fact,
                    next_attempt_at: None,
                });
                return;
            }
            NextStep::Again { due_at, reason } => (reason, Some(due_at)),
            NextStep::Dead { reason } => (reason, None),
        };
        self.attempts.push(NewAttempt {
            fact,
            next_attempt_at: due_at,
        });
        // Of two entries about one attempt the first goes on record.
        let key = AttemptKey::from(&fact.attempt);
        self.failed.entry(key).or_insert(fact);
        self.steps.entry(key).or_insert(Step {
            after: fact.attempt,
            reason,
            due_at,
        });
    }

    fn defer(&mut self, fact: &DeliveryDeferred, now: Timestamp) {
        let then = match fact.kind {
            Deferral::Park => Then::Parked(later(now, fact.retry_in.clamp(PARKED_MIN, PARKED_MAX))),
            Deferral::Hold => Then::Held,
            Deferral::Cancel => Then::Cancelled,
        };
        self.holds |= then == Then::Held;
        self.deferred.push(Deferred {
            attempt: fact.attempt,
            reason: fact.reason.clone(),
            then,
        });
    }

    /// What is to be told of what is news among these: messages rejected, and deliveries that are dead.
    fn raised(&self, rejected: &[EventKey], steps: &[Step]) -> Vec<OperationalEvent> {
        let rejected = self
            .rejected
            .iter()
            .filter(|fact| rejected.contains(&fact.key))
            .filter_map(|fact| operational::rejected(fact));
        let dead = steps.iter().filter(|step| step.due_at.is_none()).filter_map(|step| {
            let fact = self.failed.get(&AttemptKey::from(&step.after))?;
            operational::dead(fact, &step.reason)
        });
        rejected.chain(dead).collect()
    }

    /// Whether the webhook was delivered an event of a producer's.
    fn delivers_to(&self, webhook: WebhookId) -> bool {
        self.attempts.iter().map(|new| new.fact).any(|fact| {
            fact.attempt.webhook == webhook
                && fact.outcome == Outcome::Delivered
                && fact.trial.is_none()
                && !is_operational(&fact.event_type)
        })
    }

    /// Notes how the deliveries of the batch's webhooks go, by the attempts that are news. Comes last, since the rows of
    /// busy webhooks are what recorders wait for each other about.
    async fn note_health(
        &self,
        connection: &mut Connection,
        added: &Added,
        raised: &mut Vec<OperationalEvent>,
    ) -> Result<(), Error> {
        let mut news: HashMap<WebhookId, News<'_>> = HashMap::new();
        for (webhook, delivered_at) in &added.delivered {
            news.entry(*webhook).or_default().delivered_at = Some(*delivered_at);
        }
        for fact in added.failed.iter().filter_map(|key| self.failed.get(key)) {
            news.entry(fact.attempt.webhook).or_default().failed.push(fact);
        }
        // Whether these are news can be told by what is noted.
        for fact in &self.checks {
            news.entry(fact.attempt.webhook).or_default().checks.push(fact);
        }
        let webhooks: Vec<WebhookId> = news.keys().copied().collect();
        let known = store::webhook_health::find(connection, &webhooks).await?;
        news.retain(|webhook, news| news.matters(known.get(webhook)));
        let webhooks: Vec<WebhookId> = news.keys().copied().collect();

        let (mut rows, mut moved) = (Vec::with_capacity(webhooks.len()), Vec::new());
        let (mut stopped, mut recovering) = (Vec::new(), HashMap::new());
        for locked in store::webhook_health::lock(connection, &webhooks).await? {
            let news = news.remove(&locked.webhook).unwrap_or_default();
            let (failed, delivered_at) = (news.failed.clone(), news.delivered_at);
            let (health, is_moved) = health::decide(&locked, news);
            if is_moved {
                moved.push(Key::Webhook(locked.project, locked.webhook).to_text());
            }
            if let Some(event) = operational::stopped(&locked, &health, &failed) {
                stopped.push((locked.webhook, event.occurred_at));
                raised.push(event);
            }
            if health != locked.health {
                rows.push((locked.webhook, health));
            }
            if let Some(delivered_at) = delivered_at
                && operational::may_recover(&locked, delivered_at)
                && self.delivers_to(locked.webhook)
            {
                recovering.insert(locked.webhook, (locked, delivered_at));
            }
        }
        store::operational_events::note_stopped(connection, &stopped).await?;
        let webhooks: Vec<WebhookId> = recovering.keys().copied().collect();
        for (webhook, stopped_at) in store::operational_events::take_stopped(connection, &webhooks).await? {
            let recovered = recovering.get(&webhook);
            raised.extend(recovered.map(|(locked, at)| operational::recovered(locked, stopped_at, *at)));
        }
        store::webhook_health::write(connection, &rows).await?;
        if !moved.is_empty() {
            store::outbox::append(connection, &moved).await?;
        }
        Ok(())
    }

    /// The attempts that may make rows of earlier runs void, or be made void by what a later run has delivered. Of the
    /// deliveries that go well straight away there is none.
    fn ended(&self, steps: &[Step]) -> Vec<AttemptRef> {
        let dead = steps.iter().filter(|step| step.due_at.is_none()).map(|step| step.after);
        let delivered = self.delivered.iter().copied().filter(|attempt| attempt.run > 0);
        delivered.chain(dead).collect()
    }

    /// The days whose partitions are needed.
    fn days(&self) -> impl Iterator<Item = jiff::civil::Date> {
        let events = self.accepted.iter().map(|fact| fact.event.key);
        let attempts = self.attempts.iter().map(|new| new.fact.attempt.event);
        events.chain(attempts).map(day)
    }
}

/// The deliveries of these events that no duty was made for.
fn kept_back<'a>(facts: impl Iterator<Item = &'a &'a EventAccepted>) -> Vec<KeptBack> {
    let mut rows = Vec::new();
    for fact in facts {
        let row = |webhook| KeptBack {
            event: fact.event.key,
            project: fact.event.project,
            webhook,
            key: fact.ordered.iter().find(|(it, _)| *it == webhook).map(|(_, key)| *key),
            held: fact.held.contains(&webhook).then_some("the webhook is paused"),
        };
        let ordered = fact.ordered.iter().map(|(webhook, _)| *webhook);
        rows.extend(fact.held.iter().copied().map(row));
        rows.extend(ordered.filter(|webhook| !fact.held.contains(webhook)).map(row));
    }
    rows
}

/// Whether the delivery may have a row in `pending_deliveries`. One that succeeds straight from ingest, at its first
/// attempt and handed out once, has none and needs no statement: that is nearly all of them.
fn may_be_pending(fact: &AttemptFinished) -> bool {
    let AttemptRef {
        run, attempt, release, ..
    } = fact.attempt;
    run > 0 || attempt > 1 || release > 0 || fact.handed_out > 1
}
