//! From a URL to a connection: the name's addresses, vetted; TCP; TLS. Each part has its time taken and its own words for
//! what can go wrong.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use proto_schemas::ledger::{ErrorClass, Timings, TlsFault};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address_policy::AddressPolicy;
use super::error::Error;
use super::proxy::{self, Proxy};
use super::resolver::{self, Resolver};

/// How many connections may be open, over all hosts, that are kept for later requests. Many hosts with a few idle ones each
/// would come to the end of what the system lets a process open, and then nobody is reached any more.
const KEPT_MAX: usize = 2048;
/// Name look-up, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) resolver: Resolver,
    pub(super) addresses: Arc<AddressPolicy>,
    pub(super) tls: TlsConnector,
    pub(super) https_only: bool,
    pub(super) proxy: Option<Arc<Proxy>>,
    pub(super) refusals: Counter<u64>,
    pub(super) open: Arc<Open>,
}

/// The connections that are open.
pub(super) struct Open {
    count: AtomicUsize,
    kept_max: usize,
}

impl Default for Open {
    fn default() -> Self {
        Self::keeping(KEPT_MAX)
    }
}

impl Open {
    /// Counts them, and keeps none for later requests that is opened beside as many others.
    pub(super) fn keeping(kept_max: usize) -> Self {
        Self {
            count: AtomicUsize::new(0),
            kept_max,
        }
    }
}

/// One of the open connections, while it is held.
struct Counted {
    open: Arc<Open>,
    is_kept: bool,
}

impl Counted {
    fn one_more(open: &Arc<Open>) -> Self {
        Self {
            is_kept: open.count.fetch_add(1, Ordering::Relaxed) < open.kept_max,
            open: Arc::clone(open),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is known of a connection, for every response that comes over it.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// The other end; `None` where it is known to the operator's proxy alone.
    pub(super) address: Option<SocketAddr>,
    begun: Instant,
    timings: Timings,
    used: Arc<AtomicBool>,
    fault: Arc<OnceLock<Error>>,
}

impl Peer {
    /// What ended its TLS session, if anything did: in TLS 1.3 the other side looks at our certificate when for us the
    /// handshake is over, and HTTP/2 tells of what then comes no more than the text.
    pub(super) fn fault(&self) -> Option<Error> {
        self.fault.get().cloned()
    }

    /// How long the connection took, for the request it was made for: the first one over it, if it began before the
    /// connection did.
    pub(super) fn timings_for(&self, begun: Instant) -> Timings {
        match !self.used.swap(true, Ordering::Relaxed) && self.begun >= begun {
            true => self.timings,
            false => Timings::default(),
        }
    }
}

/// Why there is no connection, and how far it got.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub(super) struct Failed {
    pub(super) error: Error,
    pub(super) timings: Timings,
    pub(super) peer: Option<SocketAddr>,
}

impl Connector {
    /// One like it that makes its TLS sessions otherwise.
    pub(super) fn with_tls(&self, tls: TlsConnector) -> Self {
        Self { tls, ..self.clone() }
    }

    async fn connect(self, uri: Uri) -> Result<Stream, Failed> {
        let mut at = Progress::begin();
        match self.make(&uri, &mut at).await {
            Ok(stream) => Ok(stream),
            Err(error) => Err(Failed {
                error,
                timings: at.timings,
                peer: at.peer,
            }),
        }
    }

    async fn make(&self, uri: &Uri, at: &mut Progress) -> Result<Stream, Error> {
        let is_https = uri.scheme() == Some(&Scheme::HTTPS);
        if self.https_only && !is_https {
            return Err(Error::new(ErrorClass::RefusedAddress, "only https is allowed"));
        }
        // In brackets where it is an IPv6 address.
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let socket = match &self.proxy {
            None => {
                let addresses = self.addresses_of(host, at).await?;
                let socket = dial(&addresses, port, at).await?;
                at.peer = Some(socket.peer_addr().map_err(|error| Error::of_dial(&error))?);
                socket
            }
            Some(proxy) => self.tunnel(proxy, uri.host().unwrap_or_default(), port, at).await?,
        };
        at.took(|timings| &mut timings.connect);
        let counted = Counted::one_more(&self.open);
        let _ = socket.set_nodelay(true);
        if !is_https {
            return Ok(Stream::new(Io::Plain(TokioIo::new(socket)), false, at, counted));
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Error::tls(TlsFault::WrongName, "the host has no name a certificate could be for"))?;
        let session = timeout_at(at.deadline, self.tls.connect(name, socket)).await;
        at.took(|timings| &mut timings.tls);
        let session = session
            .map_err(|_| Error::tls(TlsFault::Timeout, "the TLS handshake took too long"))?
            .map_err(|error| Error::of_handshake(&error))?;
        let is_h2 = session.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Stream::new(
            Io::Tls(Box::new(TokioIo::new(session))),
            is_h2,
            at,
            counted,
        ))
    }

    /// A connection by way of the operator's proxy. Where a name leads is for the proxy to say.
    async fn tunnel(&self, proxy: &Proxy, host: &str, port: u16, at: &Progress) -> Result<TcpStream, Error> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            self.addresses.check(address).map_err(|_| Error::refused_address())?;
        }
        match timeout_at(at.deadline, proxy.tunnel(host, port)).await {
            Ok(Ok(socket)) => Ok(socket),
            Ok(Err(proxy::Failed::Refused)) => {
                self.refusals.add(1, &[KeyValue::new("rule", "proxy")]);
                Err(Error::refused_address())
            }
            Ok(Err(proxy::Failed::Other(error))) => Err(error),
            Err(_) => Err(Error::new(ErrorClass::Connect, "no connection in time")),
        }
    }

    /// The addresses that may be dialled: all of the host's, or an error.
    async fn addresses_of(&self, host: &str, at: &mut Progress) -> Result<Vec<IpAddr>, Error> {
        // A literal address was vetted when the target was made; here nothing has to be believed.
        if let Ok(address) = host.parse::<IpAddr>() {
            return match self.addresses.check(address) {
                Ok(()) => Ok(vec![address]),
                Err(_) => Err(Error::refused_address()),
            };
        }
        let resolved = timeout_at(at.deadline, self.resolver.resolve(host)).await;
        at.took(|timings| &mut timings.dns);
        resolved
            .unwrap_or(Err(resolver::Error::TimedOut))
            .map_err(|error| Error::of_name(&error))
    }
}

/// Dials one address after the other; each gets its share of the time that is left.
async fn dial(addresses: &[IpAddr], port: u16, at: &Progress) -> Result<TcpStream, Error> {
    let mut failure = Error::new(ErrorClass::Connect, "no connection");
    for (number, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = u32::try_from(addresses.len() - number).unwrap_or(u32::MAX);
        let share = at.deadline.saturating_duration_since(now) / left;
        match timeout_at(now + share, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => failure = Error::of_dial(&error),
            Err(_) => failure = Error::new(ErrorClass::Connect, "no connection in time"),
        }
    }
    Err(failure)
}

/// How far a connection has got.
struct Progress {
    begun: Instant,
    deadline: Instant,
    last: Instant,
    timings: Timings,
    peer: Option<SocketAddr>,
}

impl Progress {
    fn begin() -> Self {
        let begun = Instant::now();
        Self {
            begun,
            deadline: begun + CONNECT_TIMEOUT,
            last: begun,
            timings: Timings::default(),
            peer: None,
        }
    }

    /// A part is over, well or not.
    fn took(&mut self, part: impl FnOnce(&mut Timings) -> &mut Option<Duration>) {
        let now = Instant::now();
        *part(&mut self.timings) = Some(now - self.last);
        self.last = now;
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Failed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connection.
pub(super) struct Stream {
    io: Io,
    is_h2: bool,
    peer: Peer,
    counted: Counted,
}

enum Io {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Stream {
    fn new(io: Io, is_h2: bool, at: &Progress, counted: Counted) -> Self {
        let peer = Peer {
            address: at.peer,
            begun: at.begun,
            timings: at.timings,
            used: Arc::default(),
            fault: Arc::default(),
        };
        Self {
            io,
            is_h2,
            peer,
            counted,
        }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(self.peer.clone());
        if !self.counted.is_kept {
            connected.poison();
        }
        match self.is_h2 {
            true => connected.negotiated_h2(),
            false => connected,
        }
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buffer),
        };
        if let Poll::Ready(Err(error)) = &read
            && let Some(fault) = Error::of_session(error)
        {
            let _ = self.peer.fault.set(fault);
        }
        read
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, buffer),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buffer),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(cx, buffers),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, buffers),
        }
    }
}

#[cfg(test)]
mod tests;
