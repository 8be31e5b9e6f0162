//! A webhook in JSON, as answers have it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use store::webhook_health::Health;
use store::webhooks::{Secret, Webhook};
use utoipa::ToSchema;
use uuid::Uuid;

use super::fields::{AnswerClass, BodyWord, OrderingBody, PauseWord, RateLimitBody, RetryBody, SignatureBody, Success};
use super::receiver::{AuthenticationView, TlsView};
use super::values::ValueView;
use crate::http::json::Span;
use crate::resolve;

/// What a webhook's owner has said of it. Its secret and the values of its protected headers and variables are never in it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Definition {
    /// Unique in its project.
    name: String,
    /// Where requests go.
    url: String,
    /// Patterns of event types.
    events: Vec<String>,
    /// Whether requests are signed with a secret.
    has_secret: bool,
    /// What they are signed with, the current one first; never the secrets themselves.
    secrets: Vec<SecretView>,
    /// Headers of its own.
    headers: Vec<ValueView>,
    /// What its transform finds under `variables`.
    variables: Vec<ValueView>,
    /// Off: it is paused.
    active: bool,
    /// For people.
    description: String,
    /// For finding it.
    labels: BTreeMap<String, String>,
    /// What an event's attributes have to be.
    attributes: BTreeMap<String, String>,
    /// The profile's options that it has switched itself.
    options: BTreeMap<String, bool>,
    /// When to try again; null: as the profile says.
    #[schema(required)]
    retry: Option<RetryBody>,
    /// Total time of one request; null: as the profile says.
    #[schema(value_type = Option<String>, required)]
    timeout: Option<Span>,
    /// A filter on the event; null: none.
    #[schema(value_type = Option<Object>, required)]
    filter: Option<Value>,
    /// The body as a template; null: none.
    #[schema(value_type = Option<Object>, required)]
    transform: Option<Value>,
    /// How the body is made; null: as the profile says, or by the `transform`.
    #[schema(required)]
    body: Option<BodyWord>,
    /// How requests are signed; null: as the profile says.
    #[schema(required)]
    signature: Option<SignatureBody>,
    /// Which answers count as delivered; null: as the profile says.
    #[schema(value_type = Option<Vec<AnswerClass>>, required)]
    success: Option<Success>,
    /// How many requests may begin in a window of time; null: no limit of its own.
    #[schema(required)]
    rate_limit: Option<RateLimitBody>,
    /// Requests under way at once; null: the operator's default.
    #[schema(required)]
    max_in_flight: Option<u32>,
    /// What becomes of what happens while it is paused; null: as the profile says.
    #[schema(required)]
    pause: Option<PauseWord>,
    /// Failed attempts in a row after which it has failed, 0 for never; null: as the profile says.
    #[schema(required)]
    fail_after: Option<u32>,
    /// Which deliveries wait for which; null: none.
    #[schema(required)]
    ordering: Option<OrderingBody>,
    /// How many held deliveries may be released in a window of time once it is active again; null: as its lane drains.
    #[schema(required)]
    drain_rate: Option<RateLimitBody>,
    /// What its TLS sessions are made with beside what is the operator's; null: nothing.
    #[schema(required)]
    tls: Option<TlsView>,
    /// How its requests say who they come from, beside their signature; null: not at all.
    #[schema(required)]
    authentication: Option<AuthenticationView>,
}

/// A webhook.
#[derive(Serialize, ToSchema)]
#[schema(as = Webhook)]
pub(in crate::http) struct WebhookView {
    /// Its id.
    id: Uuid,
    #[serde(flatten)]
    definition: Definition,
    /// Where it stands: pending, active, paused, failed or disabled.
    #[schema(example = "active")]
    state: &'static str,
    /// Why it gets no events; null where it does.
    #[schema(required)]
    state_reason: Option<String>,
    /// Since when it is failed, disabled or pending; null in the other states.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    state_since: Option<Timestamp>,
    /// How its deliveries go.
    health: HealthView,
    /// The public keys that receivers verify by, the current one first; also at `…/jwks.json`.
    #[schema(example = json!(["whpk_PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="]))]
    public_keys: Vec<String>,
    /// Counts the versions of the definition.
    revision: u64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When this revision was made.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// A secret that requests are signed with.
#[derive(Serialize, ToSchema)]
#[schema(as = Secret)]
struct SecretView {
    /// Its id; in `…/jwks.json`, its `kid`.
    id: Uuid,
    /// v1: a secret that both ends know. v1a: a key pair, whose public key is enough to verify.
    #[schema(example = "v1")]
    kind: &'static str,
    /// What receivers verify by, where that is no secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    public_key: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// From then on it signs nothing; null: it is the current one.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    expires_at: Option<Timestamp>,
}

impl SecretView {
    fn of(webhook: &Webhook, now: Timestamp) -> Vec<Self> {
        live(webhook, now)
            .map(|secret| Self {
                id: secret.sealed.id.as_uuid(),
                kind: secret.sealed.kind.as_str(),
                public_key: secret.public_key.clone(),
                created_at: secret.sealed.created_at,
                expires_at: secret.sealed.expires_at,
            })
            .collect()
    }
}

/// The secrets that requests made at `now` are signed with.
pub(super) fn live(webhook: &Webhook, now: Timestamp) -> impl Iterator<Item = &Secret> {
    webhook.secrets.iter().filter(move |secret| secret.is_live(now))
}

/// How a webhook's deliveries go.
#[derive(Serialize, ToSchema)]
#[schema(as = Health)]
struct HealthView {
    /// Failed attempts since the last delivered one, or since the restart.
    failures_in_a_row: u32,
    /// When an attempt last delivered; may be ten seconds behind.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    last_delivered_at: Option<Timestamp>,
    /// When an attempt last failed.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    last_failed_at: Option<Timestamp>,
}

impl From<Option<&Health>> for HealthView {
    fn from(health: Option<&Health>) -> Self {
        Self {
            failures_in_a_row: health.map_or(0, |health| health.failures_in_a_row),
            last_delivered_at: health.and_then(|health| health.last_delivered_at),
            last_failed_at: health.and_then(|health| health.last_failed_at),
        }
    }
}

/// A webhook that has just been made, or whose secret was rotated.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct CreatedWebhook {
    #[serde(flatten)]
    pub(super) view: WebhookView,
    /// The secret that was made up, of kind v1. It is not shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]
    pub(super) secret: Option<String>,
}

impl Definition {
    /// What is said of the webhook.
    pub(crate) fn of(webhook: &Webhook, now: Timestamp) -> Self {
        let settings = &webhook.settings;
        Self {
            name: webhook.name.clone(),
            url: webhook.url.clone(),
            events: webhook.events.clone(),
            has_secret: webhook.secrets.iter().any(|secret| secret.is_live(now)),
            secrets: SecretView::of(webhook, now),
            headers: ValueView::all(&webhook.headers),
            variables: ValueView::all(&webhook.variables),
            active: webhook.active,
            description: webhook.description.clone(),
            labels: webhook.labels.clone(),
            attributes: webhook.attributes.clone(),
            options: settings.options.clone(),
            retry: webhook.retry.clone().map(RetryBody),
            timeout: webhook.timeout.map(Span),
            filter: settings.filter.clone(),
            transform: settings.transform.clone(),
            body: settings.body.map(BodyWord::from),
            signature: settings.signature.clone().map(SignatureBody::from),
            success: settings.redirect_is_success.map(|redirects| Success { redirects }),
            rate_limit: settings.rate_limit.map(RateLimitBody::from),
            max_in_flight: settings.max_in_flight,
            pause: settings.hold_while_paused.map(PauseWord::of),
            fail_after: settings.fail_after,
            ordering: settings.ordering.clone().map(OrderingBody::from),
            drain_rate: settings.drain_rate.map(RateLimitBody::from),
            tls: webhook.tls.as_ref().map(TlsView::of),
            authentication: webhook.authentication.as_ref().map(AuthenticationView::of),
        }
    }
}

impl WebhookView {
    /// The webhook as answers have it.
    pub(in crate::http) fn of(webhook: &Webhook, health: Option<&Health>, now: Timestamp) -> Self {
        let standing = resolve::standing(webhook, health);
        Self {
            id: webhook.id.as_uuid(),
            definition: Definition::of(webhook, now),
            state: standing.state.as_str(),
            state_reason: standing.reason,
            state_since: standing.since,
            health: HealthView::from(health),
            public_keys: live(webhook, now)
                .filter_map(|secret| secret.public_key.clone())
                .collect(),
            revision: webhook.revision,
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
        }
    }
}
