//! UbiOps' webhooks: `…/projects/{project_name}/webhooks` and `…/webhooks-tests`, under `/v2` and `/v2.1`, as the
//! published client `ubiops` calls them.
//!
//! Every project can be spoken to in this way; its webhooks behave as UbiOps' do where its profile is `ubiops`.

mod body;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use common::http::openapi::ProblemBody;
use common::http::{Code, Json, Path, Problem, Query};
use proto_schemas::id::EventKey;
use serde::Deserialize;
use store::webhooks as rows;
use utoipa::{IntoParams, OpenApi};
use uuid::Uuid;

use self::body::{ChangedWebhook, Filter, NewTest, NewWebhook, TestView, WebhookView};
use super::{every_webhook, in_own_words};
use crate::access::{Configure, InProject, Read};
use crate::api::{Api, failed};
use crate::trials::{self, Target};
use crate::webhooks::{self, MadeUp, absent, profile};

/// What the routes are, under `/v2.1`; under `/v2` they are the same.
#[derive(OpenApi)]
#[openapi(paths(create, list, show, change, remove, create_test, show_test))]
pub(super) struct Document;

pub(super) fn router() -> Router<Arc<Api>> {
    Router::new()
        .route("/projects/{project}/webhooks", post(create).get(list))
        .route(
            "/projects/{project}/webhooks/{webhook}",
            get(show).patch(change).delete(remove),
        )
        .route("/projects/{project}/webhooks-tests", post(create_test))
        .route("/projects/{project}/webhooks-tests/{test}", get(show_test))
}

/// Create a webhook
#[utoipa::path(
    post,
    path = "/v2.1/projects/{project}/webhooks",
    operation_id = "ubiops_create_webhook",
    tag = "UbiOps",
    request_body = NewWebhook,
    responses((status = 201, description = "The webhook", body = WebhookView), (status = 409, description = "The name is another webhook's", body = ProblemBody, content_type = "application/problem+json")),
)]
async fn create(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Json(new): Json<NewWebhook>,
) -> Result<(StatusCode, Json<WebhookView>), Problem> {
    let profile = profile(&api, &within.project)?;
    let changes = new.into_changes(profile).map_err(Problem::fields)?;
    let created = webhooks::create(&api, &within.project, &within.caller, changes, MadeUp::IsNotShown).await;
    let created = created.map_err(in_ubiops_words)?;
    let view = WebhookView::of(&created.webhook, profile).ok_or_else(absent)?;
    Ok((StatusCode::CREATED, Json(view)))
}

/// What a list is filtered by.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// `label:value`, several joined by commas.
    #[param(example = "team:blue")]
    labels: Option<String>,
    object_type: Option<String>,
    event: Option<String>,
}

/// List webhooks
///
/// All of them at once: the client knows no pages.
#[utoipa::path(
    get,
    path = "/v2.1/projects/{project}/webhooks",
    operation_id = "ubiops_list_webhooks",
    tag = "UbiOps",
    params(ListQuery),
    responses((status = 200, description = "Every webhook that can be said in these words", body = Vec<WebhookView>)),
)]
async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<WebhookView>>, Problem> {
    let profile = profile(&api, &within.project)?;
    let labels = query.labels.as_deref().map(body::labels).transpose();
    let filter = Filter {
        labels: labels
            .map_err(|reason| Problem::new(Code::MalformedQuery, reason))?
            .unwrap_or_default(),
        object_type: query.object_type,
        event: query.event,
    };
    let mut connection = api.connection_in(within.project.id).await?;
    let all = every_webhook(&mut connection, within.project.id).await?;
    let views = all.iter().filter_map(|webhook| WebhookView::of(webhook, profile));
    Ok(Json(views.filter(|view| view.is_wanted(&filter)).collect()))
}

/// Show a webhook
#[utoipa::path(
    get,
    path = "/v2.1/projects/{project}/webhooks/{webhook}",
    operation_id = "ubiops_show_webhook",
    tag = "UbiOps",
    responses((status = 200, description = "The webhook", body = WebhookView)),
)]
async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, named)): Path<(String, String)>,
) -> Result<Json<WebhookView>, Problem> {
    let profile = profile(&api, &within.project)?;
    let mut connection = api.connection_in(within.project.id).await?;
    let webhook = rows::find(&mut connection, within.project.id, &named)
        .await
        .map_err(failed)?;
    let view = webhook.and_then(|webhook| WebhookView::of(&webhook, profile));
    Ok(Json(view.ok_or_else(absent)?))
}

/// Change a webhook
#[utoipa::path(
    patch,
    path = "/v2.1/projects/{project}/webhooks/{webhook}",
    operation_id = "ubiops_change_webhook",
    tag = "UbiOps",
    request_body = ChangedWebhook,
    responses((status = 200, description = "The webhook as it is now", body = WebhookView), (status = 409, description = "The name is another webhook's", body = ProblemBody, content_type = "application/problem+json")),
)]
async fn change(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, named)): Path<(String, String)>,
    Json(changed): Json<ChangedWebhook>,
) -> Result<Json<WebhookView>, Problem> {
    let profile = profile(&api, &within.project)?;
    let url = changed.url().map(str::to_owned);
    let webhook = webhooks::change_with(&api, &within.project, &within.caller, &named, url, |stored| {
        WebhookView::of(stored, profile).ok_or_else(absent)?;
        changed.into_changes(stored, profile).map_err(Problem::fields)
    });
    let webhook = webhook.await.map_err(in_ubiops_words)?;
    Ok(Json(WebhookView::of(&webhook, profile).ok_or_else(absent)?))
}

/// Delete a webhook
#[utoipa::path(
    delete,
    path = "/v2.1/projects/{project}/webhooks/{webhook}",
    operation_id = "ubiops_delete_webhook",
    tag = "UbiOps",
    responses((status = 204, description = "It is gone")),
)]
async fn remove(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, named)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let profile = profile(&api, &within.project)?;
    let shown = |stored: &rows::Webhook| WebhookView::of(stored, profile).map(drop).ok_or_else(absent);
    webhooks::remove(&api, &within.project, &within.caller, &named, shown).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Test a webhook
///
/// It need not be there; nothing of it stays but the test.
#[utoipa::path(
    post,
    path = "/v2.1/projects/{project}/webhooks-tests",
    operation_id = "ubiops_create_test",
    tag = "UbiOps",
    request_body = NewTest,
    responses((status = 201, description = "The test that was begun", body = TestView)),
)]
async fn create_test(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Json(new): Json<NewTest>,
) -> Result<(StatusCode, Json<TestView>), Problem> {
    let profile = profile(&api, &within.project)?;
    let sample = new.sample();
    let changes = NewWebhook::from(new).into_changes(profile).map_err(Problem::fields)?;
    let mut webhook = webhooks::blank(&api, &within.project);
    webhooks::apply(&api, profile, changes, &mut webhook).map_err(in_ubiops_words)?;
    webhooks::vet(&api, "/url", &webhook.url).await?;
    let test = trials::begin(&api, &within.project, Target::Inline(&webhook), sample).await?;
    Ok((StatusCode::CREATED, Json(TestView::of(&test))))
}

/// Show what became of a test
#[utoipa::path(
    get,
    path = "/v2.1/projects/{project}/webhooks-tests/{test}",
    operation_id = "ubiops_show_test",
    tag = "UbiOps",
    responses((status = 200, description = "The test", body = TestView)),
)]
async fn show_test(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, named)): Path<(String, String)>,
) -> Result<Json<TestView>, Problem> {
    let absent = || Problem::new(Code::NotFound, "there is no such test in this project");
    let id = Uuid::parse_str(&named).map_err(|_| absent())?;
    let test = trials::find(&api, &within.project, EventKey::from_uuid(id)).await?;
    Ok(Json(TestView::of(&test.ok_or_else(absent)?)))
}

fn in_ubiops_words(problem: Problem) -> Problem {
    in_own_words(problem, body::named)
}
