//! What a process holds of a stream, and what it has finished: so that nothing is worked on twice while it lives.
//!
//! A message is known by its sequence and by when it was stored: a stream that was made anew, or that has lost its end with
//! a power cut, gives sequences away a second time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use super::Bus;
use super::credit::Permit;
use super::streams::PROGRESS_INTERVAL;
use super::work_off::Verdict;

/// Which message: of one sequence there may have been another, in a stream that is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) sequence: u64,
    pub(super) stored_at: Timestamp,
}

/// What this process holds and what it has finished.
pub(super) struct Holds {
    client: async_nats::Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By sequence, as the server knows what it is told of a message.
    held: HashMap<u64, Reply>,
    finished: HashSet<Place>,
    finished_order: VecDeque<Place>,
}

/// Where to say what becomes of a message.
struct Reply {
    stored_at: Timestamp,
    subject: Subject,
    since: Instant,
}

/// What a message that comes is here.
#[derive(Debug, PartialEq, Eq)]
enum Known {
    New,
    Held,
    Finished,
}

/// Finished messages remembered, per consumer: well above what a connection can have unflushed when it breaks.
const REMEMBERED: usize = 64 * 1024;

impl State {
    /// Takes a message in, unless it is finished. One that is held gets its newer reply subject; one that has the sequence of
    /// another that is held takes its place, and nothing will be said of that one, which the server does not have any more.
    fn begin(&mut self, place: Place, subject: Subject) -> Known {
        if self.finished.contains(&place) {
            return Known::Finished;
        }
        let Place { sequence, stored_at } = place;
        let since = Instant::now();
        let reply = Reply {
            stored_at,
            subject,
            since,
        };
        match self.held.insert(sequence, reply) {
            Some(before) if before.stored_at == stored_at => Known::Held,
            _ => Known::New,
        }
    }

    /// Lets a message go; where to say so, if there is anybody to hear it.
    fn end(&mut self, place: Place, finished: bool) -> Option<Subject> {
        if finished && self.finished.insert(place) {
            self.finished_order.push_back(place);
            if self.finished_order.len() > REMEMBERED
                && let Some(oldest) = self.finished_order.pop_front()
            {
                self.finished.remove(&oldest);
            }
        }
        let held = self.held.get(&place.sequence)?;
        if held.stored_at != place.stored_at {
            return None;
        }
        self.held.remove(&place.sequence).map(|reply| reply.subject)
    }

    /// Of what has been held for so long that a sign of progress is due.
    fn slow(&self, now: Instant) -> Vec<Subject> {
        let is_due = |reply: &&Reply| now.duration_since(reply.since) >= PROGRESS_INTERVAL;
        let due = self.held.values().filter(is_due);
        due.map(|reply| reply.subject.clone()).collect()
    }
}

impl Holds {
    pub(super) fn new(bus: &Bus) -> Arc<Self> {
        let holds = Arc::new(Self {
            client: bus.client.clone(),
            state: Mutex::default(),
        });
        tokio::spawn(show_progress(Arc::downgrade(&holds)));
        holds
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message in, if it is new here. One that is finished is acked again.
    pub(super) fn begin(self: &Arc<Self>, place: Place, reply: Subject, places: Places) -> Option<Held> {
        let known = self.lock().begin(place, reply.clone());
        if known == Known::Finished {
            let client = self.client.clone();
            tokio::spawn(async move { client.publish(reply, ACK).await });
        }
        (known == Known::New).then(|| Held {
            stored: place,
            holds: Arc::clone(self),
            settled: false,
            _places: places,
        })
    }

    fn end(&self, place: Place, finished: bool) -> Option<Subject> {
        self.lock().end(place, finished)
    }
}

const ACK: Bytes = Bytes::from_static(b"+ACK");
const PROGRESS: Bytes = Bytes::from_static(b"+WPI");

async fn show_progress(holds: std::sync::Weak<Holds>) {
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(holds) = holds.upgrade() else { return };
        let slow = holds.lock().slow(Instant::now());
        for reply in slow {
            if let Err(error) = holds.client.publish(reply, PROGRESS).await {
                tracing::warn!(%error, "could not show progress");
                break;
            }
        }
    }
}

/// What a message takes of its puller's credit: one place as a rule, and more for a large one.
pub(super) type Places = (Option<Permit>, Vec<Permit>);

/// A message being worked on. Dropped without a verdict (a handler panicked), it is handed out again.
pub(super) struct Held {
    stored: Place,
    holds: Arc<Holds>,
    settled: bool,
    _places: Places,
}

impl Held {
    pub(super) async fn settle(mut self, verdict: Verdict) {
        self.settled = true;
        let Some(reply) = self.holds.end(self.stored, verdict == Verdict::Done) else {
            return;
        };
        let answer = match verdict {
            Verdict::Done => ACK,
            Verdict::Again(delay) => nak(delay),
        };
        if let Err(error) = self.holds.client.publish(reply, answer).await {
            tracing::warn!(%error, "an ack was not sent; the message will be handed out again");
        }
    }
}

pub(super) fn nak(delay: Duration) -> Bytes {
    match delay.is_zero() {
        true => Bytes::from_static(b"-NAK"),
        false => format!(r#"-NAK {{"delay":{}}}"#, delay.as_nanos()).into(),
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        if let Some(reply) = self.holds.end(self.stored, false)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            tracing::error!(
                sequence = self.stored.sequence,
                "a handler ended without a verdict; the message is handed out again"
            );
            let client = self.holds.client.clone();
            runtime.spawn(async move { client.publish(reply, nak(Duration::from_secs(1))).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(sequence: u64, second: i64) -> Place {
        Place {
            sequence,
            stored_at: Timestamp::new(second, 0).unwrap(),
        }
    }

    fn begin(state: &mut State, place: Place, reply: &'static str) -> Known {
        state.begin(place, Subject::from_static(reply))
    }

    #[test]
    fn a_message_handed_out_again_is_held_once_and_answered_where_it_came_last() {
        let mut state = State::default();
        assert_eq!(begin(&mut state, place(5, 1), "a"), Known::New);
        assert_eq!(begin(&mut state, place(5, 1), "b"), Known::Held);
        assert_eq!(state.end(place(5, 1), true).unwrap().as_str(), "b");
        assert_eq!(begin(&mut state, place(5, 1), "c"), Known::Finished);
        assert_eq!(state.end(place(5, 1), true), None);
    }

    #[test]
    fn what_is_not_finished_may_come_again() {
        let mut state = State::default();
        begin(&mut state, place(5, 1), "a");
        assert!(state.end(place(5, 1), false).is_some());
        assert_eq!(begin(&mut state, place(5, 1), "b"), Known::New);
    }

    #[test]
    fn a_sequence_that_is_given_away_again_is_another_message() {
        let mut state = State::default();
        begin(&mut state, place(5, 1), "a");
        state.end(place(5, 1), true);
        assert_eq!(begin(&mut state, place(5, 2), "b"), Known::New, "though 5 was finished");
        // And while it is held.
        assert_eq!(begin(&mut state, place(5, 3), "c"), Known::New);
        assert_eq!(state.end(place(5, 2), true), None, "the end of one acks no other");
        assert_eq!(state.end(place(5, 3), true).unwrap().as_str(), "c");
    }

    #[test]
    fn of_what_was_finished_the_latest_is_remembered() {
        let mut state = State::default();
        let many = u64::try_from(REMEMBERED).unwrap();
        for sequence in 0..=many {
            state.end(place(sequence, 1), true);
        }
        assert_eq!(state.finished.len(), REMEMBERED);
        assert_eq!(begin(&mut state, place(0, 1), "a"), Known::New);
        assert_eq!(begin(&mut state, place(1, 1), "a"), Known::Finished);
    }
}
