//! What NATS does not let this service do.
//!
//! nats-server answers whoever may not publish or subscribe with an error on the connection and with nothing else: who
//! waits for an answer to what was published waits until the time is up. So what the server said is kept, to be told in
//! place of "no answer in time", in the readiness, and once in the log.

use std::fmt;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Error;

/// How long a refusal counts against readiness. A service that goes on asking is refused anew before that: a request for
/// messages that was refused is given up on and made again after 25 s.
pub(super) const REMEMBERED: Duration = Duration::from_secs(60);

/// Something NATS did not let this service do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it was, as a verb: `publish to`, `subscribe to`.
    doing: &'static str,
    subject: String,
    pub(super) at: Instant,
}

impl Refusal {
    /// Reads `Permissions Violation for Publish to "ledger.facts"`, and the same with `Subscription`.
    fn read(said: &str) -> Option<Self> {
        const OPENING: &str = "permissions violation for ";
        let (opening, rest) = said.split_at_checked(OPENING.len())?;
        if !opening.eq_ignore_ascii_case(OPENING) {
            return None;
        }
        let (what, rest) = rest.split_once(" to \"")?;
        let doing = match what.to_ascii_lowercase().as_str() {
            "publish" => "publish to",
            "subscription" => "subscribe to",
            _ => return None,
        };
        let (subject, _) = rest.split_once('"')?;
        Some(Self {
            doing,
            subject: subject.to_owned(),
            at: Instant::now(),
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.doing == other.doing && self.subject == other.subject
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.doing, self.subject)
    }
}

/// The latest refusal of a connection. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Refusals(watch::Sender<Option<Refusal>>);

impl Refusals {
    /// Of a connection that has not been refused anything.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Takes in an error of the server; `false` where it is something else.
    pub(super) fn note(&self, said: &str) -> bool {
        let Some(refusal) = Refusal::read(said) else {
            return false;
        };
        let before = self.0.send_replace(Some(refusal.clone()));
        if !before.is_some_and(|before| before.is_same(&refusal) && before.at.elapsed() < REMEMBERED) {
            tracing::error!(
                "NATS does not let this service {refusal}; its user needs that permission (deploy/nats/posthaste.conf has all)"
            );
        }
        true
    }

    /// Forgets what was refused: permissions may have changed with a new connection.
    pub(super) fn forget(&self) {
        self.0.send_if_modified(|refusal| refusal.take().is_some());
    }

    /// What is refused from now on.
    pub(super) fn watch(&self) -> Watch {
        Watch(self.0.subscribe())
    }

    /// What `doing` comes to; where nothing came of it and something was refused meanwhile, that.
    pub(super) async fn explain<T>(&self, doing: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut since = self.watch();
        doing.await.map_err(|error| since.explain(error))
    }
}

/// What has been refused since this was made.
#[derive(Debug)]
pub(super) struct Watch(watch::Receiver<Option<Refusal>>);

impl Watch {
    /// The error to tell in place of `error`.
    pub(super) fn explain(&mut self, error: Error) -> Error {
        let waited_in_vain = matches!(error, Error::TimedOut | Error::SetUp { .. });
        let refusal = match self.0.has_changed() {
            Ok(true) if waited_in_vain => self.0.borrow_and_update().clone(),
            _ => None,
        };
        refusal.map_or(error, Error::NotAllowed)
    }

    /// The latest refusal, where there is one.
    pub(super) fn latest(&mut self) -> Option<Refusal> {
        self.0.borrow_and_update().clone()
    }

    /// Waits for the next refusal, or for it to be forgotten.
    pub(super) async fn changed(&mut self) -> Option<Refusal> {
        match self.0.changed().await {
            Ok(()) => self.latest(),
            // The connection is gone: nothing will be refused any more.
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waited_in_vain_is_told_what_was_refused_meanwhile() {
        let refusals = Refusals::new();
        assert!(refusals.note("Permissions Violation for Publish to \"ledger.facts\""));
        let answer = refusals.explain(async { Err::<(), _>(Error::TimedOut) }).await;
        assert!(
            matches!(answer, Err(Error::TimedOut)),
            "what was refused before is no reason"
        );
        for (error, subject) in [
            (Error::TimedOut, "subscribe to _INBOX.>"),
            (Error::TooLarge, "the message is larger"),
        ] {
            let answer = refusals.explain(async {
                refusals.note("permissions violation for subscription to \"_INBOX.>\" using queue \"q\"");
                Err::<(), _>(error)
            });
            let said = answer.await.unwrap_err().to_string();
            assert!(said.contains(subject), "{said}");
        }
    }

    #[test]
    fn other_errors_are_no_refusals() {
        for said in [
            "Stale Connection",
            "",
            "Permissions Violation",
            "Permissions Violation for Publish to x",
        ] {
            assert!(!Refusals::new().note(said), "{said}");
        }
    }
}
