//! The one client that talks to receivers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, ACCEPT, CONTENT_LENGTH};
use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use opentelemetry::metrics::Counter;
use proto_schemas::ledger::{ErrorClass, Timings};
use tokio::time::{Instant, timeout_at};

use super::connector::{Connector, Peer};
use super::error::{self, Error};
use super::pools::Pools;
use super::tls::{Sessions, Tls};
use super::url_policy::Target;
use super::{Config, ConfigError, Guard};

/// How much of a response's body is read, in bytes. Beyond it the connection is given up rather than read to its end.
pub const BODY_READ_MAX: usize = 64 * 1024;
/// How much of a response's body is kept, in bytes.
pub const BODY_KEPT_MAX: usize = 16 * 1024;
/// How much of a response's header lines is kept, in bytes: the record of an attempt must fit a NATS message.
pub const HEADERS_KEPT_MAX: usize = 16 * 1024;

/// How often a request that its receiver did not touch is sent again.
const SENT_AGAIN_MAX: u32 = 2;
/// Who says that it is asking.
pub const USER_AGENT: &str = concat!("Posthaste/", env!("CARGO_PKG_VERSION"));
const AGENT: HeaderValue = HeaderValue::from_static(USER_AGENT);

/// Sends requests to webhooks' URLs, under guard. Make one per process: connections are kept and shared. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub(super) pools: Arc<Pools>,
    guard: Guard,
    violations: Counter<u64>,
}

/// A request.
#[derive(Debug)]
pub struct Request<'a> {
    /// How.
    pub method: Method,
    /// Where to.
    pub target: &'a Target,
    /// What its TLS session is made with, beside what is the operator's.
    pub tls: Option<&'a Tls>,
    /// Every header but host, content-length and what the connection needs; `user-agent` and `accept` have defaults.
    pub headers: HeaderMap,
    /// The bytes that were signed; only a POST has a body.
    pub body: Bytes,
    /// For everything: name look-up, connection, request, response, response body.
    pub timeout: Duration,
}

/// What the receiver answered, whatever its status.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status. A redirect is never followed: 3xx is an answer like any other.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The first [`BODY_KEPT_MAX`] bytes of the body.
    pub body: Bytes,
    /// Whether the body went on.
    pub truncated: bool,
}

/// What became of a request.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The response, or why there is none.
    pub outcome: Result<Response, Error>,
    /// How long its parts took. Those of the connection are there where one was made for this request.
    pub timings: Timings,
    /// Who was talked to, where that is known here and not to the operator's proxy alone.
    pub peer: Option<SocketAddr>,
}

impl Client {
    /// Builds the client.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        Self::under(Guard::new(config)?, config)
    }

    fn under(guard: Guard, config: &Config) -> Result<Self, ConfigError> {
        let authorities = match &config.ca_file {
            Some(path) => super::config::read_authorities(path)?,
            None => Vec::new(),
        };
        let sessions = Sessions::new(authorities).map_err(ConfigError::Client)?;
        let connector = Connector {
            resolver: guard.resolver.clone(),
            addresses: guard.addresses.clone(),
            tls: sessions.connector(None).map_err(ConfigError::Client)?,
            https_only: !config.allow_http,
            proxy: config.proxy.clone().map(Arc::new),
            refusals: guard.refusals.clone(),
            open: Arc::default(),
        };
        let violations = opentelemetry::global::meter("posthaste")
            .u64_counter("ssrf_invariant_violation")
            .with_description("Responses from an address that is not allowed, past every check. Must stay 0")
            .build();
        violations.add(0, &[]);
        Ok(Self {
            pools: Arc::new(Pools::new(sessions, connector)),
            guard,
            violations,
        })
    }

    /// The rules requests are sent under.
    #[must_use]
    pub const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Lets go of what webhooks' own connections are made with and nobody has asked for in a while. To be called every now
    /// and then.
    pub fn tend(&self) {
        self.pools.tend();
    }

    /// Makes one request and reads the response, up to its caps, under one deadline.
    pub async fn send(&self, request: Request<'_>) -> Exchange {
        self.send_since(Instant::now(), request).await
    }

    /// The same of a request for which something else had to be had first: its time, and that of its first byte, counts from
    /// `begun`.
    pub async fn send_since(&self, begun: Instant, request: Request<'_>) -> Exchange {
        let mut exchange = Exchange {
            outcome: Err(Error::timeout(request.timeout, None)),
            timings: Timings::default(),
            peer: None,
        };
        exchange.outcome = self.exchange(request, begun, &mut exchange).await;
        exchange
    }

    async fn exchange(&self, request: Request<'_>, begun: Instant, exchange: &mut Exchange) -> Result<Response, Error> {
        let (target, timeout) = (request.target, request.timeout);
        let deadline = begun + timeout;
        let head = timeout_at(deadline, self.head(request, exchange))
            .await
            .map_err(|_| Error::timeout(timeout, None))?;
        // Whoever talked to us, be it only to break off.
        if head.is_ok() || exchange.peer.is_some() {
            self.assert_allowed(target, exchange)?;
        }
        let head = head?;
        exchange.timings.first_byte = Some(begun.elapsed());

        let (parts, body) = head.into_parts();
        let status = parts.status;
        let mut kept = Vec::new();
        let read = match timeout_at(deadline, read_body(body, &mut kept)).await {
            Ok(read) => read.map_err(|error| Error::of_body(&error, status)),
            Err(_) => Err(Error::timeout(timeout, Some(status))),
        };
        let truncated = match read {
            Ok(truncated) => truncated,
            // Who cannot do what it was asked has said so, and when to come again, before anything broke off: many do that
            // while they are still being sent to.
            Err(_) if status.is_client_error() || status.is_server_error() => true,
            Err(error) => return Err(error),
        };
        Ok(Response {
            status,
            headers: parts.headers,
            body: kept.into(),
            truncated,
        })
    }

    /// Sends the request, and again where its receiver says that it did not touch it; returns the response's head.
    async fn head(&self, request: Request<'_>, exchange: &mut Exchange) -> Result<http::Response<Incoming>, Error> {
        let begun = Instant::now();
        let pool = self.pools.of(request.tls)?;
        let request = to_http(request)?;
        let mut again = 0;
        loop {
            match pool.request(request.clone()).await {
                Ok(head) => {
                    exchange.note(head.extensions(), begun);
                    return Ok(head);
                }
                Err(error) if again < SENT_AGAIN_MAX && error::is_untouched(&error) => again += 1,
                Err(error) => {
                    let mut extensions = Extensions::new();
                    if let Some(failed) = error::failed_connection(&error) {
                        (exchange.timings, exchange.peer) = (failed.timings, failed.peer);
                    } else if let Some(connected) = error.connect_info() {
                        connected.get_extras(&mut extensions);
                        exchange.note(&extensions, begun);
                    }
                    let fault = extensions.get().and_then(Peer::fault);
                    return Err(Error::of_request(&error, fault));
                }
            }
        }
    }

    /// The last net: whatever let the connection through, what came over it is not passed on, nor who was at its other end
    /// and how long that took.
    fn assert_allowed(&self, target: &Target, exchange: &mut Exchange) -> Result<(), Error> {
        match exchange.peer {
            Some(remote) if self.guard.addresses.check(remote.ip()).is_ok() => Ok(()),
            // All go by way of the proxy, and it has seen to that.
            None if self.guard.is_proxied => Ok(()),
            remote => {
                self.violations.add(1, &[]);
                tracing::error!(
                    target = target.redacted(),
                    ?remote,
                    "a request reached an address that is not allowed"
                );
                (exchange.timings, exchange.peer) = (Timings::default(), None);
                Err(Error::refused_address())
            }
        }
    }
}

impl Exchange {
    /// Notes over which connection it went.
    fn note(&mut self, extensions: &Extensions, begun: Instant) {
        if let Some(peer) = extensions.get::<Peer>() {
            self.peer = peer.address;
            self.timings = peer.timings_for(begun);
        }
    }
}

/// A checksum of a request's method, url and header lines, in any order. Of a sensitive value only that it is there goes
/// into it, so it tells nothing of these, and comes out the same for who does not know them. What an expression puts into a
/// url or a plain header does go into it.
#[must_use]
pub fn head_checksum(method: &Method, url: &str, headers: &HeaderMap) -> u32 {
    let mut lines: Vec<(&[u8], &[u8])> = headers
        .iter()
        .map(|(name, value)| {
            let shown = if value.is_sensitive() { HIDDEN } else { value.as_bytes() };
            (name.as_str().as_bytes(), shown)
        })
        .collect();
    lines.sort_unstable();
    let mut hasher = crc32fast::Hasher::new();
    for part in [method.as_str().as_bytes(), b" ", url.as_bytes()] {
        hasher.update(part);
    }
    for (name, value) in lines {
        for part in [b"\n", name, b":", value] {
            hasher.update(part);
        }
    }
    // 0 stands for none.
    hasher.finalize().max(1)
}

/// What stands for a sensitive value; no value is this, since a value holds no line break.
const HIDDEN: &[u8] = b"\n";

fn to_http(request: Request<'_>) -> Result<http::Request<Full<Bytes>>, Error> {
    let Request {
        method,
        target,
        mut headers,
        body,
        tls: _,
        timeout: _,
    } = request;
    let uri: Uri = target
        .as_str()
        .parse()
        .map_err(|_| Error::new(ErrorClass::RefusedAddress, "the url cannot be sent to"))?;
    headers.entry(header::USER_AGENT).or_insert(AGENT);
    headers
        .entry(ACCEPT)
        .or_insert(const { HeaderValue::from_static("*/*") });
    let body = match method == Method::POST {
        true => body,
        false => Bytes::new(),
    };
    if method == Method::POST && body.is_empty() {
        // hyper leaves it out, and some servers then answer 411; RFC 9110 §8.6 has it sent.
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let mut request = http::Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

impl Response {
    /// The header lines for the record of the attempt, up to [`HEADERS_KEPT_MAX`]. Bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn header_lines(&self) -> Vec<(String, String)> {
        let mut room = HEADERS_KEPT_MAX;
        self.headers
            .iter()
            .map_while(|(name, value)| {
                room = room.checked_sub(name.as_str().len() + value.len())?;
                Some((
                    name.as_str().to_owned(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                ))
            })
            .collect()
    }
}

/// Reads the part of the body that is kept, and whether it went on. A short body is read to its end, so that the connection
/// can be used again; a long one is dropped with its connection.
async fn read_body(mut body: Incoming, kept: &mut Vec<u8>) -> Result<bool, hyper::Error> {
    let mut read = 0;
    while read < BODY_READ_MAX
        && let Some(frame) = body.frame().await
    {
        let Ok(chunk) = frame?.into_data() else { continue };
        read += chunk.len();
        // Copied, not kept as it came: a chunk holds on to the connection's whole read buffer.
        let room = BODY_KEPT_MAX - kept.len();
        kept.extend_from_slice(&chunk[..room.min(chunk.len())]);
    }
    Ok(read > kept.len())
}

#[cfg(test)]
mod tests;
