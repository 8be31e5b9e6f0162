//! What keeps a running service's parts together and takes them down in order.

use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::ready_file::Written;
use crate::health::{self, Health};

/// The parts of one service. Dropped, it ends them all.
#[derive(Debug)]
pub(super) struct Supervised {
    name: &'static str,
    health: Health,
    winding_down: CancellationToken,
    server: AbortOnDropHandle<()>,
    stop_run: CancellationToken,
    run: Option<AbortOnDropHandle<anyhow::Result<()>>>,
    _heartbeat: AbortOnDropHandle<()>,
    _at_the_latest: DropGuard,
}

impl Supervised {
    /// Spawns the server; `winding_down` is what makes it finish.
    pub(super) fn new(
        name: &'static str,
        health: Health,
        winding_down: CancellationToken,
        server: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self {
            name,
            server: AbortOnDropHandle::new(tokio::spawn(server)),
            stop_run: CancellationToken::new(),
            run: None,
            _heartbeat: AbortOnDropHandle::new(tokio::spawn(health.clone().beat())),
            _at_the_latest: winding_down.clone().drop_guard(),
            winding_down,
            health,
        }
    }

    /// Spawns the service's own work.
    pub(super) fn run<F>(&mut self, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.run = Some(AbortOnDropHandle::new(tokio::spawn(run(self.stop_run.clone()))));
    }

    /// Waits for `stop`, then takes everything down in order: unready, drained, no more requests, no more work. A part
    /// that ends before it is told to takes the rest with it.
    pub(super) async fn until(
        mut self,
        stop: CancellationToken,
        drain_delay: Duration,
        ready_file: Written,
    ) -> anyhow::Result<()> {
        let Some(mut run) = self.run.take() else {
            anyhow::bail!("{} has nothing to run", self.name);
        };
        let mut ended_early = None;
        tokio::select! {
            () = stop.cancelled() => {}
            ended = &mut run => ended_early = Some(flat(ended, self.name)),
            ended = &mut self.server => ended_early = Some(ended.context("the HTTP server panicked")),
        }
        self.health.set(health::SERVICE, Err("stopping".to_owned()));
        drop(ready_file);
        match ended_early {
            Some(ended) => ended.and_then(|()| Err(anyhow::anyhow!("{} ended without being told to", self.name))),
            None => self.wind_down(run, drain_delay).await,
        }
    }

    async fn wind_down(
        self,
        mut run: AbortOnDropHandle<anyhow::Result<()>>,
        drain_delay: Duration,
    ) -> anyhow::Result<()> {
        tracing::info!(service = self.name, ?drain_delay, "draining");
        tokio::select! {
            () = tokio::time::sleep(drain_delay) => {}
            ended = &mut run => {
                flat(ended, self.name)?;
                anyhow::bail!("{} ended while it was draining", self.name);
            }
        }
        self.winding_down.cancel();
        self.server.await.context("the HTTP server panicked")?;
        self.stop_run.cancel();
        flat(run.await, self.name)
    }
}

fn flat(ended: Result<anyhow::Result<()>, tokio::task::JoinError>, name: &str) -> anyhow::Result<()> {
    ended.with_context(|| format!("{name} panicked"))?
}
