//! What the guard counts, for tests to look at.

use opentelemetry::metrics::{Counter, MeterProvider as _};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

/// Counters of a test's own.
pub(super) struct Counted {
    registry: Registry,
    provider: SdkMeterProvider,
}

impl Counted {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone());
        let provider = SdkMeterProvider::builder()
            .with_reader(exporter.build().unwrap())
            .build();
        Self { registry, provider }
    }

    pub(super) fn counter(&self, name: &'static str) -> Counter<u64> {
        self.provider.meter("test").u64_counter(name).build()
    }

    /// How often was counted under this name, with all of these labels, written `rule="name"`.
    pub(super) fn of(&self, name: &str, labels: &[&str]) -> u64 {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let name = format!("{name}_total{{");
        // The exporter promises no order of labels.
        let is_it = |line: &&str| line.starts_with(&name) && labels.iter().all(|label| line.contains(label));
        let count = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
        text.lines().filter(is_it).map(count).sum()
    }
}
