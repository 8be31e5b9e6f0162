//! Waking the stages that release deliveries.

use std::sync::Arc;

use common::definitions::Definitions;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Notified when something may have become due. Cloning is cheap; clones wake the same stages.
#[derive(Debug, Clone, Default)]
pub struct Wake {
    /// Wakes [`crate::release`].
    pub release: Arc<Notify>,
    /// Wakes [`crate::ordered`].
    pub ordered: Arc<Notify>,
    /// Wakes [`crate::cancel`].
    pub cancel: Arc<Notify>,
}

impl Wake {
    /// Wakes those that release.
    pub fn all(&self) {
        self.release.notify_one();
        self.ordered.notify_one();
    }

    /// Wakes everybody whenever a webhook has changed, until `stop`: one that was resumed gets what was held, and of one
    /// that was deleted everything ends.
    pub(crate) async fn on_changes(&self, definitions: &Definitions, stop: &CancellationToken) {
        let mut changes = definitions.changes();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            self.all();
            self.cancel.notify_one();
        }
    }
}
