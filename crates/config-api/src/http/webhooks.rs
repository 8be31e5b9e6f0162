//! `/v1/projects/{project}/webhooks`

mod actions;
mod body;
mod fields;
mod jwks;
mod list;
mod preview;
mod receiver;
mod recorded;
mod rotation;
mod values;
mod view;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use common::http::openapi::ProblemBody;
use common::http::{ETag, IfMatch, Json, Path, Problem, Tagged};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use store::webhook_health::{self, Health};
use store::webhooks::{self as rows, Webhook};
use store::{Connection, Error};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::body::{ChangedWebhook, NewWebhook};
pub(super) use self::fields::PauseWord;
pub(in crate::http) use self::recorded::recorded;
pub(crate) use self::view::Definition;
use self::view::{CreatedWebhook, WebhookView};
use crate::access::{Configure, InProject, Read};
use crate::api::{Api, failed};
use crate::changes::Changes;
use crate::webhooks::{self, Created, MadeUp, absent};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(create, list::list))
        .routes(routes!(show, change, remove))
        .routes(routes!(preview::of_new))
        .merge(actions::routes())
        .routes(routes!(jwks::show))
}

/// Create a webhook
///
/// The answer holds `secret` where one was made up, this once.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/webhooks",
    operation_id = "create_webhook",
    tag = "Webhooks",
    request_body = NewWebhook,
    responses(
        (status = 201, description = "The webhook", body = CreatedWebhook),
        (status = 409, description = "The name, or in some projects the url, is another webhook's", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn create(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Json(new): Json<NewWebhook>,
) -> Result<Tagged<CreatedWebhook>, Problem> {
    let changes = new.changes(&api.templates)?;
    let Created { webhook, secret } =
        webhooks::create(&api, &within.project, &within.caller, changes, MadeUp::IsShown).await?;
    let view = WebhookView::of(&webhook, None, api.now());
    let etag = ETag::of_revision(webhook.revision, &view)?;
    let secret = secret.map(|secret| secret.expose_secret().to_owned());
    let path = format!("/v1/projects/{}/webhooks/{}", within.project.name, webhook.id);
    Ok(Tagged::with(etag, CreatedWebhook { view, secret }).created(path))
}

/// Show a webhook
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/webhooks/{webhook}",
    operation_id = "show_webhook",
    tag = "Webhooks",
    responses((status = 200, description = "The webhook", body = WebhookView, headers(("etag" = String, description = "Its version"))))
)]
async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, named)): Path<(String, String)>,
) -> Result<Tagged<WebhookView>, Problem> {
    let mut connection = api.connection_in(within.project.id).await?;
    let webhook = rows::find(&mut connection, within.project.id, &named)
        .await
        .map_err(failed)?;
    tagged(&mut connection, &webhook.ok_or_else(absent)?, api.now()).await
}

/// Change a webhook
///
/// What is absent stays as it is; null gives a field back to the profile. In force everywhere one second after the
/// answer.
#[utoipa::path(
    patch,
    path = "/v1/projects/{project}/webhooks/{webhook}",
    operation_id = "change_webhook",
    tag = "Webhooks",
    request_body = ChangedWebhook,
    params(("if-match" = Option<String>, Header, description = "The `ETag` of the webhook as it is to be changed")),
    responses(
        (status = 200, description = "The webhook as it is now", body = WebhookView, headers(("etag" = String, description = "Its version"))),
        (status = 409, description = "The name, or in some projects the url, is another webhook's", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "It was changed since it was read", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn change(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, named)): Path<(String, String)>,
    if_match: IfMatch,
    Json(changed): Json<ChangedWebhook>,
) -> Result<Tagged<WebhookView>, Problem> {
    let condition = |webhook: &Webhook| if_match.check(&ETag::of_revision(webhook.revision, &())?);
    let changes = Changes::from(changed);
    let webhook = webhooks::change(&api, &within.project, &within.caller, &named, condition, changes).await?;
    shown(&api, &webhook).await
}

/// Delete a webhook
///
/// Deliveries still owed end.
#[utoipa::path(
    delete,
    path = "/v1/projects/{project}/webhooks/{webhook}",
    operation_id = "delete_webhook",
    tag = "Webhooks",
    params(("if-match" = Option<String>, Header, description = "The `ETag` of the webhook as it is to be deleted")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 412, description = "It was changed since it was read", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn remove(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, named)): Path<(String, String)>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let condition = |webhook: &Webhook| if_match.check(&ETag::of_revision(webhook.revision, &())?);
    webhooks::remove(&api, &within.project, &within.caller, &named, condition).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The webhook with its health, as answers have it.
async fn shown(api: &Api, webhook: &Webhook) -> Result<Tagged<WebhookView>, Problem> {
    let mut connection = api.connection_in(webhook.project).await?;
    tagged(&mut connection, webhook, api.now()).await
}

async fn tagged(
    connection: &mut Connection,
    webhook: &Webhook,
    now: Timestamp,
) -> Result<Tagged<WebhookView>, Problem> {
    let health = health(connection, webhook).await.map_err(failed)?;
    let view = WebhookView::of(webhook, health.as_ref(), now);
    Ok(Tagged::with(ETag::of_revision(webhook.revision, &view)?, view))
}

async fn health(connection: &mut Connection, webhook: &Webhook) -> Result<Option<Health>, Error> {
    let mut found = webhook_health::find(connection, &[webhook.id]).await?;
    Ok(found.remove(&webhook.id))
}
