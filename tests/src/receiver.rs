//! A receiver that answers as it was told and remembers what came.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::authority::{Shown, TlsListener};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// When its body had been read.
    pub at: Instant,
    /// Path and query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The certificate that the client has shown, if the receiver has asked for one.
    pub client_certificate: Option<Bytes>,
}

impl Received {
    /// The event's id, by the header `webhook-id`.
    #[must_use]
    pub fn event_id(&self) -> String {
        self.headers
            .get("webhook-id")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    }

    /// The body as JSON, `null` if it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: String,
    /// Wait before answering.
    pub after: Duration,
}

impl Answer {
    /// An answer at once with this status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: String::new(),
            after: Duration::ZERO,
        }
    }
}

type Script = dyn Fn(&Received, usize) -> Answer + Send + Sync;

/// A receiver on a port of its own; gone when it is dropped.
pub struct Receiver {
    /// Its URL.
    pub url: String,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

struct Shared {
    script: Box<Script>,
    received: Mutex<Vec<Received>>,
}

impl Receiver {
    /// Starts a receiver that answers 200.
    pub async fn start() -> Self {
        Self::scripted(|_, _| Answer::status(200)).await
    }

    /// Starts a receiver that answers by `script`, which is given the request and how many came before it.
    ///
    /// # Panics
    /// Where no port can be had.
    #[expect(clippy::expect_used, reason = "no test can go on without its receiver")]
    pub async fn scripted(script: impl Fn(&Received, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("its address"));
        let (shared, app) = Self::app(script);
        let server = tokio::spawn(axum::serve(listener, app).into_future().map(drop));
        Self { url, shared, server }
    }

    /// [`Receiver::start`] that speaks TLS.
    ///
    /// # Panics
    /// Where no port can be had.
    #[expect(clippy::expect_used, reason = "no test can go on without its receiver")]
    pub async fn over_tls(acceptor: TlsAcceptor) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("https://{}/hook", tcp.local_addr().expect("its address"));
        let (shared, app) = Self::app(|_, _| Answer::status(200));
        let app = app.into_make_service_with_connect_info::<Shown>();
        let server = axum::serve(TlsListener { tcp, acceptor }, app);
        let server = tokio::spawn(server.into_future().map(drop));
        Self { url, shared, server }
    }

    fn app(script: impl Fn(&Received, usize) -> Answer + Send + Sync + 'static) -> (Arc<Shared>, axum::Router) {
        let shared = Arc::new(Shared {
            script: Box::new(script),
            received: Mutex::default(),
        });
        let app = axum::Router::new().fallback(receive).with_state(Arc::clone(&shared));
        (shared, app)
    }

    /// Everything that came so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared
            .received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many requests came so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared
            .received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let received = Received {
        at: Instant::now(),
        path: parts.uri.to_string(),
        headers: parts.headers,
        body,
        client_certificate: match parts.extensions.get::<ConnectInfo<Shown>>() {
            Some(ConnectInfo(Shown(certificate))) => certificate.clone(),
            None => None,
        },
    };
    let answer = {
        let mut all = shared.received.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = (shared.script)(&received, all.len());
        all.push(received);
        answer
    };
    if !answer.after.is_zero() {
        tokio::time::sleep(answer.after).await;
    }
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = match answer.body.is_empty() {
        true => status.into_response(),
        false => (status, answer.body).into_response(),
    };
    for (name, value) in answer.headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
