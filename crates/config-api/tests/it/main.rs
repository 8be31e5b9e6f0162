//! Tests over a real Postgres and a real NATS.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod access;
mod definitions;
mod event_types;
mod forgetting;
mod limits;
mod manners;
mod many;
mod previews;
mod record;
mod refused_names;
mod repetitions;
mod replays;
mod secrets;
mod sessions;
mod stalls;
mod streams;
mod support;
mod templates;
mod tenancy;
mod trials;
mod variables;
