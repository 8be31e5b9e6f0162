//! Keeps the record, and decides what happens next.
//!
//! Works stream LEDGER off into Postgres, and is the only one that writes what it holds of events, attempts,
//! deliveries and webhooks' health. What failed is tried again when its webhook's ladder says so; what found no room waits here for it.
//!
//! - [`record`]: ledger entries → rows
//! - [`next_step`]: an attempt → what follows from it (pure)
//! - [`health`]: attempts → how a webhook's deliveries go, and whether that stops it (pure)
//! - [`release`]: rows that are due → stream DELIVERIES
//! - [`drain`]: how fast held deliveries go (pure)
//! - [`ordered`]: rows whose turn it is, where deliveries go out in order → stream DELIVERIES
//! - [`cancel`]: what waits for a deleted webhook ends
//! - [`rescue`]: released deliveries that got lost → due again
//! - [`reconcile`]: proves that every delivery owed is accounted for
//! - [`replay`]: orders → deliveries made again, dead letters put away
//! - [`operational`]: what is told of which cause (pure), in the transaction that records it
//! - [`announce`]: what is to be told → stream EVENTS
//! - [`alert`]: the same, by e-mail
//! - [`retention`]: lets the oldest days go
//! - [`partitions`]: keeps the tables' partitions ahead
//!
//! Any number of processes may run at once: they share the ledger, and lock the rows they release.

pub mod alert;
pub mod announce;
pub mod cancel;
mod catch_up;
pub mod config;
pub mod drain;
pub mod health;
pub mod metrics;
pub mod next_step;
mod observe;
pub mod operational;
pub mod ordered;
pub mod partitions;
pub mod patience;
pub mod reconcile;
pub mod record;
pub mod release;
pub mod replay;
pub mod rescue;
pub mod retention;
pub mod wake;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use common::bus::{self, Bus, Options};
use common::clock::Clock;
use common::definitions::Definitions;
use common::health::Health;
use common::service::{Context, Service};
use proto_schemas::stream::LEDGER;
use store::{Database, Store};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::alert::Mailer;
use self::announce::Announcer;
use self::cancel::Canceller;
pub use self::config::Config;
use self::config::MailServer;
use self::metrics::Metrics;
use self::observe::Observer;
use self::ordered::Orderer;
use self::partitions::Partitions;
use self::patience::Patience;
use self::reconcile::Reconciler;
use self::record::{BATCH, LINGER, Recorder};
use self::release::Releaser;
use self::replay::Replayer;
use self::rescue::Rescuer;
use self::retention::Retention;
use self::wake::Wake;

/// Ledger entries held at once: one batch being written, and the next.
const MAX_HELD: usize = BATCH;

/// How long to wait, once told to stop, for the batch being written: a transaction's statements each have 5 s.
const DRAIN: Duration = Duration::from_secs(15);

/// The service.
#[derive(Debug)]
pub struct RetryScheduler {
    config: Config,
    mail: Option<MailServer>,
    bus: Bus,
    definitions: Arc<Definitions>,
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
            stop,
            ..
        } = context;
        // What needs nobody else comes first, so that a wrong setting is heard of at once.
        let mail = config.mail.server()?;
        let bus = Bus::connect(&config.nats, Self::NAME, startup_timeout).await?;
        bus.report_to(health.clone());
        bus.survey(clock.clone(), Some(health.clone()), stop.clone());
        let definitions = Definitions::watch(&bus, &health, &stop).await?;
        health.set(patience::CONDITION, Err("connecting".to_owned()));
        let database = Database::connect(&config.postgres, Self::NAME, startup_timeout).await?;
        database.migrate().await?;
        let store = database.of_all_projects();
        let partitions = Arc::new(Partitions::new(store.clone()));
        partitions
            .ensure_ahead(&clock)
            .await
            .context("the days' partitions cannot be made")?;
        health.set(patience::CONDITION, Ok(()));
        Ok(Self {
            config,
            mail,
            bus,
            definitions,
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
            mail,
            bus,
            definitions,
            store,
            partitions,
            metrics,
            health,
            clock,
        } = self;
        // Whichever stage ends first takes the others with it: told to stop they all end, and none ends otherwise.
        let stop = stop.child_token();
        let wake = Wake::default();
        let patience = Patience {
            health,
            stop: stop.clone(),
        };
        let mut stages: JoinSet<Result<(), bus::Error>> = JoinSet::new();
        let end = || stop.clone();

        let recorder = Arc::new(Recorder {
            store: store.clone(),
            clock: clock.clone(),
            partitions: Arc::clone(&partitions),
            wake: wake.clone(),
            patience: patience.clone(),
            metrics: metrics.clone(),
        });
        stages.spawn(record(bus.clone(), recorder, end()));
        let releaser = Arc::new(Releaser {
            store: store.clone(),
            bus: bus.clone(),
            clock: clock.clone(),
            definitions: Arc::clone(&definitions),
            wake: wake.clone(),
            per_webhook: config.released_per_webhook,
            doubt_after: config.rescue_after,
            patience: patience.clone(),
            metrics: metrics.clone(),
        });
        let orderer = Orderer {
            releaser: Arc::clone(&releaser),
        };
        stages.spawn(until(end(), async move |end| releaser.run(end).await));
        stages.spawn(until(end(), async move |end| orderer.run(end).await));
        let reconciler = Reconciler {
            store: store.clone(),
            bus: bus.clone(),
            clock: clock.clone(),
            wake: wake.clone(),
            repair_after: config.repair_after,
            patience: patience.clone(),
            metrics: metrics.clone(),
        };
        stages.spawn(until(end(), async move |end| reconciler.run(end).await));
        let replayer = Replayer {
            store: store.clone(),
            clock: clock.clone(),
            wake: wake.clone(),
            per_second: config.replays_per_second,
            patience: patience.clone(),
            metrics: metrics.clone(),
        };
        stages.spawn(until(end(), async move |end| replayer.run(end).await));
        let rescuer = Rescuer {
            store: store.clone(),
            bus: bus.clone(),
            clock: clock.clone(),
            wake: wake.clone(),
            doubt_after: config.rescue_after,
            patience: patience.clone(),
            metrics: metrics.clone(),
        };
        stages.spawn(until(end(), async move |end| rescuer.run(end).await));
        let canceller = Canceller {
            store: store.clone(),
            definitions: Arc::clone(&definitions),
            clock: clock.clone(),
            wake: wake.clone(),
            patience: patience.clone(),
            metrics: metrics.clone(),
        };
        stages.spawn(until(end(), async move |end| canceller.run(end).await));
        stages.spawn(until(end(), async move |end| wake.on_changes(&definitions, end).await));
        let retention = Retention {
            store: store.clone(),
            clock: clock.clone(),
            keep: config.retention,
            patience: patience.clone(),
            metrics: metrics.clone(),
        };
        let announcer = Announcer {
            store: store.clone(),
            bus,
            clock: clock.clone(),
            mails: mail.is_some(),
            patience: patience.clone(),
            metrics: metrics.clone(),
        };
        stages.spawn(until(end(), async move |end| announcer.run(end).await));
        if let Some(server) = mail {
            let mailer = Mailer::new(&server, store.clone(), clock.clone(), patience.clone(), metrics.clone())?;
            stages.spawn(until(end(), async move |end| mailer.run(end).await));
        }
        stages.spawn(until(end(), async move |end| retention.run(end).await));
        let observer = Observer {
            store: store.clone(),
            clock: clock.clone(),
            patience,
            metrics,
        };
        stages.spawn(until(end(), async move |end| observer.run(end).await));
        stages.spawn(until(end(), async move |end| partitions.keep_ahead(&clock, end).await));

        let mut outcome = Ok(());
        while let Some(ended) = stages.join_next().await {
            stop.cancel();
            let ended = ended.context("a stage panicked").and_then(|ended| Ok(ended?));
            outcome = outcome.and(ended);
        }
        store.database().close().await;
        outcome
    }
}

async fn record(bus: Bus, recorder: Arc<Recorder>, stop: CancellationToken) -> Result<(), bus::Error> {
    let options = Options {
        max_held: MAX_HELD,
        drain: DRAIN,
    };
    let record = move |messages| {
        let recorder = Arc::clone(&recorder);
        async move { recorder.record(messages).await }
    };
    bus.work_off_batches(LEDGER, options, BATCH, LINGER, stop, record).await
}

/// A stage that runs until it is told to stop.
async fn until(stop: CancellationToken, stage: impl AsyncFnOnce(&CancellationToken)) -> Result<(), bus::Error> {
    stage(&stop).await;
    Ok(())
}
