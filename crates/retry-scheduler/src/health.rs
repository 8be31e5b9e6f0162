//! How a webhook's deliveries go, and when that stops the webhook. Pure.
//!
//! An attempt is taken into account once, when it goes on record, so attempts in a row are in a row as they were
//! recorded; within one batch, as they ended. Trials never count.

use std::time::Duration;

use jiff::Timestamp;
use proto_schemas::ledger::{AttemptFinished, ErrorClass, Outcome};
use store::webhook_health::{Check, Health, Locked, Stopped, StoppedState};

use crate::next_step::later;

/// How far `last_delivered_at` may be behind: a busy webhook's row is not written for every batch.
const DELIVERED_PRECISION: Duration = Duration::from_secs(10);

/// What newly recorded attempts say of one webhook.
#[derive(Debug, Default)]
pub struct News<'a> {
    /// When the last one that delivered ended.
    pub delivered_at: Option<Timestamp>,
    /// Those that failed.
    pub failed: Vec<&'a AttemptFinished>,
    /// Endpoint checks.
    pub checks: Vec<&'a AttemptFinished>,
}

impl News<'_> {
    /// Whether this can change a webhook's health as it stands.
    #[must_use]
    pub fn matters(&self, health: Option<&Health>) -> bool {
        if !self.failed.is_empty() || !self.checks.is_empty() {
            return true;
        }
        let (Some(delivered_at), Some(health)) = (self.delivered_at, health) else {
            return self.delivered_at.is_some();
        };
        health.failures_in_a_row > 0
            || health
                .last_delivered_at
                .is_none_or(|last| later(last, DELIVERED_PRECISION) <= delivered_at)
    }
}

/// What a webhook's health is after the news, and whether that changes what the webhook is.
#[must_use]
pub fn decide(locked: &Locked, mut news: News<'_>) -> (Health, bool) {
    let mut health = locked.health.clone();
    let since_restart = |instant: Timestamp| locked.restarted_at.is_none_or(|restart| instant > restart);
    news.failed
        .retain(|fact| is_receivers(fact) && since_restart(fact.started_at));
    news.failed.sort_by_key(|fact| ended_at(fact));

    if !health.last_failed_at.is_some_and(since_restart) {
        health.failures_in_a_row = 0;
    }
    let mut streak = news.failed.as_slice();
    if let Some(delivered_at) = news.delivered_at {
        health.failures_in_a_row = 0;
        health.last_delivered_at = health.last_delivered_at.max(Some(delivered_at));
        streak = &streak[streak.partition_point(|fact| ended_at(fact) <= delivered_at)..];
    }
    let more = u32::try_from(streak.len()).unwrap_or(u32::MAX);
    health.failures_in_a_row = health.failures_in_a_row.saturating_add(more);
    if let Some(last) = news.failed.last() {
        health.last_failed_at = health.last_failed_at.max(Some(ended_at(last)));
    }

    let is_stopped = health.stopped.as_ref().is_some_and(|stopped| since_restart(stopped.at));
    let stop = match is_stopped {
        true => None,
        false => stop(&news.failed, streak, health.failures_in_a_row),
    };
    let passed = news
        .checks
        .iter()
        // What it came to first is on record, so what it came to when it was repeated is not told.
        .find(|fact| {
            let id = Some(fact.attempt.event);
            id == locked.check && id != health.check.as_ref().map(|known| known.id)
        })
        .map(|fact| check(fact));
    let moved = stop.is_some() || passed.is_some();
    if stop.is_some() {
        health.stopped = stop;
    }
    if passed.is_some() {
        health.check = passed;
    }
    (health, moved)
}

/// What stops a webhook after these failures, if anything does.
fn stop(failed: &[&AttemptFinished], streak: &[&AttemptFinished], in_a_row: u32) -> Option<Stopped> {
    if let Some(gone) = failed
        .iter()
        .find(|fact| fact.outcome == Outcome::FailedForGood && fact.status == Some(410))
    {
        return Some(Stopped {
            state: StoppedState::Disabled,
            reason: cause(gone),
            at: gone.started_at,
        });
    }
    let last = streak.last()?;
    (in_a_row >= last.fail_after?).then(|| Stopped {
        state: StoppedState::Failed,
        reason: format!(
            "{in_a_row} failed {} in a row; the last: {}",
            if in_a_row == 1 { "attempt" } else { "attempts" },
            cause(last)
        ),
        at: last.started_at,
    })
}

fn check(fact: &AttemptFinished) -> Check {
    Check {
        id: fact.attempt.event,
        error: (fact.outcome != Outcome::Delivered).then(|| cause(fact)),
    }
}

fn cause(fact: &AttemptFinished) -> String {
    match (&fact.error, fact.error_class) {
        (error, Some(class)) if error.is_empty() => class.as_str().to_owned(),
        (error, _) => error.clone(),
    }
}

/// Whether the receiver, or what leads to it, is to blame: a webhook that was deleted, or a duty of which every process
/// died, says nothing about it.
fn is_receivers(fact: &AttemptFinished) -> bool {
    !matches!(fact.error_class, Some(ErrorClass::Webhook | ErrorClass::GaveUp))
}

/// When an attempt ended.
#[must_use]
pub fn ended_at(fact: &AttemptFinished) -> Timestamp {
    later(fact.started_at, fact.duration)
}

#[cfg(test)]
mod tests;
