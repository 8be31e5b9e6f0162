//! How much a receiver takes that has said it is asked too much. Pure; time is passed in.
//!
//! Told to slow down (429, 502, 503, 504), a lane makes one request at a time, and none before the receiver's
//! `Retry-After` has passed. From there on the bound grows by one each time as many requests went well as it allows, until
//! it is what it was: additive increase, and a decrease to the least there is.

use std::time::Duration;

use tokio::time::Instant;

/// A lane's throttle.
#[derive(Debug, Clone, Default)]
pub struct Throttle {
    /// Requests that may be under way at once; `None`: it was never told to slow down.
    room: Option<usize>,
    /// How many went well since that was changed.
    went_well: usize,
    /// When it was last told to slow down.
    slowed_at: Option<Instant>,
    /// No request begins before.
    not_before: Option<Instant>,
}

impl Throttle {
    /// How many requests may be under way at once where `usual` are usual.
    #[must_use]
    pub fn room(&self, usual: usize) -> usize {
        self.room.map_or(usual, |room| room.min(usual))
    }

    /// How long no request may begin.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        self.not_before
            .map_or(Duration::ZERO, |then| then.saturating_duration_since(now))
    }

    /// The receiver has said, at `now`, that it is asked too much, and is to be left alone for `wait`.
    pub fn slow_down(&mut self, now: Instant, wait: Duration) {
        self.room = Some(1);
        self.went_well = 0;
        self.slowed_at = Some(now);
        self.not_before = self.not_before.max(now.checked_add(wait));
    }

    /// A request that was begun at `begun` went well, where `usual` under way at once are usual.
    pub fn went_well(&mut self, begun: Instant, usual: usize) {
        let Some(room) = self.room else { return };
        // What was under way when it was told to slow down says nothing of how it is since.
        if self.slowed_at.is_some_and(|slowed| begun < slowed) {
            return;
        }
        self.went_well += 1;
        if self.went_well >= room {
            self.went_well = 0;
            self.room = Some((room + 1).min(usual));
        }
    }

    /// Forgets everything: the receiver is another one.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USUAL: usize = 10;

    #[test]
    fn it_drops_to_one_and_recovers_as_requests_go_well() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!(throttle.room(USUAL), USUAL);
        throttle.slow_down(now, Duration::from_secs(3));
        assert_eq!((throttle.room(USUAL), throttle.wait(now)), (1, Duration::from_secs(3)));
        let mut rooms = vec![1];
        for _ in 0..60 {
            throttle.went_well(now, USUAL);
            let room = throttle.room(USUAL);
            if rooms.last() != Some(&room) {
                rooms.push(room);
            }
        }
        assert_eq!(rooms, (1..=USUAL).collect::<Vec<_>>());
    }

    #[test]
    fn of_another_receiver_nothing_is_known() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        throttle.slow_down(now, Duration::from_secs(3));
        throttle.reset();
        assert_eq!((throttle.room(USUAL), throttle.wait(now)), (USUAL, Duration::ZERO));
    }

    #[test]
    fn what_was_under_way_before_does_not_recover_it() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        throttle.slow_down(now + Duration::from_secs(1), Duration::ZERO);
        throttle.went_well(now, USUAL);
        assert_eq!(throttle.room(USUAL), 1);
    }

    proptest! {
        #[test]
        fn no_request_begins_before_any_time_that_was_asked_for(
            told in proptest::collection::vec((0..5_000_u64, 0..100_000_u64), 1..20), ahead in 0..200_000_u64,
        ) {
            let mut now = Instant::now();
            let mut throttle = Throttle::default();
            let mut ends = Vec::new();
            for (after, wait) in told {
                now += Duration::from_millis(after);
                let wait = Duration::from_millis(wait);
                throttle.slow_down(now, wait);
                throttle.went_well(now, USUAL);
                ends.push(now + wait);
            }
            let then = now + Duration::from_millis(ahead);
            let free = throttle.wait(then).is_zero();
            prop_assert_eq!(free, ends.iter().all(|end| *end <= then));
        }

        #[test]
        fn its_room_is_never_none_and_never_more_than_usual(
            told in proptest::collection::vec(any::<bool>(), 1..200), usual in 1..30_usize,
        ) {
            let now = Instant::now();
            let mut throttle = Throttle::default();
            for slow in told {
                let before = throttle.room(usual);
                match slow {
                    true => throttle.slow_down(now, Duration::ZERO),
                    false => throttle.went_well(now, usual),
                }
                let room = throttle.room(usual);
                prop_assert!(room >= 1 && room <= usual && room <= before + 1);
            }
        }
    }
}
