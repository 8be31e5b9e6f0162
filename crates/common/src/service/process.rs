//! A process that is one service, from its first line to its exit code.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{ArgMatches, FromArgMatches as _};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Args, Service, command, start};
use crate::telemetry;

/// Runs a service to its end with what [`command`] has parsed, as the whole of this process.
#[must_use]
pub fn run<S: Service>(matches: &ArgMatches) -> ExitCode {
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")
        .and_then(|runtime| runtime.block_on(process::<S>(matches)));
    match ended {
        Ok(code) => code,
        // Only what fails before there is a log comes here.
        Err(error) => {
            eprintln!("{}: {error:#}", S::NAME);
            ExitCode::FAILURE
        }
    }
}

/// A service's whole program.
#[must_use]
pub fn main<S: Service>() -> ExitCode {
    run::<S>(&command::<S>().get_matches())
}

async fn process<S: Service>(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let args = Args::from_arg_matches(matches)?;
    let config = S::Config::from_arg_matches(matches)?;
    let telemetry = telemetry::init(S::NAME, &telemetry::Config::from_arg_matches(matches)?)?;
    keep_memory_private();
    raise_file_limit();
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone())?;

    let ended = match start::<S>(config, args, stop.clone()).await {
        Ok(running) => running.wait().await,
        Err(_) if stop.is_cancelled() => Ok(()),
        Err(error) => Err(error),
    };
    let code = match ended {
        Ok(()) => {
            tracing::info!(service = S::NAME, "stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(service = S::NAME, error = format!("{error:#}"), "failed");
            ExitCode::FAILURE
        }
    };
    telemetry.flush().await;
    Ok(code)
}

/// Cancels `stop` at the first SIGTERM or SIGINT and ends the process at the second.
///
/// # Errors
/// The signals cannot be listened to.
pub fn stop_on_signals(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
    tokio::spawn(async move {
        let first = tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
        tracing::info!(signal = first, "told to stop; a second signal ends the process at once");
        stop.cancel();
        let second = tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
        tracing::warn!(signal = second, "told again; exiting at once");
        std::process::exit(1);
    });
    Ok(())
}

/// What lies in memory are keys, tokens and events: none of it is written anywhere when the process crashes, and no other
/// process of the same user may look into it.
fn keep_memory_private() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "a crash may leave a core dump, which has keys and tokens in it");
    }
}

/// Each connection is an open file, and the soft limit of 1,024 that many systems have is one for programs that use
/// `select`: takes what the hard limit allows.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    ) {
        tracing::warn!(%error, soft_limit = limit.current, "the limit of open files stays as it is");
    }
}
