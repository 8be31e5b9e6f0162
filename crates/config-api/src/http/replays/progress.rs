//! `GET /v1/projects/{project}/replays/{replay}/progress`: server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use common::http::{Code, Path, Problem};
use common::token::Scope;
use futures::stream;
use store::replays as rows;
use utoipa::ToSchema;
use uuid::Uuid;

use super::view::ProgressView;
use crate::access::{InProject, Read};
use crate::api::{Api, failed};
use crate::replays;
use crate::streams::Place;

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A server-sent event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described")]
struct ServerSentEvent {
    /// `progress` or `done`.
    event: String,
    /// JSON.
    data: String,
}

/// Watch how far a replay has come
///
/// Server-sent events: `progress` whenever something has changed, once a second at most, and `done` when it is finished or
/// cancelled; the data of both is the progress.
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/replays/{replay}/progress",
    operation_id = "watch_replay",
    tag = "Replays",
    responses((status = 200, description = "Events; the data of each is a `ReplayProgress`", body = ServerSentEvent, content_type = "text/event-stream"))
)]
pub(super) async fn watch(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, named)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let place = api.streams.watch(within.project.id)?;
    let id = replays::find(&api, &within.project, &named).await?.id;
    let watched = Watched {
        api,
        within,
        id,
        last: None,
        is_over: false,
        _place: place,
    };
    let events = stream::unfold(watched, |mut watched| async move {
        let event = watched.next().await?;
        Some((Ok::<_, Infallible>(event), watched))
    });
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        // For a proxy that would collect the answer first.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Sse::new(events).keep_alive(KeepAlive::default())).into_response())
}

struct Watched {
    api: Arc<Api>,
    within: InProject<Read>,
    id: Uuid,
    /// What was told last.
    last: Option<ProgressView>,
    is_over: bool,
    _place: Place,
}

impl Watched {
    /// The next thing to tell; `None`: it is over, or this service is about to stop, or the token is not valid any more.
    async fn next(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        loop {
            if self.last.is_some() {
                tokio::select! {
                    () = self.api.stop.cancelled() => return None,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            }
            let view = match self.look().await {
                Ok(view) => view,
                // Postgres is away; the one who watches need not know.
                Err(problem) if self.last.is_some() && problem.code().status().is_server_error() => continue,
                // Not there any more, or not for this token or session.
                Err(_) => return None,
            };
            self.is_over = view.finished();
            // When nothing will be left moves with the clock.
            let is_news = self.last.as_ref().is_none_or(|last| !last.tells_the_same(&view));
            self.last = Some(view.clone());
            if is_news || self.is_over {
                let name = if self.is_over { "done" } else { "progress" };
                return Event::default().event(name).json_data(view).ok();
            }
        }
    }

    async fn look(&self) -> Result<ProgressView, Problem> {
        let project = self.within.project.id;
        let caller = self.within.caller.again(&self.api).await?;
        caller.require_in(project, Scope::Read)?;
        let mut connection = self.api.connection_in(project).await?;
        let found = rows::find(&mut connection, project, &self.id.to_string()).await;
        let replay = found.map_err(failed)?.ok_or(Code::NotFound)?;
        Ok(ProgressView::of(&replay, self.api.now()))
    }
}
