//! Answers without end: who may have how many, and what attempts they are fed with.
//!
//! ```text
//! attempts ── one feed for each project that is followed, every 300 ms ── its streams, each by its own filter
//! ```
//!
//! The feed reads the record and nothing else: who follows costs dispatcher and retry-scheduler nothing, and any number of
//! these processes may run. It holds the latest attempts; a stream that is slower than that has missed some and ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use common::http::{Code, Problem};
use futures::{Stream, TryStreamExt as _};
use proto_schemas::id::ProjectId;
use store::log::{self, Attempt, Recorded};
use store::{Database, Error, Store};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

/// How often a feed looks for more.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Attempts read at once.
const PAGE: u32 = 500;
/// Attempts that a feed holds for its streams.
const HELD: usize = 2_048;
/// Most streams of one project at each process.
const STREAMS_PER_PROJECT: usize = 50;
/// Most exports at once at each process, and of one project.
const EXPORTS: usize = 16;
const EXPORTS_PER_PROJECT: usize = 4;
/// Most replays that are watched at once at each process, and of one project: each is looked at once a second.
const WATCHERS: usize = 200;
const WATCHERS_PER_PROJECT: usize = 50;

/// Streams, exports and watched replays of this process.
#[derive(Debug)]
pub struct Streams {
    database: Database,
    /// Ends all of them.
    pub stop: CancellationToken,
    followers: Arc<Semaphore>,
    exports: Places,
    watchers: Places,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    feeds: HashMap<ProjectId, broadcast::Sender<Arc<Entry>>>,
}

/// Answers of a kind: how many there may be, and how many there are of each project.
#[derive(Debug)]
struct Places {
    all: Arc<Semaphore>,
    of_a_project: usize,
    taken: Arc<Mutex<HashMap<ProjectId, usize>>>,
}

/// An attempt that was recorded.
#[derive(Debug)]
pub struct Entry {
    /// Where.
    pub place: Recorded,
    /// The attempt.
    pub attempt: Attempt,
    /// As it is sent; written when the first stream wants it.
    pub event: OnceLock<Bytes>,
}

/// The right to one such answer; it is given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    project: ProjectId,
    taken: Arc<Mutex<HashMap<ProjectId, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    fn new(all: usize, of_a_project: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            of_a_project,
            taken: Arc::default(),
        }
    }

    /// A place for an answer of this project's; or what to say where all are taken here, or all of the project.
    fn take(&self, project: ProjectId, [here, of_the_project]: [&'static str; 2]) -> Result<Place, Problem> {
        let permit = Arc::clone(&self.all).try_acquire_owned().map_err(|_| too_many(here))?;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(project).or_default();
        if *count >= self.of_a_project {
            return Err(too_many(of_the_project));
        }
        *count += 1;
        drop(taken);
        Ok(Place {
            project,
            taken: Arc::clone(&self.taken),
            _permit: permit,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.project) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.project);
            }
        }
    }
}

impl Streams {
    /// None yet; at most `max` streams at once.
    #[must_use]
    pub fn new(database: Database, max: usize, stop: CancellationToken) -> Self {
        Self {
            database,
            stop,
            followers: Arc::new(Semaphore::new(max)),
            exports: Places::new(EXPORTS, EXPORTS_PER_PROJECT),
            watchers: Places::new(WATCHERS, WATCHERS_PER_PROJECT),
            state: Arc::default(),
        }
    }

    /// Another stream of a project's attempts. Whatever is recorded after `now`, and is not on record for who looks after
    /// this, comes through the feed.
    ///
    /// # Errors
    /// 429 where there are too many.
    pub fn follow(
        &self,
        project: ProjectId,
        now: Recorded,
    ) -> Result<(OwnedSemaphorePermit, broadcast::Receiver<Arc<Entry>>), Problem> {
        let permit = Arc::clone(&self.followers)
            .try_acquire_owned()
            .map_err(|_| too_many("too many streams are open here"))?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = match state.feeds.get(&project) {
            Some(feed) if feed.receiver_count() >= STREAMS_PER_PROJECT => {
                return Err(too_many("too many streams of this project are open here"));
            }
            Some(feed) => feed.subscribe(),
            None => {
                let (sender, receiver) = broadcast::channel(HELD);
                state.feeds.insert(project, sender.clone());
                let feed = Feed {
                    store: self.database.of_project(project),
                    project,
                    sender,
                    state: Arc::clone(&self.state),
                    stop: self.stop.clone(),
                };
                tokio::spawn(feed.run(now));
                receiver
            }
        };
        Ok((permit, receiver))
    }

    /// Another export of a project's attempts.
    ///
    /// # Errors
    /// 429 where there are too many.
    pub fn export(&self, project: ProjectId) -> Result<Place, Problem> {
        let too_many = [
            "too many exports are under way here",
            "too many exports of this project are under way",
        ];
        self.exports.take(project, too_many)
    }

    /// Another replay of a project's that is watched.
    ///
    /// # Errors
    /// 429 where there are too many.
    pub fn watch(&self, project: ProjectId) -> Result<Place, Problem> {
        let too_many = [
            "too many replays are watched here; ask for the replay instead",
            "too many replays of this project are watched here; ask for the replay instead",
        ];
        self.watchers.take(project, too_many)
    }
}

fn too_many(detail: &'static str) -> Problem {
    Problem::new(Code::TooManyRequests, detail).retry_after(5)
}

/// Reads what is recorded of one project, for as long as a stream wants it.
struct Feed {
    store: Store,
    project: ProjectId,
    sender: broadcast::Sender<Arc<Entry>>,
    state: Arc<Mutex<State>>,
    stop: CancellationToken,
}

impl Feed {
    async fn run(self, mut last: Recorded) {
        loop {
            let is_behind = match self.look(&mut last).await {
                Ok(is_behind) => is_behind,
                Err(error) => {
                    tracing::debug!(%error, project = %self.project, "a feed cannot look for more");
                    false
                }
            };
            if self.is_over() {
                return;
            }
            let pause = if is_behind { Duration::ZERO } else { LOOK_EVERY };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Passes on what there is since `last`; tells whether there may be more.
    async fn look(&self, last: &mut Recorded) -> Result<bool, Error> {
        let mut connection = self.store.connection().await?;
        let found = log::recorded(&mut connection, self.project, *last, PAGE).await?;
        drop(connection);
        let is_behind = found.len() >= PAGE as usize;
        for (place, attempt) in found {
            *last = place;
            let entry = Entry {
                place,
                attempt,
                event: OnceLock::new(),
            };
            // Without a stream there is nobody to miss it.
            let _ = self.sender.send(Arc::new(entry));
        }
        Ok(is_behind)
    }

    /// Whether nobody follows any more; the next one then begins a new feed.
    fn is_over(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = self.sender.receiver_count() == 0;
        if is_over {
            state.feeds.remove(&self.project);
        }
        is_over
    }
}

/// What comes through a channel as the body of an answer; an error breaks it off.
pub fn of(mut receiver: mpsc::Receiver<Result<Bytes, Problem>>) -> impl Stream<Item = Result<Bytes, BrokenOff>> {
    futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).map_err(|problem| BrokenOff(problem.code().name()))
}

/// The same of an answer that has an end: an empty piece. Where the channel ends without it, the answer is broken off, so
/// that nobody takes a part for the whole.
pub fn whole(mut receiver: mpsc::Receiver<Result<Bytes, Problem>>) -> impl Stream<Item = Result<Bytes, BrokenOff>> {
    let mut is_over = false;
    futures::stream::poll_fn(move |cx| {
        if is_over {
            return Poll::Ready(None);
        }
        let piece = match ready!(receiver.poll_recv(cx)) {
            Some(Ok(piece)) => (!piece.is_empty()).then_some(Ok(piece)),
            Some(Err(problem)) => Some(Err(BrokenOff(problem.code().name()))),
            None => Some(Err(BrokenOff("its client was too slow, or the service stops"))),
        };
        is_over = !matches!(piece, Some(Ok(_)));
        Poll::Ready(piece)
    })
}

/// An answer had to be broken off.
#[derive(Debug, thiserror::Error)]
#[error("the answer was broken off: {0}")]
pub struct BrokenOff(&'static str);
