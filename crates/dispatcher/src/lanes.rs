//! Lanes: one slow receiver delays nobody else, and one that is ill is left alone.
//!
//! Every webhook has a lane with a bounded number of requests under way. A delivery that finds its lane full waits for
//! its turn, unless it would have to wait too long, judged by how long the lane's requests take just now; then it is
//! parked: it waits in Postgres, where it costs the others nothing, and is released as the lane drains. So a busy lane
//! of a quick receiver hardly ever parks, and the lane of a hanging one parks within moments. How many may wait here is
//! bounded, too: whoever waits takes a place from all lanes ([`Limits::waiting`]).
//!
//! A webhook may have bounds of its own: fewer or more requests under way, and so many that may begin in a window of
//! time. The latter holds for every stretch of time of that length, wherever it begins: within it requests go as they
//! come.
//!
//! What requests come to is told here ([`Turn::report`]). A receiver that is ill has its lane's [`breaker`] open, and
//! whatever comes is parked until it is time for a probe; one that is asked too much has its [`throttle`] tightened, and
//! whatever comes before its `Retry-After` has passed is parked as well. A webhook whose definition has changed begins
//! anew.
//!
//! All of this holds for one process; several dispatchers each have their own lanes.

mod lane;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::metrics::UpDownCounter;
use opentelemetry::{KeyValue, global};
use proto_schemas::definition::{RateLimit, Webhook};
use proto_schemas::id::WebhookId;
use tokio::time::Instant;

pub use self::lane::Turn;
use self::lane::{Asked, Lane};
use crate::breaker::{self, Phase};

/// Bounds of the lanes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests under way at once in one lane.
    pub per_lane: usize,
    /// Requests under way at once over all lanes; beyond it, slow lanes are held to one.
    pub total: usize,
    /// Longest wait for a turn.
    pub patience: Duration,
    /// Deliveries that may wait for their turn in one lane.
    pub waiting: usize,
    /// When breakers open.
    pub breaker: breaker::Rules,
}

/// What a webhook says of its own lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Own {
    /// Revision of its definition: what was found out about the receiver of another one does not count.
    pub revision: u64,
    /// Requests under way at once; `None`: as [`Limits`] say.
    pub max_in_flight: Option<usize>,
    /// How many requests may begin in which time.
    pub rate: Option<RateLimit>,
}

impl From<&Webhook> for Own {
    fn from(webhook: &Webhook) -> Self {
        Self {
            revision: webhook.revision,
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
    /// Whether one of them is a probe: nobody else goes before it is over.
    pub probing: bool,
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
    if has_room(view, limits) && view.waiting == 0 {
        return Decision::Go;
    }
    let wait = expected_wait(view, limits);
    match wait <= limits.patience && view.waiting < limits.waiting {
        true => Decision::Wait,
        false => Decision::Park(wait),
    }
}

/// Whether one more request may begin.
fn has_room(view: View, limits: Limits) -> bool {
    !view.probing && view.in_flight < lane_limit(view, limits)
}

/// How many requests may be under way in the lane.
fn lane_limit(view: View, limits: Limits) -> usize {
    match view.probing || view.total_in_flight >= limits.total && view.latency >= SLOW {
        true => 1,
        false => limits.per_lane,
    }
}

/// A lane whose requests take this long gives way when there is not enough room for everybody.
const SLOW: Duration = Duration::from_millis(500);

fn expected_wait(view: View, limits: Limits) -> Duration {
    let turns = (view.waiting + 1) as f64 / lane_limit(view, limits).max(1) as f64;
    view.latency.mul_f64(turns.min(1e6))
}

/// How long a lane is kept that nobody comes to. What was found out about its receiver is old by then.
const KEPT: Duration = Duration::from_mins(10);

/// All lanes of one process.
#[derive(Debug)]
pub struct Lanes {
    limits: Limits,
    lanes: papaya::HashMap<WebhookId, Arc<Lane>>,
    all: Arc<All>,
}

/// What is counted over all lanes.
#[derive(Debug)]
struct All {
    in_flight: AtomicUsize,
    breakers: UpDownCounter<i64>,
}

impl All {
    /// Notes that a breaker has moved.
    fn moved(&self, from: Phase, to: Phase) {
        if from == to {
            return;
        }
        for (phase, by) in [(from, -1), (to, 1)] {
            if phase != Phase::Closed {
                self.breakers.add(by, &[KeyValue::new("state", phase.as_str())]);
            }
        }
    }
}

/// The answer to a delivery that asked for its turn.
#[derive(Debug)]
pub enum Admission {
    /// Its turn has come; drop the turn when the request is over.
    Turn(Turn),
    /// It is to wait in Postgres.
    Parked(Cause, Duration),
}

/// Why a delivery is to wait in Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It would have to wait for its turn for so long.
    Full,
    /// So many requests have begun as the webhook allows in a stretch of time.
    Paced,
    /// The receiver is ill.
    Broken,
    /// The receiver has asked to be left alone for so long.
    Throttled,
}

impl Cause {
    /// In a few words, for the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "the webhook's lane is full",
            Self::Paced => "the webhook's rate limit is reached",
            Self::Broken => "the webhook's breaker is open",
            Self::Throttled => "the receiver has asked to be left alone for a while",
        }
    }
}

impl Lanes {
    /// Lanes without deliveries.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let breakers = global::meter("posthaste")
            .i64_up_down_counter("posthaste_breaker_open")
            .with_description("Webhooks whose receiver is left alone because it fails, by state of the breaker")
            .build();
        for phase in [Phase::Open, Phase::HalfOpen] {
            breakers.add(0, &[KeyValue::new("state", phase.as_str())]);
        }
        Self {
            limits,
            lanes: papaya::HashMap::new(),
            all: Arc::new(All {
                in_flight: AtomicUsize::new(0),
                breakers,
            }),
        }
    }

    /// Requests under way over all lanes.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.all.in_flight.load(Ordering::Relaxed)
    }

    /// Waits for a turn in the webhook's lane.
    pub async fn enter(&self, webhook: WebhookId, own: Own) -> Admission {
        let asked = loop {
            // One that has just been forgotten is nobody's any more; the next look makes a new one.
            if let Some(asked) = self.lane(webhook).ask(own) {
                break asked;
            }
        };
        let turn = match asked {
            Asked::Parked(cause, wait) => return Admission::Parked(cause, wait),
            Asked::Go(turn) => turn,
            Asked::Wait(call) => match call.await {
                Ok(Admission::Turn(turn)) => turn,
                Ok(other) => return other,
                // A lane outlives its waiters' calls; were one lost, waiting in Postgres is the answer that loses nothing.
                Err(_) => return Admission::Parked(Cause::Full, self.limits.patience),
            },
        };
        match own.rate {
            Some(rate) => turn.paced(rate).await,
            None => Admission::Turn(turn),
        }
    }

    fn lane(&self, webhook: WebhookId) -> Arc<Lane> {
        let lanes = self.lanes.pin();
        Arc::clone(lanes.get_or_insert_with(webhook, || Arc::new(Lane::new(Some(webhook), self.limits, &self.all))))
    }

    /// A turn at once, for a request that is nobody's delivery: in a lane of its own, and one of all that are under way.
    /// What it comes to says nothing.
    #[must_use]
    pub fn aside(&self) -> Turn {
        let lane = Arc::new(Lane::new(None, self.limits, &self.all));
        let mut state = lane.lock();
        lane.begin(&mut state)
    }

    /// Sends those to Postgres who have come to wait too long without anybody coming or going in their lane. Whoever waits
    /// takes a place from all lanes, so this is to be called every now and then.
    pub fn tend(&self) {
        for lane in self.lanes.pin().values() {
            lane.evict(&mut lane.lock());
        }
    }

    /// Drops the lanes that nobody has come to in a while and in which nothing is to be remembered: their webhooks are gone, or
    /// get nothing. To be called every now and then.
    pub fn forget_idle(&self) {
        self.lanes.pin().retain(|_, lane| !lane.forget_if_idle());
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
