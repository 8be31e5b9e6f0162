//! Waiting for a Postgres that is away. Keeps the readiness condition `postgres`.

use std::time::Duration;

use common::health::Health;
use futures::future::BoxFuture;
use store::Error;
use tokio_util::sync::CancellationToken;

/// The readiness condition.
pub(crate) const CONDITION: &str = "postgres";

/// Waits between two tries: at first for what is over in a moment (a deadlock), at last for a restart.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The service was told to stop before it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// How to wait. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Where it is told.
    pub health: Health,
    /// When to wait no longer.
    pub stop: CancellationToken,
}

impl Patience {
    /// Repeats `write` until it is done, or refused for its values, which no waiting changes.
    ///
    /// # Errors
    /// Outer: told to stop. Inner: refused for its values.
    pub(crate) async fn outwait<'a>(
        &self,
        write: impl Fn() -> BoxFuture<'a, Result<(), Error>>,
    ) -> Result<Result<(), Error>, Stopped> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match write().await {
                Ok(()) => {
                    self.well();
                    return Ok(Ok(()));
                }
                Err(error) if error.blames_values() => return Ok(Err(error)),
                Err(error) => error,
            };
            self.fault(&error);
            tokio::select! {
                () = self.stop.cancelled() => return Err(Stopped),
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// Notes that Postgres does what it is asked.
    pub(crate) fn well(&self) {
        self.health.set(CONDITION, Ok(()));
    }

    /// Notes that it did not. The change of the condition is what gets logged.
    pub(crate) fn fault(&self, error: &Error) {
        match error {
            Error::Contention(_) => tracing::debug!(error = chain(error), "trying again"),
            _ => self.health.set(CONDITION, Err(chain(error))),
        }
    }
}

/// The error and what it was caused by.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
