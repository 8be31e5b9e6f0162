//! A receiver that costs as little as can be: it answers 200 and notes when each event came.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The sink.
pub(crate) struct Sink {
    address: String,
    state: Arc<State>,
}

struct State {
    began: Instant,
    /// Nanoseconds since `began` at which event n came to a quick webhook; 0 for not yet.
    arrivals: Vec<AtomicU64>,
    delivered: AtomicU64,
    refused: AtomicU64,
}

/// Events that can be told apart in one run.
const EVENTS: usize = 20_000_000;

impl Sink {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let mut arrivals = Vec::new();
        arrivals.resize_with(EVENTS, AtomicU64::default);
        let state = Arc::new(State {
            began: Instant::now(),
            arrivals,
            delivered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self { address, state })
    }

    /// The URL that is answered like `kind`: quick and other at once, slow after 5 s, dead with 500.
    pub(crate) fn url(&self, kind: &str) -> String {
        format!("http://{}/{kind}", self.address)
    }

    /// Nanoseconds on the sink's clock.
    pub(crate) fn now(&self) -> u64 {
        self.state.now()
    }

    /// Requests to the dead receiver so far.
    pub(crate) fn refused(&self) -> u64 {
        self.state.refused.load(Ordering::Relaxed)
    }

    /// Requests answered so far, slow ones left out.
    pub(crate) fn delivered(&self) -> u64 {
        self.state.delivered.load(Ordering::Relaxed)
    }

    /// When event `n` came, in nanoseconds on the sink's clock.
    pub(crate) fn arrival(&self, n: u64) -> Option<u64> {
        let at = self
            .state
            .arrivals
            .get(usize::try_from(n).ok()?)?
            .load(Ordering::Relaxed);
        (at > 0).then_some(at)
    }
}

impl State {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
        let n = request
            .headers()
            .get("webhook-id")
            .and_then(|id| id.to_str().ok()?.strip_prefix('e')?.parse::<usize>().ok());
        let (slow, dead) = (request.uri().path() == "/slow", request.uri().path() == "/dead");
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        if dead {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let mut failed = Response::new(Empty::new());
            *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(failed);
        }
        match slow {
            true => tokio::time::sleep(Duration::from_secs(5)).await,
            false => {
                if let Some(arrival) = n.and_then(|n| self.arrivals.get(n)) {
                    arrival.store(self.now(), Ordering::Relaxed);
                }
                self.delivered.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(Response::new(Empty::new()))
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| state.answer(request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
