//! The one client that talks to receivers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use opentelemetry::metrics::Counter;
use tokio::time::{Instant, timeout_at};

use super::error::Error;
use super::url_policy::Target;
use super::{Config, ConfigError, Guard};

/// How much of a response's body is read, in bytes. Beyond it the connection is given up rather than read to its end.
pub const BODY_READ_MAX: usize = 64 * 1024;
/// How much of a response's body is kept, in bytes.
pub const BODY_KEPT_MAX: usize = 16 * 1024;
/// How much of a response's header lines is kept, in bytes: the record of an attempt must fit a NATS message.
pub const HEADERS_KEPT_MAX: usize = 16 * 1024;

/// Name look-up, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One host may serve many webhooks, each with a lane of its own; closing what the next request needs costs more than
/// keeping it for [`IDLE_TIMEOUT`].
const IDLE_PER_HOST_MAX: usize = 256;
/// Receivers commonly close after 60 s or more; giving up earlier avoids sending into a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const HTTP2_HEADER_LIST_MAX: u32 = 16 * 1024;
/// Notices an HTTP/2 connection that has died silently, which all of a receiver's requests would otherwise wait on.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(15);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);
const USER_AGENT: &str = concat!("Posthaste/", env!("CARGO_PKG_VERSION"));

/// Sends requests to webhooks' URLs, under guard. Make one per process: connections are kept and shared. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
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
    /// Who answered. For operators' eyes only.
    pub remote_addr: SocketAddr,
}

impl Client {
    /// Builds the client.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let guard = Guard::new(config)?;
        #[expect(clippy::disallowed_methods, reason = "this is the one client")]
        let mut builder = reqwest::Client::builder()
            .dns_resolver(guard.resolver.clone())
            // A redirect, a proxy from the environment or a referer would each go around the guard or tell on us.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .https_only(!config.allow_http)
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http2_max_header_list_size(HTTP2_HEADER_LIST_MAX)
            .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
            .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT);
        if let Some(path) = &config.ca_file {
            builder = builder.tls_certs_merge(super::config::read_authorities(path)?);
        }
        let violations = opentelemetry::global::meter("posthaste")
            .u64_counter("ssrf_invariant_violation")
            .with_description("Responses from an address that is not allowed, past every check. Must stay 0")
            .build();
        violations.add(0, &[]);
        Ok(Self {
            http: builder.build().map_err(ConfigError::Client)?,
            guard,
            violations,
        })
    }

    /// The rules requests are sent under.
    #[must_use]
    pub const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Makes one request and reads the response, up to its caps, under one deadline.
    ///
    /// # Errors
    /// [`Error`] where there is no complete response.
    pub async fn send(&self, request: Request<'_>) -> Result<Response, Error> {
        let Request {
            method,
            target,
            headers,
            body,
            timeout,
        } = request;
        let deadline = Instant::now() + timeout;

        let takes_body = method == Method::POST;
        let mut request = reqwest::Request::new(method, target.url().clone());
        *request.headers_mut() = headers;
        if takes_body && body.is_empty() {
            // hyper leaves it out, and some servers then answer 411; RFC 9110 §8.6 has it sent.
            request
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if takes_body {
            *request.body_mut() = Some(body.into());
        }

        let mut response = timeout_at(deadline, self.http.execute(request))
            .await
            .map_err(|_| Error::timeout(timeout, None))?
            .map_err(|error| Error::of_request(&error))?;
        let remote_addr = self.assert_allowed(target, response.remote_addr())?;

        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let (body, truncated) = timeout_at(deadline, read_body(response))
            .await
            .map_err(|_| Error::timeout(timeout, Some(status)))?
            .map_err(|error| Error::of_body(&error, status))?;
        Ok(Response {
            status,
            headers,
            body,
            truncated,
            remote_addr,
        })
    }

    /// The last net: whatever let the connection through, what came over it is not passed on.
    fn assert_allowed(&self, target: &Target, remote: Option<SocketAddr>) -> Result<SocketAddr, Error> {
        match remote {
            Some(remote) if self.guard.addresses.check(remote.ip()).is_ok() => Ok(remote),
            remote => {
                self.violations.add(1, &[]);
                tracing::error!(
                    target = target.redacted(),
                    ?remote,
                    "a request reached an address that is not allowed"
                );
                Err(Error::refused_address())
            }
        }
    }
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

/// The kept part of the body, and whether it went on. A short body is read to its end, so that the connection can be used
/// again; a long one is dropped with its connection.
async fn read_body(mut response: reqwest::Response) -> Result<(Bytes, bool), reqwest::Error> {
    let mut kept = Vec::new();
    let mut read = 0;
    while read < BODY_READ_MAX
        && let Some(chunk) = response.chunk().await?
    {
        read += chunk.len();
        // Copied, not kept as it came: a chunk holds on to the connection's whole read buffer.
        let room = BODY_KEPT_MAX - kept.len();
        kept.extend_from_slice(&chunk[..room.min(chunk.len())]);
    }
    let truncated = read > kept.len();
    Ok((kept.into(), truncated))
}

#[cfg(test)]
mod tests;
