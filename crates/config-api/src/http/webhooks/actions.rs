//! `POST /v1/projects/{project}/webhooks/{webhook}:{action}`
//!
//! The router knows no end of a path's part, so one handler takes them all and looks at what follows the last colon.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use common::http::openapi::ProblemBody;
use common::http::{Body, Code, Path, Problem};
use store::webhooks as rows;
use utoipa::ToSchema;

use super::rotation::{self, RotateSecret};
use super::shown;
use super::view::CreatedWebhook;
use crate::access::{Configure, InProject};
use crate::actions;
use crate::api::{Api, failed};
use crate::http::tests::{self, SampleBody, TestView};
use crate::secrets;
use crate::trials::{self, Target};
use crate::webhooks::absent;

/// What can be done with a webhook.
const ACTIONS: &str = "test, check, pause, resume, restart, rotate-secret";

/// What an action takes.
#[derive(ToSchema)]
#[schema(as = ActionBody)]
#[expect(dead_code, reason = "it is only described: each action reads its own")]
#[serde(untagged)]
pub(in crate::http) enum ActionBody {
    /// `test`: what is delivered.
    Sample(SampleBody),
    /// `rotate-secret`: how.
    Rotation(RotateSecret),
}

/// Do something with a webhook
///
/// `{webhook}` is its name or id with a colon and an action after it, `orders:test`. `test` delivers an event to it, once,
/// whatever its state; `check` makes its endpoint check again; both answer 202 with the test. `pause`, `resume` and
/// `restart` answer with the webhook. `rotate-secret` (body: `RotateSecret`) gives it a new secret, and answers with the
/// webhook and, this once, the secret that was made up; earlier secrets sign for another day, or as `overlap` says.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/webhooks/{webhook}",
    operation_id = "act_on_webhook",
    tag = "Webhooks",
    request_body = Option<ActionBody>,
    responses(
        (status = 200, description = "The webhook as it is now", body = CreatedWebhook),
        (status = 202, description = "The test that was begun", body = TestView),
        (status = 405, description = "No action is named", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn act(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, named)): Path<(String, String)>,
    Body(body): Body,
) -> Result<Response, Problem> {
    let (project, caller) = (&within.project, &within.caller);
    let Some((named, action)) = named.rsplit_once(':') else {
        return Err(Problem::new(
            Code::MethodNotAllowed,
            format!("to do something with a webhook, put a colon and what after its name: {ACTIONS}"),
        ));
    };
    let webhook = match action {
        "test" => {
            let sample = tests::body::<SampleBody>(&body)?.into();
            let mut connection = api.store.connection().await.map_err(failed)?;
            let webhook = rows::find(&mut connection, project.id, named).await;
            drop(connection);
            let webhook = webhook.map_err(failed)?.ok_or_else(absent)?;
            let test = trials::begin(&api, project, Target::Stored(&webhook), sample).await?;
            return Ok(tests::accepted(&within.project, test));
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
