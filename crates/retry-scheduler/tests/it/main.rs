//! Tests over a real Postgres and a real NATS.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod announce;
mod backlog;
mod health;
mod held;
mod ordered;
mod record;
mod release;
mod replay;
mod rescue;
mod retention;
mod service;
mod support;
