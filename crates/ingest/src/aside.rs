//! Where work is done that takes its time: so that the events of others are not held up.

use std::sync::LazyLock;

use tokio::sync::Semaphore;

/// So many at once: however much of it there is, it leaves half the machine to what does not take its time.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new((cores / 2).max(1))
});

/// What the work comes to, on a thread of its own.
///
/// # Panics
/// Where the work does.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // It is never closed. Whoever asked may go away; then the turn is over when the work is.
    let turn = TURNS.acquire().await;
    let working = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    match working.await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // It was not begun, since the process ends; what is not looked at is not accepted either.
        Err(Err(_)) => std::future::pending().await,
    }
}
