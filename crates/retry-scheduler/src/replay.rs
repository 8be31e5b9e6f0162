//! Makes deliveries again, and puts dead letters away, as config-api was asked to.
//!
//! In: orders in `replays`. Out: for a replay, `parked` deliveries with the replay's number as their run, which
//! [`crate::release`] hands out; for a discard, dead letters that are cancelled. And in `replay_progress`, how far that is.
//!
//! What is selected is walked through in the order of keys, a stretch at a time, no faster than the replay may go and
//! never far ahead of what is released: what waits in front of a busy lane costs others nothing, and little is to be
//! withdrawn when the replay is cancelled.
//!
//! Guarantee: each delivery that is selected is made once. Deliveries and the place that the walk has come to are written
//! in one transaction, under a lock on the order; a crash here means that the next look goes on from there. Any number
//! of processes may look: each takes the order that it is longest time for.
//!
//! A replay that is cancelled makes no more; what is not under way is withdrawn, as if it had never been made.

use std::time::Duration;

use common::clock::Clock;
use common::failpoint::{self, Point};
use jiff::Timestamp;
use store::pending_deliveries::replay as deliveries;
use store::replay_progress::{self, Ear, Progress};
use store::replays::{Kind, Replay};
use store::{Error, Store, Transaction, selection};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::next_step::later;
use crate::patience::{Patience, chain};
use crate::wake::Wake;

/// Most deliveries made in one transaction, and most withdrawn or put away.
const PAGE: u32 = 500;
const PAGE_AWAY: u32 = 1_000;

/// A replay goes in steps of about this length. Shorter ones cost live traffic more than they spare it: each is a few
/// transactions.
const STEP: Duration = Duration::from_millis(100);

/// How much of its pace a replay may catch up with at once.
const BURST: Duration = Duration::from_millis(500);

/// How much of a replay waits to be released: what its pace comes to in this time, and no more than so many.
const AHEAD: Duration = Duration::from_secs(2);
const AHEAD_MAX: u32 = 2_000;
const AHEAD_MIN: u32 = 20;

/// How long to wait where so much waits already.
const WAIT: Duration = Duration::from_millis(200);

/// How often what became of a replay's deliveries is counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Bounds on how long to wait for deliveries that are under way before they are counted again.
const SETTLE_MIN: Duration = Duration::from_millis(200);
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// How often to look for orders without being told that there are any.
const SWEEP: Duration = Duration::from_secs(1);

/// For how long something of a cancelled replay may come back: much longer than a duty stays in the pipe. And how often
/// to look for it.
const LATE: Duration = Duration::from_secs(3600);
const LATE_EVERY: Duration = Duration::from_secs(30);

/// When to try an order again that could not be carried out for a reason of its own.
const PUT_OFF: Duration = Duration::from_secs(30);

/// How long to wait after something went wrong.
const PAUSE: Duration = Duration::from_secs(1);

/// The stage.
#[derive(Debug)]
pub struct Replayer {
    /// Orders, and the record.
    pub store: Store,
    /// What time it is.
    pub clock: Clock,
    /// Wakes [`crate::release`].
    pub wake: Wake,
    /// Deliveries that all replays together begin in a second.
    pub per_second: u32,
    /// For when Postgres is away.
    pub patience: Patience,
    /// What is counted.
    pub metrics: Metrics,
}

/// How many deliveries may be made now, where what may be made by `paced_to` has been. Pure.
#[must_use]
pub fn allowance(per_second: f64, paced_to: Option<Timestamp>, now: Timestamp) -> u32 {
    let burst = burst(per_second);
    let since = paced_to.map_or(burst, |paced_to| {
        now.duration_since(paced_to).as_secs_f64().clamp(0.0, burst)
    });
    // A hair more, lest what is due by the instant computed is found to be not quite due when it comes.
    (per_second * since + 1e-3).floor() as u32
}

/// What is paced to after so many were made. Pure.
#[must_use]
pub fn paced_to(per_second: f64, paced_to: Option<Timestamp>, now: Timestamp, made: u32) -> Timestamp {
    let earliest = now
        .checked_sub(Duration::from_secs_f64(burst(per_second)))
        .unwrap_or(now);
    let from = paced_to.map_or(earliest, |paced_to| paced_to.max(earliest));
    later(from, Duration::from_secs_f64(f64::from(made) / per_second))
}

/// In seconds; never less than one delivery takes.
fn burst(per_second: f64) -> f64 {
    BURST.as_secs_f64().max(1.0 / per_second)
}

/// How many deliveries of a replay may wait to be released. Pure.
#[must_use]
pub fn ahead(per_second: f64) -> u32 {
    ((per_second * AHEAD.as_secs_f64()) as u32).clamp(AHEAD_MIN, AHEAD_MAX)
}

/// When a replay all of whose deliveries are made or withdrawn is looked at again: soon at first, for those that are
/// settled in a moment, and then more and more rarely. Pure.
#[must_use]
pub fn settle_wait(since: Timestamp, now: Timestamp) -> Duration {
    let elapsed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    (elapsed / 10).clamp(SETTLE_MIN, SETTLE_MAX)
}

/// Notes how the deliveries stand, and what pace that comes to. Pure.
pub fn note(progress: &mut Progress, tally: deliveries::Tally, now: Timestamp) {
    let settled = progress.settled();
    let is_first = progress.counted_at == progress.started_at;
    progress.waiting = tally.waiting;
    // A later replay may have removed the rows of deliveries that died in this one.
    progress.failed = progress.failed.max(tally.failed);
    let seconds = now.duration_since(progress.counted_at).as_secs_f64();
    if seconds > 0.0 {
        let lately = progress.settled().saturating_sub(settled) as f64 / seconds;
        progress.rate = match is_first {
            true => lately,
            false => progress.rate * 0.7 + lately * 0.3,
        };
        progress.counted_at = now;
    }
}

impl Replayer {
    /// Works until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let given = Notify::new();
        tokio::join!(self.listen(&given, stop), self.work(&given, stop));
    }

    /// Hears of orders. Without it they are found by looking.
    async fn listen(&self, given: &Notify, stop: &CancellationToken) {
        let listening = async {
            loop {
                if let Ok(mut ear) = Ear::open(&self.store).await {
                    given.notify_one();
                    while ear.heard().await.is_ok() {
                        given.notify_one();
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = listening => {}
        }
    }

    async fn work(&self, given: &Notify, stop: &CancellationToken) {
        let mut late = tokio::time::interval(LATE_EVERY);
        late.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            let pause = match self.look().await {
                Ok(true) => Duration::ZERO,
                Ok(false) => match self.until_next().await {
                    Ok(pause) => pause,
                    Err(error) => {
                        self.patience.fault(&error);
                        PAUSE
                    }
                },
                Err(error) => {
                    self.patience.fault(&error);
                    PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
                () = given.notified() => {}
                _ = late.tick() => self.withdraw_late().await,
            }
        }
    }

    /// How long no order is to be looked at.
    async fn until_next(&self) -> Result<Duration, Error> {
        let next = replay_progress::next_look(&mut *self.store.connection().await?).await?;
        let now = self.clock.now();
        let pause = next.map(|next| Duration::try_from(next.duration_since(now)).unwrap_or_default());
        // Where one is due and was not to be had, another process is at it.
        Ok(pause.map_or(SWEEP, |pause| pause.clamp(Duration::from_millis(10), SWEEP)))
    }

    /// Looks at the order that it is longest time for; whether there was one.
    ///
    /// # Errors
    /// Any [`Error`]; nothing was done then.
    pub async fn look(&self) -> Result<bool, Error> {
        let now = self.clock.now();
        let mut transaction = self.store.begin().await?;
        replay_progress::begin(&mut transaction, now).await?;
        let Some(replay) = replay_progress::claim(&mut transaction, now).await? else {
            transaction.commit().await?;
            return Ok(false);
        };
        failpoint::reach(Point::ReplayClaimed);
        match self.carry_out(transaction, &replay, now).await {
            // It is this order, and will be the next time.
            Err(error) if !error.is_transient() => {
                tracing::error!(
                    number = replay.number,
                    error = chain(&error),
                    "an order cannot be carried out; it is put off"
                );
                let mut connection = self.store.connection().await?;
                replay_progress::put_off(&mut connection, replay.id, later(now, PUT_OFF)).await?;
            }
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        self.patience.well();
        Ok(true)
    }

    /// Does the next step of an order, which the transaction has locked.
    async fn carry_out(&self, mut transaction: Transaction, replay: &Replay, now: Timestamp) -> Result<(), Error> {
        let mut progress = replay.progress.clone().unwrap_or_else(|| Progress::begun(now));
        let before = progress.made;
        let wait = match (replay.kind, replay.cancelled_at) {
            (Kind::Discard, Some(_)) => {
                progress.finished_at = Some(now);
                Duration::ZERO
            }
            (Kind::Discard, None) => self.discard(&mut transaction, replay, &mut progress, now).await?,
            (Kind::Replay, Some(_)) => self.withdraw(&mut transaction, replay, &mut progress, now).await?,
            (Kind::Replay, None) if progress.walked_at.is_none() => {
                self.make(&mut transaction, replay, &mut progress, now).await?
            }
            (Kind::Replay, None) => self.settle(&mut transaction, replay, &mut progress, now).await?,
        };
        replay_progress::write(&mut transaction, replay.id, &progress, later(now, wait)).await?;
        failpoint::reach(Point::ReplayMade);
        transaction.commit().await?;
        failpoint::reach(Point::ReplayCommitted);

        let made = progress.made - before;
        if made > 0 && replay.kind == Kind::Replay {
            self.wake.release.notify_one();
        }
        self.metrics.replayed(replay.kind.as_str(), made);
        if progress.finished_at.is_some() {
            tracing::info!(
                number = replay.number, kind = replay.kind.as_str(), project = %replay.project, made = progress.made,
                failed = progress.failed, withdrawn = progress.withdrawn, "an order is finished"
            );
        }
        Ok(())
    }

    /// Makes the next deliveries; how long to wait until there may be more.
    async fn make(
        &self,
        transaction: &mut Transaction,
        replay: &Replay,
        progress: &mut Progress,
        now: Timestamp,
    ) -> Result<Duration, Error> {
        // What all replays together may do is shared among those that are at it.
        let share = f64::from(self.per_second) / replay_progress::count_walking(transaction).await?.max(1) as f64;
        let per_second = replay.per_second.map_or(share, |asked| share.min(f64::from(asked)));
        if now.duration_since(progress.counted_at).as_secs_f64() >= COUNT_EVERY.as_secs_f64() {
            note(progress, deliveries::tally(transaction, replay.number).await?, now);
        }
        let ahead = ahead(per_second);
        let parked = deliveries::count_parked(transaction, replay.number, ahead).await?;
        let room = ahead.saturating_sub(u32::try_from(parked).unwrap_or(u32::MAX));
        if room == 0 {
            return Ok(WAIT);
        }
        let limit = allowance(per_second, progress.paced_to, now).min(room).min(PAGE);
        if limit == 0 {
            return Ok(until(per_second, progress.paced_to, now));
        }
        let after = progress.cursor;
        let stretch = selection::walk(transaction, replay.project, &replay.selection, after, limit).await?;
        let made = deliveries::make(transaction, replay.project, replay.number, &stretch.pairs, now).await?;
        progress.made += made;
        progress.waiting += made;
        let found = u32::try_from(stretch.pairs.len()).unwrap_or(u32::MAX);
        progress.paced_to = Some(paced_to(per_second, progress.paced_to, now, found));
        match stretch.next {
            Some(next) => {
                progress.cursor = Some(next);
                Ok(match found < limit {
                    // There was nothing in this stretch, or little.
                    true => Duration::ZERO,
                    false => until(per_second, progress.paced_to, now),
                })
            }
            None => {
                progress.walked_at = Some(now);
                Ok(match progress.made {
                    0 => Duration::ZERO,
                    _ => SETTLE_MIN,
                })
            }
        }
    }

    /// Waits for what was made to be settled.
    async fn settle(
        &self,
        transaction: &mut Transaction,
        replay: &Replay,
        progress: &mut Progress,
        now: Timestamp,
    ) -> Result<Duration, Error> {
        note(progress, deliveries::tally(transaction, replay.number).await?, now);
        if progress.waiting == 0 {
            progress.finished_at = Some(now);
        }
        Ok(settle_wait(progress.walked_at.unwrap_or(now), now))
    }

    /// Withdraws what is not under way, and waits for what is.
    async fn withdraw(
        &self,
        transaction: &mut Transaction,
        replay: &Replay,
        progress: &mut Progress,
        now: Timestamp,
    ) -> Result<Duration, Error> {
        let since = *progress.withdrawing_since.get_or_insert(now);
        let withdrawn = deliveries::withdraw(transaction, replay.number, PAGE_AWAY).await?;
        progress.withdrawn += withdrawn;
        if withdrawn >= u64::from(PAGE_AWAY) {
            return Ok(Duration::ZERO);
        }
        note(progress, deliveries::tally(transaction, replay.number).await?, now);
        if progress.waiting == 0 {
            progress.finished_at = Some(now);
        }
        Ok(settle_wait(since, now))
    }

    /// Puts the next dead letters away.
    async fn discard(
        &self,
        transaction: &mut Transaction,
        order: &Replay,
        progress: &mut Progress,
        now: Timestamp,
    ) -> Result<Duration, Error> {
        let after = progress.cursor;
        let stretch = selection::walk(transaction, order.project, &order.selection, after, PAGE_AWAY).await?;
        let reason = format!("discarded by the token `{}`", order.token_name);
        progress.made += deliveries::discard(transaction, order.project, &stretch.pairs, &reason, now).await?;
        match stretch.next {
            Some(next) => progress.cursor = Some(next),
            None => (progress.walked_at, progress.finished_at) = (Some(now), Some(now)),
        }
        Ok(Duration::ZERO)
    }

    /// Withdraws what has come back of replays that were cancelled.
    async fn withdraw_late(&self) {
        let now = self.clock.now();
        let since = now.saturating_sub(LATE).unwrap_or(now);
        let withdrawn = async {
            let mut connection = self.store.connection().await?;
            deliveries::withdraw_late(&mut connection, since).await
        };
        match withdrawn.await {
            Ok(0) => {}
            Ok(withdrawn) => tracing::info!(withdrawn, "deliveries of cancelled replays had come back"),
            Err(error) => self.patience.fault(&error),
        }
    }
}

/// How long it takes until the deliveries of a step may be made.
fn until(per_second: f64, paced_to: Option<Timestamp>, now: Timestamp) -> Duration {
    let Some(paced_to) = paced_to else {
        return Duration::ZERO;
    };
    let step = (per_second * STEP.as_secs_f64()).floor().max(1.0) / per_second;
    let due = later(paced_to, Duration::from_secs_f64(step));
    Duration::try_from(due.duration_since(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::constant(1_770_000_000, 0);

    fn after(millis: u64) -> Timestamp {
        later(START, Duration::from_millis(millis))
    }

    #[test]
    fn a_replay_begins_at_once_and_goes_on_at_its_pace() {
        assert_eq!(allowance(100.0, None, START), 50);
        let paced = paced_to(100.0, None, START, 50);
        assert_eq!(allowance(100.0, Some(paced), START), 0);
        assert_eq!(allowance(100.0, Some(paced), after(100)), 10);
        // However long nothing could be made, no more is caught up with than the burst.
        assert_eq!(allowance(100.0, Some(paced), after(60_000)), 50);
    }

    #[test]
    fn the_slowest_replay_makes_one_a_second() {
        assert_eq!(allowance(1.0, None, START), 1);
        let paced = paced_to(1.0, None, START, 1);
        assert_eq!(allowance(1.0, Some(paced), after(900)), 0);
        assert_eq!(until(1.0, Some(paced), START), Duration::from_secs(1));
        assert_eq!(allowance(1.0, Some(paced), after(1_000)), 1);
    }

    #[test]
    fn no_more_waits_in_front_than_two_seconds_worth() {
        assert_eq!(ahead(500.0), 1_000);
        assert_eq!(ahead(1.0), AHEAD_MIN);
        assert_eq!(ahead(1e6), AHEAD_MAX);
    }

    #[test]
    fn what_is_under_way_is_looked_at_soon_and_then_rarely() {
        assert_eq!(settle_wait(START, START), SETTLE_MIN);
        assert_eq!(settle_wait(START, after(20_000)), Duration::from_secs(2));
        assert_eq!(settle_wait(START, after(3_600_000)), SETTLE_MAX);
    }

    #[test]
    fn the_rate_is_that_of_late() {
        let mut progress = Progress {
            made: 100,
            waiting: 100,
            ..Progress::begun(START)
        };
        let tally = |waiting, failed| deliveries::Tally {
            parked: 0,
            waiting,
            failed,
        };
        note(&mut progress, tally(50, 0), after(1_000));
        assert_eq!((progress.settled(), progress.delivered()), (50, 50));
        assert!((progress.rate - 50.0).abs() < 1e-9, "{}", progress.rate);
        note(&mut progress, tally(40, 10), after(2_000));
        assert_eq!(
            (progress.settled(), progress.delivered(), progress.failed),
            (60, 50, 10)
        );
        assert!((progress.rate - 38.0).abs() < 1e-9, "{}", progress.rate);
        // What has died has died, whatever became of its row.
        note(&mut progress, tally(0, 3), after(3_000));
        assert_eq!((progress.failed, progress.delivered()), (10, 90));
    }

    proptest! {
        #[test]
        fn in_no_stretch_of_time_is_more_made_than_the_pace_and_a_burst(
            per_second in 1_u32..2_000, pauses in proptest::collection::vec(0_u64..3_000, 1..60),
        ) {
            let rate = f64::from(per_second);
            let (mut paced, mut now, mut made) = (None, START, Vec::new());
            for pause in pauses {
                now = later(now, Duration::from_millis(pause));
                let count = allowance(rate, paced, now);
                paced = Some(paced_to(rate, paced, now, count));
                made.push((now, count));
            }
            for first in 0..made.len() {
                for last in first..made.len() {
                    let seconds = made[last].0.duration_since(made[first].0).as_secs_f64();
                    let sum: u32 = made[first..=last].iter().map(|(_, count)| count).sum();
                    prop_assert!(f64::from(sum) <= rate * (seconds + burst(rate)) + 1.0);
                }
            }
        }

        #[test]
        fn what_is_said_to_be_due_then_is_due_then(per_second in 1_u32..5_000, made in 0_u32..500) {
            let rate = f64::from(per_second);
            let paced = Some(paced_to(rate, None, START, made));
            let then = later(START, until(rate, paced, START));
            prop_assert!(allowance(rate, paced, then) >= 1);
        }
    }
}
