//! `POST /v1/projects/{project}/webhooks/{webhook}:{action}`
//!
//! The router knows no end of a path's part, so one handler takes them all and looks at what follows the last colon.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use common::http::{Body, Code, Json, Path, Problem};
use store::webhooks as rows;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::preview::{self, PreviewBody, PreviewView};
use super::rotation::{self, RotateSecret};
use super::shown;
use super::view::{CreatedWebhook, WebhookView};
use crate::access::{Configure, InProject};
use crate::actions;
use crate::api::{Api, failed};
use crate::http::idempotency::NothingDone;
use crate::http::tests::{self, SampleBody, TestView};
use crate::secrets;
use crate::trials::{self, Target};
use crate::webhooks::absent;

/// What can be done with a webhook.
const ACTIONS: &str = "test, preview, check, pause, resume, restart, rotate-secret";

/// The route, and a document of each action.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Actions::openapi()).route("/v1/projects/{project}/webhooks/{webhook}", post(act))
}

#[derive(OpenApi)]
#[openapi(paths(test, check, pause, resume, restart, rotate_secret, preview))]
struct Actions;

/// Test a webhook
///
/// Delivers an event to it, once and at once, whatever its state. What came of it is told under `/tests`.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/webhooks/{webhook}:test",
    operation_id = "test_webhook",
    tag = "Webhooks",
    request_body = Option<SampleBody>,
    responses((status = 202, description = "The test that was begun", body = TestView))
)]
#[expect(dead_code, reason = "a document of what `act` does")]
const fn test() {}

/// Check a webhook's endpoint
///
/// A pending webhook is active when it passes; of any other, the check changes nothing.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/webhooks/{webhook}:check",
    operation_id = "check_webhook",
    tag = "Webhooks",
    responses((status = 202, description = "The check that was begun", body = TestView))
)]
#[expect(dead_code, reason = "a document of what `act` does")]
const fn check() {}

/// Pause a webhook
///
/// Its `pause` says what becomes of what happens meanwhile.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/webhooks/{webhook}:pause",
    operation_id = "pause_webhook",
    tag = "Webhooks",
    responses((status = 200, description = "The webhook as it is now", body = WebhookView))
)]
#[expect(dead_code, reason = "a document of what `act` does")]
const fn pause() {}

/// Resume a webhook
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/webhooks/{webhook}:resume",
    operation_id = "resume_webhook",
    tag = "Webhooks",
    responses((status = 200, description = "The webhook as it is now", body = WebhookView))
)]
#[expect(dead_code, reason = "a document of what `act` does")]
const fn resume() {}

/// Restart a webhook
///
/// A failed or disabled one is active again, and what waits for it is delivered by and by.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/webhooks/{webhook}:restart",
    operation_id = "restart_webhook",
    tag = "Webhooks",
    responses((status = 200, description = "The webhook as it is now", body = WebhookView))
)]
#[expect(dead_code, reason = "a document of what `act` does")]
const fn restart() {}

/// Give a webhook a new secret
///
/// The answer holds `secret` where one was made up, this once. Earlier secrets sign for another day, or as `overlap` says.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/webhooks/{webhook}:rotate-secret",
    operation_id = "rotate_webhook_secret",
    tag = "Webhooks",
    request_body = Option<RotateSecret>,
    responses((status = 200, description = "The webhook as it is now", body = CreatedWebhook))
)]
#[expect(dead_code, reason = "a document of what `act` does")]
const fn rotate_secret() {}

/// Preview a webhook
///
/// The request that an example event would come to: body and headers, signature included, protected values left out.
/// With `changes`, as it would be with them. Nothing is sent or stored.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/webhooks/{webhook}:preview",
    operation_id = "preview_webhook",
    tag = "Webhooks",
    request_body = Option<PreviewBody>,
    responses((status = 200, description = "The request", body = PreviewView))
)]
#[expect(dead_code, reason = "a document of what `act` does")]
const fn preview() {}

async fn act(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, named)): Path<(String, String)>,
    Body(body): Body,
) -> Result<Response, Problem> {
    let (project, caller) = (&within.project, &within.caller);
    let Some((named, action)) = named.rsplit_once(':') else {
        let problem = Problem::new(
            Code::MethodNotAllowed,
            format!("to do something with a webhook, put a colon and what after its name: {ACTIONS}"),
        );
        // RFC 9110 §15.5.6
        return Ok(([(header::ALLOW, "GET,HEAD,PATCH,DELETE")], problem).into_response());
    };
    let webhook = match action {
        "test" => {
            let sample = tests::body::<SampleBody>(&body)?.into();
            let mut connection = api.connection_in(project.id).await?;
            let webhook = rows::find(&mut connection, project.id, named).await;
            drop(connection);
            let webhook = webhook.map_err(failed)?.ok_or_else(absent)?;
            let test = trials::begin(&api, project, Target::Stored(&webhook), sample).await?;
            return Ok(tests::accepted(&within.project, test));
        }
        "preview" => {
            let wanted = tests::body::<PreviewBody>(&body)?;
            let preview = preview::of_stored(&api, &within, named, wanted).await?;
            return Ok(NothingDone::but(Json(preview)));
        }
        "check" => {
            let test = actions::check(&api, project, named).await?;
            return Ok(tests::accepted(&within.project, test));
        }
        "pause" => actions::set_active(&api, project, caller, named, false).await?,
        "resume" => actions::set_active(&api, project, caller, named, true).await?,
        "restart" => actions::restart(&api, project, caller, named).await?,
        "rotate-secret" => {
            let rotation = tests::body::<RotateSecret>(&body)?.into();
            let rotated = secrets::rotate_secret(&api, project, caller, named, rotation).await?;
            return Ok(rotation::answer(&api, rotated).await?.into_response());
        }
        _ => {
            return Err(Problem::new(
                Code::NotFound,
                format!("nothing that can be done with a webhook; there are {ACTIONS}"),
            ));
        }
    };
    Ok(shown(&api, &webhook).await?.into_response())
}
