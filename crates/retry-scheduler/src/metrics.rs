//! What retry-scheduler counts.

use std::time::Duration;

use common::telemetry::metrics::SECONDS;
use jiff::Timestamp;
use opentelemetry::metrics::{Counter, Gauge, Histogram};
use opentelemetry::{KeyValue, global};
use store::pending_deliveries::Count;

/// The states of a pending delivery, so that one nobody is in reads 0.
const STATES: [&str; 8] = [
    "scheduled",
    "released",
    "parked",
    "held",
    "queued",
    "behind",
    "dead",
    "cancelled",
];

/// The instruments. Cloning is cheap; clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    entries: Counter<u64>,
    batch_entries: Histogram<u64>,
    batch_seconds: Histogram<f64>,
    poisoned: Counter<u64>,
    released: Counter<u64>,
    rescued: Counter<u64>,
    pending: Gauge<u64>,
    due_lag: Gauge<f64>,
    missing: Gauge<u64>,
    unchecked: Gauge<f64>,
    repaired: Counter<u64>,
    cancelled: Counter<u64>,
    expired: Counter<u64>,
    replayed: Counter<u64>,
    told: Counter<u64>,
    mailed: Counter<u64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let meter = global::meter("posthaste");
        let counter = |name: &'static str, what: &'static str| meter.u64_counter(name).with_description(what).build();
        Self {
            entries: counter(
                "posthaste_ledger_entries_recorded",
                "Ledger entries recorded, by kind; repeated ones count again",
            ),
            batch_entries: meter
                .u64_histogram("posthaste_recorder_batch_entries")
                .with_description("Ledger entries per transaction")
                .with_boundaries(vec![1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0])
                .build(),
            batch_seconds: meter
                .f64_histogram("posthaste_recorder_batch_duration")
                .with_unit("s")
                .with_description("From the begin of a transaction to its commit")
                .with_boundaries(SECONDS.to_vec())
                .build(),
            poisoned: counter(
                "posthaste_ledger_entries_poisoned",
                "Ledger entries set aside because they cannot be recorded",
            ),
            released: counter(
                "posthaste_deliveries_released",
                "Deliveries handed to dispatcher again, by what they had waited as",
            ),
            rescued: counter(
                "posthaste_deliveries_rescued",
                "Released deliveries that got lost and were made due again",
            ),
            pending: meter
                .u64_gauge("posthaste_pending_deliveries")
                .with_description("Deliveries not settled by their first attempt, by state")
                .build(),
            due_lag: meter
                .f64_gauge("posthaste_due_lag")
                .with_unit("s")
                .with_description("For how long the delivery that is longest due has waited to be released")
                .build(),
            missing: meter
                .u64_gauge("posthaste_reconciliation_difference")
                .with_description(
                    "Deliveries owed that are in no state: neither on record nor in the pipe; 0 unless one got lost",
                )
                .build(),
            unchecked: meter
                .f64_gauge("posthaste_reconciliation_lag")
                .with_unit("s")
                .with_description("Age of the oldest event whose deliveries have not been accounted for")
                .build(),
            expired: counter(
                "posthaste_deliveries_expired",
                "Deliveries, dead or waiting, that left the record with their event's day",
            ),
            cancelled: counter(
                "posthaste_deliveries_cancelled",
                "Waiting deliveries that ended because their webhook was deleted",
            ),
            replayed: counter(
                "posthaste_deliveries_replayed",
                "Deliveries made again, and dead letters discarded, by what was asked for",
            ),
            told: counter("posthaste_operational_events", "Operational events published, by type"),
            mailed: counter(
                "posthaste_alert_mails",
                "E-mails about operational events, by what became of them: sent, failed (to be tried again) or refused",
            ),
            repaired: counter(
                "posthaste_deliveries_repaired",
                "Missing deliveries that were made due again",
            ),
        }
    }
}

impl Metrics {
    pub(crate) fn batch(&self, entries: usize, took: Duration) {
        self.batch_entries.record(entries as u64, &[]);
        self.batch_seconds.record(took.as_secs_f64(), &[]);
    }

    pub(crate) fn recorded(&self, kind: &'static str, entries: usize) {
        if entries > 0 {
            self.entries.add(entries as u64, &[KeyValue::new("kind", kind)]);
        }
    }

    pub(crate) fn poisoned(&self) {
        self.poisoned.add(1, &[]);
    }

    pub(crate) fn released(&self, was: &'static str, deliveries: usize) {
        if deliveries > 0 {
            self.released.add(deliveries as u64, &[KeyValue::new("was", was)]);
        }
    }

    pub(crate) fn rescued(&self, deliveries: u64) {
        self.rescued.add(deliveries, &[]);
    }

    pub(crate) fn reconciled(&self, missing: u64, checked_to: Timestamp, now: Timestamp) {
        self.missing.record(missing, &[]);
        let lag = now.duration_since(checked_to).as_secs_f64();
        self.unchecked.record(lag.max(0.0), &[]);
    }

    pub(crate) fn expired(&self, deliveries: u64) {
        self.expired.add(deliveries, &[]);
    }

    pub(crate) fn told(&self, event_type: &str) {
        self.told.add(1, &[KeyValue::new("type", event_type.to_owned())]);
    }

    pub(crate) fn mailed(&self, outcome: &'static str) {
        self.mailed.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    pub(crate) fn cancelled(&self, deliveries: u64) {
        self.cancelled.add(deliveries, &[]);
    }

    pub(crate) fn repaired(&self, deliveries: u64) {
        self.repaired.add(deliveries, &[]);
    }

    pub(crate) fn replayed(&self, kind: &'static str, deliveries: u64) {
        if deliveries > 0 {
            self.replayed.add(deliveries, &[KeyValue::new("kind", kind)]);
        }
    }

    pub(crate) fn pending(&self, counts: &[Count], now: Timestamp) {
        let of = |state: &str| counts.iter().find(|count| count.state == state);
        for state in STATES {
            self.pending.record(
                of(state).map_or(0, |count| count.deliveries),
                &[KeyValue::new("state", state)],
            );
        }
        let due_since = of("scheduled").and_then(|count| count.earliest_due_at);
        let lag = due_since.map_or(0.0, |due_at| now.duration_since(due_at).as_secs_f64());
        self.due_lag.record(lag.max(0.0), &[]);
    }
}
