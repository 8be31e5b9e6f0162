//! The way in while a service starts and afterwards.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use tower::Service;

use crate::health::Health;
use crate::http::{self, Code, Problem};

/// Serves health at once, and the service's own routes once there is a service.
#[derive(Debug, Clone)]
pub(super) struct Entrance {
    health: Router,
    starting: Router,
    open: Arc<OnceLock<Router>>,
}

impl Entrance {
    pub(super) fn new(health: &Health) -> Self {
        let health = health.router();
        let starting = health
            .clone()
            .fallback(async || Problem::new(Code::Starting, "the service is starting"));
        // `with_state` builds the routes once instead of at each request.
        Self {
            health,
            starting: starting.with_state(()),
            open: Arc::default(),
        }
    }

    /// From now on `router` is served, too.
    pub(super) fn open(&self, router: Router) {
        let router = http::complete(router.merge(self.health.clone())).with_state(());
        // It is opened once, by the one who built the service.
        let _ = self.open.set(router);
    }
}

impl Service<Request<Body>> for Entrance {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.open.get().unwrap_or(&self.starting).clone().call(request)
    }
}
