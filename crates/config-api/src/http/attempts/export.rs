//! `…/attempts/export`: the list as lines of JSON, from its beginning or a cursor to its end.
//!
//! A page is read when the client has taken the one before, each over a connection of its own: however long the export,
//! it holds two pages, and however slow the client, no connection of Postgres. Each line holds the cursor after it. An
//! export that fails on its way is broken off, which a client sees; it goes on at the last line's cursor.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use common::http::openapi::ProblemBody;
use common::http::{Problem, Query, cursor};
use common::token::Scope;
use jiff::Timestamp;
use proto_schemas::id::ProjectId;
use serde::{Deserialize, Serialize};
use store::log::{self, AttemptCursor};
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};

use super::filter::{Asked, AttemptedState, Chosen, ErrorClassWord};
use super::{AttemptView, Cursor, ResponseView};
use crate::access::{Caller, InProject, Read};
use crate::api::{Api, failed};

/// Attempts on a page; fewer where each has a response of up to 16 KiB.
const PAGE: u32 = 500;
const PAGE_WITH_RESPONSES: u32 = 50;
/// How long a client may take over a page.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which attempts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExportFilter {
    /// Those of the event with this id.
    event_id: Option<String>,
    /// Those of events whose id contains this text.
    search: Option<String>,
    /// Those of this type.
    r#type: Option<String>,
    /// Those of this webhook, by name or id; by its id a deleted one's can still be read.
    webhook: Option<String>,
    /// `delivered`, `failed`, a status code such as 503, or a class of them such as 5xx.
    status: Option<String>,
    /// Those of deliveries that are now in this state.
    #[param(value_type = Option<AttemptedState>, inline)]
    state: Option<String>,
    /// Those that failed for this reason.
    #[param(value_type = Option<ErrorClassWord>, inline)]
    error_class: Option<String>,
    /// Those of this replay, by its id or number.
    replay: Option<String>,
    /// From this instant on.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-01-31T12:00:00Z")]
    since: Option<Timestamp>,
    /// Before this instant.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-01-31T12:00:00Z")]
    until: Option<Timestamp>,
    /// Whether each line has what came back, too.
    #[serde(default)]
    responses: bool,
    /// The `cursor` of the last line that is there already.
    cursor: Option<String>,
}

/// One line of an export.
#[derive(Debug, Serialize, ToSchema)]
struct ExportLine {
    #[serde(flatten)]
    attempt: AttemptView,
    /// What came back, where it was asked for; null where no response came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ResponseView>, required = false)]
    response: Option<Option<ResponseView>>,
    /// Where to go on after this line.
    cursor: String,
}

/// Export attempts
///
/// One attempt in JSON on each line, newest first. An answer that was broken off goes on with the `cursor` of its last
/// whole line.
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/attempts/export",
    operation_id = "export_attempts",
    tag = "Record",
    params(ExportFilter),
    responses(
        (status = 200, description = "Lines, each an attempt in JSON", body = ExportLine, content_type = "application/x-ndjson"),
        (status = 429, description = "Too many requests, or too many exports at once", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn export(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Query(filter): Query<ExportFilter>,
) -> Result<Response, Problem> {
    let permit = api.streams.export(within.project.id)?;
    let after = filter.cursor.as_deref().map(cursor::decode::<Cursor>).transpose()?;
    let with_responses = filter.responses;
    let asked = Asked {
        event_id: filter.event_id,
        search: filter.search,
        event_type: filter.r#type,
        webhook: filter.webhook,
        status: filter.status,
        state: filter.state,
        error_class: filter.error_class,
        replay: filter.replay,
        since: filter.since,
        until: filter.until,
    };
    let mut connection = api.connection_in(within.project.id).await?;
    let chosen = Chosen::of(&mut connection, &within.project, asked).await?;
    drop(connection);
    let mut export = Export {
        api,
        project: within.project.id,
        caller: within.caller,
        chosen,
        with_responses,
        after: after.map(AttemptCursor::from),
    };
    // The first page is read before the answer begins, so that what is wrong can still be told.
    let first = export.page().await?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        export.run(first, &sender).await;
        drop(permit);
    });
    let body = Body::from_stream(crate::streams::whole(receiver));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

struct Export {
    api: Arc<Api>,
    caller: Caller,
    project: ProjectId,
    chosen: Chosen,
    with_responses: bool,
    after: Option<AttemptCursor>,
}

/// A page's lines, and whether there is more.
struct Lines {
    text: Vec<u8>,
    more: bool,
}

impl Export {
    async fn run(mut self, first: Lines, sender: &mpsc::Sender<Result<Bytes, Problem>>) {
        let mut lines = first;
        let stop = self.api.streams.stop.clone();
        loop {
            if !lines.text.is_empty() {
                let sending = sender.send_timeout(Ok(lines.text.into()), PATIENCE);
                let sent = tokio::select! { sent = sending => sent.is_ok(), () = stop.cancelled() => false };
                if !sent {
                    return;
                }
            }
            if !lines.more {
                let _ = sender.send_timeout(Ok(Bytes::new()), PATIENCE).await;
                return;
            }
            lines = match self.next().await {
                Ok(lines) => lines,
                Err(problem) => {
                    let _ = sender.send_timeout(Err(problem), PATIENCE).await;
                    return;
                }
            };
        }
    }

    /// The next page, if the token is still good.
    async fn next(&mut self) -> Result<Lines, Problem> {
        self.caller
            .again(&self.api)
            .await?
            .require_in(self.project, Scope::Read)?;
        self.page().await
    }

    async fn page(&mut self) -> Result<Lines, Problem> {
        let limit = if self.with_responses { PAGE_WITH_RESPONSES } else { PAGE };
        let mut connection = self.api.connection_in(self.project).await?;
        let page = log::attempts(&mut connection, self.project, &self.chosen.filter(), self.after, limit)
            .await
            .map_err(failed)?;
        let mut responses = match self.with_responses {
            true => log::responses(&mut connection, &page.attempts).await.map_err(failed)?,
            false => Vec::new(),
        }
        .into_iter();
        drop(connection);
        let mut text = Vec::new();
        for attempt in page.attempts {
            let response = self.with_responses.then(|| {
                let response = responses.next().flatten()?;
                attempt.status.map(|_| response.into())
            });
            let line = ExportLine {
                cursor: cursor::encode(&Cursor::from(AttemptCursor::of(&attempt)))?,
                response,
                attempt: attempt.into(),
            };
            serde_json::to_writer(&mut text, &line).map_err(Problem::internal)?;
            text.push(b'\n');
        }
        let more = page.next.is_some();
        self.after = page.next.or(self.after);
        Ok(Lines { text, more })
    }
}
