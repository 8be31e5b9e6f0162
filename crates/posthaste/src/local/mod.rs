//! A private nats-server and a private Postgres on this machine: for `posthaste dev`, and for tests.
//!
//! ```text
//! let folder = Folder::temporary()?;
//! let mut nats = Nats::start(&folder.path().join("nats"), &nats::Options::default()).await?;
//! let mut postgres = Postgres::start(&folder.path().join("postgres"), &postgres::Options::default()).await?;
//! // nats.url(), postgres.url(); .kill(), .stop(), .restart() at will
//! ```
//!
//! What holds:
//! - Nothing outlives the process that started it, however that ends. A server gets a signal from the kernel when its
//!   launcher is gone ([`process`]); a temporary [`Folder`] has a keeper that removes it.
//! - Ports are free ones of 127.0.0.1, and nothing is found free first and hoped to stay so: a server that cannot bind
//!   its port is started again on another ([`port`]). Once started, a server keeps its port and folder over
//!   [`Nats::restart`] and [`Postgres::restart`].
//! - Nothing is installed here. A missing or too old server is an [`Error`] that names the fix.
//! - Postgres refuses to run as root; started by root it runs as an unprivileged account ([`account`]).
//!
//! Linux only: `setpriv` of util-linux sets the parent-death signal.

mod account;
pub mod config;
mod error;
mod folder;
pub mod nats;
mod port;
pub mod postgres;
mod process;

pub use error::Error;
pub use folder::Folder;
pub use nats::Nats;
pub use postgres::Postgres;
