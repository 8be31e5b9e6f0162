//! The `retry-scheduler` binary.

fn main() -> std::process::ExitCode {
    common::service::main::<retry_scheduler::RetryScheduler>()
}
