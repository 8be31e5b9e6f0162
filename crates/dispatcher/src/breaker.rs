//! Whether a receiver is worth asking: one breaker for each webhook. Pure; time and chance are passed in.
//!
//! | state | what may go | moved on by |
//! |---|---|---|
//! | closed | everything | so many failures in a row, or half of the last [`WINDOW`]: open |
//! | open | nothing | time; who comes first after it is the probe: half-open |
//! | half-open | the probe that is under way | what it comes to: closed, or open again and for longer |
//!
//! What counts is what an attempt says of the *receiver* ([`Sign`]). One that cannot be reached, does not answer in time or
//! answers 5xx is ill. A plain 4xx is about the event: whoever says that is there, and well.
//!
//! A request says nothing of a state that began after it: what was under way when the breaker opened neither closes it
//! nor keeps it open, and of a half-open one only the probe is heard.

use std::time::Duration;

use tokio::time::Instant;

/// How many of the latest requests are looked at besides those in a row, for a receiver that fails every other one.
pub const WINDOW: u32 = 20;

/// How many of them may fail.
const HALF: u32 = WINDOW / 2;

/// How much longer than its time a breaker may stay open, so that receivers that fell ill together are not all probed
/// together.
pub const SPREAD: f64 = 0.2;

/// When breakers open, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Failures in a row after which one opens; 0: none ever opens.
    pub failures: u32,
    /// For how long it is open at first; twice as long each time the probe fails.
    pub wait: Duration,
    /// For how long at most, [`SPREAD`] left out.
    pub wait_max: Duration,
}

/// What an attempt says of its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It answered.
    Well,
    /// It could not be reached, did not answer in time, or said that it fails.
    Ill,
    /// Nothing: no request was made.
    Nothing,
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// As if there were none.
    Closed,
    /// The receiver is left alone.
    Open,
    /// One request is under way to see how it is.
    HalfOpen,
}

impl Phase {
    /// The word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What a breaker says to somebody who comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Go.
    Pass,
    /// Go, as the probe.
    Probe,
    /// Another is the probe: see what comes of it.
    Probing,
    /// Come again after this long.
    Shut(Duration),
}

/// A request that was let through, by which its end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass(u64);

/// How the end of a request has moved a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It opened.
    Opened {
        /// For how long.
        wait: Duration,
        /// Whether that is because the probe failed.
        again: bool,
    },
    /// It closed.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Closed,
    Open {
        until: Instant,
    },
    HalfOpen,
}

/// A breaker.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    state: State,
    /// Counts the states; only passes of the present one are heard.
    spell: u64,
    failed_in_a_row: u32,
    /// The latest requests, one bit each, set where it failed; the lowest is the last.
    recent: u32,
    /// How often it opened without closing in between.
    openings: u32,
}

impl Breaker {
    /// Where it stands.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self.state {
            State::Closed => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen => Phase::HalfOpen,
        }
    }

    /// How often it opened without closing in between.
    #[must_use]
    pub const fn openings(&self) -> u32 {
        self.openings
    }

    /// What it says to who comes now.
    #[must_use]
    pub fn gate(&self, now: Instant) -> Gate {
        match self.state {
            State::Closed => Gate::Pass,
            State::HalfOpen => Gate::Probing,
            State::Open { until } if until > now => Gate::Shut(until - now),
            State::Open { .. } => Gate::Probe,
        }
    }

    /// Lets a request through that [`Breaker::gate`] says may go. One that comes nevertheless is let through and not
    /// heard.
    pub fn begin(&mut self, now: Instant) -> Pass {
        match self.gate(now) {
            Gate::Pass => Pass(self.spell),
            Gate::Probe => {
                self.enter(State::HalfOpen);
                Pass(self.spell)
            }
            Gate::Probing | Gate::Shut(_) => Pass(u64::MAX),
        }
    }

    /// Whether what comes of this request will be heard.
    #[must_use]
    pub const fn hears(&self, pass: Pass) -> bool {
        pass.0 == self.spell
    }

    /// Hears of the end of a request. `chance`, from 0 to 1, says where in the spread an opening ends.
    pub fn end(&mut self, pass: Pass, sign: Sign, now: Instant, rules: Rules, chance: f64) -> Option<Moved> {
        if !self.hears(pass) {
            return None;
        }
        match (self.state, sign) {
            (State::Open { .. }, _) | (State::Closed, Sign::Nothing) => None,
            (State::Closed, Sign::Well) => {
                self.failed_in_a_row = 0;
                self.recent <<= 1;
                None
            }
            (State::Closed, Sign::Ill) => {
                self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
                self.recent = self.recent << 1 | 1;
                let recently = (self.recent & ((1 << WINDOW) - 1)).count_ones();
                let opens = rules.failures > 0
                    && (self.failed_in_a_row >= rules.failures || recently >= HALF.max(rules.failures));
                opens.then(|| self.open(now, rules, chance))
            }
            (State::HalfOpen, Sign::Well) => {
                *self = Self {
                    spell: self.spell + 1,
                    ..Self::default()
                };
                Some(Moved::Closed)
            }
            (State::HalfOpen, Sign::Ill) => Some(self.open(now, rules, chance)),
            // The probe was none: the next one is.
            (State::HalfOpen, Sign::Nothing) => {
                self.enter(State::Open { until: now });
                None
            }
        }
    }

    /// Forgets everything: the receiver is another one.
    pub fn reset(&mut self) {
        *self = Self {
            spell: self.spell + 1,
            ..Self::default()
        };
    }

    fn open(&mut self, now: Instant, rules: Rules, chance: f64) -> Moved {
        let wait = wait(self.openings, rules, chance);
        let again = self.openings > 0;
        self.openings = self.openings.saturating_add(1);
        self.enter(State::Open { until: now + wait });
        Moved::Opened { wait, again }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.spell += 1;
    }
}

/// For how long a breaker is open that opened `before` times without closing.
fn wait(before: u32, rules: Rules, chance: f64) -> Duration {
    // Beyond 2^20 times the shortest wait, every sensible longest one is reached.
    let wait = rules.wait.saturating_mul(1 << before.min(20)).min(rules.wait_max);
    wait.mul_f64(1.0 + SPREAD * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules {
        failures: 5,
        wait: Duration::from_secs(2),
        wait_max: Duration::from_secs(60),
    };

    /// One request after the other, all of them ending like this.
    fn all(breaker: &mut Breaker, sign: Sign, requests: u32, now: Instant) -> Option<Moved> {
        (0..requests)
            .filter_map(|_| {
                let pass = breaker.begin(now);
                breaker.end(pass, sign, now, RULES, 0.0)
            })
            .last()
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        all(&mut breaker, Sign::Ill, 5, now);
        assert_eq!(breaker.phase(), Phase::Open);
        breaker
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_four_do_not() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert_eq!(all(&mut breaker, Sign::Ill, 4, now), None);
        all(&mut breaker, Sign::Well, 1, now);
        assert_eq!(all(&mut breaker, Sign::Ill, 4, now), None);
        let wait = RULES.wait;
        assert_eq!(
            all(&mut breaker, Sign::Ill, 1, now),
            Some(Moved::Opened { wait, again: false })
        );
        assert_eq!(breaker.gate(now), Gate::Shut(wait));
    }

    #[test]
    fn half_of_the_last_twenty_open_it() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..9 {
            all(&mut breaker, Sign::Well, 1, now);
            assert_eq!(all(&mut breaker, Sign::Ill, 1, now), None);
        }
        all(&mut breaker, Sign::Well, 1, now);
        assert!(matches!(
            all(&mut breaker, Sign::Ill, 1, now),
            Some(Moved::Opened { .. })
        ));
        // Two in five are too few, however long it goes on.
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            all(&mut breaker, Sign::Well, 3, now);
            assert_eq!(all(&mut breaker, Sign::Ill, 2, now), None);
        }
    }

    #[test]
    fn a_probe_closes_it_or_opens_it_for_longer() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.openings(), 1);
        for seconds in [4, 8, 16, 32, 60, 60] {
            let Gate::Shut(wait) = breaker.gate(now) else {
                panic!("{breaker:?}")
            };
            now += wait;
            assert_eq!(breaker.gate(now), Gate::Probe);
            let probe = breaker.begin(now);
            assert_eq!(breaker.gate(now), Gate::Probing);
            let wait = Duration::from_secs(seconds);
            assert_eq!(
                breaker.end(probe, Sign::Ill, now, RULES, 0.0),
                Some(Moved::Opened { wait, again: true })
            );
        }
        assert_eq!(breaker.openings(), 7);
        now += Duration::from_secs(60);
        let probe = breaker.begin(now);
        assert_eq!(breaker.end(probe, Sign::Well, now, RULES, 0.0), Some(Moved::Closed));
        assert_eq!(breaker.gate(now), Gate::Pass);
        let wait = RULES.wait;
        assert_eq!(
            all(&mut breaker, Sign::Ill, 5, now),
            Some(Moved::Opened { wait, again: false }),
            "the next illness begins anew"
        );
    }

    #[test]
    fn what_began_before_it_opened_says_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let slow = breaker.begin(now);
        all(&mut breaker, Sign::Ill, 5, now);
        assert_eq!(breaker.end(slow, Sign::Well, now, RULES, 0.0), None);
        assert_eq!(breaker.phase(), Phase::Open);
        let later = now + Duration::from_secs(3);
        let probe = breaker.begin(later);
        assert_eq!(breaker.end(slow, Sign::Well, later, RULES, 0.0), None);
        assert_eq!(breaker.phase(), Phase::HalfOpen);
        assert!(breaker.end(probe, Sign::Well, later, RULES, 0.0).is_some());
    }

    #[test]
    fn a_probe_that_made_no_request_leaves_its_place_to_the_next() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let later = now + Duration::from_secs(3);
        let probe = breaker.begin(later);
        breaker.end(probe, Sign::Nothing, later, RULES, 0.0);
        assert_eq!(breaker.gate(later), Gate::Probe);
    }

    #[test]
    fn with_no_number_of_failures_it_never_opens() {
        let rules = Rules { failures: 0, ..RULES };
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            let pass = breaker.begin(now);
            assert_eq!(breaker.end(pass, Sign::Ill, now, rules, 0.5), None);
        }
    }

    #[test]
    fn an_opening_is_longer_by_chance_and_at_most_by_a_fifth() {
        for (chance, millis) in [(0.0, 2000), (0.5, 2200), (1.0, 2400), (7.0, 2400), (-1.0, 2000)] {
            assert_eq!(wait(0, RULES, chance), Duration::from_millis(millis), "{chance}");
        }
        // However often it opened.
        assert_eq!(wait(u32::MAX, RULES, 0.0), RULES.wait_max);
    }

    #[test]
    fn where_it_stands_has_a_word_in_metrics() {
        let words = [Phase::Closed, Phase::Open, Phase::HalfOpen].map(Phase::as_str);
        assert_eq!(words, ["closed", "open", "half_open"]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Come,
        End(usize, Sign),
        Wait(u64),
        Reset,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let sign = prop_oneof![1 => Just(Sign::Well), 3 => Just(Sign::Ill), 1 => Just(Sign::Nothing)];
        prop_oneof![
            6 => Just(Step::Come),
            6 => (any::<usize>(), sign).prop_map(|(which, sign)| Step::End(which, sign)),
            2 => (0..90_000_u64).prop_map(Step::Wait),
            1 => Just(Step::Reset),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_it_opens_within_bounds_and_probes_with_one(
            steps in proptest::collection::vec(any_step(), 1..200), chance in 0.0..1.0_f64,
        ) {
            let mut now = Instant::now();
            let mut breaker = Breaker::default();
            let mut under_way: Vec<Pass> = Vec::new();
            let mut probe: Option<Pass> = None;
            let mut opened_at: Option<(Instant, Duration)> = None;
            // All that were ever let through, and how many of them before it came to stand where it stands.
            let (mut ever, mut old): (Vec<Pass>, usize) = (Vec::new(), 0);
            for step in steps {
                let (was, is_reset) = (breaker.phase(), matches!(step, Step::Reset));
                match step {
                    Step::Come => match breaker.gate(now) {
                        Gate::Pass => {
                            let pass = breaker.begin(now);
                            ever.push(pass);
                            under_way.push(pass);
                        }
                        Gate::Probe => {
                            prop_assert_eq!(probe, None, "two probes");
                            if let Some((at, wait)) = opened_at {
                                prop_assert!(now >= at + wait, "probed too early");
                            }
                            old = ever.len();
                            let pass = breaker.begin(now);
                            ever.push(pass);
                            probe = Some(pass);
                            under_way.push(pass);
                        }
                        Gate::Probing => prop_assert!(probe.is_some(), "half-open without a probe"),
                        Gate::Shut(wait) => prop_assert!(wait <= RULES.wait_max.mul_f64(1.0 + SPREAD)),
                    },
                    Step::End(which, sign) if !under_way.is_empty() => {
                        let pass = under_way.swap_remove(which % under_way.len());
                        let was = breaker.phase();
                        let heard = breaker.hears(pass);
                        let moved = breaker.end(pass, sign, now, RULES, chance);
                        if probe == Some(pass) {
                            probe = None;
                        }
                        prop_assert!(heard || moved.is_none(), "an old request moved it");
                        if was == Phase::HalfOpen && breaker.phase() == Phase::HalfOpen {
                            prop_assert!(!heard);
                        }
                        if let Some(Moved::Opened { wait, .. }) = moved {
                            prop_assert!(wait >= RULES.wait);
                            opened_at = Some((now, wait));
                        }
                        if moved.is_none() && was == Phase::HalfOpen && heard {
                            opened_at = None;
                        }
                    }
                    Step::End(..) => {}
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                    Step::Reset => {
                        breaker.reset();
                        (probe, opened_at) = (None, None);
                        prop_assert_eq!(breaker.gate(now), Gate::Pass);
                    }
                }
                let is_probe = (was, breaker.phase()) == (Phase::Open, Phase::HalfOpen);
                if is_reset || was != breaker.phase() && !is_probe {
                    old = ever.len();
                }
                prop_assert!(!ever[..old].iter().any(|pass| breaker.hears(*pass)), "an old request is heard");
            }
        }
    }
}
