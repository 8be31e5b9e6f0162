//! What NATS is asked every ten seconds: what time it is there, and how full the streams are.
//!
//! Signatures hold the time, and receivers refuse those that are some minutes off: a dispatcher whose clock is wrong would
//! deliver nothing, and hear of it from receivers alone. A stream that is full refuses what is published; that it fills up
//! is said before.

use std::fmt::{self, Display};
use std::time::Duration;

use async_nats::jetstream::response::Response;
use jiff::{SignedDuration, Timestamp};
use opentelemetry::metrics::Gauge;
use opentelemetry::{KeyValue, global};
use proto_schemas::stream::{DELIVERIES, EVENTS, LEDGER, Stream};
use serde::Deserialize;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Bus, Error};
use crate::clock::Clock;
use crate::health::Health;

/// How far from the server's a clock may be for the condition [`CLOCK`] to be met. Receivers by Standard Webhooks'
/// libraries refuse what is 300 s off.
pub const CLOCK_OFFSET_MAX: SignedDuration = SignedDuration::from_secs(30);

/// The readiness condition that [`Bus::survey`] keeps.
pub const CLOCK: &str = "clock";

const EVERY: Duration = Duration::from_secs(10);

/// An answer that took longer does not tell what time it is.
const ROUND_TRIP_MAX: SignedDuration = SignedDuration::from_secs(1);

/// How full a stream is when its log line comes: the first two are warnings, the last is an error. In hundredths.
const MARKS: [u64; 3] = [70, 85, 95];

/// By so many hundredths it has to have emptied for a line to come again.
const MARGIN: u64 = 5;

/// Of what JetStream says of a stream. `ts` is there since nats-server 2.10.
#[derive(Deserialize)]
struct Info {
    ts: Timestamp,
    config: Limits,
    state: State,
}

#[derive(Deserialize)]
struct Limits {
    max_bytes: i64,
}

#[derive(Deserialize)]
struct State {
    bytes: u64,
}

impl Info {
    /// How full the stream is, from 0 to 1; `None` where it has no limit.
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    fn used(&self) -> Option<f64> {
        (self.config.max_bytes > 0).then(|| self.state.bytes as f64 / self.config.max_bytes as f64)
    }
}

impl Bus {
    /// Asks until `stop`, and tells what it hears as `posthaste_clock_offset_seconds` and `posthaste_stream_used_ratio`. A
    /// stream that fills up is said in the log as well. With `health`, the readiness condition [`CLOCK`] is met as long as
    /// `clock` is within [`CLOCK_OFFSET_MAX`] of the server's.
    pub fn survey(&self, clock: Clock, health: Option<Health>, stop: CancellationToken) {
        let bus = self.clone();
        let mut survey = Survey::new(clock, health);
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if bus.is_connected() {
                    survey.round(&bus).await;
                }
            }
        }));
    }

    async fn info(&self, stream: Stream) -> Result<Info, Error> {
        let asking = async {
            let subject = format!("STREAM.INFO.{}", stream.name);
            match self.jetstream.request(subject, &()).await? {
                Response::Ok(info) => Ok(info),
                Response::Err { error } => Err(error.into()),
            }
        };
        self.look(|| format!("what stream {} holds", stream.name), asking).await
    }
}

struct Survey {
    clock: Clock,
    health: Option<Health>,
    offset: Gauge<f64>,
    used: Gauge<f64>,
    streams: [(Stream, Filling); 3],
}

impl Survey {
    fn new(clock: Clock, health: Option<Health>) -> Self {
        let meter = global::meter("posthaste");
        Self {
            clock,
            health,
            offset: meter
                .f64_gauge("posthaste_clock_offset")
                .with_unit("s")
                .with_description("How far this process' clock is ahead of the one of NATS")
                .build(),
            used: meter
                .f64_gauge("posthaste_stream_used")
                .with_unit("1")
                .with_description("How full a stream is, from 0 to 1; a full one refuses what is published")
                .build(),
            streams: [EVENTS, DELIVERIES, LEDGER].map(|stream| (stream, Filling::default())),
        }
    }

    async fn round(&mut self, bus: &Bus) {
        for (stream, filling) in &mut self.streams {
            let asked_at = self.clock.now();
            let info = match bus.info(*stream).await {
                Ok(info) => info,
                Err(error) => {
                    tracing::debug!(%error, stream = stream.name, "NATS does not say what a stream holds");
                    continue;
                }
            };
            if let Some(offset) = offset(asked_at, info.ts, self.clock.now()) {
                self.offset.record(offset.as_secs_f64(), &[]);
                if let Some(health) = &self.health {
                    health.set(CLOCK, judge(offset));
                }
            }
            let Some(used) = info.used() else { continue };
            self.used.record(used, &[KeyValue::new("stream", stream.name)]);
            match filling.reaches(used) {
                Some(mark @ Mark { is_last: true, .. }) => {
                    tracing::error!(stream = stream.name, "{} is {mark}", stream.name)
                }
                Some(mark) => tracing::warn!(stream = stream.name, "{} is {mark}", stream.name),
                None => {}
            }
        }
    }
}

/// How far a clock is ahead that was looked at before and after it was `there` elsewhere.
fn offset(before: Timestamp, there: Timestamp, after: Timestamp) -> Option<SignedDuration> {
    let round_trip = after.duration_since(before);
    (!round_trip.is_negative() && round_trip <= ROUND_TRIP_MAX)
        .then(|| before.duration_since(there).saturating_add(round_trip / 2))
}

fn judge(offset: SignedDuration) -> Result<(), String> {
    if offset.abs() <= CLOCK_OFFSET_MAX {
        return Ok(());
    }
    let side = if offset.is_negative() { "behind" } else { "ahead of" };
    // By the second, since a reason that changes is logged.
    Err(format!(
        "this clock is {} s {side} that of NATS, and receivers refuse signatures of another time: have NTP set both",
        offset.abs().as_secs()
    ))
}

/// A mark that a stream has reached.
struct Mark {
    hundredths: u64,
    is_last: bool,
}

impl Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} % full; at 100 % what is published is refused: see why it is not worked off, or give it more room",
            self.hundredths
        )
    }
}

/// How many of [`MARKS`] a stream has reached.
#[derive(Default)]
struct Filling(usize);

impl Filling {
    /// The mark that was reached now, if it is a new one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "hundredths of a share"
    )]
    fn reaches(&mut self, used: f64) -> Option<Mark> {
        let hundredths = (used * 100.0) as u64;
        let reached = MARKS.iter().filter(|mark| hundredths >= **mark).count();
        let kept = MARKS.iter().filter(|mark| hundredths + MARGIN >= **mark).count();
        let before = self.0;
        self.0 = reached.max(before.min(kept));
        (reached > before).then(|| Mark {
            hundredths: MARKS[reached - 1],
            is_last: reached == MARKS.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs_f64(1_000.0 + seconds)
    }

    #[test]
    fn an_offset_is_measured_from_the_middle_of_the_question() {
        for (before, there, after, found) in [
            (0.0, 0.25, 0.5, Some(0.0)),
            (0.0, 100.25, 0.5, Some(-100.0)),
            (0.0, -100.0, 0.0, Some(100.0)),
            (0.0, 0.0, 1.0, Some(0.5)),
            (0.0, 0.0, 1.5, None),
            // Set meanwhile.
            (0.0, 0.0, -0.1, None),
        ] {
            let offset = offset(at(before), at(there), at(after)).map(|it| it.as_secs_f64());
            assert_eq!(offset, found, "{before} {there} {after}");
        }
    }

    #[test]
    fn more_than_half_a_minute_is_too_much_either_way() {
        let judged = |seconds| judge(SignedDuration::from_millis(seconds));
        assert_eq!((judged(30_000), judged(-30_000)), (Ok(()), Ok(())));
        assert!(judged(30_001).unwrap_err().contains("30 s ahead of"));
        assert!(judged(-300_900).unwrap_err().contains("300 s behind"));
    }

    #[test]
    fn a_stream_that_fills_up_is_said_at_each_mark_and_not_while_it_hovers_there() {
        let mut filling = Filling::default();
        let said: Vec<Option<u64>> = [
            0.1, 0.7, 0.69, 0.71, 0.66, 0.7, 0.64, 0.7, 0.96, 0.85, 0.95, 1.0, 0.0, 0.85,
        ]
        .into_iter()
        .map(|used| filling.reaches(used).map(|it| it.hundredths))
        .collect();
        let n = None;
        let [low, middle, high] = MARKS.map(Some);
        assert_eq!(said, [n, low, n, n, n, n, n, low, high, n, high, n, n, middle]);
    }

    #[test]
    fn a_stream_without_a_limit_is_never_full() {
        let info = |max_bytes| Info {
            ts: Timestamp::UNIX_EPOCH,
            config: Limits { max_bytes },
            state: State { bytes: 50 },
        };
        assert_eq!(
            (info(-1).used(), info(0).used(), info(200).used()),
            (None, None, Some(0.25))
        );
    }
}
