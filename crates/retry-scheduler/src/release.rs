//! Hands deliveries to dispatcher again when they are due.
//!
//! In: `scheduled` rows whose time has come, the oldest `parked` rows of each webhook as room is made, and the oldest `held`
//! ones of each that is active again, no faster than it wants; one at a time where its attempts have failed of late, since
//! one is enough to see whether they still do. Out: `DeliveryDue` to stream DELIVERIES, and the rows
//! `released`. A row whose webhook gets nothing just now is `held`, and one whose webhook is gone `cancelled`: that is
//! known from the definitions in memory, and where they are behind, dispatcher says the same.
//!
//! A held row that is recorded after its webhook was resumed is seen by the next look, like any other: what is asked is
//! not what has changed, but which of those that have held rows are active.
//!
//! Guarantee: a row says `released` only when JetStream has the duty. Rows are locked from claim to commit, so no two
//! processes release the same one.
//!
//! A crash here, between publishing and commit, leaves the row as it was: the duty is published again with the same
//! message id, and JetStream drops it. JetStream remembers ids for ten minutes, and Postgres may be away for longer; so
//! at start, and whenever Postgres failed, nothing is released before all that LEDGER holds is on record. Should the
//! attempt be among it, the row has moved on, since the recorder goes by attempt number; and where it has not (see
//! [`crate::record`]), that is seen here, before anything is published.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::bus::{self, Bus};
use common::clock::Clock;
use common::definitions::Definitions;
use common::failpoint::{self, Point};
use common::model::Standing;
use futures::future::join_all;
use jiff::Timestamp;
use proto_schemas::definition::Webhook;
use proto_schemas::delivery::DeliveryDue;
use proto_schemas::event::Event;
use proto_schemas::id::{AttemptRef, EventKey, WebhookId};
use proto_schemas::subject;
use store::attempts::{self, AttemptKey};
use store::operational_events::OperationalEvent;
use store::pending_deliveries::{self, Deferred, Drain, Room, Step, Then};
use store::{Connection, Store, Transaction, drains, events};
use tokio_util::sync::CancellationToken;

use crate::catch_up;
use crate::drain::{self, Allowance};
use crate::metrics::Metrics;
use crate::next_step::later;
use crate::operational;
use crate::patience::{Patience, chain};
use crate::wake::Wake;

/// Most deliveries of one transaction.
pub(crate) const CLAIM: u32 = 500;

/// Failed attempts in a row from which on a webhook's parked deliveries are released one by one: dispatcher, whose breaker
/// opens by then, would send the others back. The first that is delivered ends it.
const PROBED_FROM: u32 = 5;

/// Events read and published at once: the bound on memory, since a payload may be hundreds of kilobytes.
const EVENTS_AT_ONCE: usize = 32;

/// How often to look without being told to, for what other processes have recorded and for parked rows.
const SWEEP: Duration = Duration::from_secs(1);

/// Least time between two looks, so that a busy recorder does not have us look after each batch.
const REST: Duration = Duration::from_millis(20);

/// How long to wait after something went wrong.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// The stage.
#[derive(Debug)]
pub struct Releaser {
    /// Where from.
    pub store: Store,
    /// Where to.
    pub bus: Bus,
    /// What time it is.
    pub clock: Clock,
    /// Which webhooks get anything.
    pub definitions: Arc<Definitions>,
    /// Notified when something may have become due.
    pub wake: Wake,
    /// Parked deliveries of one webhook that may be released at once.
    pub per_webhook: u32,
    /// When to begin to doubt that a released one is still on its way.
    pub doubt_after: Duration,
    /// For when Postgres is away.
    pub patience: Patience,
    /// What is counted.
    pub metrics: Metrics,
}

/// When to look again.
enum Next {
    AtOnce,
    WhenDue(Option<Timestamp>),
    AfterPause,
}

/// What a look came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// How many rows were claimed, of the kind that had most.
    pub claimed: usize,
    /// When the next held delivery may go that has to wait for its drain.
    pub drains_at: Option<Timestamp>,
}

/// Why nothing more could be released just now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres did not do what was asked.
    #[error("rows could not be claimed or written")]
    Store(#[from] store::Error),
    /// JetStream did not say what it holds.
    #[error("the streams could not be looked at")]
    Position(#[source] bus::Error),
    /// JetStream did not take a duty.
    #[error("{failed} of {claimed} duties were not stored, at least")]
    Bus {
        /// How many.
        failed: usize,
        /// Of how many.
        claimed: usize,
        /// What was said of the last.
        #[source]
        source: bus::Error,
    },
}

impl Releaser {
    /// Releases until `stop`; what is begun is finished.
    pub async fn run(&self, stop: &CancellationToken) {
        // Whether every earlier release is known to be committed, or never happened, or is on record.
        let mut certain = false;
        while !stop.is_cancelled() {
            let next = self.step(&mut certain, stop).await;
            let wait = async {
                match next {
                    Next::AtOnce => {}
                    Next::WhenDue(drains_at) => self.rest(drains_at).await,
                    Next::AfterPause => tokio::time::sleep(PAUSE).await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = wait => {}
            }
        }
    }

    async fn step(&self, certain: &mut bool, stop: &CancellationToken) -> Next {
        if !self.bus.is_connected() {
            return Next::AfterPause;
        }
        if !*certain {
            let recorded = tokio::select! {
                () = stop.cancelled() => return Next::AtOnce,
                recorded = catch_up::recorded(&self.bus) => recorded,
            };
            if let Err(error) = recorded {
                tracing::debug!(error = chain(&error), "cannot tell yet what is on record");
                return Next::AfterPause;
            }
            *certain = true;
        }
        match self.look().await {
            // There may be more.
            Ok(looked) if looked.claimed >= CLAIM as usize => Next::AtOnce,
            Ok(looked) => Next::WhenDue(looked.drains_at),
            Err(Error::Store(error)) => {
                *certain = false;
                self.patience.fault(&error);
                Next::AfterPause
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "not released; trying again");
                Next::AfterPause
            }
        }
    }

    /// Waits until there may be something to release.
    async fn rest(&self, drains_at: Option<Timestamp>) {
        let mut pause = self.until_next_due().await;
        if let Some(drains_at) = drains_at {
            let wait = Duration::try_from(drains_at.duration_since(self.clock.now())).unwrap_or_default();
            pause = pause.min(wait);
        }
        tokio::time::sleep(REST).await;
        // A wake-up that came meanwhile ends the wait at once.
        let _ = tokio::time::timeout(pause, self.wake.release.notified()).await;
    }

    /// Releases what is due now, as far as one transaction for each kind goes.
    ///
    /// # Errors
    /// [`Error`]; what was released before is committed.
    pub async fn look(&self) -> Result<Looked, Error> {
        let mut transaction = self.store.begin().await?;
        let scheduled = pending_deliveries::claim_scheduled(&mut transaction, self.clock.now(), CLAIM).await?;
        let mut claimed = scheduled.len();
        self.release(transaction, "scheduled", scheduled).await?;

        let mut transaction = self.store.begin().await?;
        let now = self.clock.now();
        let parked = pending_deliveries::claim_parked(&mut transaction, now, self.room(), CLAIM).await?;
        claimed = claimed.max(parked.len());
        self.release(transaction, "parked", parked).await?;

        let (held, drains_at) = self.drain().await?;
        self.patience.well();
        Ok(Looked {
            claimed: claimed.max(held),
            drains_at,
        })
    }

    /// How many of one webhook may be released at once.
    pub(crate) fn room(&self) -> Room {
        Room {
            per_webhook: self.per_webhook,
            one_from: PROBED_FROM,
        }
    }

    /// Releases held deliveries of webhooks that are active; those that go out in order get their turn instead. Tells how
    /// many, and when the next may go that has to wait for its drain.
    async fn drain(&self) -> Result<(usize, Option<Timestamp>), Error> {
        let mut transaction = self.store.begin().await?;
        let held = pending_deliveries::webhooks_held(&mut transaction).await?;
        let active: Vec<Arc<Webhook>> = held
            .into_iter()
            .filter_map(|webhook| self.definitions.webhook(webhook))
            .filter(|webhook| Standing::of(webhook) == Standing::Active)
            .collect();
        if active.is_empty() {
            transaction.rollback().await?;
            return Ok((0, None));
        }
        let now = self.clock.now();
        let mut paced: HashMap<WebhookId, Allowance> = HashMap::new();
        let drains = async |connection: &mut Connection| {
            let (drains, allowances) = drains_of(connection, &active, now).await?;
            paced = allowances;
            Ok(drains)
        };
        let claimed = pending_deliveries::claim_held(&mut transaction, drains, now, self.room(), CLAIM).await?;
        let mut taken: HashMap<WebhookId, u32> = HashMap::new();
        for claimed in &claimed {
            *taken.entry(claimed.attempt.webhook).or_default() += 1;
        }
        let taken = |webhook: &WebhookId| taken.get(webhook).copied().unwrap_or(0);
        let next_at = |(webhook, allowance): (&WebhookId, &Allowance)| (*webhook, allowance.next_at(taken(webhook)));
        let next: Vec<(WebhookId, Timestamp)> = paced.iter().map(next_at).collect();
        // Where the lane had no room for what the drain allowed, it is the lane that is waited for.
        let waits = paced
            .iter()
            .filter(|(webhook, allowance)| taken(webhook) >= allowance.most);
        let drains_at = waits.map(next_at).map(|(_, next_at)| next_at).min();
        if claimed.is_empty() {
            transaction.rollback().await?;
            return Ok((0, drains_at));
        }
        drains::note(&mut transaction, &next).await?;
        let attempts = |ordered: bool| -> Vec<AttemptRef> {
            let of_kind = claimed.iter().filter(|claimed| claimed.ordered == ordered);
            of_kind.map(|claimed| claimed.attempt).collect()
        };
        let (ordered, due) = (attempts(true), attempts(false));
        pending_deliveries::enqueue(&mut transaction, &ordered, now).await?;
        self.release(transaction, "held", due).await?;
        if !ordered.is_empty() {
            self.wake.ordered.notify_one();
        }
        Ok((claimed.len(), drains_at))
    }

    /// How long nothing scheduled becomes due, at most until the next sweep.
    async fn until_next_due(&self) -> Duration {
        let now = self.clock.now();
        let next = async {
            let mut connection = self.store.connection().await?;
            pending_deliveries::next_due(&mut connection, now, later(now, SWEEP)).await
        };
        match next.await {
            Ok(Some(due_at)) => Duration::try_from(due_at.duration_since(now)).unwrap_or_default(),
            Ok(None) => SWEEP,
            Err(error) => {
                self.patience.fault(&error);
                PAUSE
            }
        }
    }

    /// Releases the deliveries whose rows `transaction` has locked, and commits it.
    pub(crate) async fn release(
        &self,
        mut transaction: Transaction,
        was: &'static str,
        claimed: Vec<AttemptRef>,
    ) -> Result<(), Error> {
        if !claimed.is_empty() {
            failpoint::reach(Point::ReleaseClaimed);
        }
        let (count, now) = (claimed.len(), self.clock.now());
        let (set_aside, claimed) = self.set_aside(claimed);
        pending_deliveries::set_aside(&mut transaction, set_aside, now).await?;
        let mut due = self.settle_made(&mut transaction, claimed).await?;
        // Deliveries of one event stand together, so that each event is read once.
        due.sort_by_key(|attempt| attempt.event);
        let mut distinct: Vec<EventKey> = due.iter().map(|attempt| attempt.event).collect();
        distinct.dedup();

        let mut outcome = Published::default();
        let mut due = due.as_slice();
        for keys in distinct.chunks(EVENTS_AT_ONCE) {
            let last = keys.last().copied();
            let (now_due, rest) = due.split_at(due.partition_point(|attempt| Some(attempt.event) <= last));
            due = rest;
            let events = events::load(&mut transaction, keys).await?;
            self.publish(
                &events.into_iter().map(|event| (event.key, event)).collect(),
                now_due,
                &mut outcome,
            )
            .await;
            if outcome.failure.is_some() {
                // The rest would only wait for its acks in vain, with the rows locked.
                break;
            }
        }
        failpoint::reach(Point::ReleasePublished);
        let now = self.clock.now();
        let doubt_at = later(now, self.doubt_after);
        pending_deliveries::mark_released(&mut transaction, &outcome.stored, doubt_at, now).await?;
        pending_deliveries::step(&mut transaction, outcome.impossible, now).await?;
        store::operational_events::insert(&mut transaction, &outcome.raised).await?;
        failpoint::reach(Point::ReleaseMarked);
        transaction.commit().await?;
        failpoint::reach(Point::ReleaseCommitted);
        self.metrics.released(was, outcome.stored.len());
        match outcome.failure {
            Some(source) => Err(Error::Bus {
                failed: outcome.failed,
                claimed: count,
                source,
            }),
            None => Ok(()),
        }
    }

    /// Tells the deliveries that are not to go, by what is known of their webhooks, from those that are. What is not known
    /// is left to dispatcher.
    fn set_aside(&self, claimed: Vec<AttemptRef>) -> (Vec<Deferred>, Vec<AttemptRef>) {
        let (mut set_aside, mut due) = (Vec::new(), Vec::with_capacity(claimed.len()));
        for attempt in claimed {
            let standing = self
                .definitions
                .webhook(attempt.webhook)
                .map_or(Standing::Active, |webhook| Standing::of(&webhook));
            let (reason, then) = match standing {
                Standing::Active => {
                    due.push(attempt);
                    continue;
                }
                Standing::Held(reason) => (reason, Then::Held),
                Standing::Gone(reason) => (reason, Then::Cancelled),
            };
            set_aside.push(Deferred {
                attempt,
                reason: reason.to_owned(),
                then,
            });
        }
        (set_aside, due)
    }

    /// Looks whether an attempt to be released has been made already, and moves its row on if so. Gives back the others.
    async fn settle_made(
        &self,
        transaction: &mut Transaction,
        mut claimed: Vec<AttemptRef>,
    ) -> Result<Vec<AttemptRef>, store::Error> {
        let keys: Vec<_> = claimed.iter().map(AttemptKey::from).collect();
        let made = attempts::made(transaction, &keys).await?;
        if made.is_empty() {
            return Ok(claimed);
        }
        let made: HashMap<_, _> = made.into_iter().map(|made| (made.key, made)).collect();
        let (mut delivered, mut steps) = (Vec::new(), Vec::new());
        claimed.retain(|attempt| {
            match made.get(&AttemptKey::from(attempt)) {
                None => return true,
                Some(made) if made.delivered => delivered.push(*attempt),
                Some(made) => steps.push(Step {
                    after: *attempt,
                    reason: format!("attempt {} failed", attempt.attempt),
                    due_at: made.next_attempt_at,
                }),
            }
            false
        });
        pending_deliveries::settle(transaction, &delivered).await?;
        pending_deliveries::replay::supersede(transaction, &delivered).await?;
        pending_deliveries::step(transaction, steps, self.clock.now()).await?;
        Ok(claimed)
    }

    /// Publishes the duties to make these attempts, all at once, and waits for every ack.
    async fn publish(&self, events: &HashMap<EventKey, Event>, due: &[AttemptRef], outcome: &mut Published) {
        let publishing = due.iter().filter_map(|attempt| {
            let event = events.get(&attempt.event)?;
            let next = AttemptRef {
                release: attempt.release.saturating_add(1),
                ..*attempt
            };
            let duty = DeliveryDue::encode_parts(event, next);
            let subject = subject::delivery(next.project, next.webhook);
            Some(async move {
                let stored = async {
                    self.bus
                        .publish_once(subject, &next.delivery_message_id(), duty)
                        .await?
                        .stored()
                        .await
                };
                (next, stored.await)
            })
        });
        for (attempt, stored) in join_all(publishing).await {
            match stored {
                Ok(_) => outcome.stored.push(attempt),
                // It will not get smaller.
                Err(error @ bus::Error::TooLarge) => {
                    let reason = format!("attempt {} could not be made: {error}", attempt.attempt);
                    let event = events.get(&attempt.event);
                    outcome.raised.extend(
                        event.and_then(|event| operational::impossible(event, &attempt, &reason, self.clock.now())),
                    );
                    outcome.impossible.push(Step {
                        after: attempt,
                        reason,
                        due_at: None,
                    });
                }
                Err(error) => {
                    outcome.failed += 1;
                    outcome.failure = Some(error);
                }
            }
        }
    }
}

/// How many held deliveries of each webhook may go now, and what its drain allows where it has one.
async fn drains_of(
    connection: &mut Connection,
    active: &[Arc<Webhook>],
    now: Timestamp,
) -> Result<(Vec<Drain>, HashMap<WebhookId, Allowance>), store::Error> {
    let with_rate: Vec<WebhookId> = active
        .iter()
        .filter(|webhook| webhook.drain_rate.is_some())
        .map(|webhook| webhook.id)
        .collect();
    let noted = drains::find(connection, &with_rate).await?;
    let mut allowances = HashMap::new();
    let drains = active
        .iter()
        .map(|webhook| {
            let allowance = webhook
                .drain_rate
                .map(|rate| drain::allowance(rate, noted.get(&webhook.id).copied(), now));
            allowances.extend(allowance.map(|allowance| (webhook.id, allowance)));
            Drain {
                webhook: webhook.id,
                most: allowance.map_or(CLAIM, |allowance| allowance.most),
            }
        })
        .collect();
    Ok((drains, allowances))
}

/// What became of the duties published.
#[derive(Debug, Default)]
struct Published {
    stored: Vec<AttemptRef>,
    impossible: Vec<Step>,
    /// What is to be told of these.
    raised: Vec<OperationalEvent>,
    failed: usize,
    failure: Option<bus::Error>,
}
