//! Keeps the partitions of `events` and `attempts` ahead of what is recorded.
//!
//! In: nothing but time; and, from the recorder, days that have none (an entry that waited for weeks, an event taken in
//! by a clock that is ahead). Out: partitions. Guarantee: none is missing when a row is written, since the recorder asks
//! before it writes; making them a week ahead only keeps that off the hot path. A crash leaves a day without: the next
//! to ask makes it.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::clock::Clock;
use jiff::ToSpan as _;
use jiff::civil::Date;
use jiff::tz::Offset;
use store::{Error, Store, partitions};
use tokio_util::sync::CancellationToken;

use crate::patience::chain;

/// Days ahead of today: a scheduler can be down for a long weekend and nothing is made on the hot path.
const AHEAD: i64 = 7;

/// How often to look.
const EVERY: Duration = Duration::from_secs(3600);

/// The partitions, as far as this process knows.
#[derive(Debug)]
pub struct Partitions {
    store: Store,
    known: Mutex<HashSet<Date>>,
}

impl Partitions {
    /// Knows of none yet.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            known: Mutex::default(),
        }
    }

    /// Makes the partitions of those days that are not known to have them.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn ensure(&self, days: impl IntoIterator<Item = Date>) -> Result<(), Error> {
        let unknown: HashSet<Date> = {
            let known = self.known();
            days.into_iter().filter(|day| !known.contains(day)).collect()
        };
        for day in unknown {
            let mut transaction = self.store.begin().await?;
            if partitions::ensure(&mut transaction, day).await? {
                tracing::info!(%day, "made the day's partitions");
            }
            transaction.commit().await?;
            self.known().insert(day);
        }
        Ok(())
    }

    /// Forgets which days have partitions: one that was known is not there.
    pub(crate) fn forget(&self) {
        self.known().clear();
    }

    /// Makes the partitions from yesterday to a week ahead.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn ensure_ahead(&self, clock: &Clock) -> Result<(), Error> {
        let today = Offset::UTC.to_datetime(clock.now()).date();
        self.ensure((-1..=AHEAD).filter_map(|days| today.checked_add(days.days()).ok()))
            .await
    }

    /// Keeps them ahead until `stop`.
    pub async fn keep_ahead(&self, clock: &Clock, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            if let Err(error) = self.ensure_ahead(clock).await {
                tracing::warn!(
                    error = chain(&error),
                    "could not make partitions ahead; trying again in an hour"
                );
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, HashSet<Date>> {
        // Nothing panics while it is held, and every write leaves it whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
