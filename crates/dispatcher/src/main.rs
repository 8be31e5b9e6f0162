//! The `dispatcher` binary.

fn main() -> std::process::ExitCode {
    common::service::main::<dispatcher::Dispatcher>()
}
