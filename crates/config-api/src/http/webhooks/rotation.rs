//! `POST …/webhooks/{webhook}:rotate-secret`

use common::http::{ETag, Problem, Tagged};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use utoipa::ToSchema;

use super::fields::SecretKindWord;
use super::health;
use super::view::{CreatedWebhook, WebhookView};
use crate::api::{Api, failed};
use crate::http::json::{Span, given};
use crate::secrets::{Rotated, Rotation};

/// How a secret is rotated.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct RotateSecret {
    /// How long the earlier secrets go on signing beside the new one, at most 30 days; `24h` if absent. `0s` ends them at once: for one that has leaked.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = String, nullable = false, required = false, example = "24h")]
    overlap: Option<Span>,
    /// The new secret; one is made up if absent, and shown in the answer, this once.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    secret: Option<String>,
    /// What kind it is: if absent, what the given one is, or else the current one.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    kind: Option<SecretKindWord>,
}

impl From<RotateSecret> for Rotation {
    fn from(body: RotateSecret) -> Self {
        Self {
            overlap: body.overlap.map(|overlap| overlap.0),
            secret: body.secret,
            kind: body.kind.map(Into::into),
        }
    }
}

/// The webhook, and the secret that was made up.
pub(super) async fn answer(api: &Api, rotated: Rotated) -> Result<Tagged<CreatedWebhook>, Problem> {
    let Rotated { webhook, secret } = rotated;
    let mut connection = api.connection_in(webhook.project).await?;
    let health = health(&mut connection, &webhook).await.map_err(failed)?;
    let view = WebhookView::of(&webhook, health.as_ref(), api.now());
    let etag = ETag::of_revision(webhook.revision, &view)?;
    let secret = secret.map(|secret| secret.expose_secret().to_owned());
    Ok(Tagged::with(etag, CreatedWebhook { view, secret }))
}
