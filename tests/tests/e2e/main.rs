//! The end-to-end tests: the real processes over a real nats-server and a real Postgres, private to each test.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod bad_input;
mod clients;
mod commands;
mod conformance;
mod crashes;
mod examples;
mod facades;
mod fairness;
mod house;
mod lanes;
mod main_job;
mod openapi;
mod outages;
mod previews;
mod publication;
mod reconciliation;
mod replays;
mod schemas;
mod states;
mod takes_effect;
mod trials;
