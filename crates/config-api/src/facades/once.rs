//! 1NCE's Cloud Integrator: webhooks as integrations with a state, under `/management-api/v1/integrate/clouds`.
//!
//! No path names a project here: it is the one that the caller's token is good for. The webhooks behave as 1NCE's do
//! where the project's profile is `once`.

mod body;

use std::collections::HashSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, patch, post};
use common::http::openapi::ProblemBody;
use common::http::{Code, Json, Path, Problem, Query};
use common::profile::Profile;
use proto_schemas::id::WebhookId;
use proto_schemas::stream::config_key::Key;
use store::webhooks::{self as rows, Webhook};
use store::{Connection, outbox, webhook_health};
use utoipa::OpenApi;

use self::body::{ChangedIntegration, IntegrationView, NewIntegration, Page, PageQuery, Phase, TestView};
use super::{every_webhook, in_own_words};
use crate::access::{Configure, OfToken, Read};
use crate::actions;
use crate::api::{Api, failed};
use crate::resolve;
use crate::trials::{self, Target};
use crate::webhooks::{self, MadeUp, profile};

/// What the routes are.
#[derive(OpenApi)]
#[openapi(paths(create, list, change, test, restart))]
pub(super) struct Document;

pub(super) fn router() -> Router<Arc<Api>> {
    Router::new()
        .route("/", get(list))
        .route("/webhooks", post(create))
        .route("/webhooks/{webhook}", patch(change))
        .route("/webhooks/{webhook}/test", post(test))
        .route("/webhooks/{webhook}/restart", post(restart))
}

/// Create an integration
#[utoipa::path(
    post,
    path = "/management-api/v1/integrate/clouds/webhooks",
    operation_id = "once_create_integration",
    tag = "1NCE",
    request_body = NewIntegration,
    responses((status = 201, description = "The integration", body = IntegrationView), (status = 409, description = "The name or the url is another integration's", body = ProblemBody, content_type = "application/problem+json")),
)]
async fn create(
    State(api): State<Arc<Api>>,
    OfToken(within): OfToken<Configure>,
    Json(new): Json<NewIntegration>,
) -> Result<(StatusCode, Json<IntegrationView>), Problem> {
    let profile = profile(&api, &within.project)?;
    let headers = new.header_names();
    let changes = new.into_changes(profile).map_err(Problem::fields)?;
    let created = webhooks::create(&api, &within.project, &within.caller, changes, MadeUp::IsNotShown).await;
    let created = created.map_err(|problem| in_once_words(problem, &headers))?;
    Ok((StatusCode::CREATED, Json(view(&api, profile, created.webhook).await?)))
}

/// List integrations
///
/// Every webhook of the project, whoever made it, oldest first.
#[utoipa::path(
    get,
    path = "/management-api/v1/integrate/clouds",
    operation_id = "once_list_integrations",
    tag = "1NCE",
    params(PageQuery),
    responses((status = 200, description = "A page of integrations", body = Page<IntegrationView>), (status = 404, description = "The token's project is gone", body = ProblemBody, content_type = "application/problem+json")),
)]
async fn list(
    State(api): State<Arc<Api>>,
    OfToken(within): OfToken<Read>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<IntegrationView>>, Problem> {
    let malformed = |reason| Problem::new(Code::MalformedQuery, reason);
    query.check().map_err(malformed)?;
    let profile = profile(&api, &within.project)?;
    let mut connection = api.connection_in(within.project.id).await?;
    let page = query.cut(every_webhook(&mut connection, within.project.id).await?);
    let views = views(&mut connection, profile, &page.items).await?;
    Ok(Json(page.with(views)))
}

/// Change an integration
#[utoipa::path(
    patch,
    path = "/management-api/v1/integrate/clouds/webhooks/{webhook}",
    operation_id = "once_change_integration",
    tag = "1NCE",
    request_body = ChangedIntegration,
    responses((status = 200, description = "The integration as it is now", body = IntegrationView), (status = 409, description = "The name or the url is another integration's", body = ProblemBody, content_type = "application/problem+json")),
)]
async fn change(
    State(api): State<Arc<Api>>,
    OfToken(within): OfToken<Configure>,
    Path(named): Path<String>,
    Json(changed): Json<ChangedIntegration>,
) -> Result<Json<IntegrationView>, Problem> {
    let profile = profile(&api, &within.project)?;
    let (url, headers) = (changed.url(), changed.header_names());
    let webhook = webhooks::change_with(&api, &within.project, &within.caller, &named, url, |stored| {
        changed.into_changes(stored, profile).map_err(Problem::fields)
    });
    let webhook = webhook.await.map_err(|problem| in_once_words(problem, &headers))?;
    Ok(Json(view(&api, profile, webhook).await?))
}

/// Test an integration
///
/// A test message is on its way when this returns. The state stays as it is.
#[utoipa::path(
    post,
    path = "/management-api/v1/integrate/clouds/webhooks/{webhook}/test",
    operation_id = "once_test_integration",
    tag = "1NCE",
    responses((status = 202, description = "The test that was begun", body = TestView)),
)]
async fn test(
    State(api): State<Arc<Api>>,
    OfToken(within): OfToken<Configure>,
    Path(named): Path<String>,
) -> Result<(StatusCode, Json<TestView>), Problem> {
    let mut connection = api.connection_in(within.project.id).await?;
    let webhook = rows::find(&mut connection, within.project.id, &named).await;
    drop(connection);
    let webhook = webhook.map_err(failed)?.ok_or_else(webhooks::absent)?;
    let sample = body::sample(&webhook);
    let test = trials::begin(&api, &within.project, Target::Stored(&webhook), sample).await?;
    Ok((StatusCode::ACCEPTED, Json(TestView::of(&test))))
}

/// Restart an integration
///
/// Makes it active again, whatever has stopped it.
#[utoipa::path(
    post,
    path = "/management-api/v1/integrate/clouds/webhooks/{webhook}/restart",
    operation_id = "once_restart_integration",
    tag = "1NCE",
    responses((status = 200, description = "The integration as it is now", body = IntegrationView)),
)]
async fn restart(
    State(api): State<Arc<Api>>,
    OfToken(within): OfToken<Configure>,
    Path(named): Path<String>,
) -> Result<Json<IntegrationView>, Problem> {
    let profile = profile(&api, &within.project)?;
    // Its owner may have paused it over /v1; here there is no other word to resume it.
    actions::set_active(&api, &within.project, &within.caller, &named, true).await?;
    let webhook = actions::restart(&api, &within.project, &within.caller, &named).await?;
    Ok(Json(view(&api, profile, webhook).await?))
}

/// One webhook as an integration.
async fn view(api: &Api, profile: &Profile, webhook: Webhook) -> Result<IntegrationView, Problem> {
    let mut connection = api.connection_in(webhook.project).await?;
    let mut views = views(&mut connection, profile, &[webhook]).await?;
    views.pop().ok_or_else(webhooks::absent)
}

/// Webhooks as integrations, with what is known of their health and of their definitions' way to where they apply.
async fn views(
    connection: &mut Connection,
    profile: &Profile,
    webhooks: &[Webhook],
) -> Result<Vec<IntegrationView>, Problem> {
    let key = |webhook: &Webhook| Key::Webhook(webhook.project, webhook.id).to_text();
    let keys: Vec<String> = webhooks.iter().map(key).collect();
    let waiting = outbox::waiting(connection, &keys).await.map_err(failed)?;
    let waiting: HashSet<String> = waiting.into_iter().collect();
    let ids: Vec<WebhookId> = webhooks.iter().map(|webhook| webhook.id).collect();
    let health = webhook_health::find(connection, &ids).await.map_err(failed)?;
    let view = |webhook: &Webhook| {
        let health = health.get(&webhook.id);
        let state = resolve::standing(webhook, health).state;
        let phase = Phase::of(state, !waiting.contains(&key(webhook)));
        let delivered_at = health.and_then(|health| health.last_delivered_at);
        IntegrationView::of(webhook, profile, phase, delivered_at)
    };
    Ok(webhooks.iter().map(view).collect())
}

fn in_once_words(problem: Problem, headers: &[String]) -> Problem {
    in_own_words(problem, |pointer| body::named(pointer, headers))
}
