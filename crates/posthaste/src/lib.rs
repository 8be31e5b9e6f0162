//! Posthaste as one program.
//!
//! - [`cli`]: the command line. Every service is a subcommand.
//! - [`dev`]: all four services in one process, over a NATS and a Postgres of its own.
//! - [`local`]: those servers. Tests start theirs with it, too.
//! - [`profiles`]: a look at a profile before a service starts with it.

pub mod cli;
pub mod dev;
pub mod local;
pub mod profiles;
