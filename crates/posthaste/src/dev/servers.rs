//! NATS and Postgres: private ones, or those that the settings name.

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::Args;
use super::state::{Password, State};
use crate::local::{Nats, Postgres, nats, postgres};

/// Whom the private NATS lets in.
const NATS_USER: &str = "posthaste";

/// The variable that its password is in while it starts.
const NATS_PASSWORD: &str = "POSTHASTE_DEV_NATS_PASSWORD";

/// Where NATS and Postgres are, and those of them that are ours.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) nats_url: String,
    pub(super) database_url: SecretString,
    pub(super) nats: Option<Nats>,
    pub(super) postgres: Option<Postgres>,
}

impl Servers {
    /// Starts what is not named.
    pub(super) async fn start(args: &Args, state: &State, nats_password: &Password) -> anyhow::Result<Self> {
        let nats = async {
            if args.nats_url.is_some() {
                return Ok(None);
            }
            let password = nats_password.password.expose_secret().to_owned();
            let options = nats::Options {
                more: format!("authorization {{ user: {NATS_USER}, password: ${NATS_PASSWORD} }}"),
                env: vec![(NATS_PASSWORD, password.clone())],
                login: Some((NATS_USER, password)),
                ..nats::Options::default()
            };
            let nats = Nats::start(&state.folder().join("nats"), &options).await;
            nats.map(Some).context("cannot start a private NATS")
        };
        let postgres = async {
            if args.database_url.is_some() {
                return Ok(None);
            }
            let options = postgres::Options {
                durable: state.is_kept(),
                ..postgres::Options::default()
            };
            let postgres = Postgres::start(&state.folder().join("postgres"), &options).await;
            postgres.map(Some).context("cannot start a private Postgres")
        };
        let (nats, postgres) = tokio::try_join!(nats, postgres)?;
        Ok(Self {
            nats_url: nats
                .as_ref()
                .map(Nats::url)
                .or_else(|| args.nats_url.clone())
                .unwrap_or_default(),
            database_url: postgres
                .as_ref()
                .map(|postgres| postgres.url().into())
                .or_else(|| args.database_url.clone())
                .unwrap_or_default(),
            nats,
            postgres,
        })
    }

    /// An error if one of ours has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(nats) = &mut self.nats {
            nats.check()?;
        }
        if let Some(postgres) = &mut self.postgres {
            postgres.check()?;
        }
        Ok(())
    }

    /// Stops ours in good order.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let nats = async {
            match &mut self.nats {
                Some(nats) => nats.stop().await.context("cannot stop the private NATS"),
                None => Ok(()),
            }
        };
        let postgres = async {
            match &mut self.postgres {
                Some(postgres) => postgres.stop().await.context("cannot stop the private Postgres"),
                None => Ok(()),
            }
        };
        let (nats, postgres) = tokio::join!(nats, postgres);
        nats.and(postgres)
    }
}
