//! The HTTP server: HTTP/1.1, and HTTP/2 for clients that begin with it.
//!
//! `axum::serve` lets a client take as long as it likes over a head and knows no end to connections, so this accepts
//! for itself. Each request gets an id, each panic becomes a 500 that says only that id, and each answer is counted.
//!
//! When told to stop it accepts no more, tells its clients so, answers the requests in progress and returns.

use std::convert::Infallible;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::Method;
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;
#[cfg(target_os = "linux")]
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::patience::{Activity, Answer, Patient};
use super::problem::{self, Code, Problem};
use super::rate_limit::Peer;
use super::request_id::{self, RequestIds};
use crate::telemetry::{metrics, trace};

/// Connections at once unless told otherwise: each is a file descriptor and a few kilobytes.
pub const MAX_CONNECTIONS: usize = 10_000;

/// Room for the head of a request; a longer one is refused.
const MAX_HEAD: u32 = 64 * 1024;

/// Requests in progress on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;

/// Streams an HTTP/2 client may open and reset before it is taken to be attacking (RUSTSEC-2024-0003).
const MAX_RESETS: usize = 20;

/// How often an HTTP/2 client is asked whether it is still there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// After a failure to accept, which is usually a want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(250);

/// What a server puts up with.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// The longest the head of a request may take.
    pub head: Duration,
    /// The longest a connection may be without a request. Longer than the minute load balancers keep theirs.
    pub idle: Duration,
    /// The longest a client may leave what it asked for unread.
    pub unread: Duration,
    /// The longest the requests in progress may take once the server is told to stop.
    pub finish: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: MAX_CONNECTIONS,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            unread: Duration::from_secs(30),
            finish: Duration::from_secs(10),
        }
    }
}

/// Serves `app` until `stop`, then finishes what is in progress.
pub async fn serve<A>(listener: TcpListener, app: A, limits: Limits, stop: CancellationToken)
where
    A: tower::Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    A::Future: Send,
{
    let front = Arc::new(Front {
        app,
        ids: RequestIds::new(&mut rand::rng()),
        seconds: duration_histogram(),
    });
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let connections = GracefulShutdown::new();
    let cut = CancellationToken::new();
    let _cut_at_the_latest = cut.clone().drop_guard();
    let builder = builder();

    loop {
        let accepting = async {
            (
                Arc::clone(&slots).acquire_owned().await,
                accept(&listener, limits.unread).await,
            )
        };
        let (slot, (stream, peer)) = tokio::select! {
            (slot, accepted) = accepting => (slot, accepted),
            () = stop.cancelled() => break,
        };
        let activity = Arc::new(Activity::default());
        let stream = Patient::new(stream, Arc::clone(&activity), limits.head, limits.idle);
        let front = Arc::clone(&front);
        let service = service_fn(move |request| Arc::clone(&front).answer(request, peer, Arc::clone(&activity)));
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = connections.watch(connection);
        let cut = cut.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let ended = tokio::select! { ended = connection => ended, () = cut.cancelled() => Ok(()) };
            if let Err(error) = ended {
                // Clients come and go as they like: of interest only to those who look for it.
                tracing::debug!(error, "connection ended");
            }
        });
    }

    drop(listener);
    if tokio::time::timeout(limits.finish, connections.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(after = ?limits.finish, "requests in progress were cut off");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // The stream keeps the time over heads and idleness itself.
    builder
        .http1()
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_header_list_size(MAX_HEAD);
    builder
}

/// The next connection. Its failures are the client's, or pass.
async fn accept(listener: &TcpListener, unread: Duration) -> (TcpStream, Peer) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // An answer is one write; waiting for more to send with it only delays it.
                let _ = stream.set_nodelay(true);
                // The system watches this where it can; where it cannot, it does not.
                #[cfg(target_os = "linux")]
                let _ = set_tcp_user_timeout(&stream, u32::try_from(unread.as_millis()).unwrap_or(u32::MAX));
                return (stream, Peer(address.ip().to_canonical()));
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted at the moment");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// What every request passes on its way to the routes and back.
#[derive(Debug)]
struct Front<A> {
    app: A,
    ids: RequestIds,
    seconds: Histogram<f64>,
}

impl<A> Front<A>
where
    A: tower::Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    A::Future: Send,
{
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Peer,
        activity: Arc<Activity>,
    ) -> Result<Response<Answer>, Infallible> {
        let open = activity.request();
        let begun = Instant::now();
        let (mut request, unread) = unread::watch(request);
        let id = self.ids.of(request.headers());
        request.extensions_mut().insert(id.clone());
        request.extensions_mut().insert(peer);
        let method = name(request.method());
        let uri = request.uri().clone();

        let span = trace::request(&request, method);
        let mut app = self.app.clone();
        let handled = AssertUnwindSafe(async move { app.call(request).await })
            .catch_unwind()
            .instrument(span.clone());
        let response = match handled.await {
            Ok(Ok(response)) => response,
            // The panic itself is in the log already; this says which request it was.
            Err(_) => Problem::new(Code::Internal, "a handler panicked").into_response(),
        };

        let mut response = problem::answered(response, id.as_str(), method, uri.path());
        response.headers_mut().insert(request_id::HEADER, id.header());
        unread.announce(&mut response);
        let status = response.status().as_u16();
        span.record("http.response.status_code", status);
        self.seconds.record(
            begun.elapsed().as_secs_f64(),
            &[
                KeyValue::new("http.request.method", method),
                KeyValue::new("http.response.status_code", i64::from(status)),
            ],
        );
        Ok(response.map(|body| Answer { body, _open: open }))
    }
}

fn duration_histogram() -> Histogram<f64> {
    opentelemetry::global::meter("http")
        .f64_histogram("http.server.request.duration")
        .with_unit("s")
        .with_description("From the head of a request to the head of its answer.")
        .with_boundaries(metrics::SECONDS.to_vec())
        .build()
}

/// A method's name, with those nobody knows under one: clients must not be able to make new metrics.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

mod unread;

#[cfg(test)]
mod tests;
