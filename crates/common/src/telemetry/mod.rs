//! What a process says to its operators: logs, metrics, traces.
//!
//! Logs go to stderr, as text or as one JSON object a line. Metrics are OpenTelemetry instruments read by Prometheus
//! from `/metrics` ([`metrics`]). Traces are exported over OTLP, and only where an endpoint is given: without one
//! [`trace`]'s spans are disabled where they stand, at the cost of one comparison.

mod config;
pub mod metrics;
mod process;
pub mod trace;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt};

pub use self::config::{Config, LogFormat};

/// How long the end of a process waits for its last spans to be taken.
const FLUSH: Duration = Duration::from_secs(5);

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter is not one.
    #[error("--log: `{filter}` is not a filter; write it like info or info,dispatcher=debug")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Something else in this process logs already.
    #[error("a log is set up already")]
    Twice(#[source] TryInitError),
    /// Spans cannot be exported to the given endpoint.
    #[error("--otlp-endpoint cannot be used")]
    Otlp(#[source] opentelemetry_otlp::ExporterBuildError),
    /// The exporter of metrics.
    #[error("metrics cannot be exported")]
    Metrics(#[source] OTelSdkError),
}

/// What has to be flushed when the process ends.
#[derive(Debug)]
#[must_use = "its end is where the last spans are sent"]
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sends what is still held back.
    pub async fn flush(self) {
        let Some(spans) = self.spans else { return };
        // It blocks until the exporter, which runs on this runtime, is done.
        let flushed = tokio::task::spawn_blocking(move || spans.shutdown());
        match tokio::time::timeout(FLUSH, flushed).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the last spans were not sent"),
            Ok(Err(_)) | Err(_) => tracing::warn!("the last spans were not sent in time"),
        }
    }
}

/// Sets up logs, metrics and traces for this process, and has panics logged. Within a tokio runtime, once.
///
/// # Errors
/// A setting is not usable, or it was called before.
pub fn init(service: &'static str, config: &Config) -> Result<Telemetry, Error> {
    let filter = EnvFilter::builder()
        .parse(&config.log)
        .map_err(|source| Error::Filter {
            filter: config.log.clone(),
            source,
        })?;
    metrics::install(service)?;
    // An empty variable is an unset one, as the specification has it.
    let endpoint = config.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty());
    let spans = endpoint
        .map(|endpoint| trace::exporter(service, endpoint))
        .transpose()?;

    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = vec![log_layer(config.log_format, filter)];
    layers.extend(spans.as_ref().map(trace::layer));
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .map_err(Error::Twice)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Telemetry { spans })
}

fn log_layer(format: LogFormat, filter: EnvFilter) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => layer
            .with_ansi(std::io::stderr().is_terminal())
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_filter(filter).boxed(),
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("a panic without text");
    let at = panic.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(message, at, backtrace, "panicked");
}

/// Who this process is, in metrics and traces; `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` add to it.
fn resource(service: &'static str) -> Resource {
    Resource::builder().with_service_name(service).build()
}
