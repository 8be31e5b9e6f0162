//! `/v1/projects/{project}/webhooks`

mod actions;
mod body;
mod fields;
mod list;
mod view;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use common::http::{Json, Path, Problem};
use secrecy::ExposeSecret as _;
use store::webhook_health;
use store::webhooks as rows;

pub(super) use self::actions::act;
use self::body::ChangedWebhook;
use self::body::NewWebhook;
pub(super) use self::list::list;
pub(crate) use self::view::Definition;
use self::view::{CreatedWebhook, WebhookView};
use crate::access::{Configure, InProject, Read};
use crate::api::{Api, failed};
use crate::changes::Changes;
use crate::webhooks::{self, Created, absent};

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Json(new): Json<NewWebhook>,
) -> Result<(StatusCode, Json<CreatedWebhook>), Problem> {
    let Created { webhook, secret } = webhooks::create(&api, &within.project, &within.caller, new.into()).await?;
    let created = CreatedWebhook {
        view: WebhookView::of(&webhook, None),
        secret: secret.map(|secret| secret.expose_secret().to_owned()),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, named)): Path<(String, String)>,
) -> Result<Json<WebhookView>, Problem> {
    let mut connection = api.store.connection().await.map_err(failed)?;
    let webhook = rows::find(&mut connection, within.project.id, &named)
        .await
        .map_err(failed)?;
    let webhook = webhook.ok_or_else(absent)?;
    drop(connection);
    Ok(Json(shown(&api, &webhook).await?))
}

pub(super) async fn change(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, named)): Path<(String, String)>,
    Json(changed): Json<ChangedWebhook>,
) -> Result<Json<WebhookView>, Problem> {
    let changes = Changes::from(changed);
    let webhook = webhooks::change(&api, &within.project, &within.caller, &named, |_| Ok(()), changes).await?;
    Ok(Json(shown(&api, &webhook).await?))
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, named)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    webhooks::remove(&api, &within.project, &within.caller, &named, |_| Ok(())).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The webhook as answers have it, after a change.
pub(super) async fn shown(api: &Api, webhook: &rows::Webhook) -> Result<WebhookView, Problem> {
    let mut connection = api.store.connection().await.map_err(failed)?;
    let health = webhook_health::find(&mut connection, &[webhook.id]).await;
    let health = health.map_err(failed)?.remove(&webhook.id);
    Ok(WebhookView::of(webhook, health.as_ref()))
}
