//! Whether a webhook gets what it is owed.

use proto_schemas::definition::{Webhook, WebhookState};

/// Whether a webhook gets what it is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Active,
    /// Not now: what it is owed is kept until it does again. Says why, in a few words.
    Held(&'static str),
    /// Never again. Says why, in a few words.
    Gone(&'static str),
}

impl Standing {
    /// Where the webhook stands by its definition.
    #[must_use]
    pub fn of(webhook: &Webhook) -> Self {
        match webhook.state {
            _ if webhook.deleted => Self::Gone("the webhook was deleted"),
            WebhookState::Active => Self::Active,
            WebhookState::Pending => Self::Held("the webhook's url has not been checked yet"),
            WebhookState::Paused => Self::Held("the webhook is paused"),
            WebhookState::Failed => Self::Held("the webhook has failed"),
            WebhookState::Disabled => Self::Held("the webhook is disabled"),
        }
    }
}
