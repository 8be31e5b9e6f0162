//! Makes the requests.
//!
//! Works stream DELIVERIES off: each message is the duty to make one attempt. [`lanes`] keep a slow receiver from
//! delaying the others; [`attempt`] makes the request and tells the ledger what it came to. What happens next (retry,
//! dead) is not decided here.
//!
//! - [`lanes`]: may this delivery go now, wait a moment, or must it wait in Postgres?
//! - [`breaker`]: is the receiver worth asking at all (pure)
//! - [`throttle`]: how much it takes that has said it is asked too much (pure)
//! - [`attempt`]: the stage
//! - [`access_token`]: what a receiver wants to be shown that is had elsewhere
//! - `echo`: what a receiver sends back of a request's secrets (pure)
//! - [`requests`]: webhooks ready for requests, as they are defined now
//! - [`classify`]: response → outcome (pure)

pub mod access_token;
pub mod attempt;
pub mod breaker;
pub mod classify;
pub mod config;
mod echo;
pub mod lanes;
pub mod requests;
pub mod throttle;

use std::sync::Arc;

use common::bus::{Bus, Options};
use common::crypto::KeyRing;
use common::definitions::Definitions;
use common::egress;
use common::service::{Context, Service};
use proto_schemas::stream::DELIVERIES;
use tokio_util::sync::CancellationToken;

pub use self::config::Config;

/// The service.
pub struct Dispatcher {
    config: Config,
    bus: Bus,
    stage: Arc<attempt::Stage>,
}

impl Service for Dispatcher {
    const NAME: &'static str = "dispatcher";
    const ABOUT: &'static str =
        "Delivers: signs and sends each event to each webhook it is owed to, and records what it came to";
    const DEFAULT_LISTEN: &'static str = "0.0.0.0:8082";
    type Config = Config;

    async fn build(config: Config, context: Context) -> anyhow::Result<Self> {
        let keys = KeyRing::from_config(&config.encryption)?;
        config.egress.warn_if_open();
        let client = egress::Client::new(&config.egress)?;
        let bus = Bus::connect(&config.nats, Self::NAME, context.startup_timeout).await?;
        bus.report_to(context.health.clone());
        bus.survey(
            context.clock.clone(),
            Some(context.health.clone()),
            context.stop.clone(),
        );
        let definitions = Definitions::watch(&bus, &context.health, &context.stop).await?;
        let stage = attempt::Stage::new(attempt::Parts {
            bus: bus.clone(),
            definitions,
            client,
            keys,
            clock: context.clock,
            lanes: lanes::Limits {
                per_lane: config.max_in_flight_per_webhook,
                total: config.max_in_flight,
                patience: config.patience,
                waiting: config.max_waiting_per_webhook,
                breaker: breaker::Rules {
                    failures: config.breaker_failures,
                    wait: config.breaker_wait,
                    wait_max: config.breaker_wait_max,
                },
            },
        });
        Ok(Self {
            config,
            bus,
            stage: Arc::new(stage),
        })
    }

    fn router(&self) -> axum::Router {
        axum::Router::new()
    }

    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { config, bus, stage } = self;
        let (tended, end) = (Arc::clone(&stage), stop.clone());
        tokio::spawn(async move { tended.tend(&end).await });
        let options = Options {
            max_held: config.max_held,
            drain: config.drain,
        };
        bus.work_off(DELIVERIES, options, stop.clone(), move |message| {
            let (stage, stop) = (Arc::clone(&stage), stop.clone());
            async move { stage.work(message, &stop).await }
        })
        .await?;
        Ok(())
    }
}
