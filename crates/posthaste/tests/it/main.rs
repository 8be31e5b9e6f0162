//! Tests over real servers and real processes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod dev;
mod local;
mod memory;
mod support;
