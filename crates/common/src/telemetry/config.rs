//! What is logged and where traces go.

/// Logs and traces of a process.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Logs and traces")]
pub struct Config {
    /// How log lines are written.
    #[arg(long, env = "POSTHASTE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// What is logged: a level, or levels by module, like info,dispatcher=debug.
    #[arg(long, env = "POSTHASTE_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// Base URL of an OTLP collector that takes HTTP, usually on port 4318; without one nothing is traced.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}
