//! Webhooks ready for requests, as they are defined now.

use std::sync::Arc;

use common::crypto::KeyRing;
use common::egress::Guard;
use common::request::{Error, Prepared};
use proto_schemas::definition::Webhook;
use proto_schemas::id::WebhookId;

/// Prepared webhooks, each made again when its definition has changed.
pub struct Requests {
    keys: KeyRing,
    guard: Guard,
    prepared: papaya::HashMap<WebhookId, Arc<Prepared>>,
}

impl Requests {
    /// None prepared yet.
    #[must_use]
    pub fn new(keys: KeyRing, guard: Guard) -> Self {
        Self {
            keys,
            guard,
            prepared: papaya::HashMap::new(),
        }
    }

    /// The webhook, ready for requests.
    ///
    /// # Errors
    /// [`Error`]
    pub fn prepare(&self, webhook: &Arc<Webhook>) -> Result<Arc<Prepared>, Error> {
        let prepared = self.prepared.pin();
        if let Some(found) = prepared.get(&webhook.id)
            && Arc::ptr_eq(&found.webhook, webhook)
        {
            return Ok(Arc::clone(found));
        }
        let made = Arc::new(Prepared::of(webhook, &self.keys, &self.guard)?);
        prepared.insert(webhook.id, Arc::clone(&made));
        Ok(made)
    }

    /// The same of a definition that may never be seen again.
    ///
    /// # Errors
    /// [`Error`]
    pub fn prepare_once(&self, webhook: &Arc<Webhook>) -> Result<Arc<Prepared>, Error> {
        Prepared::of(webhook, &self.keys, &self.guard).map(Arc::new)
    }
}
