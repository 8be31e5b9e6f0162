//! `/v1/projects/{project}/webhooks`

mod body;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use common::http::{Json, Page, PageQuery, Path, Problem, Query};
use proto_schemas::id::WebhookId;
use store::webhooks::Webhook;
use uuid::Uuid;

use self::body::{ChangedWebhook, CreatedWebhook, NewWebhook, WebhookView};
use crate::access::{Configure, InProject, Read};
use crate::api::{Api, failed};
use crate::changes::Changes;
use crate::webhooks::{self, Created, absent};

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Json(new): Json<NewWebhook>,
) -> Result<(StatusCode, Json<CreatedWebhook>), Problem> {
    let created = webhooks::create(&api, &within.project, &within.caller, Changes::from(new)).await?;
    let Created { webhook, secret } = created;
    let view = WebhookView::of(&webhook);
    Ok((StatusCode::CREATED, Json(CreatedWebhook { view, secret })))
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<WebhookView>>, Problem> {
    let before: Option<Uuid> = query.after()?;
    let mut connection = api.store.connection().await.map_err(failed)?;
    let limit = u32::from(query.limit) + 1;
    let rows = store::webhooks::page(
        &mut connection,
        within.project.id,
        before.map(WebhookId::from_uuid),
        limit,
    )
    .await;
    let page = Page::cut(rows.map_err(failed)?, &query, |webhook| webhook.id.as_uuid())?;
    Ok(Json(page.map(|webhook| WebhookView::of(&webhook))))
}

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, named)): Path<(String, String)>,
) -> Result<Json<WebhookView>, Problem> {
    let mut connection = api.store.connection().await.map_err(failed)?;
    let webhook = store::webhooks::find(&mut connection, within.project.id, &named)
        .await
        .map_err(failed)?;
    Ok(Json(WebhookView::of(&webhook.ok_or_else(absent)?)))
}

pub(super) async fn change(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, named)): Path<(String, String)>,
    Json(changed): Json<ChangedWebhook>,
) -> Result<Json<WebhookView>, Problem> {
    let changes = Changes::from(changed);
    let webhook = webhooks::change(&api, &within.project, &within.caller, &named, changes, |_, _| Ok(())).await?;
    Ok(Json(WebhookView::of(&webhook)))
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, named)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    webhooks::remove(&api, &within.project, &within.caller, &named, |_| Ok(())).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a webhook's revision keeps of it: what anyone may see who may read it.
pub(crate) fn definition(webhook: &Webhook) -> Result<serde_json::Value, Problem> {
    serde_json::to_value(WebhookView::of(webhook)).map_err(Problem::internal)
}
