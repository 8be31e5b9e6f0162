//! Hands deliveries to dispatcher again when they are due.
//!
//! In: `scheduled` rows whose time has come, and the oldest `parked` rows of each webhook as room is made: one at a time
//! where its attempts have failed of late, since one is enough to see whether they still do. Out: `DeliveryDue` to stream
//! DELIVERIES, and the rows `released`.
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
use common::failpoint::{self, Point};
use futures::future::join_all;
use proto_schemas::delivery::DeliveryDue;
use proto_schemas::event::Event;
use proto_schemas::id::{AttemptRef, EventKey};
use proto_schemas::subject;
use store::attempts::{self, AttemptKey};
use store::pending_deliveries::{self, Room, Step};
use store::{Store, Transaction, events};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::catch_up;
use crate::metrics::Metrics;
use crate::next_step::later;
use crate::patience::{Patience, chain};

/// Most deliveries of one transaction.
const CLAIM: u32 = 500;

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
const PAUSE: Duration = Duration::from_secs(1);

/// The stage.
#[derive(Debug)]
pub struct Releaser {
    /// Where from.
    pub store: Store,
    /// Where to.
    pub bus: Bus,
    /// What time it is.
    pub clock: Clock,
    /// Notified when something may have become due.
    pub wake: Arc<Notify>,
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
    WhenDue,
    AfterPause,
}

/// Why nothing more could be released just now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres did not do what was asked.
    #[error("rows could not be claimed or written")]
    Store(#[from] store::Error),
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
                    Next::WhenDue => self.rest().await,
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
            Ok(claimed) if claimed >= CLAIM as usize => Next::AtOnce,
            Ok(_) => Next::WhenDue,
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
    async fn rest(&self) {
        let pause = self.until_next_due().await;
        tokio::time::sleep(REST).await;
        // A wake-up that came meanwhile ends the wait at once.
        let _ = tokio::time::timeout(pause, self.wake.notified()).await;
    }

    /// Releases what is due now, as far as one transaction for each kind goes; tells how many rows the larger one had.
    ///
    /// # Errors
    /// [`Error`]; what was released before is committed.
    pub async fn look(&self) -> Result<usize, Error> {
        let mut transaction = self.store.begin().await?;
        let scheduled = pending_deliveries::claim_scheduled(&mut transaction, self.clock.now(), CLAIM).await?;
        let mut claimed = scheduled.len();
        self.release(transaction, "scheduled", scheduled).await?;

        let mut transaction = self.store.begin().await?;
        let now = self.clock.now();
        let room = Room {
            per_webhook: self.per_webhook,
            one_from: PROBED_FROM,
        };
        let parked = pending_deliveries::claim_parked(&mut transaction, now, room, CLAIM).await?;
        claimed = claimed.max(parked.len());
        self.release(transaction, "parked", parked).await?;
        self.patience.well();
        Ok(claimed)
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

    async fn release(
        &self,
        mut transaction: Transaction,
        was: &'static str,
        claimed: Vec<AttemptRef>,
    ) -> Result<(), Error> {
        if claimed.is_empty() {
            return Ok(transaction.rollback().await?);
        }
        failpoint::reach(Point::ReleaseClaimed);
        let count = claimed.len();
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
                Err(error @ bus::Error::TooLarge) => outcome.impossible.push(Step {
                    after: attempt,
                    reason: format!("attempt {} could not be made: {error}", attempt.attempt),
                    due_at: None,
                }),
                Err(error) => {
                    outcome.failed += 1;
                    outcome.failure = Some(error);
                }
            }
        }
    }
}

/// What became of the duties published.
#[derive(Debug, Default)]
struct Published {
    stored: Vec<AttemptRef>,
    impossible: Vec<Step>,
    failed: usize,
    failure: Option<bus::Error>,
}
