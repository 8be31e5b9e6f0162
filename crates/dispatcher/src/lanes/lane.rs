//! One webhook's lane, and a turn in it.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto_schemas::definition::RateLimit;
use proto_schemas::id::WebhookId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Admission, All, Cause, Decision, KEPT, Limits, Own, View, decide, expected_wait, has_room, pace};
use crate::breaker::{Breaker, Gate, Moved, Pass, Phase, Sign};
use crate::throttle::Throttle;

#[derive(Debug)]
pub(super) struct Lane {
    /// Whose; `None` for one aside.
    webhook: Option<WebhookId>,
    limits: Limits,
    all: Arc<All>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// When each request under way began, oldest first; `None` for one that is over but not the oldest.
    begun: VecDeque<Option<Instant>>,
    /// Number of the oldest entry of `begun`.
    first: u64,
    in_flight: usize,
    mean: Duration,
    pub(super) waiting: VecDeque<oneshot::Sender<Admission>>,
    /// What the webhook said last.
    own: Own,
    /// When the last requests began, or are to begin: as many as its rate is judged by, oldest first.
    pub(super) starts: VecDeque<Instant>,
    breaker: Breaker,
    throttle: Throttle,
    /// When somebody came or went last.
    last: Option<Instant>,
    /// Whether it is not one of the lanes any more: whoever finds it so has to look for another.
    is_forgotten: bool,
}

/// What becomes of a delivery that asks for its turn.
pub(super) enum Asked {
    Go(Turn),
    /// It is called when its turn has come, or it is to wait in Postgres.
    Wait(oneshot::Receiver<Admission>),
    Parked(Cause, Duration),
}

impl State {
    /// Whether nothing is under way, and nothing of what was is to be remembered.
    fn is_idle(&self, now: Instant) -> bool {
        let has_rested = self.last.is_none_or(|last| now.duration_since(last) >= KEPT);
        let is_paced = self.own.rate.zip(self.starts.back());
        has_rested
            && self.in_flight == 0
            && self.waiting.is_empty()
            && self.shut(now).is_none()
            && is_paced.is_none_or(|(rate, start)| now.duration_since(*start) >= rate.window)
    }

    /// Whether nobody may begin now, why, and for how long.
    pub(super) fn shut(&self, now: Instant) -> Option<(Cause, Duration)> {
        // The later of the two holds.
        let broken = match self.breaker.gate(now) {
            Gate::Shut(wait) => wait,
            Gate::Pass | Gate::Probe | Gate::Probing => Duration::ZERO,
        };
        let throttled = self.throttle.wait(now);
        match broken.max(throttled) {
            Duration::ZERO => None,
            wait if broken >= throttled => Some((Cause::Broken, wait)),
            wait => Some((Cause::Throttled, wait)),
        }
    }
}

impl Lane {
    pub(super) fn new(webhook: Option<WebhookId>, limits: Limits, all: &Arc<All>) -> Self {
        Self {
            webhook,
            limits,
            all: Arc::clone(all),
            state: Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a turn; `None` where the lane has been forgotten.
    pub(super) fn ask(self: &Arc<Self>, own: Own) -> Option<Asked> {
        let mut state = self.lock();
        if state.is_forgotten {
            return None;
        }
        let now = Instant::now();
        state.last = Some(now);
        self.take_on(&mut state, own);
        if let Some((cause, wait)) = state.shut(now) {
            return Some(Asked::Parked(cause, wait));
        }
        // Looked at before queueing, too: whoever cannot begin in time need not wait for its turn first.
        let wait = own.rate.map_or(Duration::ZERO, |rate| pace(&state.starts, now, rate));
        if wait > self.limits.patience {
            return Some(Asked::Parked(Cause::Paced, wait));
        }
        Some(match decide(self.view(&state), self.limits(&state)) {
            Decision::Go => Asked::Go(self.begin(&mut state)),
            Decision::Park(wait) => {
                self.evict(&mut state);
                Asked::Parked(Cause::Full, wait)
            }
            Decision::Wait => {
                let (call, turn) = oneshot::channel();
                state.waiting.push_back(call);
                Asked::Wait(turn)
            }
        })
    }

    /// Whether it is idle, and by that is forgotten from now on.
    pub(super) fn forget_if_idle(&self) -> bool {
        let mut state = self.lock();
        if state.is_idle(Instant::now()) {
            state.is_forgotten = true;
            // With the lane goes its breaker, which may have been left open.
            self.all.moved(state.breaker.phase(), Phase::Closed);
            state.breaker.reset();
        }
        state.is_forgotten
    }

    /// Takes on what the webhook says now.
    pub(super) fn take_on(&self, state: &mut State, own: Own) {
        // An older one may come late: it was read before the newer one.
        if own.revision > state.own.revision {
            let phase = state.breaker.phase();
            state.breaker.reset();
            state.throttle.reset();
            self.all.moved(phase, Phase::Closed);
        }
        if own.revision >= state.own.revision {
            state.own = own;
        }
    }

    pub(super) fn view(&self, state: &State) -> View {
        let oldest = state
            .begun
            .front()
            .copied()
            .flatten()
            .map_or(Duration::ZERO, |begun| begun.elapsed());
        View {
            in_flight: state.in_flight,
            probing: state.breaker.phase() == Phase::HalfOpen,
            waiting: state.waiting.len(),
            latency: state.mean.max(oldest),
            total_in_flight: self.all.in_flight.load(Ordering::Relaxed),
        }
    }

    /// The bounds of this lane.
    pub(super) fn limits(&self, state: &State) -> Limits {
        Limits {
            per_lane: state.throttle.room(self.usual(state)),
            ..self.limits
        }
    }

    /// How many requests may be under way at once where the receiver has nothing against it.
    fn usual(&self, state: &State) -> usize {
        state.own.max_in_flight.unwrap_or(self.limits.per_lane)
    }

    pub(super) fn begin(self: &Arc<Self>, state: &mut State) -> Turn {
        let number = state.first + state.begun.len() as u64;
        let now = Instant::now();
        state.begun.push_back(Some(now));
        state.in_flight += 1;
        self.all.in_flight.fetch_add(1, Ordering::Relaxed);
        Turn {
            number,
            begun: now,
            revision: state.own.revision,
            pass: self.webhook.map(|_| self.pass(state, now)),
            lane: Arc::clone(self),
        }
    }

    fn pass(&self, state: &mut State, now: Instant) -> Pass {
        let phase = state.breaker.phase();
        let pass = state.breaker.begin(now);
        self.all.moved(phase, state.breaker.phase());
        pass
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
        state.last = Some(Instant::now());
        self.all.in_flight.fetch_sub(1, Ordering::Relaxed);
        let unclaimed = self.call_next(&mut state);
        self.evict(&mut state);
        drop(state);
        // Dropping a turn locks the lane.
        drop(unclaimed);
    }

    /// Gives free turns to those who wait longest; returns those whose waiter is gone.
    fn call_next(self: &Arc<Self>, state: &mut State) -> Vec<Admission> {
        let mut unclaimed = Vec::new();
        while state.shut(Instant::now()).is_none()
            && has_room(self.view(state), self.limits(state))
            && let Some(call) = state.waiting.pop_front()
        {
            let turn = self.begin(state);
            unclaimed.extend(call.send(Admission::Turn(turn)).err());
        }
        unclaimed
    }

    /// Sends those to Postgres who would now have to wait too long, youngest first; everybody, where nobody may begin.
    pub(super) fn evict(&self, state: &mut State) {
        if state.waiting.is_empty() {
            return;
        }
        if let Some((cause, wait)) = state.shut(Instant::now()) {
            for call in state.waiting.drain(..) {
                let _ = call.send(Admission::Parked(cause, wait));
            }
            return;
        }
        loop {
            let view = self.view(state);
            let Some(waiting) = view.waiting.checked_sub(1) else {
                return;
            };
            let wait = expected_wait(View { waiting, ..view }, self.limits(state));
            if wait <= self.limits.patience {
                return;
            }
            if let Some(call) = state.waiting.pop_back() {
                let _ = call.send(Admission::Parked(Cause::Full, wait));
            }
        }
    }

    /// Hears what a request says of the receiver.
    fn hear(&self, turn: &Turn, pass: Pass, sign: Sign, throttled: Option<Duration>) {
        let now = Instant::now();
        let mut state = self.lock();
        if turn.revision == state.own.revision {
            let usual = self.usual(&state);
            match (throttled, sign) {
                (Some(wait), _) => state.throttle.slow_down(now, wait),
                (None, Sign::Well) => state.throttle.went_well(turn.begun, usual),
                (None, Sign::Ill | Sign::Nothing) => {}
            }
        }
        let phase = state.breaker.phase();
        let chance = self.chance(state.breaker.openings());
        let moved = state.breaker.end(pass, sign, now, self.limits.breaker, chance);
        self.all.moved(phase, state.breaker.phase());
        self.evict(&mut state);
        drop(state);
        let Some((moved, webhook)) = moved.zip(self.webhook) else {
            return;
        };
        match moved {
            Moved::Opened { wait, again: false } => {
                tracing::warn!(%webhook, ?wait, "a receiver fails; its deliveries wait until it is probed");
            }
            Moved::Opened { wait, again: true } => {
                tracing::debug!(%webhook, ?wait, "the receiver failed when it was probed; its deliveries wait on");
            }
            Moved::Closed => tracing::info!(%webhook, "the receiver works again; its deliveries go on"),
        }
    }

    /// A number from 0 to 1 made of what the opening is: that spreads webhooks as well as one that is drawn.
    fn chance(&self, openings: u32) -> f64 {
        let mut hasher = DefaultHasher::new();
        (self.webhook, openings).hash(&mut hasher);
        f64::from((hasher.finish() >> 32) as u32) / f64::from(u32::MAX)
    }
}

/// The right to make one request in a lane, for as long as it is held.
#[derive(Debug)]
pub struct Turn {
    number: u64,
    begun: Instant,
    revision: u64,
    /// What the breaker knows it by, until its end is told; `None` aside.
    pass: Option<Pass>,
    lane: Arc<Lane>,
}

impl Turn {
    #[cfg(test)]
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Tells what the request says of the receiver: whether it works, and for how long it wants to be left alone, where it
    /// said that it is asked too much.
    pub fn report(&mut self, sign: Sign, throttled: Option<Duration>) {
        if let Some(pass) = self.pass.take() {
            self.lane.hear(self, pass, sign, throttled);
        }
    }

    /// Takes the next place that the rate has, and waits for it where that is not too long.
    pub(super) async fn paced(mut self, rate: RateLimit) -> Admission {
        let start = {
            let mut state = self.lane.lock();
            let now = Instant::now();
            let wait = pace(&state.starts, now, rate);
            match wait <= self.lane.limits.patience {
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
                match self.still_may_go() {
                    None => Admission::Turn(self),
                    Some((cause, wait)) => Admission::Parked(cause, wait),
                }
            }
            Err(wait) => Admission::Parked(Cause::Paced, wait),
        }
    }

    /// Whether the receiver has fallen ill, or asked to be left alone, since this turn was given.
    fn still_may_go(&mut self) -> Option<(Cause, Duration)> {
        let lane = Arc::clone(&self.lane);
        let (mut state, now) = (lane.lock(), Instant::now());
        if let Some(shut) = state.shut(now) {
            return Some(shut);
        }
        let pass = self.pass?;
        if state.breaker.hears(pass) {
            return None;
        }
        match state.breaker.gate(now) {
            Gate::Probing => Some((Cause::Broken, lane.limits.patience)),
            Gate::Pass | Gate::Probe | Gate::Shut(_) => {
                self.pass = Some(lane.pass(&mut state, now));
                self.revision = state.own.revision;
                None
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.report(Sign::Nothing, None);
        self.lane.end(self.number);
    }
}
