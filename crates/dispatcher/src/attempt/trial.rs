//! Trials: requests made to try a webhook. Each is made once, whatever the webhook's state and however full its lane is,
//! and told like any attempt; retry-scheduler draws no conclusion from it but the result of an endpoint check.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::bus::Verdict;
use common::failpoint::{self, Point};
use common::request::Error;
use http::{Method, StatusCode};
use proto_schemas::definition::Webhook;
use proto_schemas::delivery::{DeliveryDue, Trial, TrialKind};
use proto_schemas::ledger::{ErrorClass, Fact, Outcome};

use super::{MAX_HANDED_OUT, Made, Stage, Unsent, exchange};
use crate::requests::Ready;

/// When to look again for a webhook that is not known yet, and how often at most: a test is published after the webhook,
/// by another way.
const NOT_KNOWN: Duration = Duration::from_millis(200);
const LOOKS: u32 = 10;

/// What is to be done with a trial.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Send(Arc<Webhook>),
    LookAgain,
    End(ErrorClass, String),
}

/// Decides what is to be done with a trial. Pure.
fn decide(handed_out: u32, trial: &Trial, known: Option<Arc<Webhook>>) -> Step {
    if handed_out > MAX_HANDED_OUT {
        let error = format!("handed out {handed_out} times without an end");
        return Step::End(ErrorClass::GaveUp, error);
    }
    let end = |error: &str| Step::End(ErrorClass::Webhook, error.to_owned());
    match (&trial.webhook, known) {
        // A check is of the url that was to be checked, even where the webhook has another by now.
        (Some(given), _) => Step::Send(Arc::new(Webhook::clone(given))),
        (None, Some(webhook)) if webhook.deleted => end("the webhook was deleted"),
        (None, Some(webhook)) => Step::Send(webhook),
        (None, None) if handed_out < LOOKS => Step::LookAgain,
        (None, None) => end("the webhook's definition has not arrived"),
    }
}

impl Stage {
    /// Works a trial.
    pub(super) async fn work_trial(&self, due: &DeliveryDue, trial: &Trial, handed_out: u32) -> Verdict {
        match decide(handed_out, trial, self.definitions.webhook(due.webhook)) {
            Step::LookAgain => Verdict::Again(NOT_KNOWN),
            Step::End(class, error) => {
                let made = Made::failed(self.clock.now(), Outcome::FailedForGood, class, error);
                self.tell(&self.finish(due, None, made)).await
            }
            Step::Send(webhook) => {
                let turn = self.lanes.aside();
                let fact = match trial.kind {
                    TrialKind::Test => self.attempt(due, &webhook).await,
                    TrialKind::Check => self.check(due, &webhook).await,
                };
                failpoint::reach(Point::TrialMade);
                let verdict = self.tell(&fact).await;
                drop(turn);
                verdict
            }
        }
    }

    async fn check(&self, due: &DeliveryDue, webhook: &Arc<Webhook>) -> Fact {
        let made = match self.requests.prepare_once(webhook) {
            Ok(ready) => self.get(&ready).await,
            Err(Error::Url(refused) | Error::TokenUrl(refused)) => Made::failed(
                self.clock.now(),
                Outcome::Failed,
                ErrorClass::RefusedAddress,
                refused.to_string(),
            ),
            Err(error) => {
                tracing::error!(webhook = %webhook.id, error = &error as &dyn std::error::Error, "no check can be made");
                return self.unusable(due);
            }
        };
        self.finish(due, Some((webhook, &Bytes::new())), made)
    }

    async fn get(&self, ready: &Ready) -> Made {
        let started_at = self.clock.now();
        let request = Unsent {
            method: Method::GET,
            target: &ready.prepared.target,
            headers: ready.prepared.check_headers(),
            body: Bytes::new(),
        };
        let made = exchange(&self.client, ready, request, started_at, false).await;
        match made.status {
            Some(status)
                if status != StatusCode::OK && made.error_class.is_none_or(|class| class == ErrorClass::Status) =>
            {
                let status =
                    StatusCode::from_u16(status).map_or_else(|_| status.to_string(), |status| status.to_string());
                Made {
                    outcome: Outcome::Failed,
                    error_class: Some(ErrorClass::Status),
                    error: format!("the receiver answered {status}; a check is passed with 200"),
                    ..made
                }
            }
            _ => made,
        }
    }

    /// What a trial comes to of which no request can be made.
    pub(super) fn unusable(&self, due: &DeliveryDue) -> Fact {
        let made = Made::failed(
            self.clock.now(),
            Outcome::FailedForGood,
            ErrorClass::Webhook,
            "the webhook's definition cannot be used; its operator's log says why".to_owned(),
        );
        self.finish(due, None, made)
    }
}

#[cfg(test)]
mod tests {
    use proto_schemas::definition::WebhookState;
    use proto_schemas::id::{ProjectId, WebhookId};
    use uuid::Uuid;

    use super::*;

    fn webhook(state: WebhookState) -> Webhook {
        Webhook {
            state,
            ..Webhook::blank(
                WebhookId::from_uuid(Uuid::from_u128(2)),
                ProjectId::from_uuid(Uuid::from_u128(1)),
            )
        }
    }

    fn test(given: Option<Webhook>) -> Trial {
        Trial {
            kind: TrialKind::Test,
            webhook: given.map(Box::new),
        }
    }

    #[test]
    fn a_webhook_is_tried_whatever_its_state() {
        for state in [
            WebhookState::Pending,
            WebhookState::Active,
            WebhookState::Paused,
            WebhookState::Failed,
            WebhookState::Disabled,
        ] {
            let known = Arc::new(webhook(state));
            assert_eq!(decide(1, &test(None), Some(Arc::clone(&known))), Step::Send(known));
        }
    }

    #[test]
    fn the_definition_that_comes_with_a_trial_is_the_one_that_is_tried() {
        let given = Webhook {
            url: "https://example.org/".into(),
            ..webhook(WebhookState::Pending)
        };
        let known = Arc::new(webhook(WebhookState::Active));
        let step = decide(1, &test(Some(given.clone())), Some(known));
        assert_eq!(step, Step::Send(Arc::new(given)));
    }

    #[test]
    fn a_definition_that_has_not_arrived_is_waited_for_but_not_for_ever() {
        assert_eq!(decide(1, &test(None), None), Step::LookAgain);
        assert!(matches!(
            decide(LOOKS, &test(None), None),
            Step::End(ErrorClass::Webhook, _)
        ));
        let gone = Webhook {
            deleted: true,
            ..webhook(WebhookState::Active)
        };
        assert!(matches!(
            decide(1, &test(None), Some(Arc::new(gone))),
            Step::End(ErrorClass::Webhook, _)
        ));
        let given = test(Some(webhook(WebhookState::Active)));
        assert!(matches!(
            decide(MAX_HANDED_OUT + 1, &given, None),
            Step::End(ErrorClass::GaveUp, _)
        ));
    }
}
