//! Webhooks ready for requests, as they are defined now.

use std::sync::Arc;

use common::crypto::KeyRing;
use common::egress::{Client, Guard};
use common::request::{Error, Prepared};
use http::HeaderValue;
use proto_schemas::definition::Webhook;
use proto_schemas::id::WebhookId;

use crate::access_token::{AccessToken, Missing};

/// A webhook ready for requests.
pub struct Ready {
    /// What is the same in all of them.
    pub prepared: Prepared,
    access_token: AccessToken,
}

impl Ready {
    fn of(webhook: &Arc<Webhook>, keys: &KeyRing, guard: &Guard) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            prepared: Prepared::of(webhook, keys, guard)?,
            access_token: AccessToken::default(),
        }))
    }

    /// The header `authorization` of a request, where it has to be had first.
    ///
    /// # Errors
    /// [`Missing`]
    pub async fn access_token(&self, client: &Client) -> Result<Option<HeaderValue>, Missing> {
        match &self.prepared.client_credentials {
            None => Ok(None),
            Some(credentials) => self
                .access_token
                .get(credentials, &self.prepared, client)
                .await
                .map(Some),
        }
    }

    /// The receiver has refused this access token: the next request is to have another.
    pub async fn refused(&self, access_token: &HeaderValue) {
        self.access_token.refused(access_token).await;
    }
}

/// Prepared webhooks, each made again when its definition has changed.
pub struct Requests {
    keys: KeyRing,
    guard: Guard,
    ready: papaya::HashMap<WebhookId, Arc<Ready>>,
}

impl Requests {
    /// None prepared yet.
    #[must_use]
    pub fn new(keys: KeyRing, guard: Guard) -> Self {
        Self {
            keys,
            guard,
            ready: papaya::HashMap::new(),
        }
    }

    /// The webhook, ready for requests.
    ///
    /// # Errors
    /// [`Error`]
    pub fn prepare(&self, webhook: &Arc<Webhook>) -> Result<Arc<Ready>, Error> {
        let ready = self.ready.pin();
        if let Some(found) = ready.get(&webhook.id)
            && Arc::ptr_eq(&found.prepared.webhook, webhook)
        {
            return Ok(Arc::clone(found));
        }
        let made = Ready::of(webhook, &self.keys, &self.guard)?;
        ready.insert(webhook.id, Arc::clone(&made));
        Ok(made)
    }

    /// The same of a definition that may never be seen again.
    ///
    /// # Errors
    /// [`Error`]
    pub fn prepare_once(&self, webhook: &Arc<Webhook>) -> Result<Arc<Ready>, Error> {
        Ready::of(webhook, &self.keys, &self.guard)
    }
}
