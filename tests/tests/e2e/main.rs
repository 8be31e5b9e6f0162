//! The end-to-end tests: the real processes over a real nats-server and a real Postgres, private to each test.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod authorization;
mod bad_input;
mod bad_receivers;
mod canaries;
mod clients;
mod clocks;
mod commands;
mod conformance;
mod console;
mod crashes;
mod documents;
mod examples;
mod facades;
mod fairness;
mod faults;
mod hostile_producers;
mod house;
mod lanes;
mod logs;
mod lost_buckets;
mod main_job;
mod nats_permissions;
mod openapi;
mod operational;
mod ordering;
mod outages;
mod pausing;
mod previews;
mod publication;
mod receiver_auth;
mod reconciliation;
mod repeats;
mod replays;
mod schemas;
mod signatures;
mod starting;
mod states;
mod takes_effect;
mod tls;
mod trials;
mod way_out;
