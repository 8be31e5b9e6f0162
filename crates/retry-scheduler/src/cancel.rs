//! Ends what waits for webhooks that were deleted.
//!
//! In: webhooks that have waiting rows, and the definitions in memory; of one that is not known there any more, since it was
//! deleted long ago, what Postgres says. Out: the rows of deleted ones `cancelled`, with the reason. What is under way just
//! then is left to dispatcher, which says the same, and what is recorded late to the next look.
//!
//! A crash here means nothing: the next look finds what is left.

use std::sync::Arc;
use std::time::Duration;

use common::clock::Clock;
use common::definitions::Definitions;
use common::model::Standing;
use proto_schemas::id::WebhookId;
use store::{Error, Store, pending_deliveries};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::patience::Patience;
use crate::wake::Wake;

/// Rows of one transaction.
const AT_ONCE: u32 = 1000;

/// How often to look without being told to.
const SWEEP: Duration = Duration::from_secs(10);

/// The stage.
#[derive(Debug)]
pub struct Canceller {
    /// Whose rows.
    pub store: Store,
    /// Which webhooks are gone.
    pub definitions: Arc<Definitions>,
    /// What time it is.
    pub clock: Clock,
    /// Notified when a webhook was changed.
    pub wake: Wake,
    /// For when Postgres is away.
    pub patience: Patience,
    /// What is counted.
    pub metrics: Metrics,
}

impl Canceller {
    /// Cancels until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        loop {
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = self.look() => looked,
            };
            if let Err(error) = looked {
                self.patience.fault(&error);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.cancel.notified() => {}
                () = tokio::time::sleep(SWEEP) => {}
            }
        }
    }

    /// Looks once; tells how many were cancelled.
    ///
    /// # Errors
    /// Any [`Error`]; what was cancelled before is committed.
    pub async fn look(&self) -> Result<u64, Error> {
        let webhooks = pending_deliveries::webhooks_waiting(&mut *self.store.connection().await?).await?;
        let unknown = webhooks
            .iter()
            .filter(|webhook| self.definitions.webhook(**webhook).is_none());
        let unknown: Vec<WebhookId> = unknown.copied().collect();
        let long_gone = match unknown.is_empty() {
            true => Vec::new(),
            false => store::webhooks::deleted(&mut *self.store.connection().await?, &unknown).await?,
        };
        let mut total = 0;
        for webhook in webhooks {
            let known = self.definitions.webhook(webhook);
            let reason = match known.map(|webhook| Standing::of(&webhook)) {
                Some(Standing::Gone(reason)) => reason,
                None if long_gone.contains(&webhook) => "the webhook was deleted",
                _ => continue,
            };
            loop {
                let mut transaction = self.store.begin().await?;
                let now = self.clock.now();
                let cancelled = pending_deliveries::cancel_all(&mut transaction, webhook, reason, AT_ONCE, now).await?;
                transaction.commit().await?;
                self.metrics.cancelled(cancelled);
                total += cancelled;
                if cancelled < u64::from(AT_ONCE) {
                    break;
                }
            }
        }
        Ok(total)
    }
}
