//! Tries: requests whose token or cookie turned out to be no good, by the network they came from.
//!
//! A network has a minute's worth of them. Once they are used up, nothing is looked up for it any more until it has one
//! again: the right guess waits like the wrong one, or waiting would not slow anybody down. What is random nobody guesses,
//! and looking it up in vain costs time alone: of that a network has many more, of their own, so that who works behind the
//! same address is not kept out by a neighbour's guesses, nor by its token that was revoked. What was good from there a
//! while ago, and is random, is exempt.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::FORGET_EVERY;

/// What a network's tries are for.
const SPAN: Duration = Duration::from_secs(60);

/// How many times as many tries a network has with what is random: enough for who has not heard that it was revoked, and
/// few enough for Postgres, where they are looked up.
const RANDOM_WORTH: u32 = 10;

/// How long it is known that something was good.
const KNOWN_FOR: Duration = Duration::from_secs(3600);

/// How many are known at most; who comes when there are as many waits like a stranger.
const KNOWN_MAX: usize = 100_000;

/// What a request shows that it is somebody's: its token, or its session's cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Its SHA-256.
    pub hash: [u8; 32],
    /// Whether it is random by its form. What somebody has invented could be guessed.
    pub is_random: bool,
}

/// The tries of each network.
#[derive(Debug)]
pub(super) struct Tries {
    /// How long it takes to get one back, of those with what somebody may have invented.
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When a network has all its tries again: those with what is random, or those with all else.
    whole_at: HashMap<(IpAddr, bool), Instant>,
    /// What was good from which network, and when it last was.
    known: HashMap<(IpAddr, [u8; 32]), Instant>,
    since_forgotten: u32,
}

impl Tries {
    /// So many a minute, for each network; and [`RANDOM_WORTH`] times as many with what is random.
    pub(super) fn new(a_minute: NonZeroU32) -> Self {
        Self {
            every: SPAN / a_minute.get(),
            state: Mutex::default(),
        }
    }

    /// How long this has to wait before it is looked up; `None`: it has not.
    pub(super) fn wait(&self, address: IpAddr, proof: &Proof, now: Instant) -> Option<Duration> {
        let network = network(address);
        let state = self.state();
        let wait = self.wait_for_one(&state, network, proof.is_random, now)?;
        let is_known = || {
            let since = state.known.get(&(network, proof.hash));
            proof.is_random && since.is_some_and(|since| now.saturating_duration_since(*since) < KNOWN_FOR)
        };
        (!is_known()).then_some(wait)
    }

    /// How long anything has to wait that was not good from there before, whatever it may be; `None`: it has not.
    pub(super) fn wait_whatever_comes(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let network = network(address);
        let state = self.state();
        let [random, other] = [true, false].map(|is_random| self.wait_for_one(&state, network, is_random, now));
        Some(random?.min(other?))
    }

    /// How long it takes until the network has a try again; `None`: it has one.
    fn wait_for_one(&self, state: &State, network: IpAddr, is_random: bool, now: Instant) -> Option<Duration> {
        let whole_at = *state.whole_at.get(&(network, is_random))?;
        let wait = (whole_at + self.every(is_random)).saturating_duration_since(now + SPAN);
        (!wait.is_zero()).then_some(wait)
    }

    /// How long it takes to get one back.
    fn every(&self, is_random: bool) -> Duration {
        self.every / if is_random { RANDOM_WORTH } else { 1 }
    }

    /// Notes that it was looked up and is no good.
    pub(super) fn failed(&self, address: IpAddr, proof: &Proof, now: Instant) {
        let network = network(address);
        let mut state = self.state();
        state.known.remove(&(network, proof.hash));
        let whole_at = state.whole_at.entry((network, proof.is_random)).or_insert(now);
        *whole_at = (*whole_at).max(now) + self.every(proof.is_random);
        state.forget(now);
    }

    /// Notes that it was looked up and is good.
    pub(super) fn succeeded(&self, address: IpAddr, proof: &Proof, now: Instant) {
        let key = (network(address), proof.hash);
        let mut state = self.state();
        if proof.is_random && (state.known.len() < KNOWN_MAX || state.known.contains_key(&key)) {
            state.known.insert(key, now);
        }
        state.forget(now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Every now and then, drops what makes no difference any more.
    fn forget(&mut self, now: Instant) {
        self.since_forgotten += 1;
        if self.since_forgotten >= FORGET_EVERY {
            self.since_forgotten = 0;
            self.whole_at.retain(|_, whole_at| *whole_at > now);
            self.known
                .retain(|_, since| now.saturating_duration_since(*since) < KNOWN_FOR);
        }
    }
}

/// Whom an address is counted with. Whoever has one of IPv6 has its /64 as well, 2^64 addresses to come from.
pub(in crate::http) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn proof(n: u8, is_random: bool) -> Proof {
        Proof {
            hash: [n; 32],
            is_random,
        }
    }

    fn tries(a_minute: u32) -> Tries {
        Tries::new(NonZeroU32::new(a_minute).unwrap())
    }

    #[test]
    fn once_its_tries_are_used_up_a_network_waits_until_it_has_one_again_whatever_comes() {
        let (tries, now) = (tries(3), Instant::now());
        for n in 0..3 {
            assert_eq!(tries.wait(HERE, &proof(n, false), now), None, "{n}");
            tries.failed(HERE, &proof(n, false), now);
        }
        let twenty = Duration::from_secs(20);
        for n in 0..20 {
            assert_eq!(tries.wait(HERE, &proof(n, false), now), Some(twenty));
        }
        assert_eq!(tries.wait(HERE, &proof(0, false), now + twenty), None);
        tries.failed(HERE, &proof(0, false), now + twenty);
        assert_eq!(tries.wait(HERE, &proof(1, false), now + twenty), Some(twenty));
        // Looked up at the same time as the last one that it had: it counts all the same.
        tries.failed(HERE, &proof(1, false), now + twenty);
        assert_eq!(tries.wait(HERE, &proof(1, false), now + twenty), Some(twenty * 2));
        assert_eq!(tries.wait([10, 0, 0, 2].into(), &proof(0, false), now), None);
    }

    #[test]
    fn what_is_random_has_more_tries_and_takes_none_from_what_is_not() {
        let (tries, now) = (tries(3), Instant::now());
        for n in 0..3 {
            tries.failed(HERE, &proof(n, false), now);
        }
        for n in 0..30 {
            assert_eq!(tries.wait_whatever_comes(HERE, now), None);
            assert_eq!(tries.wait(HERE, &proof(n, true), now), None, "{n}");
            tries.failed(HERE, &proof(n, true), now);
        }
        let two = Duration::from_secs(2);
        assert_eq!(tries.wait(HERE, &proof(31, true), now), Some(two));
        assert_eq!(tries.wait_whatever_comes(HERE, now), Some(two));
        assert_eq!(tries.wait(HERE, &proof(0, false), now), Some(two * 10));
        assert_eq!(tries.wait_whatever_comes(HERE, now + two), None);
        assert_eq!(tries.wait(HERE, &proof(31, true), now + two), None);
        // And the other way round: a revoked token that goes on asking.
        let there = [10, 0, 0, 2].into();
        for _ in 0..100 {
            tries.failed(there, &proof(0, true), now);
        }
        assert_eq!(tries.wait(there, &proof(0, false), now), None);
    }

    #[test]
    fn what_was_good_and_is_random_is_not_kept_waiting_by_a_neighbour() {
        let (tries, now) = (tries(1), Instant::now());
        let (random, invented) = (proof(1, true), proof(2, false));
        let neighbour = |address, now| {
            tries.failed(address, &proof(3, false), now);
            (0..RANDOM_WORTH).for_each(|_| tries.failed(address, &proof(3, true), now));
        };
        for good in [&random, &invented] {
            tries.succeeded(HERE, good, now);
        }
        neighbour(HERE, now);
        assert_eq!(tries.wait(HERE, &random, now), None);
        assert!(
            tries.wait(HERE, &invented, now).is_some(),
            "it could be guessed, as fast as one can ask"
        );
        // From where it was not seen it is as good as guessed.
        let there = [10, 0, 0, 2].into();
        neighbour(there, now);
        assert!(tries.wait(there, &random, now).is_some());
        // It is no good any more, or was not for an hour.
        let later = now + KNOWN_FOR;
        neighbour(HERE, later);
        assert!(tries.wait(HERE, &random, later).is_some());
        tries.succeeded(HERE, &random, later);
        assert_eq!(tries.wait(HERE, &random, later), None);
        tries.failed(HERE, &random, later);
        assert!(tries.wait(HERE, &random, later).is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_a_64() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), HERE);
        assert_ne!(of("::ffff:10.0.0.1"), of("::ffff:10.0.0.2"));
    }

    #[test]
    fn what_makes_no_difference_is_forgotten() {
        let (tries, now) = (tries(60), Instant::now());
        let later = now + KNOWN_FOR;
        let n = |n: u32| IpAddr::V4(n.into());
        for at in 0..FORGET_EVERY - 1 {
            tries.failed(n(at), &proof(1, true), now);
        }
        tries.state().known.insert((HERE, [0; 32]), now);
        tries.succeeded(n(0), &proof(1, true), later);
        let state = tries.state();
        assert_eq!((state.whole_at.len(), state.known.len()), (0, 1));
    }
}
