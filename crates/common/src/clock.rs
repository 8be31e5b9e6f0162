//! Time, as a parameter.
//!
//! Whatever asks for the wall clock takes a [`Clock`], so a test can move it. Time spans within one process (deadlines,
//! durations) are measured with tokio's monotonic clock instead: the wall clock may jump.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

/// Says what time it is. Cheap to clone; clones agree.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    System,
    /// A test's.
    Manual(Manual),
}

impl Clock {
    /// The present instant.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self {
            #[expect(clippy::disallowed_methods, reason = "this is the clock everything else takes")]
            Self::System => Timestamp::now(),
            Self::Manual(manual) => manual.now(),
        }
    }
}

impl From<Manual> for Clock {
    fn from(manual: Manual) -> Self {
        Self::Manual(manual)
    }
}

/// A clock that stands still until it is moved. Clones are the same clock; precise to the microsecond.
#[derive(Debug, Clone)]
pub struct Manual {
    micros: Arc<AtomicI64>,
}

impl Manual {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self {
            micros: Arc::new(AtomicI64::new(now.as_microsecond())),
        }
    }

    /// Moves the clock forward, at most to the last instant there is.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        let moved = |now: i64| Some(now.saturating_add(by).min(Timestamp::MAX.as_microsecond()));
        // The closure never declines, so there is no failure to handle.
        let _ = self.micros.fetch_update(Ordering::SeqCst, Ordering::SeqCst, moved);
    }

    /// Puts the clock to `now`, forwards or back.
    pub fn set(&self, now: Timestamp) {
        self.micros.store(now.as_microsecond(), Ordering::SeqCst);
    }

    fn now(&self) -> Timestamp {
        // Only instants are ever stored.
        Timestamp::from_microsecond(self.micros.load(Ordering::SeqCst)).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::constant(1_700_000_000, 0);

    #[test]
    fn a_manual_clock_stands_still_until_it_is_moved() {
        let manual = Manual::at(START);
        let clock = Clock::from(manual.clone());
        assert_eq!(clock.now(), START);
        assert_eq!(clock.now(), START);
        manual.advance(Duration::from_millis(1500));
        assert_eq!(clock.now().as_millisecond(), 1_700_000_001_500);
        manual.set(START);
        assert_eq!(clock.clone().now(), START);
    }

    #[test]
    fn a_manual_clock_stops_at_the_end_of_time() {
        let manual = Manual::at(START);
        manual.advance(Duration::MAX);
        manual.advance(Duration::MAX);
        assert_eq!(
            Clock::from(manual).now().as_microsecond(),
            Timestamp::MAX.as_microsecond()
        );
    }

    #[test]
    fn the_system_clock_moves_by_itself() {
        let clock = Clock::default();
        let first = clock.now();
        assert!(clock.now() >= first && first > START);
    }
}
