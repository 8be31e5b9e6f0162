//! The HTTP server: HTTP/1.1, and HTTP/2 for clients that begin with it.
//!
//! `axum::serve` lets a client take as long as it likes over a head and knows no end to connections, so this accepts
//! for itself. Each request gets an id, each panic becomes a 500 that says only that id, and each answer is counted.
//!
//! When told to stop it accepts no more, tells its clients so, answers the requests in progress and returns.

use std::convert::Infallible;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::Method;
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulConnection;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;
use rustix::net::sockopt::set_socket_send_buffer_size;
#[cfg(target_os = "linux")]
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use self::addresses::Addresses;
use self::answer::Answer;
pub use self::proxies::Proxies;
use super::body::Room;
use super::patience::{Activity, Patient};
use super::problem::{self, Code, Problem};
use super::rate_limit::Peer;
use super::request_id::{self, RequestIds};
use crate::telemetry::{metrics, trace};

/// Connections at once unless told otherwise: each is a file descriptor and a few kilobytes.
pub const MAX_CONNECTIONS: usize = 10_000;

/// Connections at once of one client unless told otherwise. It takes ten to leave nothing to others, and a proxy has
/// enough of them.
pub const MAX_CONNECTIONS_PER_ADDRESS: usize = 1_000;

/// Bytes that the bodies of all requests may take together unless told otherwise: thirty of the largest.
pub const MAX_BODY_MEMORY: usize = 256 * 1024 * 1024;

/// Room for the head of a request; a longer one is refused.
const MAX_HEAD: u32 = 64 * 1024;

/// Lines in the head of a request; one with more is refused. Browsers send twenty, proxies add a few.
const MAX_HEADERS: usize = 64;

/// Requests in progress on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;

/// Streams an HTTP/2 client may open and reset before it is taken to be attacking (RUSTSEC-2024-0003).
const MAX_RESETS: usize = 20;

/// Bytes of bodies that an HTTP/2 client may send before they are asked for; until then nobody counts them.
const MAX_UNASKED: u32 = 256 * 1024;

/// What the system may hold of answers on their way to one client. Left to itself it holds megabytes, and what it holds
/// cannot be told from what was read.
const SEND_BUFFER: usize = 256 * 1024;

/// After a failure to accept, which is usually a want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(250);

/// What a server puts up with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// Connections at once from one address, or from one IPv6 network of 64 bits; further ones are closed.
    pub max_connections_per_address: usize,
    /// Bytes that bodies may take together; a request whose body finds no room is answered 503.
    pub max_body_memory: usize,
    /// The longest the head of a request may take.
    pub head: Duration,
    /// The longest a connection may be without a request; under HTTP/2 it may become twice that. Longer than the minute
    /// load balancers keep theirs.
    pub idle: Duration,
    /// The longest a client may leave a piece of what it asked for unread, or twice that at most.
    pub unread: Duration,
    /// How often an HTTP/2 client is asked whether it is still there.
    pub ping: Duration,
    /// How long it may take to say so.
    pub pong: Duration,
    /// The longest the requests in progress may take once their connection is to end.
    pub finish: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: MAX_CONNECTIONS,
            max_connections_per_address: MAX_CONNECTIONS_PER_ADDRESS,
            max_body_memory: MAX_BODY_MEMORY,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            unread: Duration::from_secs(30),
            ping: Duration::from_secs(20),
            pong: Duration::from_secs(10),
            finish: Duration::from_secs(10),
        }
    }
}

/// Serves `app` until `stop`, then finishes what is in progress. `proxies` are believed where requests come from.
pub async fn serve<A>(listener: TcpListener, app: A, limits: Limits, proxies: Proxies, stop: CancellationToken)
where
    A: tower::Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    A::Future: Send,
{
    let front = Arc::new(Front {
        app,
        proxies,
        room: Room::new(limits.max_body_memory),
        ids: RequestIds::new(&mut rand::rng()),
        seconds: duration_histogram(),
    });
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let addresses = Addresses::new(limits.max_connections_per_address);
    let connections = TaskTracker::new();
    // Whoever drops this future stops the server as well, and at once.
    let (stop, cut) = (stop.child_token(), CancellationToken::new());
    let _stopped_at_the_latest = stop.clone().drop_guard();
    let _cut_at_the_latest = cut.clone().drop_guard();
    let builder = builder(&limits);

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
        let Some(place) = addresses.enter(peer) else {
            tracing::debug!(address = %peer.0, "a connection more than its address may have was closed");
            continue;
        };
        let activity = Arc::new(Activity::default());
        let stream = Patient::new(stream, Arc::clone(&activity), limits.head, limits.idle);
        let (front, of_requests) = (Arc::clone(&front), Arc::clone(&activity));
        let service = service_fn(move |request| Arc::clone(&front).answer(request, peer, Arc::clone(&of_requests)));
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let (limits, stop, cut) = (limits.clone(), stop.clone(), cut.clone());
        connections.spawn(async move {
            let _places = (slot, place);
            if let Err(error) = attend(connection, &activity, &limits, &stop, &cut).await {
                // Clients come and go as they like: of interest only to those who look for it.
                tracing::debug!(error, "connection ended");
            }
        });
    }

    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.finish, connections.wait()).await.is_err() {
        tracing::warn!(after = ?limits.finish, "requests in progress were cut off");
    }
}

/// Serves a connection to its end. That comes when the client ends it, when the server is told to stop, and when the client
/// makes no use of it or does not take what it asked for; then it is told so, and what is in progress may be finished.
async fn attend<C: GracefulConnection>(
    connection: C,
    activity: &Activity,
    limits: &Limits,
    stop: &CancellationToken,
    cut: &CancellationToken,
) -> Result<(), C::Error> {
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => {}
        () = activity.unused(limits.idle) => {}
        () = activity.stalled(limits.unread) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => ended,
        () = cut.cancelled() => Ok(()),
        // A server that stops looks after that for all.
        () = tokio::time::sleep(limits.finish), if !stop.is_cancelled() => Ok(()),
    }
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // The stream keeps the time over heads and idleness itself.
    builder
        .http1()
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD as usize)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.pong)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .initial_connection_window_size(MAX_UNASKED)
        .initial_stream_window_size(MAX_UNASKED)
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
                // The system heeds these where it can; where it cannot, it does not.
                let _ = set_socket_send_buffer_size(&stream, SEND_BUFFER);
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
    proxies: Proxies,
    room: Arc<Room>,
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
        let client = self.proxies.client(peer, request.headers());
        request.extensions_mut().insert(id.clone());
        request.extensions_mut().insert(client);
        // Kept until there is an answer: what was made of the body takes as much memory as the body did.
        let share = (!request.body().is_end_stream()).then(|| self.room.share());
        if let Some(share) = &share {
            request.extensions_mut().insert(share.clone());
        }
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
        drop(share);
        Ok(response.map(|body| Answer::new(body, activity, open)))
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

mod addresses;
mod answer;
mod proxies;
mod unread;

#[cfg(test)]
mod tests;
