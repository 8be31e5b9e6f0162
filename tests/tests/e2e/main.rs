//! The end-to-end tests: the real processes over a real nats-server and a real Postgres, private to each test.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod bad_input;
mod commands;
mod crashes;
mod examples;
mod house;
mod main_job;
mod outages;
mod reconciliation;
mod takes_effect;
