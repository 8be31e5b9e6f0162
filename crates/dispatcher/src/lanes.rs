//! Lanes: one slow receiver delays nobody else.
//!
//! Every webhook has a lane with a bounded number of requests under way. A delivery that finds its lane full waits for
//! its turn, unless it would have to wait too long, judged by how long the lane's requests take just now; then it is
//! parked: it waits in Postgres, where it costs the others nothing, and is released as the lane drains. So a busy lane
//! of a quick receiver never parks, however long its queue is, and the lane of a hanging one parks within moments.
//!
//! A webhook may have bounds of its own: fewer or more requests under way, and so many that may begin in a window of
//! time. The latter holds for every stretch of time of that length, wherever it begins: within it requests go as they
//! come. Both hold for one process; several dispatchers each have their own lanes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto_schemas::definition::{RateLimit, Webhook};
use proto_schemas::id::WebhookId;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Bounds of the lanes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests under way at once in one lane.
    pub per_lane: usize,
    /// Requests under way at once over all lanes; beyond it, slow lanes are held to one.
    pub total: usize,
    /// Longest wait for a turn.
    pub patience: Duration,
}

/// What a webhook says of its own lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Own {
    /// Requests under way at once; `None`: as [`Limits`] say.
    pub max_in_flight: Option<usize>,
    /// How many requests may begin in which time.
    pub rate: Option<RateLimit>,
}

impl From<&Webhook> for Own {
    fn from(webhook: &Webhook) -> Self {
        Self {
            max_in_flight: webhook
                .max_in_flight
                .map(|most| usize::try_from(most).unwrap_or(usize::MAX).max(1)),
            rate: webhook.rate_limit,
        }
    }
}

/// How long it takes until one more request may begin, where the last ones began, or are to begin, at `starts`. Pure.
#[must_use]
pub fn pace(starts: &VecDeque<Instant>, now: Instant, rate: RateLimit) -> Duration {
    let requests = usize::try_from(rate.requests).unwrap_or(usize::MAX).max(1);
    match starts.len().checked_sub(requests).and_then(|first| starts.get(first)) {
        Some(first) => (*first + rate.window).saturating_duration_since(now),
        None => Duration::ZERO,
    }
}

/// What a lane looks like when a delivery asks for its turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Requests under way in the lane.
    pub in_flight: usize,
    /// Deliveries waiting for their turn.
    pub waiting: usize,
    /// How long a request takes just now: the recent mean, or the age of the oldest one under way if that is more.
    pub latency: Duration,
    /// Requests under way over all lanes.
    pub total_in_flight: usize,
}

/// What a delivery may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go now.
    Go,
    /// Wait for a turn in this lane.
    Wait,
    /// Wait in Postgres; releasing it again makes no sense before this long.
    Park(Duration),
}

/// Decides about one delivery. Pure.
#[must_use]
pub fn decide(view: View, limits: Limits) -> Decision {
    let room = lane_limit(view, limits);
    if view.in_flight < room && view.waiting == 0 {
        return Decision::Go;
    }
    let wait = expected_wait(view, room);
    match wait <= limits.patience {
        true => Decision::Wait,
        false => Decision::Park(wait),
    }
}

/// How many requests may be under way in the lane.
fn lane_limit(view: View, limits: Limits) -> usize {
    match view.total_in_flight >= limits.total && view.latency >= SLOW {
        true => 1,
        false => limits.per_lane,
    }
}

/// A lane whose requests take this long gives way when there is not enough room for everybody.
const SLOW: Duration = Duration::from_millis(500);

fn expected_wait(view: View, room: usize) -> Duration {
    let turns = (view.waiting + 1) as f64 / room.max(1) as f64;
    view.latency.mul_f64(turns.min(1e6))
}

/// All lanes of one process.
#[derive(Debug)]
pub struct Lanes {
    limits: Limits,
    lanes: papaya::HashMap<WebhookId, Arc<Lane>>,
    total_in_flight: Arc<AtomicUsize>,
}

/// The answer to a delivery that asked for its turn.
#[derive(Debug)]
pub enum Admission {
    /// Its turn has come; drop the turn when the request is over.
    Turn(Turn),
    /// It is to wait in Postgres for about this long.
    Parked(Duration),
    /// The same, because so many requests have begun as the webhook allows.
    Paced(Duration),
}

impl Lanes {
    /// Lanes without deliveries.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: papaya::HashMap::new(),
            total_in_flight: Arc::default(),
        }
    }

    /// Requests under way over all lanes.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.total_in_flight.load(Ordering::Relaxed)
    }

    /// Waits for a turn in the webhook's lane.
    pub async fn enter(&self, webhook: WebhookId, own: Own) -> Admission {
        let lane = Arc::clone(
            self.lanes
                .pin()
                .get_or_insert_with(webhook, || Arc::new(self.new_lane())),
        );
        let turn = {
            let mut state = lane.lock();
            state.own = own;
            // Looked at before queueing, too: whoever cannot begin in time need not wait for its turn first.
            let wait = own
                .rate
                .map_or(Duration::ZERO, |rate| pace(&state.starts, Instant::now(), rate));
            if wait > self.limits.patience {
                return Admission::Paced(wait);
            }
            match decide(lane.view(&state), lane.limits(&state)) {
                Decision::Go => Ok(lane.begin(&mut state)),
                Decision::Park(wait) => {
                    lane.evict(&mut state);
                    return Admission::Parked(wait);
                }
                Decision::Wait => {
                    let (call, turn) = oneshot::channel();
                    state.waiting.push_back(call);
                    Err(turn)
                }
            }
        };
        let turn = match turn {
            Ok(turn) => turn,
            Err(call) => match call.await {
                Ok(Admission::Turn(turn)) => turn,
                Ok(other) => return other,
                // A lane outlives its waiters' calls; were one lost, waiting in Postgres is the answer that loses nothing.
                Err(_) => return Admission::Parked(self.limits.patience),
            },
        };
        match own.rate {
            Some(rate) => turn.paced(rate, self.limits.patience).await,
            None => Admission::Turn(turn),
        }
    }

    /// A turn at once, for a request that is nobody's delivery: in a lane of its own, and one of all that are under way.
    #[must_use]
    pub fn aside(&self) -> Turn {
        let lane = Arc::new(self.new_lane());
        let mut state = lane.lock();
        lane.begin(&mut state)
    }

    fn new_lane(&self) -> Lane {
        Lane {
            limits: self.limits,
            total_in_flight: Arc::clone(&self.total_in_flight),
            state: Mutex::default(),
        }
    }
}

#[derive(Debug)]
struct Lane {
    limits: Limits,
    total_in_flight: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When each request under way began, oldest first; `None` for one that is over but not the oldest.
    begun: VecDeque<Option<Instant>>,
    /// Number of the oldest entry of `begun`.
    first: u64,
    in_flight: usize,
    mean: Duration,
    waiting: VecDeque<oneshot::Sender<Admission>>,
    /// What the webhook said last.
    own: Own,
    /// When the last requests began, or are to begin: as many as its rate is judged by, oldest first.
    starts: VecDeque<Instant>,
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self, state: &State) -> View {
        let oldest = state
            .begun
            .front()
            .copied()
            .flatten()
            .map_or(Duration::ZERO, |begun| begun.elapsed());
        View {
            in_flight: state.in_flight,
            waiting: state.waiting.len(),
            latency: state.mean.max(oldest),
            total_in_flight: self.total_in_flight.load(Ordering::Relaxed),
        }
    }

    /// The bounds of this lane.
    fn limits(&self, state: &State) -> Limits {
        Limits {
            per_lane: state.own.max_in_flight.unwrap_or(self.limits.per_lane),
            ..self.limits
        }
    }

    fn begin(self: &Arc<Self>, state: &mut State) -> Turn {
        let number = state.first + state.begun.len() as u64;
        state.begun.push_back(Some(Instant::now()));
        state.in_flight += 1;
        self.total_in_flight.fetch_add(1, Ordering::Relaxed);
        Turn {
            lane: Arc::clone(self),
            number,
        }
    }

    fn end(self: &Arc<Self>, number: u64) {
        let mut state = self.lock();
        let at = usize::try_from(number.saturating_sub(state.first)).unwrap_or(usize::MAX);
        if let Some(begun) = state.begun.get_mut(at).and_then(Option::take) {
            // A moving mean over about the last eight requests.
            state.mean = (state.mean * 7 + begun.elapsed()) / 8;
        }
        while state.begun.front().is_some_and(Option::is_none) {
            state.begun.pop_front();
            state.first += 1;
        }
        state.in_flight -= 1;
        self.total_in_flight.fetch_sub(1, Ordering::Relaxed);
        let unclaimed = self.call_next(&mut state);
        self.evict(&mut state);
        drop(state);
        // Dropping a turn locks the lane.
        drop(unclaimed);
    }

    /// Gives free turns to those who wait longest; returns those whose waiter is gone.
    fn call_next(self: &Arc<Self>, state: &mut State) -> Vec<Admission> {
        let mut unclaimed = Vec::new();
        while state.in_flight < lane_limit(self.view(state), self.limits(state))
            && let Some(call) = state.waiting.pop_front()
        {
            let turn = self.begin(state);
            unclaimed.extend(call.send(Admission::Turn(turn)).err());
        }
        unclaimed
    }

    /// Sends those to Postgres who would now have to wait too long, youngest first.
    fn evict(&self, state: &mut State) {
        loop {
            let view = self.view(state);
            let Some(waiting) = view.waiting.checked_sub(1) else {
                return;
            };
            let room = lane_limit(view, self.limits(state));
            let wait = expected_wait(View { waiting, ..view }, room);
            if wait <= self.limits.patience {
                return;
            }
            if let Some(call) = state.waiting.pop_back() {
                let _ = call.send(Admission::Parked(wait));
            }
        }
    }
}

/// The right to make one request in a lane, for as long as it is held.
#[derive(Debug)]
pub struct Turn {
    lane: Arc<Lane>,
    number: u64,
}

impl Turn {
    /// Takes the next place that the rate has, and waits for it where that is not too long.
    async fn paced(self, rate: RateLimit, patience: Duration) -> Admission {
        let start = {
            let mut state = self.lane.lock();
            let now = Instant::now();
            let wait = pace(&state.starts, now, rate);
            match wait <= patience {
                true => {
                    state.starts.push_back(now + wait);
                    let needed = usize::try_from(rate.requests).unwrap_or(usize::MAX).max(1);
                    while state.starts.len() > needed {
                        state.starts.pop_front();
                    }
                    Ok(now + wait)
                }
                false => Err(wait),
            }
        };
        match start {
            Ok(start) => {
                tokio::time::sleep_until(start).await;
                Admission::Turn(self)
            }
            Err(wait) => Admission::Paced(wait),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.lane.end(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        per_lane: 2,
        total: 100,
        patience: Duration::from_secs(1),
    };

    fn webhook(n: u128) -> WebhookId {
        WebhookId::from_uuid(uuid::Uuid::from_u128(n))
    }

    fn view(in_flight: usize, waiting: usize, latency_ms: u64) -> View {
        View {
            in_flight,
            waiting,
            latency: Duration::from_millis(latency_ms),
            total_in_flight: in_flight,
        }
    }

    #[test]
    fn a_quick_lane_queues_and_a_slow_one_parks() {
        assert_eq!(decide(view(1, 0, 5000), LIMITS), Decision::Go);
        assert_eq!(decide(view(2, 1000, 1), LIMITS), Decision::Wait);
        assert_eq!(decide(view(2, 0, 2000), LIMITS), Decision::Wait);
        assert!(matches!(decide(view(2, 1, 2000), LIMITS), Decision::Park(_)));
    }

    #[test]
    fn when_there_is_no_room_for_all_slow_lanes_are_held_to_one() {
        let crowded = |latency| View {
            total_in_flight: 100,
            ..view(1, 0, latency)
        };
        assert_eq!(decide(crowded(1), LIMITS), Decision::Go);
        assert!(matches!(decide(crowded(5000), LIMITS), Decision::Park(_)));
    }

    async fn turn(lanes: &Lanes, n: u128) -> Turn {
        match lanes.enter(webhook(n), Own::default()).await {
            Admission::Turn(turn) => turn,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_delivery_gets_the_turn_that_ends() {
        let lanes = Arc::new(Lanes::new(LIMITS));
        let (first, second) = (turn(&lanes, 1).await, turn(&lanes, 1).await);
        let waiting = tokio::spawn({
            let lanes = Arc::clone(&lanes);
            async move { turn(&lanes, 1).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        let third = waiting.await.unwrap();
        assert_eq!(lanes.in_flight(), 2);
        drop((second, third));
        assert_eq!(lanes.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_lane_parks_what_comes_and_leaves_the_others_alone() {
        let lanes = Arc::new(Lanes::new(LIMITS));
        let _hanging = (turn(&lanes, 1).await, turn(&lanes, 1).await);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(
            matches!(lanes.enter(webhook(1), Own::default()).await, Admission::Parked(wait) if wait > Duration::from_secs(1))
        );
        let _quick = turn(&lanes, 2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_parked_once_their_lane_has_become_slow() {
        let lanes = Arc::new(Lanes::new(LIMITS));
        let _hanging = (turn(&lanes, 1).await, turn(&lanes, 1).await);
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let lanes = Arc::clone(&lanes);
                tokio::spawn(async move { lanes.enter(webhook(1), Own::default()).await })
            })
            .collect();
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(matches!(
            lanes.enter(webhook(1), Own::default()).await,
            Admission::Parked(_)
        ));
        for waiting in waiting {
            assert!(matches!(waiting.await.unwrap(), Admission::Parked(_)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_whose_waiter_is_gone_goes_to_the_next() {
        let lanes = Arc::new(Lanes::new(LIMITS));
        let held = (turn(&lanes, 1).await, turn(&lanes, 1).await);
        let wait = || {
            let lanes = Arc::clone(&lanes);
            tokio::spawn(async move { turn(&lanes, 1).await })
        };
        let gone = wait();
        tokio::task::yield_now().await;
        let patient = wait();
        tokio::task::yield_now().await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        drop(held);
        drop(patient.await.unwrap());
        assert_eq!(lanes.in_flight(), 0);
    }

    const TWO_A_SECOND: RateLimit = RateLimit {
        requests: 2,
        window: Duration::from_secs(1),
    };

    #[test]
    fn the_rate_is_judged_by_the_last_so_many_starts() {
        let begin = Instant::now();
        let starts = |millis: &[u64]| millis.iter().map(|ms| begin + Duration::from_millis(*ms)).collect();
        let wait =
            |past: &[u64], now| pace(&starts(past), begin + Duration::from_millis(now), TWO_A_SECOND).as_millis();
        assert_eq!(wait(&[], 0), 0);
        assert_eq!(wait(&[0], 0), 0);
        assert_eq!(wait(&[0, 100], 100), 900);
        assert_eq!(wait(&[0, 100, 1000], 1050), 50);
        assert_eq!(wait(&[0, 100], 5000), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn in_no_stretch_of_time_do_more_requests_begin_than_the_webhook_allows() {
        let lanes = Lanes::new(LIMITS);
        let own = Own {
            rate: Some(TWO_A_SECOND),
            ..Own::default()
        };
        let mut begun = Vec::new();
        for _ in 0..9 {
            match lanes.enter(webhook(1), own).await {
                Admission::Turn(turn) => drop(turn),
                other => panic!("{other:?}"),
            }
            begun.push(Instant::now());
        }
        for three in begun.windows(3) {
            assert!(three[2] - three[0] >= TWO_A_SECOND.window, "{three:?}");
        }
        assert_eq!(begun[1], begun[0], "within the window they go as they come");
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_for_the_rate_waits_in_postgres() {
        let lanes = Lanes::new(LIMITS);
        let own = Own {
            rate: Some(RateLimit {
                requests: 1,
                window: Duration::from_secs(60),
            }),
            ..Own::default()
        };
        assert!(matches!(lanes.enter(webhook(1), own).await, Admission::Turn(_)));
        assert!(
            matches!(lanes.enter(webhook(1), own).await, Admission::Paced(wait) if wait == Duration::from_secs(60))
        );
        assert!(matches!(lanes.enter(webhook(2), own).await, Admission::Turn(_)));
        assert_eq!(lanes.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_webhooks_own_bound_holds_instead_of_the_usual_one() {
        let lanes = Arc::new(Lanes::new(LIMITS));
        let own = Own {
            max_in_flight: Some(1),
            ..Own::default()
        };
        let Admission::Turn(first) = lanes.enter(webhook(1), own).await else {
            panic!("no turn")
        };
        let second = tokio::spawn({
            let lanes = Arc::clone(&lanes);
            async move { lanes.enter(webhook(1), own).await }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert!(matches!(second.await.unwrap(), Admission::Turn(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_aside_is_had_at_once_and_counted() {
        let lanes = Arc::new(Lanes::new(LIMITS));
        let _hanging = (turn(&lanes, 1).await, turn(&lanes, 1).await);
        let aside = lanes.aside();
        assert_eq!(lanes.in_flight(), 3);
        drop(aside);
        assert_eq!(lanes.in_flight(), 2);
    }
}
