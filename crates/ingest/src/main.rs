//! The `ingest` binary.

fn main() -> std::process::ExitCode {
    common::service::main::<ingest::Ingest>()
}
