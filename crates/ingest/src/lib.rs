//! Takes events in and fans them out.
//!
//! Producers publish on NATS, or post over HTTP, which publishes on NATS for them; either way an event is accepted when
//! JetStream has stored it, and by nothing else. One stage then turns each stored message into an event and its
//! deliveries.
//!
//! - [`accept`]: message → event, or the reason why not (pure)
//! - [`repeats`]: whether it was there before (pure)
//! - [`schema_check`]: what an event's type has against it (pure)
//! - [`fan_out`]: event → deliveries and ledger entry
//! - [`http`]: the HTTP way in

pub mod accept;
mod aside;
pub mod cloudevents;
pub mod config;
pub mod fan_out;
pub mod http;
pub mod repeats;
pub mod schema_check;

use std::sync::Arc;

use common::bus::{Bus, Options, Seen};
use common::definitions::Definitions;
use common::http::rate_limit::RateLimits;
use common::service::{Context, Service};
use proto_schemas::stream::EVENTS;
use tokio_util::sync::CancellationToken;

pub use self::config::Config;

/// The service.
pub struct Ingest {
    config: Config,
    bus: Bus,
    fan_out: Arc<fan_out::FanOut>,
    router: axum::Router,
}

impl Service for Ingest {
    const NAME: &'static str = "ingest";
    const ABOUT: &'static str = "Takes events in over NATS and HTTP, and fans them out to the webhooks that want them";
    const DEFAULT_LISTEN: &'static str = "0.0.0.0:8081";
    type Config = Config;

    async fn build(config: Config, context: Context) -> anyhow::Result<Self> {
        let bus = Bus::connect(&config.nats, Self::NAME, context.startup_timeout).await?;
        config.check(bus.max_payload())?;
        bus.report_to(context.health.clone());
        bus.survey(context.clock.clone(), None, context.stop.clone());
        let definitions = Definitions::watch(&bus, &context.health, &context.stop).await?;
        let router = http::router(http::Intake {
            bus: bus.clone(),
            seen: Seen::new(bus.clone()),
            definitions: Arc::clone(&definitions),
            clock: context.clock.clone(),
            rate_limits: Arc::new(RateLimits::new(&config.rate_limits())),
            max_event_bytes: config.max_event_bytes(),
            max_batch: config.max_batch,
        });
        let fan_out = fan_out::FanOut::new(bus.clone(), definitions, config.max_event_bytes());
        Ok(Self {
            config,
            bus,
            fan_out: Arc::new(fan_out),
            router,
        })
    }

    fn router(&self) -> axum::Router {
        self.router.clone()
    }

    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self {
            config, bus, fan_out, ..
        } = self;
        let options = Options {
            max_held: config.max_held,
            drain: config.drain,
        };
        bus.work_off(EVENTS, options, stop.clone(), move |message| {
            let (fan_out, stop) = (Arc::clone(&fan_out), stop.clone());
            async move { fan_out.work(message, &stop).await }
        })
        .await?;
        Ok(())
    }
}
