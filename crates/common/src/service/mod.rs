//! The one main: how every service starts, says that it is ready, and stops.
//!
//! ```text
//! bind ── /livez, /readyz, /metrics answered ── build ── router opened, run spawned ── ready, ready file written
//!   SIGTERM or SIGINT: /readyz says 503, ready file removed, drain delay
//!     └ Context::stop: no new connections, requests in progress are answered
//!         └ run's stop: hand back what is not begun, finish and flush the rest ── exit
//!   a second signal: exit at once
//! ```
//!
//! A service is a [`Service`]: `build` acquires what it needs, `router` is what it serves, `run` works until told to
//! stop. It is a program of its own through [`main`], a subcommand of `posthaste` through [`command`] and [`run`], and
//! a part of a larger process through [`start`].

mod config;
mod entrance;
mod process;
mod ready_file;
mod supervise;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::config::Args;
use self::entrance::Entrance;
pub use self::process::{main, run, stop_on_signals};
use self::ready_file::ReadyFile;
use self::supervise::Supervised;
use crate::clock::Clock;
use crate::health::{self, Health};
use crate::http::server;
use crate::telemetry;

/// Every program of ours allocates through this: a delivery makes dozens of small, short-lived pieces.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One service.
pub trait Service: Sized + Send + 'static {
    /// Its name: of its program, its subcommand, its logs and its metrics.
    const NAME: &'static str;
    /// What it does, in a line for `--help`.
    const ABOUT: &'static str;
    /// Where it serves unless told otherwise, as `ip:port`.
    const DEFAULT_LISTEN: &'static str;
    /// What it has to be told.
    type Config: clap::Args + Clone + Debug + Send + 'static;

    /// Acquires everything the service needs. Waits for NATS and Postgres itself, for at most
    /// [`Context::startup_timeout`], and says in [`Context::health`] what it waits for.
    fn build(config: Self::Config, context: Context) -> impl Future<Output = anyhow::Result<Self>> + Send;

    /// What it serves besides `/livez`, `/readyz` and `/metrics`. Whatever no route takes is answered by
    /// [`crate::http::complete`].
    fn router(&self) -> axum::Router;

    /// Works until `stop`, then finishes what it has begun and flushes it. An end before that is a failure of the
    /// process.
    fn run(self, stop: CancellationToken) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// What a service is given by its process.
#[derive(Debug, Clone)]
pub struct Context {
    /// Cancelled once the drain is over: the moment to end long answers and to pull nothing new. Requests in progress
    /// are still answered; `run`'s own token is cancelled after the last of them.
    pub stop: CancellationToken,
    /// Where readiness conditions are kept.
    pub health: Health,
    /// What time it is.
    pub clock: Clock,
    /// How long `build` may wait for NATS and Postgres together.
    pub startup_timeout: Duration,
}

impl Context {
    /// A context outside a process of its own, for tests: the machine's clock, 30 s to start.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            stop,
            health: Health::new(),
            clock: Clock::System,
            startup_timeout: Duration::from_secs(30),
        }
    }
}

/// A service that is ready.
#[derive(Debug)]
pub struct Running {
    /// Where it serves.
    pub addr: SocketAddr,
    /// Its conditions.
    pub health: Health,
    /// Ends when the service has: well, if it was told to.
    pub join: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Waits for the service's end.
    ///
    /// # Errors
    /// What made it end, unless it was told to.
    pub async fn wait(self) -> anyhow::Result<()> {
        self.join.await.context("the supervisor panicked")?
    }
}

/// Starts a service in this process and returns once it is ready. Cancelling `stop` ends it, as SIGTERM ends a process
/// of its own; dropping the returned future before it is done ends it too.
///
/// # Errors
/// The address cannot be bound, `build` fails, or `stop` is cancelled before the service is ready.
pub async fn start<S: Service>(config: S::Config, args: Args, stop: CancellationToken) -> anyhow::Result<Running> {
    telemetry::metrics::install(S::NAME).context("metrics cannot be set up")?;
    let listener = bind(args.listen).await?;
    let addr = listener.local_addr().context("the listener has no address")?;
    let ready_file = ReadyFile::at(args.ready_file.clone()).await?;

    let health = Health::new();
    health.set(health::SERVICE, Err("starting".to_owned()));
    let entrance = Entrance::new(&health);
    let winding_down = CancellationToken::new();
    let (limits, proxies) = (args.limits(), args.proxies());
    let mut supervised = Supervised::new(
        S::NAME,
        health.clone(),
        winding_down.clone(),
        server::serve(listener, entrance.clone(), limits, proxies, winding_down.clone()),
    );

    tracing::info!(service = S::NAME, %addr, "starting");
    let context = Context {
        stop: winding_down,
        health: health.clone(),
        clock: Clock::System,
        startup_timeout: args.startup_timeout,
    };
    let service = tokio::select! {
        built = S::build(config, context) => built.with_context(|| format!("{} cannot start", S::NAME))?,
        () = stop.cancelled() => anyhow::bail!("{} was told to stop before it was ready", S::NAME),
    };
    entrance.open(service.router());
    supervised.run(|stop| service.run(stop));
    let ready_file = ready_file.write(S::NAME, addr).await?;
    health.set(health::SERVICE, Ok(()));
    tracing::info!(service = S::NAME, %addr, "ready");

    let join = tokio::spawn(supervised.until(stop, args.drain_delay, ready_file));
    Ok(Running { addr, health, join })
}

async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen).await.with_context(|| {
        format!(
            "cannot listen on port {} of {}; choose another with --listen (port 0 picks one)",
            listen.port(),
            listen.ip()
        )
    })
}

/// The command line of a service, as a program or as a subcommand.
#[must_use]
pub fn command<S: Service>() -> clap::Command {
    use clap::Args as _;
    let command = clap::Command::new(S::NAME).version(env!("CARGO_PKG_VERSION"));
    // The service's own settings come first: a help heading holds for all that follow it.
    let command = S::Config::augment_args(command);
    let command = Args::augment_args(command).mut_arg("listen", |listen| {
        listen.required(false).default_value(S::DEFAULT_LISTEN)
    });
    // Each of them brings its own line about itself; the last one would stand.
    telemetry::Config::augment_args(command)
        .about(S::ABOUT)
        .long_about(None)
}

#[cfg(test)]
mod tests;
