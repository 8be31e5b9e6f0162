//! Everything that is SQL: the schema, and one file per table with every statement that reads or writes it.
//!
//! Functions take a [`Connection`], which is about one project or all ([`Store`]); whoever calls owns the transaction, so
//! that what belongs together is committed together. Statements are checked against the schema when this crate is compiled
//! (`.sqlx` at the workspace root holds what the check needs, so no Postgres has to run; `deploy/local/sqlx-prepare.sh`
//! makes it again after a change).
//! No rule of the product is decided in here: statements store what they are given.
//!
//! config-api writes `projects`, `tokens`, `sessions`, `webhooks`, `event_types`, `tests`, `replays`, `audit_entries`,
//! `idempotency_keys`; retry-scheduler writes `events`, `attempts`, `pending_deliveries`, `drains`, `webhook_health`,
//! `rejected_events`, `poisoned_entries`, `reconciliation`, `missing_deliveries`, `replay_progress`, `operational_events`,
//! `stopped_webhooks`, `expiring_secrets`, `alerts`, `alert_pauses`, and makes and drops the partitions. Both note in
//! `outbox` which definitions they have changed. [`log`] reads what retry-scheduler has written, for people.
//!
//! Instants are [`jiff::Timestamp`]s to the outside and have Postgres' resolution, a microsecond.

pub mod alerts;
pub mod attempts;
pub mod audit;
mod config;
pub mod drains;
mod error;
pub mod event_types;
pub mod events;
pub mod idempotency_keys;
pub mod log;
pub mod operational_events;
pub mod outbox;
pub mod partitions;
pub mod pending_deliveries;
pub mod poisoned_entries;
mod pool;
pub mod projects;
mod reach;
pub mod reconciliation;
pub mod rejected_events;
pub mod replay_progress;
pub mod replays;
pub mod retention;
pub mod selection;
pub mod sessions;
pub mod tests;
mod time;
pub mod tokens;
mod value;
pub mod webhook_health;
pub mod webhooks;

pub use config::Config;
pub use error::Error;
pub use pool::{Connection, Database};
pub use reach::{Store, Transaction};
