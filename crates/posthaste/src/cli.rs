//! The command line of `posthaste`.

use std::process::ExitCode;

use clap::Command;
use common::service::{self, Service as _};
use config_api::ConfigApi;
use dispatcher::Dispatcher;
use ingest::Ingest;
use retry_scheduler::RetryScheduler;

use crate::{dev, profiles};

const EXAMPLES: &str = "\
To try it out:
  posthaste dev                            everything at once, gone when it ends
  posthaste dev --state-dir ~/posthaste    the same, but it keeps its data

In production every service is a process of its own, and each may run many times:
  posthaste config-api | ingest | dispatcher | retry-scheduler

Each setting is a flag and an environment variable; `posthaste <COMMAND> --help` has them all.";

/// The whole command line.
#[must_use]
pub fn command() -> Command {
    Command::new("posthaste")
        .about("Takes events from NATS and HTTP, and delivers each to every webhook that subscribes to it")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(EXAMPLES)
        .arg_required_else_help(true)
        .subcommand_required(true)
        .subcommand(dev::command())
        .subcommand(service::command::<Ingest>())
        .subcommand(service::command::<Dispatcher>())
        .subcommand(service::command::<RetryScheduler>())
        .subcommand(service::command::<ConfigApi>())
        .subcommand(profiles::command())
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    match command().get_matches().subcommand() {
        Some((dev::NAME, matches)) => dev::run(matches),
        Some((profiles::NAME, matches)) => profiles::run(matches),
        Some((Ingest::NAME, matches)) => service::run::<Ingest>(matches),
        Some((Dispatcher::NAME, matches)) => service::run::<Dispatcher>(matches),
        Some((RetryScheduler::NAME, matches)) => service::run::<RetryScheduler>(matches),
        Some((ConfigApi::NAME, matches)) => service::run::<ConfigApi>(matches),
        // clap has refused everything else.
        _ => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound() {
        super::command().debug_assert();
    }
}
