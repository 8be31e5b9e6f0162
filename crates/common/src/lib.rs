//! What the services share and what needs no Postgres.
//!
//! In the order an event meets it: [`service`] starts a process, [`http`] serves it, [`bus`] is its only way to NATS,
//! [`definitions`] is what it knows of projects, tokens and webhooks, [`render`], [`sign`] and [`request`]
//! make a request of an event, and [`egress`] is the only way out to a receiver.

pub mod bus;
pub mod catalogue;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod definitions;
pub mod egress;
pub mod failpoint;
pub mod health;
pub mod http;
pub mod ledger;
pub mod model;
pub mod profile;
pub mod render;
pub mod request;
pub mod schema;
pub mod service;
pub mod sign;
pub mod telemetry;
pub mod template;
pub mod token;
