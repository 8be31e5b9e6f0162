//! The four services in one process.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Command, FromArgMatches};
use common::egress::{self, Cidrs, Hosts};
use common::service::{self, Running, Service};
use config_api::ConfigApi;
use dispatcher::Dispatcher;
use futures::future::{join_all, select_all};
use ingest::Ingest;
use retry_scheduler::RetryScheduler;
use secrecy::ExposeSecret as _;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Args;
use super::servers::Servers;
use super::state::Secrets;

/// Where webhooks may go in development, besides what the settings allow: to this machine itself.
const THIS_MACHINE: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// Nobody's receiver is worth more patience when a developer presses Ctrl-C; what is unfinished is delivered by the next
/// run, if there is one.
const DRAIN: Duration = Duration::from_secs(3);

/// The services, ready. Dropped, they are told to stop.
pub(super) struct Services {
    api: SocketAddr,
    ingest: SocketAddr,
    running: Vec<(&'static str, Running)>,
    stop: DropGuard,
}

impl Services {
    /// Starts all four and returns once all are ready.
    pub(super) async fn start(args: &Args, servers: &Servers, secrets: &Secrets) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let nats = format!("--nats-url={}", servers.nats_url);
        let database = format!("--database-url={}", servers.database_url.expose_secret());

        let mut config: config_api::Config = settings(&[&nats, &database])?;
        config.encryption = secrets.encryption.clone();
        config.egress = permissive(&config.egress)?;
        config.admin_token = Some(secrets.admin_token.token.clone());
        config.admin_token_file = None;
        let api = async {
            let started = start::<ConfigApi>(config, args.api_listen, &stop).await;
            started.with_context(|| format!("cannot serve the API (--api-listen {})", args.api_listen))
        };

        let config = settings(&[&nats])?;
        let ingest = async {
            let started = start::<Ingest>(config, args.ingest_listen, &stop).await;
            started.with_context(|| format!("cannot take events (--ingest-listen {})", args.ingest_listen))
        };

        let mut config: dispatcher::Config = settings(&[&nats])?;
        config.encryption = secrets.encryption.clone();
        config.egress = permissive(&config.egress)?;
        config.drain = config.drain.min(DRAIN);
        let dispatcher = start::<Dispatcher>(config, any_port, &stop);

        let scheduler = start::<RetryScheduler>(settings(&[&nats, &database])?, any_port, &stop);

        let (api, ingest, dispatcher, scheduler) = tokio::try_join!(api, ingest, dispatcher, scheduler)?;
        Ok(Self {
            api: api.1.addr,
            ingest: ingest.1.addr,
            running: vec![api, ingest, dispatcher, scheduler],
            stop: guard,
        })
    }

    pub(super) fn api_url(&self) -> String {
        url(self.api)
    }

    pub(super) fn ingest_url(&self) -> String {
        url(self.ingest)
    }

    /// Waits until one of them ends, which none does unless it fails or is told to.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        let ends = self.running.iter_mut().map(|(_, running)| &mut running.join);
        let (ended, which, _) = select_all(ends).await;
        let (name, _) = self.running.swap_remove(which);
        match ended {
            Ok(Err(error)) => error.context(format!("{name} failed")),
            Ok(Ok(())) => anyhow::anyhow!("{name} ended without being told to"),
            Err(panicked) => anyhow::Error::new(panicked).context(format!("{name} panicked")),
        }
    }

    /// Tells all of them to stop, and waits for them.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        let ends = self.running.into_iter().map(async |(name, running)| {
            running
                .wait()
                .await
                .with_context(|| format!("{name} did not stop well"))
        });
        join_all(ends).await.into_iter().collect()
    }
}

async fn start<S: Service>(
    config: S::Config,
    listen: SocketAddr,
    stop: &CancellationToken,
) -> anyhow::Result<(&'static str, Running)> {
    let running = service::start::<S>(config, service::Args::local(listen), stop.clone()).await?;
    Ok((S::NAME, running))
}

/// A service's settings: `given`, then what the environment says, then the defaults.
fn settings<A: clap::Args + FromArgMatches>(given: &[&str]) -> anyhow::Result<A> {
    let matches = A::augment_args(Command::new("posthaste").no_binary_name(true)).try_get_matches_from(given)?;
    Ok(A::from_arg_matches(&matches)?)
}

/// Lets webhooks go to this machine and without TLS, too.
fn permissive(egress: &egress::Config) -> anyhow::Result<egress::Config> {
    let cidrs = egress
        .allow_cidrs
        .iter()
        .map(ToString::to_string)
        .chain(THIS_MACHINE.map(str::to_owned));
    let hosts = egress.allow_hosts.iter().cloned().chain(["localhost".to_owned()]);
    Ok(egress::Config {
        allow_http: true,
        allow_cidrs: cidrs
            .collect::<Vec<_>>()
            .join(",")
            .parse::<Cidrs>()
            .map_err(anyhow::Error::msg)?,
        allow_hosts: hosts
            .collect::<Vec<_>>()
            .join(",")
            .parse::<Hosts>()
            .map_err(anyhow::Error::msg)?,
        ..egress.clone()
    })
}

/// "Any address" is one to listen on, not one to connect to.
fn url(mut addr: SocketAddr) -> String {
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    format!("http://{addr}")
}

#[cfg(test)]
mod tests {
    use common::egress::Guard;

    use super::*;

    #[test]
    fn webhooks_may_go_to_this_machine_besides_and_to_no_network() {
        let guard = Guard::new(&permissive(&egress::Config::default()).unwrap()).unwrap();
        for url in [
            "http://127.0.0.1:8080/",
            "http://[::1]/",
            "http://localhost:8080/",
            "https://example.com/",
        ] {
            assert!(guard.check(url).is_ok(), "{url}");
        }
        for url in [
            "http://10.0.0.1/",
            "http://172.16.0.1/",
            "http://192.168.1.1/",
            "http://169.254.169.254/",
            "http://100.64.0.1/",
            "http://[fd00::1]/",
            "http://[fe80::1]/",
        ] {
            assert!(guard.check(url).is_err(), "{url}");
        }
    }
}
