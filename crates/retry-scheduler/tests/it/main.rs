//! Tests over a real Postgres and a real NATS.

mod record;
mod release;
mod rescue;
mod service;
mod support;
mod bench;
