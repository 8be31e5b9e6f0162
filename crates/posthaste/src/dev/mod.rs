//! `posthaste dev`: the whole platform in one process, to try it and to develop against it.
//!
//! ```text
//! state (a folder, locked, or a temporary one) ── NATS and Postgres (private, or those named) ── the four services
//!   ── ready file, summary ── SIGTERM, SIGINT or a failure: ready file gone, services drain, servers stop, folder gone
//! ```
//!
//! What is started is also taken down where start-up is interrupted, and where this process is killed: see
//! [`crate::local`].

mod config;
mod ready;
mod servers;
mod services;
mod state;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgMatches, Args as _, Command, FromArgMatches as _};
use common::{service, telemetry};
use tokio_util::sync::CancellationToken;

pub use self::config::Args;
use self::ready::{Addresses, ReadyFile};
use self::servers::Servers;
use self::services::Services;
use self::state::State;

/// The subcommand's name.
pub const NAME: &str = "dev";

/// How often the private servers are looked after.
const GLANCE: Duration = Duration::from_millis(500);

/// What is logged by default: what a developer has to know. The summary says about receivers what `egress` would warn of.
const LOG: &str = "warn,posthaste=info,common::egress::config=error";

/// The subcommand.
#[must_use]
pub fn command() -> Command {
    Args::augment_args(Command::new(NAME))
        .about("Runs all four services in one process, over a NATS and a Postgres of its own")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(
            "The services take their other settings from the environment variables that their own --help names.\n\
             For development only: webhooks may go to http:// addresses and to this machine itself.",
        )
        .mut_arg("log", |log| log.default_value(LOG))
}

/// Runs until it is told to stop, or something it runs fails.
#[must_use]
pub fn run(matches: &ArgMatches) -> ExitCode {
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")
        .and_then(|runtime| runtime.block_on(process(matches)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("posthaste dev: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn process(matches: &ArgMatches) -> anyhow::Result<()> {
    let args = Args::from_arg_matches(matches)?;
    let telemetry = telemetry::init("posthaste", &args.telemetry)?;
    let stop = CancellationToken::new();
    service::stop_on_signals(stop.clone())?;
    let ended = stages(&args, &stop).await;
    telemetry.flush().await;
    ended
}

async fn stages(args: &Args, stop: &CancellationToken) -> anyhow::Result<()> {
    let ready_file = ReadyFile::at(args.ready_file.as_deref())?;
    warn_of_listening_to_others(args);
    let state = State::open(args.state_dir.as_deref())?;
    let secrets = state.secrets(args)?;
    let Some(mut servers) = unless(stop, Servers::start(args, &state, &secrets.nats_password)).await? else {
        return Ok(());
    };
    let running = match unless(stop, Services::start(args, &servers, &secrets)).await {
        Ok(Some(services)) => work(services, &mut servers, &state, secrets, ready_file, stop).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    let stopped = servers.stop().await;
    running.and(stopped)
}

/// Whoever reaches the API with a token can have requests sent to this machine, to what listens to nobody else.
fn warn_of_listening_to_others(args: &Args) {
    for (flag, address) in [
        ("--api-listen", args.api_listen),
        ("--ingest-listen", args.ingest_listen),
    ] {
        if !address.ip().to_canonical().is_loopback() {
            tracing::warn!(
                %address,
                "{flag}: DEVELOPMENT MODE LISTENS BEYOND THIS MACHINE: who gets hold of a token there reaches whatever listens \
                 on this machine; this is no way to run Posthaste for others"
            );
        }
    }
}

async fn work(
    mut services: Services,
    servers: &mut Servers,
    state: &State,
    secrets: state::Secrets,
    ready_file: ReadyFile,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let addresses = Addresses::new(&services, servers, secrets);
    let written = ready_file.write(&addresses)?;
    addresses.tell(servers, state);
    let failed = tokio::select! {
        () = stop.cancelled() => None,
        error = services.failed() => Some(error),
        error = failed(servers) => Some(error),
    };
    drop(written);
    let stopped = services.stop().await;
    failed.map_or(stopped, Err)
}

async fn failed(servers: &mut Servers) -> anyhow::Error {
    loop {
        if let Err(error) = servers.check() {
            return error;
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// What `starting` comes to; `None` if told to stop before.
async fn unless<T>(
    stop: &CancellationToken,
    starting: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    stop.run_until_cancelled(starting).await.transpose()
}
