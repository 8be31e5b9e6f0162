//! Lets the record's oldest days go, so that it does not grow without bound.
//!
//! In: nothing but time. Out: for every day (UTC) older than `--retention`, its events and attempts dropped with their
//! partitions, and what else hung on them deleted: dead deliveries, rejected events, and deliveries that were to be tried
//! even later than that. A crash here means that the next look goes on. Two processes at it do the same thing once.

use std::time::Duration;

use common::clock::Clock;
use jiff::civil::Date;
use jiff::tz::Offset;
use store::retention::{self, Gone};
use store::{Error, Store};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::patience::{Patience, chain};

/// How often to look. A day's record leaves within an hour of the day's turn.
const EVERY: Duration = Duration::from_secs(3600);

/// Rows deleted by one statement.
const AT_ONCE: u32 = 5_000;

/// The stage.
#[derive(Debug)]
pub struct Retention {
    /// The record.
    pub store: Store,
    /// What time it is.
    pub clock: Clock,
    /// How long an event is kept; whole days count.
    pub keep: Duration,
    /// For when Postgres is away.
    pub patience: Patience,
    /// What is counted.
    pub metrics: Metrics,
}

/// The first day that is kept.
fn first_kept(clock: &Clock, keep: Duration) -> Date {
    let now = clock.now();
    let oldest = now.saturating_sub(keep).unwrap_or(now);
    Offset::UTC.to_datetime(oldest).date()
}

impl Retention {
    /// Looks until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = self.look() => looked,
            };
            match looked {
                Ok(gone) if gone == Gone::default() => {}
                Ok(gone) => tracing::info!(
                    partitions = gone.partitions,
                    deliveries = gone.deliveries,
                    rejected = gone.rejected,
                    "let the oldest days of the record go"
                ),
                Err(error @ Error::Contention(_)) => {
                    tracing::info!(error = chain(&error), "an old day is in use; trying again in an hour");
                }
                Err(error) => self.patience.fault(&error),
            }
        }
    }

    /// Looks once.
    ///
    /// # Errors
    /// Any [`Error`]; what was let go before it is gone.
    pub async fn look(&self) -> Result<Gone, Error> {
        let first_kept = first_kept(&self.clock, self.keep);
        let mut gone = Gone::default();
        loop {
            let mut connection = self.store.connection().await?;
            let deliveries = retention::expire_deliveries(&mut connection, first_kept, AT_ONCE).await?;
            let rejected = retention::expire_rejected(&mut connection, first_kept, AT_ONCE).await?;
            gone.deliveries += deliveries;
            gone.rejected += rejected;
            if deliveries.max(rejected) < u64::from(AT_ONCE) {
                break;
            }
        }
        let days = retention::days_before(&mut *self.store.connection().await?, first_kept).await?;
        for day in days {
            let mut transaction = self.store.begin().await?;
            gone.partitions += retention::drop_day(&mut transaction, day).await?;
            transaction.commit().await?;
        }
        self.metrics.expired(gone.deliveries);
        Ok(gone)
    }
}
