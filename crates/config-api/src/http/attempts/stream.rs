//! `…/attempts/stream`: each attempt as it is recorded, as server-sent events (HTML Living Standard, 9.2).
//!
//! A client that was away gives the id of the last event it has seen and gets what it missed, then what comes. One that
//! does not keep up is left: it comes again with that id. While the stream is open its token is looked at again and again.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use common::http::openapi::ProblemBody;
use common::http::{Code, Problem, Query, cursor};
use common::token::Scope;
use proto_schemas::id::{EventKey, ProjectId, WebhookId};
use serde::{Deserialize, Serialize};
use store::log::{self, Attempt, Recorded};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use utoipa::IntoParams;
use uuid::Uuid;

use super::AttemptView;
use super::filter::{Asked, Chosen, ErrorClassWord};
use crate::access::{Caller, InProject, Read};
use crate::api::{Api, failed};
use crate::streams::{self, Entry};

/// Where the client says which event was its last.
const LAST_EVENT_ID: &str = "last-event-id";
/// How often something is sent where nothing happens: a proxy that hears nothing for a minute ends a connection.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How often the token is looked at: one that was revoked is good for no longer than 5 s anywhere.
const TOKEN_CHECK: Duration = Duration::from_secs(2);
/// Events a client may be behind by, beyond what its connection holds.
const BEHIND_MAX: usize = 256;
/// How long a client that catches up may take over what is sent at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Attempts read at once for a client that catches up.
const PAGE: u32 = 500;

/// Which attempts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamFilter {
    /// Those of the event with this id.
    event_id: Option<String>,
    /// Those of events whose id contains this text.
    search: Option<String>,
    /// Those of this type.
    r#type: Option<String>,
    /// Those of this webhook, by name or id.
    webhook: Option<String>,
    /// `delivered`, `failed`, a status code such as 503, or a class of them such as 5xx.
    status: Option<String>,
    /// Those that failed for this reason.
    #[param(value_type = Option<ErrorClassWord>, inline)]
    error_class: Option<String>,
    /// Those of this replay, by its id or number.
    replay: Option<String>,
}

/// A place in the record, as the id of an event.
#[derive(Debug, Serialize, Deserialize)]
struct Place(i64, Uuid, Uuid, u32, u32);

impl From<Recorded> for Place {
    fn from(recorded: Recorded) -> Self {
        let (event, webhook, run, attempt) = recorded.attempt;
        Self(recorded.transaction, event.as_uuid(), webhook.as_uuid(), run, attempt)
    }
}

impl From<Place> for Recorded {
    fn from(Place(transaction, event, webhook, run, attempt): Place) -> Self {
        Self {
            transaction,
            attempt: (EventKey::from_uuid(event), WebhookId::from_uuid(webhook), run, attempt),
        }
    }
}

/// Follow attempts
///
/// Server-sent events: each attempt as it is recorded, as the event `attempt` with the attempt in JSON as its data. With
/// `Last-Event-ID` it begins after that event. A client that does not keep up is disconnected.
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/attempts/stream",
    operation_id = "follow_attempts",
    tag = "Record",
    params(
        StreamFilter,
        ("last-event-id" = Option<String>, Header, description = "The id of the last event that is there already"),
    ),
    responses(
        (status = 200, description = "Events, without end", body = String, content_type = "text/event-stream"),
        (status = 429, description = "Too many requests, or too many streams at once", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn follow(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Query(filter): Query<StreamFilter>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let project = within.project.id;
    let asked = Asked {
        event_id: filter.event_id,
        search: filter.search,
        event_type: filter.r#type,
        webhook: filter.webhook,
        status: filter.status,
        error_class: filter.error_class,
        replay: filter.replay,
        ..Asked::default()
    };
    let mut connection = api.connection_in(project).await?;
    let chosen = Chosen::of(&mut connection, &within.project, asked).await?;
    let now = Recorded::before(log::horizon(&mut connection).await.map_err(failed)?);
    drop(connection);
    let (permit, feed) = api.streams.follow(project, now)?;
    // A place that is yet to come is of another database than this one: what it misses cannot be told.
    let last = last_event(&headers)?.filter(|last| *last < now).unwrap_or(now);

    let (sender, receiver) = mpsc::channel(BEHIND_MAX);
    let mut token_check = interval_at(Instant::now() + TOKEN_CHECK, TOKEN_CHECK);
    token_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let follower = Follower {
        api,
        caller: within.caller,
        project,
        chosen,
        last,
        sender,
        token_check,
    };
    tokio::spawn(async move {
        follower.run(feed).await;
        drop(permit);
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies of nginx's kind gather answers otherwise.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(streams::of(receiver))).into_response())
}

fn last_event(headers: &HeaderMap) -> Result<Option<Recorded>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else {
        return Ok(None);
    };
    let refused = || {
        let detail = "the header Last-Event-ID is not the id of an event of this stream";
        Problem::new(Code::MalformedHeader, detail)
    };
    let text = value.to_str().map_err(|_| refused())?;
    let place: Place = cursor::decode(text).map_err(|_| refused())?;
    Ok(Some(place.into()))
}

struct Follower {
    api: Arc<Api>,
    caller: Caller,
    project: ProjectId,
    chosen: Chosen,
    /// Up to where the client has what it wants.
    last: Recorded,
    sender: mpsc::Sender<Result<Bytes, Problem>>,
    token_check: Interval,
}

/// Why a stream ends.
enum End {
    /// The client is gone or does not keep up.
    Client,
    /// The token is good no more, or it cannot be told whether it is.
    Token,
    /// Postgres does not answer; the client comes again.
    Store,
    /// This process stops.
    Stop,
}

impl Follower {
    async fn run(mut self, mut feed: broadcast::Receiver<Arc<Entry>>) {
        let end = match self.begin().await {
            Ok(()) => self.follow(&mut feed).await,
            Err(end) => end,
        };
        let why = match end {
            End::Client => "the client left, or did not keep up",
            End::Token => "its token is good no more",
            End::Store => "Postgres does not answer",
            End::Stop => "the service stops",
        };
        tracing::debug!(project = %self.project, why, "a stream of attempts ended");
    }

    /// Says where the stream begins, and sends what the client missed.
    async fn begin(&mut self) -> Result<(), End> {
        let id = self.id()?;
        // An id without data is kept by the client and is no event.
        self.send(format!("retry: 2000\nid: {id}\n\n")).await?;
        loop {
            let read = async {
                let mut connection = self.api.database.of_project(self.project).connection().await?;
                log::recorded(&mut connection, self.project, self.last, PAGE).await
            };
            let missed = read.await.map_err(|error| {
                tracing::debug!(%error, "what a stream missed cannot be read");
                End::Store
            })?;
            let is_all = missed.len() < PAGE as usize;
            for (place, attempt) in missed {
                self.last = place;
                if self.chosen.wants(&attempt) {
                    let event = event(place, attempt).ok_or(End::Store)?;
                    self.send_bytes(event).await?;
                }
            }
            if is_all {
                return Ok(());
            }
        }
    }

    async fn follow(&mut self, feed: &mut broadcast::Receiver<Arc<Entry>>) -> End {
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.api.streams.stop.clone();
        loop {
            let step = tokio::select! {
                () = stop.cancelled() => Err(End::Stop),
                () = self.sender.closed() => Err(End::Client),
                _ = self.token_check.tick() => self.check_token().await,
                _ = heartbeat.tick() => self.id().and_then(|id| self.offer(format!(": still here\nid: {id}\n\n").into())),
                entry = feed.recv() => match entry {
                    Ok(entry) => self.pass_on(&entry),
                    // It is slower than the feed remembers.
                    Err(broadcast::error::RecvError::Lagged(_)) => Err(End::Client),
                    Err(broadcast::error::RecvError::Closed) => Err(End::Stop),
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn pass_on(&mut self, entry: &Entry) -> Result<(), End> {
        if entry.place <= self.last {
            return Ok(());
        }
        self.last = entry.place;
        if !self.chosen.wants(&entry.attempt) {
            return Ok(());
        }
        let event = entry
            .event
            .get_or_init(|| event(entry.place, entry.attempt.clone()).unwrap_or_default());
        self.offer(event.clone())
    }

    async fn check_token(&self) -> Result<(), End> {
        let caller = self.caller.again(&self.api).await;
        caller
            .and_then(|caller| caller.require_in(self.project, Scope::Read))
            .map_err(|_| End::Token)
    }

    fn id(&self) -> Result<String, End> {
        cursor::encode(&Place::from(self.last)).map_err(|_| End::Store)
    }

    /// Nobody is waited for: who has no room is left.
    fn offer(&self, bytes: Bytes) -> Result<(), End> {
        self.sender.try_send(Ok(bytes)).map_err(|_| End::Client)
    }

    async fn send(&mut self, text: String) -> Result<(), End> {
        self.send_bytes(text.into()).await
    }

    /// Waits for room, for a while, and no longer than the token is good.
    async fn send_bytes(&mut self, bytes: Bytes) -> Result<(), End> {
        let sender = self.sender.clone();
        let mut sending = pin!(sender.send_timeout(Ok(bytes), PATIENCE));
        let stop = self.api.streams.stop.clone();
        loop {
            tokio::select! {
                // Or a client that is always ready would not be looked at.
                biased;
                _ = self.token_check.tick() => self.check_token().await?,
                () = stop.cancelled() => return Err(End::Stop),
                sent = &mut sending => return sent.map_err(|_| End::Client),
            }
        }
    }
}

/// An attempt as an event.
fn event(place: Recorded, attempt: Attempt) -> Option<Bytes> {
    let id = cursor::encode(&Place::from(place)).ok()?;
    // JSON has no line break in it.
    let data = serde_json::to_string(&AttemptView::from(attempt)).ok()?;
    Some(format!("id: {id}\nevent: attempt\ndata: {data}\n\n").into())
}
