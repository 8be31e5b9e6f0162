//! How much a client may ask.
//!
//! Each token has a rate and a burst, and so have all tokens of a project together, so that having more of them buys
//! nothing; every answer says how much is left of what ends first (draft-ietf-httpapi-ratelimit-headers-06). What is no
//! good is counted by the network it comes from, more strictly: who has guessed too often is told to wait, and not told
//! any more whether a guess is right ([`tries`]). Counts are each process's own, and begin anew with it.

mod tries;

pub(super) use self::tries::network;

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::time::Instant;
use uuid::Uuid;

use self::tries::Tries;
use super::problem::{Code, Problem};

pub use self::tries::Proof;

/// After so many requests, those who have not come for long are forgotten.
const FORGET_EVERY: u32 = 10_000;

/// Settings.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Requests a second that a token is good for, at each process; 0: any number
    #[arg(long, env = "POSTHASTE_RATE_LIMIT", value_name = "REQUESTS", default_value_t = 100)]
    pub rate_limit: u32,
    /// Requests that a token is good for at once
    #[arg(
        long,
        env = "POSTHASTE_RATE_LIMIT_BURST",
        value_name = "REQUESTS",
        default_value_t = 200
    )]
    pub rate_limit_burst: u32,
    /// Requests a second that all tokens of a project are good for together, at each process; 0: any number; ten times
    /// what one token is good for if absent
    #[arg(long, env = "POSTHASTE_PROJECT_RATE_LIMIT", value_name = "REQUESTS")]
    pub project_rate_limit: Option<u32>,
    /// Requests that all tokens of a project are good for at once; ten times a token's if absent
    #[arg(long, env = "POSTHASTE_PROJECT_RATE_LIMIT_BURST", value_name = "REQUESTS")]
    pub project_rate_limit_burst: Option<u32>,
    /// Requests a minute with a token that is not valid, from one address (of IPv6, one /64), and ten times as many with one
    /// of the form that tokens made over REST have; 0: any number
    #[arg(
        long,
        env = "POSTHASTE_REFUSED_TOKENS_PER_MINUTE",
        value_name = "REQUESTS",
        default_value_t = 60
    )]
    pub refused_tokens_per_minute: u32,
    /// Requests a minute for webhooks' public keys, which need no token, from one address (of IPv6, one /64); 0: any number
    #[arg(
        long,
        env = "POSTHASTE_PUBLIC_KEYS_PER_MINUTE",
        value_name = "REQUESTS",
        default_value_t = 600
    )]
    pub public_keys_per_minute: u32,
}

/// What a network hears that has no tries left.
const REFUSED: &str = "too many requests without a valid token from this address";

/// How many times as much as one token a project is good for, where nothing else is said.
const TOKENS_WORTH: u32 = 10;

/// The address a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

type Limiter<K> = RateLimiter<K, HashMapStateStore<K>, DefaultClock, StateInformationMiddleware>;

/// Who may ask how much.
pub struct RateLimits {
    tokens: Option<Counted<Uuid>>,
    projects: Option<Counted<Uuid>>,
    refused: Option<Tries>,
    public: Option<Counted<IpAddr>>,
}

struct Counted<K: Hash + Eq + Clone> {
    limiter: Limiter<K>,
    clock: DefaultClock,
    burst: u32,
    every: Duration,
    since_forgotten: AtomicU32,
}

/// How much is left, for the answer to say.
#[derive(Debug, Clone, Copy)]
struct Left {
    limit: u32,
    remaining: u32,
    reset: u64,
}

/// Where a request's handler leaves what its answer is to say.
#[derive(Debug, Clone, Default)]
struct Slot(Arc<OnceLock<Left>>);

impl std::fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimits").finish_non_exhaustive()
    }
}

impl RateLimits {
    /// Nobody has asked for anything yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let counted = |rate: u32, burst: u32| {
            let rate = NonZeroU32::new(rate)?;
            let burst = NonZeroU32::new(burst).unwrap_or(rate);
            Some(Counted::new(Quota::per_second(rate).allow_burst(burst)))
        };
        let of_a_project =
            |given: Option<u32>, of_a_token: u32| given.unwrap_or(of_a_token.saturating_mul(TOKENS_WORTH));
        Self {
            tokens: counted(config.rate_limit, config.rate_limit_burst),
            projects: counted(
                of_a_project(config.project_rate_limit, config.rate_limit),
                of_a_project(config.project_rate_limit_burst, config.rate_limit_burst),
            ),
            refused: NonZeroU32::new(config.refused_tokens_per_minute).map(Tries::new),
            public: NonZeroU32::new(config.public_keys_per_minute).map(|rate| Counted::new(Quota::per_minute(rate))),
        }
    }

    /// Counts a request with this token, and with its project's where it is a project's.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`], with when to come again.
    pub fn count(&self, token: Uuid, project: Option<Uuid>, parts: &Parts) -> Result<(), Problem> {
        let of_the_token = (self.tokens.as_ref()).map(|tokens| tokens.count(&token));
        // What a token may not ask anyway is not taken from its project.
        let goes_on = !matches!(of_the_token, Some((_, Some(_))));
        let of_the_project = (self.projects.as_ref().zip(project))
            .filter(|_| goes_on)
            .map(|(projects, project)| projects.count(&project));
        let left = [of_the_token, of_the_project]
            .into_iter()
            .flatten()
            .map(|(left, _)| left);
        if let (Some(left), Some(Slot(slot))) = (left.min_by_key(|left| left.remaining), parts.extensions.get()) {
            let _ = slot.set(left);
        }
        if let Some((_, Some(wait))) = of_the_token {
            return Err(too_many("this token has asked for more than it may", wait));
        }
        match of_the_project {
            Some((_, Some(wait))) => Err(too_many(
                "the tokens of this project have asked for more than they may together",
                wait,
            )),
            _ => Ok(()),
        }
    }

    /// Refuses to have this looked up where too much from the same network has been no good.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`], with when to come again.
    pub fn may_try(&self, parts: &Parts, proof: &Proof) -> Result<(), Problem> {
        let wait = (self.of_its_network(parts)).and_then(|(tries, address)| tries.wait(address, proof, Instant::now()));
        wait.map_or(Ok(()), |wait| Err(too_many(REFUSED, wait)))
    }

    /// Refuses to have anything looked up where too much from the same network has been no good, whatever it be: for who
    /// has yet to read what it is. What was good from there before is refused with it.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`], with when to come again.
    pub fn may_try_any(&self, parts: &Parts) -> Result<(), Problem> {
        let wait = (self.of_its_network(parts))
            .and_then(|(tries, address)| tries.wait_whatever_comes(address, Instant::now()));
        wait.map_or(Ok(()), |wait| Err(too_many(REFUSED, wait)))
    }

    /// Counts a request whose token or cookie is not valid.
    pub fn count_refused(&self, parts: &Parts, proof: &Proof) {
        if let Some((tries, address)) = self.of_its_network(parts) {
            tries.failed(address, proof, Instant::now());
        }
    }

    /// Notes a request whose token or cookie is valid.
    pub fn note_valid(&self, parts: &Parts, proof: &Proof) {
        if let Some((tries, address)) = self.of_its_network(parts) {
            tries.succeeded(address, proof, Instant::now());
        }
    }

    /// Counts a request for what everybody may have.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`], with when to come again.
    pub fn count_public(&self, parts: &Parts) -> Result<(), Problem> {
        let (Some(public), Some(Peer(address))) = (&self.public, parts.extensions.get()) else {
            return Ok(());
        };
        match public.count(&network(*address)).1 {
            None => Ok(()),
            Some(wait) => Err(too_many("too many requests from this address", wait)),
        }
    }

    fn of_its_network(&self, parts: &Parts) -> Option<(&Tries, IpAddr)> {
        let Peer(address) = parts.extensions.get()?;
        self.refused.as_ref().map(|tries| (tries, *address))
    }
}

impl<K: Hash + Eq + Clone> Counted<K> {
    fn new(quota: Quota) -> Self {
        Self {
            limiter: RateLimiter::hashmap(quota).with_middleware(),
            clock: DefaultClock::default(),
            burst: quota.burst_size().get(),
            every: quota.replenish_interval(),
            since_forgotten: AtomicU32::new(0),
        }
    }

    /// What is left, and how long to wait where nothing was.
    fn count(&self, key: &K) -> (Left, Option<Duration>) {
        if self.since_forgotten.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limiter.retain_recent();
        }
        let (remaining, wait) = match self.limiter.check_key(key) {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(until) => (0, Some(until.wait_time_from(self.clock.now()))),
        };
        let full = self.every.saturating_mul(self.burst.saturating_sub(remaining));
        let left = Left {
            limit: self.burst,
            remaining,
            reset: seconds(full),
        };
        (left, wait)
    }
}

fn too_many(detail: &'static str, wait: Duration) -> Problem {
    Problem::new(Code::TooManyRequests, detail).retry_after(seconds(wait).max(1))
}

/// Rounded up: who waits that long has waited long enough.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// A layer: answers say how much is left.
pub async fn announce(mut request: Request, next: Next) -> Response {
    let slot = Slot::default();
    request.extensions_mut().insert(slot.clone());
    let mut response = next.run(request).await;
    if let Some(left) = slot.0.get() {
        let headers = response.headers_mut();
        headers.insert("ratelimit-limit", left.limit.into());
        headers.insert("ratelimit-remaining", left.remaining.into());
        headers.insert("ratelimit-reset", left.reset.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn limits(config: &Config) -> RateLimits {
        RateLimits::new(config)
    }

    /// No limit at all.
    const NONE: Config = Config {
        rate_limit: 0,
        rate_limit_burst: 1,
        project_rate_limit: None,
        project_rate_limit_burst: None,
        refused_tokens_per_minute: 0,
        public_keys_per_minute: 0,
    };

    const PROOF: Proof = Proof {
        hash: [0; 32],
        is_random: false,
    };

    fn parts(address: Option<&str>) -> Parts {
        let mut request = Request::new(());
        if let Some(address) = address {
            request.extensions_mut().insert(Peer(address.parse().unwrap()));
        }
        request.into_parts().0
    }

    #[test]
    fn a_token_is_good_for_its_burst_and_no_more_and_takes_nothing_from_another() {
        let limits = limits(&Config {
            rate_limit: 1,
            rate_limit_burst: 3,
            ..NONE
        });
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for _ in 0..3 {
            assert!(limits.count(first, None, &parts(None)).is_ok());
        }
        let refused = limits.count(first, None, &parts(None)).unwrap_err();
        assert_eq!(refused.code(), Code::TooManyRequests);
        assert!(limits.count(second, None, &parts(None)).is_ok());
    }

    #[test]
    fn a_project_is_good_for_its_burst_however_many_tokens_it_has_and_takes_nothing_from_another() {
        let limits = limits(&Config {
            project_rate_limit: Some(1),
            project_rate_limit_burst: Some(3),
            ..NONE
        });
        let (mine, other) = (Some(Uuid::from_u128(1)), Some(Uuid::from_u128(2)));
        let count = |token: u128, project| limits.count(Uuid::from_u128(token), project, &parts(None));
        for token in 0..3 {
            assert!(count(token, mine).is_ok());
        }
        let refused = count(4, mine).unwrap_err();
        assert_eq!(refused.code(), Code::TooManyRequests);
        assert!(refused.detail().unwrap().contains("project"), "{refused:?}");
        // Another's are not touched, nor is the administrator's, which is of no project.
        assert!(count(5, other).is_ok() && count(6, None).is_ok());
    }

    #[test]
    fn a_project_is_good_for_ten_tokens_unless_something_else_is_said() {
        let limits = limits(&Config {
            rate_limit: 1,
            rate_limit_burst: 2,
            ..NONE
        });
        let count = |token: u128| {
            limits
                .count(Uuid::from_u128(token), Some(Uuid::nil()), &parts(None))
                .is_ok()
        };
        // What was refused to a token is not taken from its project.
        assert_eq!((0..30).filter(|_| count(0)).count(), 2);
        // One is had back every tenth of a second.
        let others = (1..=30).filter(|token| count(*token)).count();
        assert!((18..20).contains(&others), "{others}");
    }

    #[test]
    fn an_answer_says_what_is_left_of_what_ends_first() {
        let limits = limits(&Config {
            rate_limit: 1,
            rate_limit_burst: 5,
            project_rate_limit: Some(1),
            project_rate_limit_burst: Some(6),
            ..NONE
        });
        let left = |token: u128| {
            let mut parts = parts(None);
            let slot = Slot::default();
            parts.extensions.insert(slot.clone());
            limits.count(Uuid::from_u128(token), Some(Uuid::nil()), &parts).unwrap();
            let left = slot.0.get().unwrap();
            (left.limit, left.remaining)
        };
        assert_eq!([left(1), left(1), left(2), left(2)], [(5, 4), (5, 3), (6, 3), (6, 2)]);
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = limits(&NONE);
        let parts = parts(Some("127.0.0.1"));
        for _ in 0..1_000 {
            assert!(limits.count(Uuid::nil(), Some(Uuid::nil()), &parts).is_ok());
            assert!(limits.may_try(&parts, &PROOF).is_ok() && limits.count_public(&parts).is_ok());
            limits.count_refused(&parts, &PROOF);
        }
    }

    #[test]
    fn who_guesses_tokens_is_told_to_wait_and_others_are_not() {
        let limits = limits(&Config {
            refused_tokens_per_minute: 2,
            ..NONE
        });
        let guess = |address: &str| {
            let parts = parts(Some(address));
            let tried = limits.may_try(&parts, &PROOF);
            tried
                .map(|()| limits.count_refused(&parts, &PROOF))
                .map_err(|it| it.code())
        };
        let too_many = Err(Code::TooManyRequests);
        assert_eq!([(); 3].map(|()| guess("10.0.0.1")), [Ok(()), Ok(()), too_many]);
        assert_eq!(guess("10.0.0.2"), Ok(()));
        // The addresses of one line are one.
        let guesses = [1, 2, 3].map(|n| guess(&format!("2001:db8::{n}")));
        assert_eq!(guesses, [Ok(()), Ok(()), too_many]);
        assert_eq!(guess("2001:db8:0:1::1"), Ok(()));
    }

    #[test]
    fn what_is_for_everybody_is_limited_by_network() {
        let limits = limits(&Config {
            public_keys_per_minute: 2,
            ..NONE
        });
        let ask = |address| limits.count_public(&parts(Some(address))).is_ok();
        assert_eq!(["::1", "::2", "::3"].map(ask), [true, true, false]);
        assert!(ask("10.0.0.1"));
    }
}
