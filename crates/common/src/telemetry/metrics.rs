//! Metrics: OpenTelemetry instruments, read as Prometheus text.
//!
//! Whoever counts something makes its instruments once, in `build`, from `opentelemetry::global::meter("<crate>")`, and
//! keeps them. [`install`] has run by then; instruments made before it count nothing.

use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;

use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

use super::{Error, process};

/// The media type of [`text`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Bucket borders of a duration in seconds, from one hop on the bus to a receiver's timeout; OpenTelemetry's own
/// borders are made for milliseconds.
pub const SECONDS: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

static REGISTRY: OnceLock<Registry> = OnceLock::new();

/// Makes OpenTelemetry's global meters count. The first call decides, under which name; later ones change nothing.
///
/// # Errors
/// The exporter cannot be registered.
pub fn install(service: &'static str) -> Result<(), Error> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if REGISTRY.get().is_some() {
        return Ok(());
    }
    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .build()
        .map_err(Error::Metrics)?;
    let provider = SdkMeterProvider::builder()
        .with_resource(super::resource(service))
        .with_reader(exporter)
        .build();
    opentelemetry::global::set_meter_provider(provider);
    process::observe(&opentelemetry::global::meter("process"));
    REGISTRY.get_or_init(|| registry);
    Ok(())
}

/// Every metric of this process, in Prometheus' text format. Empty before [`install`].
///
/// # Errors
/// The metrics contradict each other.
pub fn text() -> Result<String, prometheus::Error> {
    let families = REGISTRY.get().map(Registry::gather).unwrap_or_default();
    TextEncoder::new().encode_to_string(&families)
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;

    use super::*;

    #[test]
    fn what_is_counted_is_in_the_text() {
        install("test").unwrap();
        install("another name").unwrap();
        let meter = opentelemetry::global::meter("metrics-test");
        meter
            .u64_counter("test.deliveries")
            .build()
            .add(3, &[KeyValue::new("outcome", "delivered")]);
        let seconds = meter
            .f64_histogram("test.duration")
            .with_unit("s")
            .with_boundaries(SECONDS.to_vec())
            .build();
        seconds.record(0.002, &[]);

        let text = text().unwrap();
        let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        has(r#"test_deliveries_total{outcome="delivered",otel_scope_name="metrics-test"} 3"#);
        has(r#"test_duration_seconds_bucket{otel_scope_name="metrics-test",le="0.001"} 0"#);
        has(r#"test_duration_seconds_bucket{otel_scope_name="metrics-test",le="0.0025"} 1"#);
        for name in [
            "process_cpu_time_seconds_total",
            "process_memory_usage_bytes",
            "process_open_file_descriptor_count",
        ] {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name} is not in\n{text}");
        }
    }
}
