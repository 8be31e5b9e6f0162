//! The end-to-end tests: the real processes over a real nats-server and a real Postgres, private to each test.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod bad_input;
mod commands;
mod conformance;
mod crashes;
mod examples;
mod facades;
mod faults;
mod fairness;
mod house;
mod lanes;
mod main_job;
mod outages;
mod reconciliation;
mod replays;
mod schemas;
mod states;
mod takes_effect;
mod trials;
