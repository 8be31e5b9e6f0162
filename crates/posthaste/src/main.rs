//! The `posthaste` binary.

fn main() -> std::process::ExitCode {
    posthaste::cli::main()
}
