//! Finds released deliveries that got lost, and makes them due again.
//!
//! In: `released` rows of which nothing was heard for long (`--rescue-after`). Out: the lost ones `scheduled`, due now;
//! for those still on their way, another wait of that length.
//!
//! What loses a delivery that JetStream had: a power cut at a NATS that does not sync each write, a stream purged by
//! hand. A delivery is lost when its webhook has no message in DELIVERIES and, after that was seen, the recorder has
//! worked off everything that LEDGER held: a duty leaves DELIVERIES only after its ledger entry is stored, so by then
//! the row would have moved on.
//!
//! A crash here means nothing: the next look finds the same rows. Two processes may rescue the same ones, once: the row
//! must still be in the release that was lost.

use std::collections::HashMap;
use std::time::Duration;

use common::bus::{self, Bus};
use common::clock::Clock;
use common::failpoint::{self, Point};
use proto_schemas::id::{AttemptRef, ProjectId, WebhookId};
use proto_schemas::stream::DELIVERIES;
use proto_schemas::subject;
use store::{Store, pending_deliveries};
use tokio_util::sync::CancellationToken;

use crate::catch_up;
use crate::metrics::Metrics;
use crate::next_step::later;
use crate::patience::{Patience, chain};
use crate::wake::Wake;

/// Most rows of one look.
const LOOK_AT: u32 = 1000;

/// How long a look waits for the recorder; then the rows are left for the next one.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Bounds on the time between two looks.
const LOOK_MIN: Duration = Duration::from_secs(1);
const LOOK_MAX: Duration = Duration::from_secs(15);

/// The stage.
#[derive(Debug)]
pub struct Rescuer {
    /// Whose rows.
    pub store: Store,
    /// Where they may be under way.
    pub bus: Bus,
    /// What time it is.
    pub clock: Clock,
    /// Wakes [`crate::release`].
    pub wake: Wake,
    /// When to begin to doubt that a released delivery is still on its way.
    pub doubt_after: Duration,
    /// For when Postgres is away.
    pub patience: Patience,
    /// What is counted.
    pub metrics: Metrics,
}

/// Why nobody could be rescued just now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres did not do what was asked.
    #[error("rows could not be read or written")]
    Store(#[from] store::Error),
    /// JetStream did not say what it holds.
    #[error("the streams could not be looked at")]
    Bus(#[from] bus::Error),
}

impl Rescuer {
    /// Rescues until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let every = (self.doubt_after / 4).clamp(LOOK_MIN, LOOK_MAX);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = self.look() => looked,
            };
            match looked {
                Ok(0) => {}
                Ok(rescued) => tracing::warn!(rescued, "released deliveries had got lost; they are due again"),
                Err(Error::Store(error)) => self.patience.fault(&error),
                Err(error) => tracing::warn!(error = chain(&error), "could not look for lost deliveries"),
            }
        }
    }

    /// Looks once; tells how many were rescued.
    ///
    /// # Errors
    /// [`Error`]; nothing was lost by it.
    pub async fn look(&self) -> Result<u64, Error> {
        let doubtful = {
            let mut connection = self.store.connection().await?;
            pending_deliveries::doubtful(&mut connection, self.clock.now(), LOOK_AT).await?
        };
        let mut by_webhook: HashMap<(ProjectId, WebhookId), Vec<AttemptRef>> = HashMap::new();
        for attempt in doubtful {
            by_webhook
                .entry((attempt.project, attempt.webhook))
                .or_default()
                .push(attempt);
        }
        let (mut under_way, mut gone) = (Vec::new(), Vec::new());
        for ((project, webhook), attempts) in by_webhook {
            match self.bus.count(DELIVERIES, &subject::delivery(project, webhook)).await? {
                0 => gone.extend(attempts),
                _ => under_way.extend(attempts),
            }
        }
        // Only now: what was acked before the count is in LEDGER by this position.
        let lost = match gone.is_empty() || self.recorder_catches_up().await? {
            true => gone,
            false => Vec::new(),
        };
        let found = !under_way.is_empty() || !lost.is_empty();
        if found {
            failpoint::reach(Point::RescueLooked);
        }
        let mut transaction = self.store.begin().await?;
        let now = self.clock.now();
        let doubt_at = later(now, self.doubt_after);
        pending_deliveries::wait_on(&mut transaction, &under_way, doubt_at, now).await?;
        let rescued = pending_deliveries::rescue(&mut transaction, &lost, now).await?;
        if found {
            failpoint::reach(Point::RescueWritten);
        }
        transaction.commit().await?;
        if found {
            failpoint::reach(Point::RescueCommitted);
        }
        if rescued > 0 {
            self.metrics.rescued(rescued);
            self.wake.all();
        }
        Ok(rescued)
    }

    /// Whether what LEDGER holds now is on record within [`CATCH_UP`].
    async fn recorder_catches_up(&self) -> Result<bool, bus::Error> {
        match tokio::time::timeout(CATCH_UP, catch_up::recorded(&self.bus)).await {
            Ok(recorded) => recorded.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}
