//! Releases the deliveries that go out in order: of each key the next, when the one before it is settled.
//!
//! In: `queued` rows. Out: `DeliveryDue` to stream DELIVERIES, and the rows `released`, by [`crate::release`].
//!
//! Guarantee: of the deliveries of one webhook with the same key, one is released only when every earlier one is delivered,
//! dead or cancelled. What an attempt that failed waits for, its key waits for, and no other. The order is that of the
//! events' keys: by the time at which NATS stored them, and then as they stand in the stream.
//!
//! ingest works on many events at once, so a later one may be on record before an earlier one. Nothing is released
//! before everything earlier is on record, which [`Frontier`] tells:
//! 1. The oldest message that EVENTS holds: every event before it was fanned out, so its ledger entry is stored.
//! 2. The recorder has worked off what LEDGER held after that: the entry is on record.
//!
//! Rows do the rest: one that is not settled is there, whatever process released it, so this holds over any number of
//! processes and their restarts. A crash here, between publishing and commit, is what it is in [`crate::release`].

use std::sync::Arc;
use std::time::Duration;

use common::bus::{self, Bus};
use common::model::Standing;
use proto_schemas::id::{EventKey, WebhookId};
use proto_schemas::stream::{EVENTS, LEDGER};
use store::pending_deliveries;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::patience::chain;
use crate::release::{CLAIM, Error, PAUSE, Releaser};

/// Least time between two looks: settled deliveries come in batches, and each has one that waits for it.
const REST: Duration = Duration::from_millis(5);

/// Time between two looks while the recorder is behind, or another process is at it.
const SOON: Duration = Duration::from_millis(10);

/// How often to look without being told to, for what other processes have recorded.
const SWEEP: Duration = Duration::from_secs(1);

/// How often, and at how many order keys, to look whether somebody was forgotten.
const FORGOTTEN_EVERY: Duration = Duration::from_secs(10);
const FORGOTTEN_AT_ONCE: u32 = 1000;

/// Up to where every event is on record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frontier {
    known: Option<EventKey>,
    /// The next one, and the sequence of LEDGER up to which has to be recorded before it is known.
    next: Option<(EventKey, u64)>,
}

impl Frontier {
    /// Looks whether it has moved on; it is known at the latest when the recorder has caught up with the first of these
    /// looks. Tells whether it is known as of then.
    ///
    /// # Errors
    /// [`bus::Error`] where JetStream does not say.
    pub async fn advance(&mut self, bus: &Bus) -> Result<bool, bus::Error> {
        let (next, goal) = match self.next {
            Some(next) => next,
            None => {
                // In this order: what was fanned out by then is in LEDGER by now.
                let next = bus.position(EVENTS).await?.worked_off_to();
                (next, bus.position(LEDGER).await?.last)
            }
        };
        self.next = Some((next, goal));
        let ledger = bus.position(LEDGER).await?;
        if ledger.last < goal {
            // It was made anew, or has lost its end, and what it holds has nothing to do with this goal any more.
            self.next = None;
            return Ok(false);
        }
        let recorded = ledger.acked >= goal;
        if recorded {
            self.known = self.known.max(Some(next));
            self.next = None;
        }
        Ok(recorded)
    }
}

/// The stage.
#[derive(Debug)]
pub struct Orderer {
    /// Who releases.
    pub releaser: Arc<Releaser>,
}

/// When to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// There may be more.
    AtOnce,
    /// The recorder is behind, or another process is at it.
    Soon,
    /// When something was settled.
    WhenWoken,
}

impl Orderer {
    /// Releases until `stop`; what is begun is finished.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut frontier = Frontier::default();
        let mut forgotten = Forgotten::default();
        while !stop.is_cancelled() {
            let next = self.step(&mut frontier, &mut forgotten).await;
            let wait = async {
                match next {
                    Ok(Next::AtOnce) => {}
                    Ok(Next::Soon) => tokio::time::sleep(SOON).await,
                    Ok(Next::WhenWoken) => {
                        tokio::time::sleep(REST).await;
                        let _ = tokio::time::timeout(SWEEP, self.releaser.wake.ordered.notified()).await;
                    }
                    Err(()) => tokio::time::sleep(PAUSE).await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = wait => {}
            }
        }
    }

    async fn step(&self, frontier: &mut Frontier, forgotten: &mut Forgotten) -> Result<Next, ()> {
        if !self.releaser.bus.is_connected() {
            return Err(());
        }
        let looked = match forgotten.look(&self.releaser).await {
            Ok(()) => self.look(frontier).await,
            Err(error) => Err(Error::Store(error)),
        };
        looked.map_err(|error| match error {
            Error::Store(error) => {
                // What was published and not committed has to be on record before anything else is released.
                *frontier = Frontier::default();
                self.releaser.patience.fault(&error);
            }
            error => tracing::warn!(error = chain(&error), "not released; trying again"),
        })
    }

    /// Releases what may go now, as far as one transaction goes.
    ///
    /// # Errors
    /// [`Error`]; nothing was lost by it.
    pub async fn look(&self, frontier: &mut Frontier) -> Result<Next, Error> {
        let webhooks = self.webhooks().await?;
        if webhooks.is_empty() {
            return Ok(Next::WhenWoken);
        }
        if let Some(known) = frontier.known {
            let next = self.release_before(&webhooks, known).await?;
            let mut connection = self.releaser.store.connection().await?;
            if next != Next::WhenWoken || !pending_deliveries::queued_from(&mut connection, &webhooks, known).await? {
                return Ok(next);
            }
        }
        let advanced = frontier.advance(&self.releaser.bus).await;
        match (advanced.map_err(Error::Position)?, frontier.known) {
            (true, Some(known)) => self.release_before(&webhooks, known).await,
            _ => Ok(Next::Soon),
        }
    }

    /// Releases of these webhooks what may go now and is before `frontier`.
    ///
    /// # Errors
    /// [`Error`]; nothing was lost by it.
    pub async fn release_before(&self, webhooks: &[WebhookId], frontier: EventKey) -> Result<Next, Error> {
        let releaser = &self.releaser;
        let mut transaction = releaser.store.begin().await?;
        let (now, room) = (releaser.clock.now(), releaser.room());
        let claimed = pending_deliveries::claim_ordered(&mut transaction, webhooks, frontier, now, room, CLAIM);
        let Some(claimed) = claimed.await? else {
            transaction.rollback().await?;
            return Ok(Next::Soon);
        };
        let next = match claimed.len() >= CLAIM as usize {
            true => Next::AtOnce,
            false => Next::WhenWoken,
        };
        releaser.release(transaction, "queued", claimed).await?;
        Ok(next)
    }

    /// The webhooks that have deliveries in order and get them: what is not known is left to dispatcher.
    async fn webhooks(&self) -> Result<Vec<WebhookId>, store::Error> {
        let queued = pending_deliveries::webhooks_queued(&mut *self.releaser.store.connection().await?).await?;
        let gets = |webhook: &WebhookId| {
            let known = self.releaser.definitions.webhook(*webhook);
            known.is_none_or(|webhook| Standing::of(&webhook) == Standing::Active)
        };
        Ok(queued.into_iter().filter(gets).collect())
    }
}

/// Looks now and then whether somebody waits behind nobody.
#[derive(Debug, Default)]
struct Forgotten {
    looked: Option<Instant>,
    place: Option<pending_deliveries::KeyPlace>,
}

impl Forgotten {
    async fn look(&mut self, releaser: &Releaser) -> Result<(), store::Error> {
        if self.looked.is_some_and(|looked| looked.elapsed() < FORGOTTEN_EVERY) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let mut transaction = releaser.store.begin().await?;
        let (promoted, place) =
            pending_deliveries::promote_forgotten(&mut transaction, self.place, FORGOTTEN_AT_ONCE).await?;
        transaction.commit().await?;
        self.place = place;
        if promoted > 0 {
            tracing::warn!(promoted, "deliveries had waited behind none; they have their turn");
        }
        Ok(())
    }
}
