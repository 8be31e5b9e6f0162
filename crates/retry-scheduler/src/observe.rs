//! Counts pending deliveries now and then, for the metrics.

use std::time::Duration;

use common::clock::Clock;
use store::{Error, Store, pending_deliveries};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::patience::Patience;

/// How often. It reads the whole table.
const EVERY: Duration = Duration::from_secs(30);

/// Who counts.
#[derive(Debug)]
pub(crate) struct Observer {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) patience: Patience,
    pub(crate) metrics: Metrics,
}

impl Observer {
    /// Counts until `stop`.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.count().await {
                self.patience.fault(&error);
            }
        }
    }

    async fn count(&self) -> Result<(), Error> {
        let mut connection = self.store.connection().await?;
        let counts = pending_deliveries::count(&mut connection).await?;
        self.metrics.pending(&counts, self.clock.now());
        Ok(())
    }
}
