//! The program `config-api`.

use std::process::ExitCode;

fn main() -> ExitCode {
    common::service::main::<config_api::ConfigApi>()
}
