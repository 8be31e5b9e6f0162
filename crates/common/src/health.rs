//! What a process says of itself: `/livez`, `/readyz`, `/metrics`.
//!
//! *Alive* asks only whether this process still turns over: it never depends on NATS or Postgres, or an outage of
//! either would restart every process. *Ready* is the sum of named conditions, each kept by whoever knows it (the bus
//! keeps `nats`, the store `postgres`, [`crate::service`] keeps [`SERVICE`]); whatever is not met is answered with its
//! reason.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::telemetry;

/// The condition the service itself keeps: not met while it starts and from the moment it is told to stop.
pub const SERVICE: &str = "service";

/// How often the heartbeat is felt.
const BEAT: Duration = Duration::from_secs(1);

/// A runtime that has not got round to a heartbeat for this long is stuck.
const STUCK: Duration = Duration::from_secs(30);

/// The state of one process. Cheap to clone; clones are the same state.
#[derive(Debug, Clone)]
pub struct Health {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Ordered, so that an answer reads the same each time.
    conditions: BTreeMap<&'static str, Result<(), String>>,
    beat: Instant,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// A process with no condition yet: alive and ready.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            conditions: BTreeMap::new(),
            beat: Instant::now(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Says whether the condition `name` is met, or why not. A change is logged.
    pub fn set(&self, name: &'static str, state: Result<(), String>) {
        let before = self.lock().conditions.insert(name, state.clone());
        if before.as_ref() == Some(&state) {
            return;
        }
        match state {
            Ok(()) => tracing::info!(condition = name, "condition met"),
            // A first reason is the way things start; a later one is news.
            Err(reason) if before.is_some() => tracing::warn!(condition = name, reason, "condition not met"),
            Err(reason) => tracing::info!(condition = name, reason, "condition not met yet"),
        }
    }

    /// Whether every condition is met.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.lock().conditions.values().all(Result::is_ok)
    }

    /// Whether the runtime still turns over.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.lock().beat.elapsed() < STUCK
    }

    /// Keeps the heartbeat going for as long as it is polled; never ends by itself.
    pub async fn beat(self) {
        let mut ticks = tokio::time::interval(BEAT);
        loop {
            ticks.tick().await;
            self.lock().beat = Instant::now();
        }
    }

    /// The three routes.
    pub fn router(&self) -> Router {
        let (live, ready) = (self.clone(), self.clone());
        Router::new()
            .route("/livez", get(async move || live.live()))
            .route("/readyz", get(async move || ready.ready()))
            .route("/metrics", get(metrics))
    }

    fn live(&self) -> Response {
        let alive = self.is_alive();
        (status(alive), axum::Json(json!({ "alive": alive }))).into_response()
    }

    fn ready(&self) -> Response {
        let state = self.lock();
        let ready = state.conditions.values().all(Result::is_ok);
        let conditions: serde_json::Map<String, Value> = state
            .conditions
            .iter()
            .map(|(name, state)| {
                let said = match state {
                    Ok(()) => json!({ "met": true }),
                    Err(reason) => json!({ "met": false, "reason": reason }),
                };
                ((*name).to_owned(), said)
            })
            .collect();
        (
            status(ready),
            axum::Json(json!({ "ready": ready, "conditions": conditions })),
        )
            .into_response()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and every write leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn status(good: bool) -> StatusCode {
    if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn metrics() -> Response {
    match telemetry::metrics::text() {
        Ok(text) => ([(header::CONTENT_TYPE, telemetry::metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written as text");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(health: &Health, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = health.router().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_each_condition_and_its_reason() {
        let health = Health::new();
        assert!(health.is_ready());
        health.set("nats", Ok(()));
        health.set("definitions", Err("reading the CONFIG bucket".to_owned()));
        assert!(!health.is_ready());
        let (status, body) = ask(&health, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let expected = json!({
            "ready": false,
            "conditions": {
                "definitions": { "met": false, "reason": "reading the CONFIG bucket" },
                "nats": { "met": true },
            },
        });
        assert_eq!(body, expected);

        health.set("definitions", Ok(()));
        assert!(health.is_ready());
        assert_eq!(ask(&health, "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn liveness_depends_on_the_heartbeat_alone() {
        let health = Health::new();
        health.set("nats", Err("no connection".to_owned()));
        let beating = tokio::spawn(health.clone().beat());
        tokio::time::sleep(STUCK * 2).await;
        assert_eq!(ask(&health, "/livez").await, (StatusCode::OK, json!({ "alive": true })));

        beating.abort();
        tokio::time::sleep(STUCK + BEAT).await;
        assert_eq!(
            ask(&health, "/livez").await,
            (StatusCode::SERVICE_UNAVAILABLE, json!({ "alive": false }))
        );
    }
}
