//! What this process uses of its machine, read when somebody asks.

use opentelemetry::metrics::Meter;
use rustix::time::{ClockId, clock_gettime};

/// Registers the metrics, named by OpenTelemetry's conventions. Where there is no `/proc`, what it would say is absent.
pub(super) fn observe(meter: &Meter) {
    meter
        .f64_observable_counter("process.cpu.time")
        .with_unit("s")
        .with_description("Processor time used by this process, user and system.")
        .with_callback(|observer| {
            let used = clock_gettime(ClockId::ProcessCPUTime);
            #[expect(
                clippy::cast_precision_loss,
                reason = "a lifetime of a process in nanoseconds fits well enough"
            )]
            observer.observe(used.tv_sec as f64 + used.tv_nsec as f64 / 1e9, &[]);
        })
        .build();
    meter
        .u64_observable_gauge("process.memory.usage")
        .with_unit("By")
        .with_description("Memory of this process that is in RAM.")
        .with_callback(|observer| {
            if let Some(bytes) = resident_bytes() {
                observer.observe(bytes, &[]);
            }
        })
        .build();
    meter
        .u64_observable_gauge("process.open_file_descriptor.count")
        .with_description("Files and sockets this process has open.")
        .with_callback(|observer| {
            if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
                observer.observe(open.count() as u64, &[]);
            }
        })
        .build();
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}
