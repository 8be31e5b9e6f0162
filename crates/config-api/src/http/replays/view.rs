//! How replays are shown.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use store::log::State;
use store::replay_progress::Progress;
use store::replays::{Kind, Replay, Selection};
use store::webhooks::Webhook;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::replays::Counted;

/// Deliveries that are made again, or dead letters that are put away.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replay)]
pub(in crate::http) struct ReplayView {
    id: Uuid,
    /// The `run` of its deliveries, and what the header `posthaste-replay` of its requests says.
    number: u32,
    /// `replay`, or `discard` where dead letters are put away.
    kind: &'static str,
    /// `running`, `finished`, `cancelling` while the last of it is under way, `cancelled`.
    state: &'static str,
    selection: SelectionView,
    /// Deliveries begun in a second, at most, as it was asked for.
    #[schema(required)]
    rate: Option<u32>,
    progress: ProgressView,
    /// Whose token asked for it.
    token: Uuid,
    /// That token's name.
    token_name: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime, required)]
    cancelled_at: Option<Timestamp>,
}

/// Which deliveries; what is null narrows nothing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Selection)]
struct SelectionView {
    /// To these webhooks.
    #[schema(required)]
    webhooks: Option<Vec<Uuid>>,
    /// Of the events with these ids.
    #[schema(required)]
    events: Option<Vec<String>>,
    /// Of events whose type one of these patterns matches.
    #[schema(required)]
    types: Option<Vec<String>>,
    /// Of events accepted from this instant on.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    since: Option<Timestamp>,
    /// Of events accepted before this instant.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    until: Option<Timestamp>,
    /// In one of these states; null: whatever their state.
    #[schema(value_type = Option<Vec<String>>, required)]
    states: Option<Vec<&'static str>>,
    /// In their state for one of these reasons.
    #[schema(required)]
    reasons: Option<Vec<String>>,
}

/// How far a replay has come. What became of its deliveries is counted once a second, as long as more are made, and more
/// rarely then.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = ReplayProgress)]
pub(in crate::http) struct ProgressView {
    /// As the replay's.
    pub(super) state: &'static str,
    /// All of it: what was counted when it was asked for and, once all have been made, how many that were. Null while it
    /// is not known.
    #[schema(required)]
    total: Option<u64>,
    /// Deliveries made so far: the sum of the next four.
    made: u64,
    /// Delivered; of a discard, put away.
    done: u64,
    /// Dead again, or ended otherwise.
    failed: u64,
    /// Withdrawn, because it was cancelled.
    withdrawn: u64,
    /// Waiting for a request or its end.
    waiting: u64,
    /// What is not settled yet, made or not. Null while it is not known.
    #[schema(required)]
    left: Option<u64>,
    /// Deliveries settled in a second, of late.
    rate: f64,
    /// When nothing will be left, if it goes on like this; null where that cannot be said.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    eta: Option<Timestamp>,
    /// When it was begun.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    started_at: Option<Timestamp>,
    /// When nothing was left.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    finished_at: Option<Timestamp>,
}

/// How many deliveries are selected.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplayCount)]
pub(in crate::http) struct CountView {
    /// How many.
    deliveries: u64,
    /// Whether these are all: counting ends after a few seconds.
    complete: bool,
    /// By webhook and state, the most first.
    by: Vec<CountedView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplayCountPart)]
struct CountedView {
    webhook: Uuid,
    #[schema(required)]
    webhook_name: Option<String>,
    /// Null where it does not matter.
    #[schema(value_type = Option<String>, required)]
    state: Option<&'static str>,
    deliveries: u64,
}

impl CountView {
    pub(super) fn of(counted: &Counted, known: &[Webhook]) -> Self {
        let names: HashMap<_, _> = known.iter().map(|webhook| (webhook.id, &webhook.name)).collect();
        let mut by: Vec<_> = counted
            .counts
            .iter()
            .map(|((webhook, state), deliveries)| CountedView {
                webhook: webhook.as_uuid(),
                webhook_name: names.get(webhook).map(|name| (*name).clone()),
                state: *state,
                deliveries: *deliveries,
            })
            .collect();
        by.sort_by_key(|part| std::cmp::Reverse(part.deliveries));
        Self {
            deliveries: counted.deliveries(),
            complete: counted.is_complete,
            by,
        }
    }
}

impl ReplayView {
    pub(super) fn of(replay: Replay, now: Timestamp) -> Self {
        let progress = ProgressView::of(&replay, now);
        Self {
            id: replay.id,
            number: replay.number,
            kind: replay.kind.as_str(),
            state: progress.state,
            selection: SelectionView::from(replay.selection),
            rate: replay.per_second,
            progress,
            token: replay.token,
            token_name: replay.token_name,
            created_at: replay.created_at,
            cancelled_at: replay.cancelled_at,
        }
    }
}

impl From<Selection> for SelectionView {
    fn from(selection: Selection) -> Self {
        let states = selection
            .states
            .iter()
            .map(|state| State::as_str(*state))
            .collect::<Vec<_>>();
        Self {
            webhooks: selection
                .webhooks
                .map(|ids| ids.into_iter().map(|id| id.as_uuid()).collect()),
            events: selection.event_ids,
            types: selection.types,
            since: selection.from.map(|key| key.accepted_at()),
            until: selection.to.map(|key| key.accepted_at()),
            states: (!states.is_empty()).then_some(states),
            reasons: selection.reasons,
        }
    }
}

impl ProgressView {
    pub(super) fn of(replay: &Replay, now: Timestamp) -> Self {
        let progress = replay.progress.as_ref();
        let finished_at = progress.and_then(|progress| progress.finished_at);
        let state = match (replay.cancelled_at, finished_at) {
            (None, None) => "running",
            (None, Some(_)) => "finished",
            (Some(_), None) => "cancelling",
            (Some(_), Some(_)) => "cancelled",
        };
        let nothing = Progress::begun(now);
        let known = progress.unwrap_or(&nothing);
        let (done, waiting) = match replay.kind {
            Kind::Replay => (known.delivered(), known.waiting),
            Kind::Discard => (known.made, 0),
        };
        // What was selected has changed meanwhile, if it comes to more than was counted.
        let is_walked = known.walked_at.is_some() || replay.cancelled_at.is_some();
        let total = match is_walked {
            true => Some(known.made),
            false => replay.counted.map(|counted| counted.max(known.made)),
        };
        let left = total.map(|total| total.saturating_sub(known.made) + waiting);
        let rate = match (finished_at, progress) {
            // Of the whole, once it is over.
            (Some(finished_at), Some(progress)) => {
                let seconds = finished_at.duration_since(progress.started_at).as_secs_f64();
                known.made as f64 / seconds.max(0.001)
            }
            _ => known.rate,
        };
        let eta = left
            .filter(|left| *left > 0 && rate > 0.0 && finished_at.is_none())
            .and_then(|left| {
                let seconds = (left as f64 / rate).min(MOST_SECONDS);
                now.checked_add(Duration::from_secs_f64(seconds)).ok()
            });
        Self {
            state,
            total,
            made: known.made,
            done,
            failed: known.failed,
            withdrawn: known.withdrawn,
            waiting,
            left,
            rate: (rate * 10.0).round() / 10.0,
            eta,
            started_at: progress.map(|progress| progress.started_at),
            finished_at,
        }
    }
}

impl ProgressView {
    /// Whether nothing will change any more.
    pub(super) fn finished(&self) -> bool {
        self.finished_at.is_some()
    }

    /// Whether it tells what `other` tells, but for when nothing will be left, which moves with the clock.
    pub(super) fn tells_the_same(&self, other: &Self) -> bool {
        let timeless = |view: &Self| Self {
            eta: None,
            ..view.clone()
        };
        timeless(self) == timeless(other)
    }
}

/// A year: beyond it nobody looks at a clock.
const MOST_SECONDS: f64 = 365.0 * 86_400.0;

#[cfg(test)]
mod tests {
    use proto_schemas::id::ProjectId;

    use super::*;

    const START: Timestamp = Timestamp::constant(1_770_000_000, 0);

    fn replay(counted: Option<u64>, progress: Option<Progress>) -> Replay {
        Replay {
            id: Uuid::nil(),
            number: 7,
            project: ProjectId::from_uuid(Uuid::nil()),
            kind: Kind::Replay,
            selection: Selection::default(),
            per_second: None,
            counted,
            token: Uuid::nil(),
            token_name: String::new(),
            created_at: START,
            cancelled_at: None,
            progress,
        }
    }

    fn under_way() -> Progress {
        Progress {
            made: 400,
            failed: 20,
            waiting: 80,
            rate: 50.0,
            ..Progress::begun(START)
        }
    }

    #[test]
    fn what_is_made_is_the_sum_and_what_is_left_has_an_end() {
        let view = ProgressView::of(&replay(Some(1_000), Some(under_way())), START);
        assert_eq!((view.state, view.total, view.made), ("running", Some(1_000), 400));
        assert_eq!(view.done + view.failed + view.withdrawn + view.waiting, view.made);
        assert_eq!((view.done, view.left), (300, Some(680)));
        let eta = view.eta.unwrap().duration_since(START).as_secs_f64();
        assert!((eta - 13.6).abs() < 0.001, "{eta}");
    }

    #[test]
    fn what_was_not_counted_is_known_once_all_are_made() {
        let view = ProgressView::of(&replay(None, Some(under_way())), START);
        assert_eq!((view.total, view.left, view.eta), (None, None, None));
        let walked = Progress {
            walked_at: Some(START),
            ..under_way()
        };
        let view = ProgressView::of(&replay(None, Some(walked)), START);
        assert_eq!((view.total, view.left), (Some(400), Some(80)));
    }

    #[test]
    fn one_that_nobody_has_begun_is_running_and_all_of_it_is_left() {
        let view = ProgressView::of(&replay(Some(3), None), START);
        assert_eq!(
            (view.state, view.left, view.eta, view.started_at),
            ("running", Some(3), None, None)
        );
    }

    #[test]
    fn a_cancelled_one_leaves_what_is_under_way() {
        let mut cancelled = replay(Some(1_000), Some(under_way()));
        cancelled.cancelled_at = Some(START);
        let view = ProgressView::of(&cancelled, START);
        assert_eq!((view.state, view.total, view.left), ("cancelling", Some(400), Some(80)));
    }
}
