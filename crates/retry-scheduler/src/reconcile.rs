//! Proves that every delivery owed is accounted for: accepted = delivered + waiting + dead + skipped +
//! cancelled.
//!
//! In: events on record. Out: `missing_deliveries`, which has to stay empty; and after `--repair-after`, those found
//! there made due again.
//!
//! A delivery that nothing is on record of may still be on its way. It is missing when it can be nowhere any more, which
//! takes three looks at the pipe, each only after the one before it:
//! 1. EVENTS is worked off to some message: every event before it has been fanned out, so its first duties were in
//!    DELIVERIES by now, at or below the last sequence there.
//! 2. The oldest message that DELIVERIES holds for the webhook is above that sequence: the duty is gone, and a duty goes
//!    only after its ledger entry is stored.
//! 3. The recorder has worked off what LEDGER held after that: the entry is on record.
//!
//! Events are looked at in the order of their keys, from where the last look stopped; it stops before the first whose
//! delivery is still on its way. A crash here means that the next look begins where this one did. One process at a time
//! looks.

use std::collections::HashMap;
use std::time::Duration;

use common::bus::{self, Bus};
use common::clock::Clock;
use common::failpoint::{self, Point};
use proto_schemas::id::{EventKey, ProjectId, WebhookId};
use proto_schemas::stream::{DELIVERIES, EVENTS};
use proto_schemas::subject;
use store::Store;
use store::reconciliation::{self, Unaccounted};
use tokio_util::sync::CancellationToken;

use crate::catch_up;
use crate::metrics::Metrics;
use crate::patience::{Patience, chain};
use crate::wake::Wake;

/// Time between two looks: a lost delivery is found within a few of them.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Events of one look, and deliveries of it that may be on their way: what one statement does well within its time.
const EVENTS_AT_ONCE: u32 = 20_000;
const ON_THEIR_WAY: u32 = 2_000;

/// How long a look waits for the recorder; then the next one tries again.
const CATCH_UP: Duration = Duration::from_secs(10);

/// How long a look may take before another process takes over: two waits, and the statements.
const LEASE: Duration = Duration::from_secs(30);

/// How far back the first look ever begins.
const BEGIN: Duration = Duration::from_secs(3600);

/// The stage.
#[derive(Debug)]
pub struct Reconciler {
    /// The record.
    pub store: Store,
    /// The pipe.
    pub bus: Bus,
    /// What time it is.
    pub clock: Clock,
    /// Wakes [`crate::release`].
    pub wake: Wake,
    /// When a missing delivery is made due again.
    pub repair_after: Duration,
    /// For when Postgres is away.
    pub patience: Patience,
    /// What is counted.
    pub metrics: Metrics,
}

/// Why a look could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres did not do what was asked.
    #[error("the record could not be read or written")]
    Store(#[from] store::Error),
    /// JetStream did not say what it holds.
    #[error("the streams could not be looked at")]
    Bus(#[from] bus::Error),
    /// The recorder is behind.
    #[error("the recorder is more than {CATCH_UP:?} behind")]
    Behind,
}

/// Deliveries on their way, each with the sequence that DELIVERIES had come to when it was first seen there.
#[derive(Debug, Default)]
pub struct OnTheirWay(HashMap<(EventKey, WebhookId), u64>);

/// What a look came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Another process is looking.
    Elsewhere,
    /// Every event before this key is accounted for, or its deliveries are known to be missing.
    To {
        /// That key.
        to: EventKey,
        /// Whether more events wait to be looked at.
        more: bool,
    },
}

impl Reconciler {
    /// Looks until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut on_their_way = OnTheirWay::default();
        let mut pause = LOOK_EVERY;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = self.look(&mut on_their_way) => looked,
            };
            pause = match looked {
                Ok(Look::To { more: true, .. }) => Duration::ZERO,
                Ok(_) => LOOK_EVERY,
                Err(error) => {
                    match error {
                        Error::Store(error) => self.patience.fault(&error),
                        error => {
                            tracing::debug!(error = chain(&error), "could not look whether deliveries are missing")
                        }
                    }
                    LOOK_EVERY
                }
            };
        }
    }

    /// Looks once.
    ///
    /// # Errors
    /// [`Error`]; the next look begins where this one did.
    pub async fn look(&self, on_their_way: &mut OnTheirWay) -> Result<Look, Error> {
        let now = self.clock.now();
        let begin = EventKey::floor(now.saturating_sub(BEGIN).unwrap_or(now));
        let claimed = reconciliation::claim(&mut *self.store.connection().await?, begin, now, LEASE).await?;
        let Some(from) = claimed else {
            return Ok(Look::Elsewhere);
        };
        failpoint::reach(Point::ReconcileClaimed);

        // 1. In this order: the sequence has to be read after the instant.
        let fanned_out_to = self.bus.position(EVENTS).await?.worked_off_to();
        let last_duty = self.bus.position(DELIVERIES).await?.last;
        self.recorder_catches_up().await?;
        let (to, open) = {
            let mut connection = self.store.connection().await?;
            let end = fanned_out_to.max(from);
            let to = reconciliation::stretch(&mut connection, from, end, EVENTS_AT_ONCE).await?;
            let open = reconciliation::unaccounted(&mut connection, from, to, ON_THEIR_WAY).await?;
            (to, open)
        };
        let full = open.len() == ON_THEIR_WAY as usize;
        let reached = match open.last() {
            Some(last) if full => last.event,
            _ => to,
        };

        // 2. and 3.
        let (waiting, gone) = self.where_they_are(open, last_duty, on_their_way).await?;
        if !gone.is_empty() {
            self.recorder_catches_up().await?;
        }
        let checked_to = waiting.first().map_or(reached, |first| first.event.min(reached));
        self.note(&gone, checked_to).await?;
        Ok(Look::To {
            to: checked_to,
            more: waiting.is_empty() && reached < fanned_out_to,
        })
    }

    /// Tells deliveries that are still in DELIVERIES from those that are gone from it.
    async fn where_they_are(
        &self,
        open: Vec<Unaccounted>,
        last_duty: u64,
        on_their_way: &mut OnTheirWay,
    ) -> Result<(Vec<Unaccounted>, Vec<Unaccounted>), Error> {
        let seen = std::mem::take(&mut on_their_way.0);
        let mut oldest: HashMap<(ProjectId, WebhookId), Option<u64>> = HashMap::new();
        let (mut waiting, mut gone) = (Vec::new(), Vec::new());
        for delivery in open {
            let lane = (delivery.project, delivery.webhook);
            let oldest = match oldest.get(&lane) {
                Some(known) => *known,
                None => {
                    let found = self.bus.oldest(DELIVERIES, &subject::delivery(lane.0, lane.1)).await?;
                    oldest.insert(lane, found);
                    found
                }
            };
            let id = (delivery.event, delivery.webhook);
            let stored_by = seen.get(&id).copied().unwrap_or(last_duty);
            match oldest {
                Some(oldest) if oldest <= stored_by => {
                    on_their_way.0.insert(id, stored_by);
                    waiting.push(delivery);
                }
                _ => gone.push(delivery),
            }
        }
        Ok((waiting, gone))
    }

    async fn note(&self, gone: &[Unaccounted], checked_to: EventKey) -> Result<(), Error> {
        let now = self.clock.now();
        let found_by = now.saturating_sub(self.repair_after).unwrap_or(now);
        let mut transaction = self.store.begin().await?;
        let missing = reconciliation::note_missing(&mut transaction, gone, now).await?;
        let repaired = reconciliation::repair(&mut transaction, found_by, now).await?;
        reconciliation::advance(&mut transaction, checked_to, now).await?;
        let count = reconciliation::count_missing(&mut transaction).await?;
        failpoint::reach(Point::ReconcileNoted);
        transaction.commit().await?;
        failpoint::reach(Point::ReconcileCommitted);
        for delivery in &missing {
            tracing::error!(
                event = delivery.event_id, webhook = %delivery.webhook, project = %delivery.project,
                "a delivery is missing: neither on record nor in the pipe"
            );
        }
        if repaired > 0 {
            tracing::warn!(repaired, "missing deliveries were made due again");
            self.metrics.repaired(repaired);
            self.wake.all();
        }
        self.metrics.reconciled(count, checked_to.accepted_at(), now);
        Ok(())
    }

    /// Waits until what LEDGER holds now is on record.
    async fn recorder_catches_up(&self) -> Result<(), Error> {
        match tokio::time::timeout(CATCH_UP, catch_up::recorded(&self.bus)).await {
            Ok(recorded) => Ok(recorded?),
            Err(_) => Err(Error::Behind),
        }
    }
}
