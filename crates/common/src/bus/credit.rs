//! How many messages a puller may hold, and how many it asks for.
//!
//! The shares of a stream have places in common, and each has a few of its own that no other can take: a project whose
//! share is quiet is served at once, whatever the others have waiting. Of the common places a share may have no more than
//! are left free ("dynamic thresholds", Choudhury and Hahne, 1998): one busy share gets half of them, two get a third
//! each, and there is always room for one more to become busy.
//!
//! A place is for a message of up to [`PLACE_BYTES`]; a larger one takes several, so that what is held has a bound in bytes.
//!
//! A share asks for few messages at first, and for twice as many each time that it got all it asked for, so that
//! common places are taken by shares that have something waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Places of its own that each share has.
const OWN: usize = 16;

/// How much of a message one place is for.
pub(super) const PLACE_BYTES: usize = 16 * 1024;

/// Most messages asked for in one request.
const ASK_MAX: usize = 512;

/// What one puller may hold.
#[derive(Debug)]
pub(super) struct Credit {
    own: Arc<Semaphore>,
    /// `None`: there are no others.
    common: Option<Arc<Semaphore>>,
    here: Arc<Here>,
    /// How many to ask for next.
    ask: usize,
}

/// What a share has of the common places.
#[derive(Debug, Default)]
struct Here {
    taken: AtomicUsize,
    freed: Notify,
}

/// The right to hold one message.
#[derive(Debug)]
pub(super) struct Permit {
    place: Option<OwnedSemaphorePermit>,
    is_shared: bool,
    here: Arc<Here>,
}

impl Credit {
    /// Of a puller that is alone.
    pub(super) fn alone(places: usize) -> Self {
        Self {
            own: Arc::new(Semaphore::new(places)),
            common: None,
            here: Arc::default(),
            ask: ASK_MAX,
        }
    }

    /// Of as many as there are `shares`, with `places` in common.
    pub(super) fn shared(places: usize, shares: usize) -> Vec<Self> {
        let common = Arc::new(Semaphore::new(places));
        let share = || Self {
            own: Arc::new(Semaphore::new(OWN)),
            common: Some(Arc::clone(&common)),
            here: Arc::default(),
            ask: OWN,
        };
        (0..shares).map(|_| share()).collect()
    }

    /// Waits for a place.
    pub(super) async fn first(&self) -> Permit {
        loop {
            // Made before looking, so that what is freed in between is noticed.
            let freed = self.here.freed.notified();
            if let Some(permit) = self.take() {
                return permit;
            }
            // There is none only while messages are held here: one of them is done some time.
            freed.await;
        }
    }

    /// As many places as are to be asked for now, `first` among them.
    pub(super) fn more(&mut self, first: Permit) -> Vec<Permit> {
        let mut permits = vec![first];
        while permits.len() < self.ask
            && let Some(permit) = self.take()
        {
            permits.push(permit);
        }
        // Unless it is said otherwise, all of them will have come.
        self.ask = (self.ask * 2).min(ASK_MAX);
        permits
    }

    /// The last request got less than it asked for.
    pub(super) fn not_used_up(&mut self) {
        if self.common.is_some() {
            self.ask = OWN;
        }
    }

    /// A place, where one is free.
    pub(super) fn take(&self) -> Option<Permit> {
        let permit = |place, is_shared| Permit {
            place: Some(place),
            is_shared,
            here: Arc::clone(&self.here),
        };
        if let Ok(place) = Arc::clone(&self.own).try_acquire_owned() {
            return Some(permit(place, false));
        }
        let common = self.common.as_ref()?;
        if self.here.taken.load(Ordering::Relaxed) >= common.available_permits() {
            return None;
        }
        let place = Arc::clone(common).try_acquire_owned().ok()?;
        self.here.taken.fetch_add(1, Ordering::Relaxed);
        Some(permit(place, true))
    }
}

impl Permit {
    /// Whether another share could have the place.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        drop(self.place.take());
        if self.is_shared {
            self.here.taken.fetch_sub(1, Ordering::Relaxed);
        }
        self.here.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(credit: &Credit) -> Vec<Permit> {
        std::iter::from_fn(|| credit.take()).collect()
    }

    #[test]
    fn one_busy_share_gets_half_and_leaves_room_for_every_other() {
        let credits = Credit::shared(1000, 8);
        let first = all(&credits[0]);
        assert_eq!(first.len(), OWN + 500);
        let second = all(&credits[1]);
        assert_eq!(second.len(), OWN + 250);
        for quiet in &credits[2..] {
            assert!(all(quiet).len() > OWN, "there is room for one more to become busy");
        }
        drop((first, second));
        assert_eq!(all(&credits[3]).len(), OWN + 500);
    }

    #[test]
    fn a_share_has_its_own_places_when_the_others_have_taken_what_there_is() {
        let credits = Credit::shared(4, 8);
        let busy: Vec<_> = credits[1..].iter().map(all).collect();
        assert_eq!(all(&credits[0]).len(), OWN);
        drop(busy);
    }

    #[test]
    fn it_asks_for_more_as_long_as_it_gets_all_it_asks_for() {
        let mut credit = Credit::shared(10_000, 2).remove(0);
        let ask = |credit: &mut Credit| {
            let first = credit.take().unwrap();
            credit.more(first).len()
        };
        assert_eq!(
            [ask(&mut credit), ask(&mut credit), ask(&mut credit)],
            [OWN, 2 * OWN, 4 * OWN]
        );
        credit.not_used_up();
        assert_eq!(ask(&mut credit), OWN);
        let mut alone = Credit::alone(10_000);
        assert_eq!([ask(&mut alone), ask(&mut alone)], [ASK_MAX, ASK_MAX]);
    }

    #[tokio::test]
    async fn who_waits_for_a_place_gets_the_next_that_is_free() {
        let credit = Arc::new(Credit::alone(1));
        let held = credit.first().await;
        let waiting = tokio::spawn({
            let credit = Arc::clone(&credit);
            async move { credit.first().await.is_shared() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        assert!(!waiting.await.unwrap());
    }
}
