//! Where projects, tokens and webhooks are configured and the record is read: REST over Postgres.
//!
//! ```text
//! request ── access: whose token, which project, which scope ── http/<resource>
//!    write ── changes: checked and sealed ── one transaction: row + outbox ── relay ── CONFIG bucket ── ingest, dispatcher
//!    read ─── store
//! ```
//!
//! - [`http`]: the resources, one file each
//! - `facades`: the same webhooks in other platforms' words
//! - [`access`]: who may do what
//! - `sessions`: who is logged in with a browser
//! - `audit`: who did what
//! - `uses`: which tokens are used
//! - [`changes`] and [`validate`]: what a webhook may be
//! - [`webhooks`]: making, changing and deleting one, for REST and the façades alike
//! - [`resolve`]: rows and profile → definition (pure)
//! - [`actions`]: pausing, resuming, restarting and checking one
//! - [`secrets`]: what requests are signed with: made, rotated and erased
//! - [`reseal`]: what an older encryption key seals → the same under the current one
//! - [`replays`]: orders to make deliveries again, and to put dead letters away
//! - [`trials`]: requests made to try a webhook
//! - [`previews`]: requests shown and not made
//! - [`relay`]: outbox → CONFIG, and tests → DELIVERIES
//! - [`streams`]: answers without end, and what they are fed with
//! - [`forgetting`]: what is old, deleted
//! - [`admin_token`]: the one token that is not made over REST
//!
//! This is the only writer of definitions. It needs Postgres to answer; while NATS is away, changes are accepted and
//! wait in the outbox.

pub mod access;
pub mod actions;
pub mod admin_token;
pub mod api;
mod audit;
pub mod changes;
mod config;
pub mod diff;
mod facades;
pub mod forgetting;
pub mod http;
pub mod previews;
pub mod relay;
pub mod replays;
pub mod reseal;
pub mod resolve;
mod room;
pub mod secrets;
mod sessions;
pub mod streams;
pub mod trials;
mod uses;
pub mod validate;
pub mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use common::bus::Bus;
use common::catalogue::Catalogues;
use common::crypto::KeyRing;
use common::egress::Guard;
use common::health::Health;
use common::http::rate_limit::RateLimits;
use common::profile::Profiles;
use common::service::{Context, Service};
use common::template::Templates;
use store::{Database, Store};
use tokio_util::sync::CancellationToken;

pub use self::config::Config;
use crate::api::Api;
use crate::relay::Relay;
use crate::streams::Streams;

/// How often to look whether Postgres answers.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The service.
#[derive(Debug)]
pub struct ConfigApi {
    api: Arc<Api>,
    relay: Relay,
    health: Health,
    resync_interval: Duration,
}

impl Service for ConfigApi {
    const NAME: &'static str = "config-api";
    const ABOUT: &'static str = "Serves the REST API: projects, tokens, webhooks, and what became of each event";
    const DEFAULT_LISTEN: &'static str = "0.0.0.0:8080";
    type Config = Config;

    async fn build(config: Config, context: Context) -> anyhow::Result<Self> {
        // What needs nobody else comes first, so that a wrong setting is heard of at once.
        let admin_token = admin_token::read(&config)?;
        let keys = KeyRing::from_config(&config.encryption)?;
        let profiles = Arc::new(Profiles::load(&config.profiles)?);
        let catalogues = Arc::new(Catalogues::load(&config.catalogues)?);
        catalogues_are_there(&profiles, &catalogues)?;
        config.egress.warn_if_open();
        let guard = Guard::new(&config.egress)?;

        context.health.set("postgres", Err("connecting".to_owned()));
        let database = Database::connect(&config.postgres, Self::NAME, context.startup_timeout).await?;
        database.migrate().await?;
        let store = database.of_all_projects();
        profiles_are_there(&store, &profiles).await?;
        context.health.set("postgres", Ok(()));
        let bus = Bus::connect(&config.nats, Self::NAME, context.startup_timeout).await?;
        bus.survey(context.clock.clone(), None, context.stop.clone());
        let bucket = bus.config_bucket().await?;
        let (relay, publication) = Relay::new(
            store.clone(),
            bus,
            bucket,
            Arc::clone(&profiles),
            Arc::clone(&catalogues),
            context.clock.clone(),
        );
        admin_token::install(&store, &admin_token, context.clock.now()).await?;
        relay.drain().await?;
        relay.resync().await?;

        let api = Arc::new(Api {
            streams: Streams::new(database.clone(), config.max_streams, context.stop.clone()),
            database,
            keys,
            profiles,
            catalogues,
            guard,
            clock: context.clock,
            rate_limits: RateLimits::new(&config.rate_limit),
            templates: Templates::load()?,
            source_addresses: config.source_addresses,
            stop: context.stop,
            publication,
            uses: uses::Uses::default(),
        });
        Ok(Self {
            api,
            relay,
            health: context.health,
            resync_interval: config.resync_interval,
        })
    }

    fn router(&self) -> axum::Router {
        http::router(Arc::clone(&self.api))
    }

    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let database = self.api.database.clone();
        tokio::join!(
            self.relay.run(self.resync_interval, stop.clone()),
            watch_postgres(database.clone(), self.health, stop.clone()),
            forgetting::keep_forgetting(&self.api, &stop),
            secrets::keep_erasing(&self.api, &stop),
            reseal::keep_resealing(&self.api, &stop),
            uses::keep_marking(&self.api, &stop),
        );
        database.close().await;
        Ok(())
    }
}

/// Refuses profiles whose catalogue is not known here.
fn catalogues_are_there(profiles: &Profiles, catalogues: &Catalogues) -> anyhow::Result<()> {
    for profile in profiles.iter() {
        if let Some(name) = profile
            .catalogue
            .as_deref()
            .filter(|name| catalogues.get(name).is_none())
        {
            anyhow::bail!(
                "profile `{}` names the catalogue `{name}`, which is not there (there are: {}); \
                 set --catalogues-dir (POSTHASTE_CATALOGUES_DIR) to the folder that holds the folder {name}",
                profile.name,
                catalogues.names()
            );
        }
    }
    Ok(())
}

/// Refuses to serve projects whose profile is not known here.
async fn profiles_are_there(store: &Store, profiles: &Profiles) -> anyhow::Result<()> {
    let in_use = store::projects::profiles_in_use(&mut *store.connection().await?).await?;
    match in_use.into_iter().find(|(profile, _)| profiles.get(profile).is_none()) {
        None => Ok(()),
        Some((profile, project)) => anyhow::bail!(
            "project `{project}` has the profile `{profile}`, which is not there (there are: {}); \
             set --profiles-dir (POSTHASTE_PROFILES_DIR) to the folder that holds {profile}.toml",
            profiles.names()
        ),
    }
}

/// Keeps the readiness condition `postgres`.
async fn watch_postgres(database: Database, health: Health, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
        let state = database.check().await.with_context(|| "Postgres does not answer");
        health.set("postgres", state.map_err(|error| format!("{error:#}")));
    }
}
