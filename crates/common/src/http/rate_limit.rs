//! How much a client may ask.
//!
//! Each token has a rate and a burst, and every answer says how much is left (draft-ietf-httpapi-ratelimit-headers-06).
//! Tokens that are not known are counted by the address they come from, more strictly: who guesses is slowed down, and
//! who has a good token is not, wherever it is used. Counts are each process's own, and begin anew with it.

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
use uuid::Uuid;

use super::problem::{Code, Problem};

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
    /// Requests a minute with a token that is not valid, from one address; 0: any number
    #[arg(
        long,
        env = "POSTHASTE_REFUSED_TOKENS_PER_MINUTE",
        value_name = "REQUESTS",
        default_value_t = 60
    )]
    pub refused_tokens_per_minute: u32,
}

/// The address a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

type Limiter<K> = RateLimiter<K, HashMapStateStore<K>, DefaultClock, StateInformationMiddleware>;

/// Who may ask how much.
pub struct RateLimits {
    tokens: Option<Counted<Uuid>>,
    refused: Option<Counted<IpAddr>>,
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
        let tokens = NonZeroU32::new(config.rate_limit).map(|rate| {
            let burst = NonZeroU32::new(config.rate_limit_burst).unwrap_or(rate);
            Counted::new(Quota::per_second(rate).allow_burst(burst))
        });
        let refused =
            NonZeroU32::new(config.refused_tokens_per_minute).map(|rate| Counted::new(Quota::per_minute(rate)));
        Self { tokens, refused }
    }

    /// Counts a request with this token.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`], with when to come again.
    pub fn count(&self, token: Uuid, parts: &Parts) -> Result<(), Problem> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let (left, wait) = tokens.count(&token);
        if let Some(Slot(slot)) = parts.extensions.get() {
            let _ = slot.set(left);
        }
        match wait {
            None => Ok(()),
            Some(wait) => Err(too_many("this token has asked for more than it may", wait)),
        }
    }

    /// Counts a request whose token is not valid; what it is to hear.
    #[must_use]
    pub fn count_refused(&self, parts: &Parts, refused: Problem) -> Problem {
        let (Some(counted), Some(Peer(address))) = (&self.refused, parts.extensions.get()) else {
            return refused;
        };
        match counted.count(address).1 {
            None => refused,
            Some(wait) => too_many("too many requests without a valid token from this address", wait),
        }
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
    use axum::http::{Request, StatusCode};

    use super::*;

    fn limits(rate_limit: u32, rate_limit_burst: u32, refused_tokens_per_minute: u32) -> RateLimits {
        RateLimits::new(&Config {
            rate_limit,
            rate_limit_burst,
            refused_tokens_per_minute,
        })
    }

    fn parts(address: Option<[u8; 4]>) -> Parts {
        let mut request = Request::new(());
        if let Some(address) = address {
            request.extensions_mut().insert(Peer(address.into()));
        }
        request.into_parts().0
    }

    #[test]
    fn a_token_is_good_for_its_burst_and_no_more_and_takes_nothing_from_another() {
        let limits = limits(1, 3, 60);
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for _ in 0..3 {
            assert!(limits.count(first, &parts(None)).is_ok());
        }
        let refused = limits.count(first, &parts(None)).unwrap_err();
        assert_eq!(refused.code(), Code::TooManyRequests);
        assert!(limits.count(second, &parts(None)).is_ok());
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = limits(0, 1, 0);
        for _ in 0..1_000 {
            assert!(limits.count(Uuid::nil(), &parts(None)).is_ok());
            let refused = limits.count_refused(&parts(Some([127, 0, 0, 1])), Code::Unauthenticated.into());
            assert_eq!(refused.code(), Code::Unauthenticated);
        }
    }

    #[test]
    fn who_guesses_tokens_is_told_to_wait_and_others_are_not() {
        let limits = limits(1, 1, 2);
        let guess = |address| {
            limits
                .count_refused(&parts(Some(address)), Code::Unauthenticated.into())
                .code()
        };
        let statuses = [(); 3].map(|()| guess([10, 0, 0, 1]).status());
        let (unauthenticated, too_many) = (StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(statuses, [unauthenticated, unauthenticated, too_many]);
        assert_eq!(guess([10, 0, 0, 2]).status(), unauthenticated);
    }
}
