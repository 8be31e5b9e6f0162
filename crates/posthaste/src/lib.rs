//! Posthaste as one program.
//!
//! - [`cli`]: the command line. Every service is a subcommand.
//! - [`dev`]: all four services in one process, over a NATS and a Postgres of its own.
//! - [`local`]: those servers. Tests start theirs with it, too.

pub mod cli;
pub mod dev;
pub mod local;
