//! The harness of the end-to-end tests and of the benchmark: real processes of Posthaste over a private nats-server and
//! Postgres, scripted receivers, and a small client.
//!
//! Everything is private to one [`Cluster`] and gone with it. Nothing waits for a fixed time: [`eventually`] looks again
//! until a condition holds or a deadline has passed. When a cluster goes, all that it has written is searched for secrets
//! ([`Canaries`]).

mod api;
mod authority;
mod canaries;
mod cluster;
mod invariants;
mod login;
mod producer;
mod receiver;
mod wait;

pub use api::Api;
pub use authority::{Authority, Certificate};
pub use canaries::Canaries;
pub use cluster::{ADMIN_TOKEN, Cluster, NatsUsers, Role, Setup, program};
pub use invariants::{Done, at_rest};
pub use login::{nats_client, nats_options};
pub use producer::Producer;
pub use receiver::{Answer, Received, Receiver};
pub use wait::{eventually, eventually_within};
