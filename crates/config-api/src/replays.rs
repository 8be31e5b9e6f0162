//! Orders to make deliveries again, and to put dead letters away. An order is a row; retry-scheduler carries it out, and is
//! told of it when the row is committed.

use std::collections::BTreeMap;
use std::time::Duration;

use common::http::{Code, Problem};
use proto_schemas::id::WebhookId;
use store::log::State;
use store::projects::Project;
use store::replays::{self, Kind, NewReplay, Replay, Selection};
use store::{Connection, selection};
use tokio::time::Instant;
use uuid::Uuid;

use crate::access::Caller;
use crate::api::{Api, failed, new_id};

/// Orders of one project that may be open at once: each is looked at now and then until all of it is settled.
const OPEN_MAX: u64 = 1_000;

/// How long what is selected is counted: before an order, and where nothing else is asked for.
const COUNT_BEFORE: Duration = Duration::from_millis(1_500);
pub(crate) const COUNT_ALONE: Duration = Duration::from_secs(4);

/// How many deliveries are selected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// By webhook and state; no state where it does not matter.
    pub counts: BTreeMap<(WebhookId, Option<&'static str>), u64>,
    /// Whether these are all; otherwise there was no time for the rest.
    pub is_complete: bool,
}

impl Counted {
    /// All together.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.counts.values().sum()
    }
}

/// Counts what is selected, for as long as there is time.
///
/// # Errors
/// A failure of Postgres.
pub async fn count(api: &Api, project: &Project, selection: &Selection, time: Duration) -> Result<Counted, Problem> {
    let until = Instant::now() + time;
    let mut counted = Counted::default();
    let mut after = None;
    loop {
        let mut connection = api.connection_in(project.id).await?;
        let stretch = selection::count(&mut connection, project.id, selection, after).await;
        drop(connection);
        let stretch = stretch.map_err(failed)?;
        for count in stretch.counts {
            let key = (count.webhook, count.state.map(State::as_str));
            *counted.counts.entry(key).or_default() += count.deliveries;
        }
        match stretch.next {
            None => {
                counted.is_complete = true;
                return Ok(counted);
            }
            Some(_) if Instant::now() >= until => return Ok(counted),
            next => after = next,
        }
    }
}

/// Gives an order.
///
/// # Errors
/// Too many open ones, or a failure of Postgres.
pub async fn order(
    api: &Api,
    project: &Project,
    caller: &Caller,
    kind: Kind,
    selection: &Selection,
    per_second: Option<u32>,
) -> Result<Replay, Problem> {
    let counted = count(api, project, selection, COUNT_BEFORE).await?;
    let now = api.now();
    let id = new_id(now, &mut rand::rng());
    let new = NewReplay {
        id,
        project: project.id,
        kind,
        selection,
        per_second,
        counted: counted.is_complete.then(|| counted.deliveries()),
        token: caller.token,
        created_at: now,
    };
    let mut transaction = api.begin_in(project.id).await?;
    let open = replays::count_open(&mut transaction, project.id)
        .await
        .map_err(failed)?;
    if open >= OPEN_MAX {
        return Err(Problem::new(
            Code::TooManyRequests,
            format!("{OPEN_MAX} replays of this project are under way; cancel some, or wait for them to finish"),
        ));
    }
    replays::insert(&mut transaction, &new).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    find(api, project, &id.to_string()).await
}

/// An order of the project.
///
/// # Errors
/// 404, or a failure of Postgres.
pub async fn find(api: &Api, project: &Project, named: &str) -> Result<Replay, Problem> {
    let mut connection = api.connection_in(project.id).await?;
    let found = replays::find(&mut connection, project.id, named).await;
    found.map_err(failed)?.ok_or_else(absent)
}

/// Cancels an order of the project. To cancel it again changes nothing.
///
/// # Errors
/// 404, 409 for one that is finished, or a failure of Postgres.
pub async fn cancel(api: &Api, project: &Project, named: &str) -> Result<Replay, Problem> {
    let found = find(api, project, named).await?;
    if found.cancelled_at.is_some() {
        return Ok(found);
    }
    let finished = found.progress.as_ref().and_then(|progress| progress.finished_at);
    if finished.is_some() {
        return Err(Problem::new(
            Code::Conflict,
            "it is finished; there is nothing left to cancel",
        ));
    }
    let mut transaction = api.begin_in(project.id).await?;
    replays::cancel(&mut transaction, found.id, api.now())
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    find(api, project, &found.id.to_string()).await
}

/// What a request hears of an order that is not there.
#[must_use]
pub fn absent() -> Problem {
    Problem::new(Code::NotFound, "there is no such replay in this project")
}

/// The number of a replay that a filter names.
///
/// # Errors
/// 404, or a failure of Postgres.
pub async fn number(connection: &mut Connection, project: &Project, named: &str) -> Result<u32, Problem> {
    let found = replays::find(connection, project.id, named).await.map_err(failed)?;
    Ok(found.ok_or_else(absent)?.number)
}

/// Where it is found.
pub(crate) fn path(project: &Project, id: Uuid) -> String {
    format!("/v1/projects/{}/replays/{id}", project.name)
}
