//! Connections that are kept, apart by what their TLS sessions are made with: a request must never go out over a
//! connection that another webhook's certificate was shown on, or whose receiver only another webhook's authorities vouch
//! for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use proto_schemas::ledger::TlsFault;
use tokio::time::Instant;

use super::connector::Connector;
use super::error::Error;
use super::tls::{Digest, Sessions, Tls};

/// One host may serve many webhooks, each with a lane of its own; closing what the next request needs costs more than
/// keeping it for [`IDLE_TIMEOUT`]. The connector bounds how many are kept over all hosts.
const IDLE_PER_HOST_MAX: usize = 256;
/// The same where the connections are one webhook's own.
const OWN_IDLE_PER_HOST_MAX: usize = 32;
/// Receivers commonly close after 60 s or more; giving up earlier avoids sending into a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const HTTP2_HEADER_LIST_MAX: u32 = 16 * 1024;
/// How much a receiver may send over HTTP/2 before anybody has read it: what is read of one body, and of several at once.
/// hyper's own are 2 MiB and 5 MiB, which a thousand receivers at once would make gigabytes.
const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How much is held of what a receiver sends over HTTP/1.1, its answer's head included, which has to fit as a whole.
const HTTP1_BUFFER_MAX: usize = 64 * 1024;
/// Notices an HTTP/2 connection that has died silently, which all of a receiver's requests would otherwise wait on.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(15);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Pools of webhooks' own that are kept. One without connections is some kilobytes; a webhook whose pool was dropped makes a
/// new one, and with it a new connection.
const OWN_MAX: usize = 1024;
/// How long one is kept that nobody asks for: it holds a private key, of a webhook that may be gone.
const OWN_KEPT: Duration = Duration::from_mins(10);

/// A client with its connections.
pub(super) type Pool = legacy::Client<Connector, Full<Bytes>>;

/// The pools.
pub(super) struct Pools {
    sessions: Sessions,
    pub(super) connector: Connector,
    general: Pool,
    own: Mutex<Recent>,
}

/// Those of webhooks with settings of their own, and when each was last asked for.
#[derive(Default)]
struct Recent(HashMap<Digest, (Pool, Instant)>);

impl Pools {
    pub(super) fn new(sessions: Sessions, connector: Connector) -> Self {
        Self {
            general: pool(connector.clone(), IDLE_PER_HOST_MAX),
            sessions,
            connector,
            own: Mutex::default(),
        }
    }

    /// The pool of connections made with these settings.
    pub(super) fn of(&self, tls: Option<&Tls>) -> Result<Pool, Error> {
        let Some(tls) = tls else {
            return Ok(self.general.clone());
        };
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.get_or_insert(tls.digest(), || {
            let session = self.sessions.connector(Some(tls)).map_err(|error| {
                tracing::error!(%error, "a webhook's TLS settings cannot be used");
                Error::tls(
                    TlsFault::Other,
                    "no TLS session can be made with the webhook's settings",
                )
            })?;
            Ok(pool(self.connector.with_tls(session), OWN_IDLE_PER_HOST_MAX))
        })
    }

    /// Drops those of webhooks' own that nobody has asked for in a while.
    pub(super) fn tend(&self) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.0.retain(|_, (_, asked)| asked.elapsed() < OWN_KEPT);
    }
}

impl Recent {
    fn get_or_insert(&mut self, digest: Digest, make: impl FnOnce() -> Result<Pool, Error>) -> Result<Pool, Error> {
        let now = Instant::now();
        if let Some((pool, asked)) = self.0.get_mut(&digest) {
            *asked = now;
            return Ok(pool.clone());
        }
        let made = make()?;
        if self.0.len() >= OWN_MAX
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (_, asked))| *asked)
        {
            let oldest = *oldest.0;
            self.0.remove(&oldest);
        }
        self.0.insert(digest, (made.clone(), now));
        Ok(made)
    }
}

/// It follows no redirect and reads no proxy out of the environment: each would go around the guard.
fn pool(connector: Connector, idle_per_host_max: usize) -> Pool {
    #[expect(clippy::disallowed_methods, reason = "this is the one client")]
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(idle_per_host_max)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http1_max_buf_size(HTTP1_BUFFER_MAX)
        .http2_initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .http2_initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .http2_max_header_list_size(HTTP2_HEADER_LIST_MAX)
        .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
        .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT)
        .build(connector)
}

#[cfg(test)]
mod tests {
    use super::super::{Client, Config};
    use super::*;

    fn digest(number: usize) -> Digest {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        digest
    }

    #[tokio::test(start_paused = true)]
    async fn of_webhooks_own_pools_the_ones_asked_for_last_are_kept() {
        let client = Client::new(&Config::default()).unwrap();
        let mut recent = Recent::default();
        let mut made = Vec::new();
        // All the room there is, the first once more, and one beyond; then who had to go for that.
        for number in (0..1024).chain([0, 1024, 0, 1]) {
            tokio::time::advance(Duration::from_millis(1)).await;
            let make = || {
                made.push(number);
                client.pools.of(None)
            };
            assert!(recent.get_or_insert(digest(number), make).is_ok());
        }
        assert_eq!(made.split_off(1024), [1024, 1]);
        assert_eq!(recent.0.len(), 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn a_webhooks_own_pool_that_nobody_asks_for_is_let_go() {
        let client = Client::new(&Config::default()).unwrap();
        let left = || {
            client.tend();
            client.pools.own.lock().unwrap().0.len()
        };
        let ask = |number| {
            let mut own = client.pools.own.lock().unwrap();
            own.get_or_insert(digest(number), || client.pools.of(None)).unwrap();
        };
        ask(1);
        ask(2);
        tokio::time::advance(OWN_KEPT / 2).await;
        ask(2);
        assert_eq!(left(), 2);
        tokio::time::advance(OWN_KEPT / 2).await;
        assert_eq!(left(), 1);
        tokio::time::advance(OWN_KEPT / 2).await;
        assert_eq!(left(), 0);
    }
}
