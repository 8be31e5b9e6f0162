//! The stage over a real NATS.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod definitions;
mod fan_out;
mod support;
