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

use super::connector::Connector;
use super::error::Error;
use super::tls::{Digest, Sessions, Tls};

/// One host may serve many webhooks, each with a lane of its own; closing what the next request needs costs more than
/// keeping it for [`IDLE_TIMEOUT`].
const IDLE_PER_HOST_MAX: usize = 256;
/// Receivers commonly close after 60 s or more; giving up earlier avoids sending into a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const HTTP2_HEADER_LIST_MAX: u32 = 16 * 1024;
/// Notices an HTTP/2 connection that has died silently, which all of a receiver's requests would otherwise wait on.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(15);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Pools of webhooks' own that are kept. One without connections is some kilobytes; a webhook whose pool was dropped makes a
/// new one, and with it a new connection.
const OWN_MAX: usize = 1024;

/// A client with its connections.
pub(super) type Pool = legacy::Client<Connector, Full<Bytes>>;

/// The pools.
pub(super) struct Pools {
    sessions: Sessions,
    connector: Connector,
    general: Pool,
    own: Mutex<Recent>,
}

/// Those of webhooks with settings of their own, and when each was last asked for.
#[derive(Default)]
struct Recent {
    pools: HashMap<Digest, (Pool, u64)>,
    asked: u64,
}

impl Pools {
    pub(super) fn new(sessions: Sessions, connector: Connector) -> Self {
        Self {
            general: pool(connector.clone()),
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
        own.get_or_insert(tls.digest(), OWN_MAX, || {
            let session = self.sessions.connector(Some(tls)).map_err(|error| {
                tracing::error!(%error, "a webhook's TLS settings cannot be used");
                Error::tls(
                    TlsFault::Other,
                    "no TLS session can be made with the webhook's settings",
                )
            })?;
            Ok(pool(self.connector.with_tls(session)))
        })
    }
}

impl Recent {
    fn get_or_insert(
        &mut self,
        digest: Digest,
        most: usize,
        make: impl FnOnce() -> Result<Pool, Error>,
    ) -> Result<Pool, Error> {
        self.asked += 1;
        if let Some((pool, asked)) = self.pools.get_mut(&digest) {
            *asked = self.asked;
            return Ok(pool.clone());
        }
        let made = make()?;
        if self.pools.len() >= most
            && let Some(oldest) = self
                .pools
                .iter()
                .min_by_key(|(_, (_, asked))| *asked)
                .map(|(digest, _)| *digest)
        {
            self.pools.remove(&oldest);
        }
        self.pools.insert(digest, (made.clone(), self.asked));
        Ok(made)
    }
}

/// It follows no redirect and reads no proxy out of the environment: each would go around the guard.
fn pool(connector: Connector) -> Pool {
    #[expect(clippy::disallowed_methods, reason = "this is the one client")]
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http2_max_header_list_size(HTTP2_HEADER_LIST_MAX)
        .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
        .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT)
        .build(connector)
}

#[cfg(test)]
mod tests {
    use super::super::{Client, Config};
    use super::*;

    #[tokio::test]
    async fn of_webhooks_own_pools_the_ones_asked_for_last_are_kept() {
        let client = Client::new(&Config::default()).unwrap();
        let mut recent = Recent::default();
        let mut made = Vec::new();
        for digest in [1, 2, 1, 3, 1, 2] {
            let make = || {
                made.push(digest);
                client.pools.of(None)
            };
            assert!(recent.get_or_insert([digest; 32], 2, make).is_ok());
        }
        // 3 took the place of 2, which had not been asked for since; then 2 took that of 3.
        assert_eq!(made, [1, 2, 3, 2]);
        assert_eq!(recent.pools.len(), 2);
    }
}
