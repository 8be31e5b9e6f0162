//! Keeps the record, and decides what happens next.
//!
//! Works stream LEDGER off into Postgres, and is the only one that writes what it holds of events, attempts,
//! deliveries and webhooks' health. What failed is tried again when its webhook's ladder says so; what found no room waits here for it.
//!
//! - [`record`]: ledger entries → rows
//! - [`next_step`]: an attempt → what follows from it (pure)
//! - [`health`]: attempts → how a webhook's deliveries go, and whether that stops it (pure)
//! - [`release`]: rows that are due → stream DELIVERIES
//! - [`rescue`]: released deliveries that got lost → due again
//! - [`reconcile`]: proves that every delivery owed is accounted for
//! - [`replay`]: orders → deliveries made again, dead letters put away
//! - [`retention`]: lets the oldest days go
//! - [`partitions`]: keeps the tables' partitions ahead
//!
//! Any number of processes may run at once: they share the ledger, and lock the rows they release.

mod catch_up;
pub mod config;
pub mod health;
pub mod metrics;
pub mod next_step;
mod observe;
pub mod partitions;
pub mod patience;
pub mod reconcile;
pub mod record;
pub mod release;
pub mod replay;
pub mod rescue;
pub mod retention;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use common::bus::{self, Bus, Options};
use common::clock::Clock;
use common::health::Health;
use common::service::{Context, Service};
use proto_schemas::stream::LEDGER;
use store::Store;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::config::Config;
use self::metrics::Metrics;
use self::observe::Observer;
use self::partitions::Partitions;
use self::patience::Patience;
use self::reconcile::Reconciler;
use self::record::{BATCH, LINGER, Recorder};
use self::release::Releaser;
use self::replay::Replayer;
use self::rescue::Rescuer;
use self::retention::Retention;

/// Ledger entries held at once: one batch being written, and the next.
const MAX_HELD: usize = BATCH;

/// How long to wait, once told to stop, for the batch being written: a transaction's statements each have 5 s.
const DRAIN: Duration = Duration::from_secs(15);

/// The service.
#[derive(Debug)]
pub struct RetryScheduler {
    config: Config,
    bus: Bus,
    store: Store,
    partitions: Arc<Partitions>,
    metrics: Metrics,
    health: Health,
    clock: Clock,
}

impl Service for RetryScheduler {
    const NAME: &'static str = "retry-scheduler";
    const ABOUT: &'static str = "Records every event and attempt, and releases deliveries again when they are due";
    const DEFAULT_LISTEN: &'static str = "0.0.0.0:8083";
    type Config = Config;

    async fn build(config: Config, context: Context) -> anyhow::Result<Self> {
        let Context {
            health,
            clock,
            startup_timeout,
            ..
        } = context;
        let bus = Bus::connect(&config.nats, Self::NAME, startup_timeout).await?;
        bus.report_to(health.clone());
        health.set(patience::CONDITION, Err("connecting".to_owned()));
        let store = Store::connect(&config.postgres, Self::NAME, startup_timeout).await?;
        store.migrate().await?;
        let partitions = Arc::new(Partitions::new(store.clone()));
        partitions
            .ensure_ahead(&clock)
            .await
            .context("the days' partitions cannot be made")?;
        health.set(patience::CONDITION, Ok(()));
        Ok(Self {
            config,
            bus,
            store,
            partitions,
            metrics: Metrics::default(),
            health,
            clock,
        })
    }

    fn router(&self) -> axum::Router {
        axum::Router::new()
    }

    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self {
            config,
            bus,
            store,
            partitions,
            metrics,
            health,
            clock,
        } = self;
        // Whichever stage ends first takes the others with it: told to stop they all end, and none ends otherwise.
        let stop = stop.child_token();
        let wake = Arc::new(Notify::new());
        let patience = Patience {
            health,
            stop: stop.clone(),
        };
        let recorder = Arc::new(Recorder {
            store: store.clone(),
            clock: clock.clone(),
            partitions: Arc::clone(&partitions),
            wake: Arc::clone(&wake),
            patience: patience.clone(),
            metrics: metrics.clone(),
        });
        let releaser = Releaser {
            store: store.clone(),
            bus: bus.clone(),
            clock: clock.clone(),
            wake: Arc::clone(&wake),
            per_webhook: config.released_per_webhook,
            doubt_after: config.rescue_after,
            patience: patience.clone(),
            metrics: metrics.clone(),
        };
        let reconciler = Reconciler {
            store: store.clone(),
            bus: bus.clone(),
            clock: clock.clone(),
            wake: Arc::clone(&wake),
            repair_after: config.repair_after,
            patience: patience.clone(),
            metrics: metrics.clone(),
        };
        let replayer = Replayer {
            store: store.clone(),
            clock: clock.clone(),
            wake: Arc::clone(&wake),
            per_second: config.replays_per_second,
            patience: patience.clone(),
            metrics: metrics.clone(),
        };
        let rescuer = Rescuer {
            store: store.clone(),
            bus: bus.clone(),
            clock: clock.clone(),
            wake,
            doubt_after: config.rescue_after,
            patience: patience.clone(),
            metrics: metrics.clone(),
        };
        let retention = Retention {
            store: store.clone(),
            clock: clock.clone(),
            keep: config.retention,
            patience: patience.clone(),
            metrics: metrics.clone(),
        };
        let observer = Observer {
            store: store.clone(),
            clock: clock.clone(),
            patience,
            metrics,
        };

        let record = move |messages| {
            let recorder = Arc::clone(&recorder);
            async move { recorder.record(messages).await }
        };
        let options = Options {
            max_held: MAX_HELD,
            drain: DRAIN,
        };
        let mut stages: JoinSet<Result<(), bus::Error>> = JoinSet::new();
        let end = stop.clone();
        stages.spawn(async move { bus.work_off_batches(LEDGER, options, BATCH, LINGER, end, record).await });
        let end = stop.clone();
        stages.spawn(async move {
            releaser.run(&end).await;
            Ok(())
        });
        let end = stop.clone();
        stages.spawn(async move {
            rescuer.run(&end).await;
            Ok(())
        });
        let end = stop.clone();
        stages.spawn(async move {
            replayer.run(&end).await;
            Ok(())
        });
        let end = stop.clone();
        stages.spawn(async move {
            reconciler.run(&end).await;
            Ok(())
        });
        let end = stop.clone();
        stages.spawn(async move {
            retention.run(&end).await;
            Ok(())
        });
        let end = stop.clone();
        stages.spawn(async move {
            partitions.keep_ahead(&clock, &end).await;
            Ok(())
        });
        let end = stop.clone();
        stages.spawn(async move {
            observer.run(&end).await;
            Ok(())
        });

        let mut outcome = Ok(());
        while let Some(ended) = stages.join_next().await {
            stop.cancel();
            let ended = ended.context("a stage panicked").and_then(|ended| Ok(ended?));
            outcome = outcome.and(ended);
        }
        store.close().await;
        outcome
    }
}
