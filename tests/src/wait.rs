//! Waiting for conditions.

use std::time::{Duration, Instant};

/// How long [`eventually`] waits. Generous, for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until `look` finds something; gives what it found.
///
/// # Panics
/// After a minute, naming `what` was waited for.
pub async fn eventually<T, F>(what: &str, look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    eventually_within(PATIENCE, what, look).await
}

/// [`eventually`] with a deadline of its own.
///
/// # Panics
/// After `patience`, naming `what` was waited for.
#[expect(clippy::panic, reason = "a condition that does not come true is a failed test")]
pub async fn eventually_within<T, F>(patience: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        if Instant::now() >= deadline {
            panic!("{what}: not within {patience:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
