//! `/v1/projects/{project}/replays`

mod body;
mod progress;
mod view;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use common::http::openapi::ProblemBody;
use common::http::{Code, Json, Page, PageQuery, Path, Problem, Query, page};
use serde::Deserialize;
use store::replays::{self as rows, Kind, Replay};
use store::{Connection, webhooks};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

pub(super) use self::body::{Chosen, Discard, Selected};
pub(super) use self::view::{CountView, ReplayView};
use super::idempotency::NothingDone;
use crate::access::{Configure, InProject, Read};
use crate::api::{Api, failed};
use crate::replays::{self, Counted};
use store::projects::Project;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(show, act))
        .routes(routes!(progress::watch))
}

/// Which replays.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// `replay` or `discard`: what was to be done.
    kind: Option<String>,
    // Not flattened: serde would let misspelt names pass.
    /// Most items on the page.
    #[serde(default = "page::default_limit", deserialize_with = "page::limit")]
    #[param(minimum = 1, maximum = 250, default = 50)]
    limit: u16,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// 202, and where to look how far it has come.
pub(super) fn accepted(api: &Api, project: &Project, replay: Replay) -> Response {
    let headers = [(header::LOCATION, replays::path(project, replay.id))];
    (StatusCode::ACCEPTED, headers, Json(ReplayView::of(replay, api.now()))).into_response()
}

/// How many there are, with the webhooks' names.
pub(super) async fn counted(connection: &mut Connection, counted: &Counted) -> Result<CountView, Problem> {
    let ids: Vec<_> = counted.counts.keys().map(|(webhook, _)| *webhook).collect();
    let known = webhooks::by_ids(connection, &ids).await.map_err(failed)?;
    Ok(CountView::of(counted, &known))
}

/// Make deliveries again
///
/// Selects deliveries by webhook, event, type, time, state and reason; what is not given narrows nothing, but for the
/// state: `dead` and `skipped`, unless others are named. With `dry_run`, counts them and does nothing else.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/replays",
    operation_id = "create_replay",
    tag = "Replays",
    request_body = Chosen,
    responses(
        (status = 200, description = "How many deliveries would be made again", body = CountView),
        (status = 202, description = "The replay that was begun", body = ReplayView),
    )
)]
async fn create(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Json(chosen): Json<Chosen>,
) -> Result<Response, Problem> {
    let project = &within.project;
    let Selected {
        selection,
        rate,
        dry_run,
    } = chosen.select(&api, project, Kind::Replay).await?;
    if dry_run {
        let found = replays::count(&api, project, &selection, replays::COUNT_ALONE).await?;
        let mut connection = api.connection_in(project.id).await?;
        let counted = counted(&mut connection, &found).await?;
        return Ok(NothingDone::but(Json(counted)));
    }
    let replay = replays::order(&api, project, &within.caller, Kind::Replay, &selection, rate).await?;
    Ok(accepted(&api, project, replay))
}

/// List replays
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/replays",
    operation_id = "list_replays",
    tag = "Replays",
    params(Filter),
    responses((status = 200, description = "Replays and discards, newest first", body = Page<ReplayView>))
)]
async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<ReplayView>>, Problem> {
    let kind = match filter.kind.as_deref() {
        None => None,
        Some(word) => Some(Kind::parse(word).ok_or_else(|| {
            Problem::new(
                Code::MalformedQuery,
                format!("`{word}` is not a kind; the kinds are replay, discard"),
            )
        })?),
    };
    let query = PageQuery {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let before: Option<Uuid> = query.after()?;
    let limit = u32::from(query.limit) + 1;
    let mut connection = api.connection_in(within.project.id).await?;
    let found = rows::page(&mut connection, within.project.id, kind, before, limit).await;
    let page = Page::cut(found.map_err(failed)?, &query, |replay| replay.id)?;
    let now = api.now();
    Ok(Json(page.map(|replay| ReplayView::of(replay, now))))
}

/// Show a replay and how far it has come
///
/// `{replay}` is its id or its number.
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/replays/{replay}",
    operation_id = "show_replay",
    tag = "Replays",
    responses((status = 200, description = "The replay", body = ReplayView))
)]
async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, named)): Path<(String, String)>,
) -> Result<Json<ReplayView>, Problem> {
    let replay = replays::find(&api, &within.project, &named).await?;
    Ok(Json(ReplayView::of(replay, api.now())))
}

/// Cancel a replay
///
/// `{replay}` is its id or its number with `:cancel` after it. No more is made, and what is not under way is withdrawn, as
/// if it had never been made: what was a dead letter is one again.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/replays/{replay}",
    operation_id = "act_on_replay",
    tag = "Replays",
    responses(
        (status = 200, description = "The replay as it is now", body = ReplayView),
        (status = 405, description = "No action is named", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "It is finished", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn act(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, named)): Path<(String, String)>,
) -> Result<Json<ReplayView>, Problem> {
    let named = action(&named, "cancel", "a replay")?;
    let replay = replays::cancel(&api, &within.project, named).await?;
    Ok(Json(ReplayView::of(replay, api.now())))
}

/// What stands before the one action that there is.
pub(super) fn action<'a>(named: &'a str, action: &str, what: &str) -> Result<&'a str, Problem> {
    match named.rsplit_once(':') {
        Some((named, found)) if found == action => Ok(named),
        Some(_) => Err(Problem::new(
            Code::NotFound,
            format!("nothing that can be done with {what}; there is {action}"),
        )),
        None => Err(Problem::new(
            Code::MethodNotAllowed,
            format!("to do something with {what}, put a colon and what after it: {action}"),
        )),
    }
}
