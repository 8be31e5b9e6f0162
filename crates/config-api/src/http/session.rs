//! `/v1/session`

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use common::http::openapi::ProblemBody;
use common::http::{Code, ETag, Json, Problem, Tagged};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::{projects, tokens};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Caller;
use crate::api::{Api, failed};
use crate::audit;
use crate::sessions::{self, LONGEST, Secret};

/// Where it is.
pub(super) const PATH: &str = "/v1/session";

/// Largest body. The one that is read of somebody who has shown nothing yet: a token, and some room around it.
const BODY_MAX: usize = 1024;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(create, show, end))
        .layer(DefaultBodyLimit::max(BODY_MAX))
}

/// Who may try to log in: from this site, and from a network that has not guessed too often. It is an argument in front
/// of the body, of which nothing is read otherwise.
pub(super) struct MayLogIn;

impl FromRequestParts<Arc<Api>> for MayLogIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let authority = parts.uri.authority().map(|authority| authority.as_str());
        sessions::is_of_this_site(&parts.headers, authority)?;
        api.rate_limits.may_try_any(parts).map(|()| Self)
    }
}

/// Somebody who logs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    /// A token of a project, or the administrator's.
    token: String,
}

/// Who the caller is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub(super) struct SessionView {
    /// The token's id.
    token: Uuid,
    /// What people call the token.
    token_name: String,
    /// The one project it is good for; null: every project.
    #[schema(required)]
    project: Option<ProjectName>,
    /// What it allows.
    scopes: Vec<String>,
    /// What the session's requests that may change something say in the header `X-CSRF-Token`; null where there is no
    /// session.
    #[schema(required)]
    csrf: Option<String>,
    /// When it ends at the latest.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    expires_at: Option<Timestamp>,
}

/// A project, by name and id.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProjectName {
    id: Uuid,
    name: String,
}

impl SessionView {
    async fn of(
        api: &Api,
        caller: &Caller,
        csrf: Option<String>,
        begun_at: Option<Timestamp>,
    ) -> Result<Self, Problem> {
        let mut connection = api
            .database
            .of_project_or_all(caller.project)
            .connection()
            .await
            .map_err(failed)?;
        let token = tokens::by_id(&mut connection, caller.token).await.map_err(failed)?;
        let token = token.ok_or(Code::Unauthenticated)?;
        let project = match token.project {
            Some(id) => projects::by_ids(&mut connection, &[id])
                .await
                .map_err(failed)?
                .into_iter()
                .next(),
            None => None,
        };
        let longest = begun_at.and_then(|begun| begun.checked_add(LONGEST).ok());
        Ok(Self {
            token: token.id,
            token_name: token.name,
            project: project.map(|project| ProjectName {
                id: project.id.as_uuid(),
                name: project.name,
            }),
            scopes: token.scopes,
            csrf,
            expires_at: [token.expires_at, longest].into_iter().flatten().min(),
        })
    }
}

/// Log in
///
/// Begins a session, which a browser is known by from then on: the answer sets the cookie `__Host-posthaste`. Requests
/// that may change something say the answer's `csrf` in the header `X-CSRF-Token`.
#[utoipa::path(
    post,
    path = "/v1/session",
    operation_id = "create_session",
    security(),
    tag = "Session",
    request_body = Login,
    responses(
        (status = 201, description = "The session", body = SessionView),
        (status = 401, description = "The token is not known, has expired or was revoked", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "Another site's page has asked", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    parts: Parts,
    _may: MayLogIn,
    Json(login): Json<Login>,
) -> Result<Response, Problem> {
    let now = api.now();
    let (mut caller, mut connection) = Caller::with_token(&login.token, &parts, &api).await?;
    let project = caller.project;
    audit::begin(&parts, &api, &mut connection, &mut caller, project).await?;
    // Who logs in anew is somebody else from now on.
    sessions::end(&mut connection, &parts.headers).await.map_err(failed)?;
    let begun = sessions::begin(&mut connection, caller.token, now)
        .await
        .map_err(failed)?;
    drop(connection);
    let view = SessionView::of(&api, &caller, Some(begun.csrf), Some(now)).await?;
    let response = Tagged::with(ETag::of(&view)?, view).created(PATH.to_owned());
    with_cookie(response.into_response(), &begun.cookie)
}

/// Who am I?
///
/// Whose the request's token is, and what it allows.
#[utoipa::path(
    get,
    path = "/v1/session",
    operation_id = "show_session",
    security(("token" = [])),
    tag = "Session",
    responses((status = 200, description = "The token, and the session if it is one's", body = SessionView)),
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    caller: Caller,
) -> Result<Json<SessionView>, Problem> {
    let session = caller.session.as_ref();
    let csrf = session.and_then(|_| Secret::of(&headers)).map(Secret::csrf);
    let begun_at = session.map(|session| session.created_at);
    Ok(Json(SessionView::of(&api, &caller, csrf, begun_at).await?))
}

/// Log out
///
/// Ends the session. The token is as good as before; to be rid of it, revoke it.
#[utoipa::path(
    delete,
    path = "/v1/session",
    operation_id = "end_session",
    security(("token" = [])),
    tag = "Session",
    responses(
        (status = 204, description = "It has ended"),
        (status = 404, description = "The request was made with a token, and not with a session", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn end(State(api): State<Arc<Api>>, parts: Parts, mut caller: Caller) -> Result<Response, Problem> {
    let mut connection = api
        .database
        .of_project_or_all(caller.project)
        .connection()
        .await
        .map_err(failed)?;
    let project = caller.project;
    audit::begin(&parts, &api, &mut connection, &mut caller, project).await?;
    if caller.session.is_none() {
        return Err(Problem::new(
            Code::NotFound,
            "there is no session: the request has a token of its own",
        ));
    }
    sessions::end(&mut connection, &parts.headers).await.map_err(failed)?;
    with_cookie(StatusCode::NO_CONTENT.into_response(), &sessions::no_cookie())
}

fn with_cookie(mut response: Response, cookie: &str) -> Result<Response, Problem> {
    let cookie = HeaderValue::try_from(cookie).map_err(Problem::internal)?;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}
