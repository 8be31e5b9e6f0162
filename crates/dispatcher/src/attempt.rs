//! Makes one attempt: one message of stream DELIVERIES → one request → one ledger entry.
//!
//! In: `DeliveryDue`. Out: `AttemptFinished`, or `DeliveryDeferred` where no request was made because the webhook's lane
//! has no room or its receiver is to be left alone (it is parked), it gets nothing just now (held), or is gone
//! (cancelled). A duty that is a trial is always made ([`trial`]).
//!
//! A duty that was handed out before and goes out in order goes back to the record first: had the attempt been made, making
//! it again would bring an old event after a newer one.
//!
//! Guarantee: the message is acked only after JetStream has acked the ledger entry. A crash before the request repeats
//! nothing; a crash between the request and the ack makes the request again, with the same event id, and the log shows
//! the attempt once, marked as handed out twice. That is the only way a receiver gets a duplicate from here.

mod exchange;
mod trial;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::bus::{Bus, Message, Verdict};
use common::clock::Clock;
use common::crypto::KeyRing;
use common::definitions::Definitions;
use common::egress;
use common::failpoint::{self, Point};
use common::ledger::Ledger;
use common::model::Standing;
use common::render::Rendered;
use common::request::{self, Addressed, Error};
use http::{HeaderValue, Method};
use opentelemetry::metrics::{Counter, Histogram};
use opentelemetry::{KeyValue, global};
use proto_schemas::definition::{Ordering, Webhook};
use proto_schemas::delivery::DeliveryDue;
use proto_schemas::id::EventKey;
use proto_schemas::ledger::{
    AttemptFinished, Deferral, DeliveryDeferred, ErrorClass, EventRejected, Fact, Outcome, REJECTED_PAYLOAD_MAX,
};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use self::exchange::{Made, Unsent, exchange};
use crate::classify;
use crate::lanes::{Admission, Lanes, Limits, Own};
use crate::requests::{Ready, Requests};

/// A duty that was handed out this often without an end is given up: each time, the process that had it died.
const MAX_HANDED_OUT: u32 = 20;
/// When to look again at a delivery whose definition this process cannot use.
const NOT_NOW: Duration = Duration::from_secs(30);
/// When to look again at a delivery whose definition is not known yet.
const NOT_KNOWN: Duration = Duration::from_secs(2);
/// How often to look after the lanes: well under the patience of those who wait in them.
const TEND_EVERY: Duration = Duration::from_millis(250);
/// How often to look for what is kept of webhooks and not needed any more.
const FORGET_EVERY: Duration = Duration::from_secs(10);

/// What the stage is made of.
pub struct Parts {
    /// NATS.
    pub bus: Bus,
    /// Webhooks.
    pub definitions: Arc<Definitions>,
    /// The way out.
    pub client: egress::Client,
    /// What sealed values are opened with.
    pub keys: KeyRing,
    /// Time of signatures and of the log.
    pub clock: Clock,
    /// Bounds of the lanes.
    pub lanes: Limits,
}

/// The stage.
pub struct Stage {
    ledger: Ledger,
    definitions: Arc<Definitions>,
    client: egress::Client,
    clock: Clock,
    lanes: Lanes,
    requests: Requests,
    attempts: Counter<u64>,
    deferred: Counter<u64>,
    duration: Histogram<f64>,
}

/// What is left to do with a duty once its definition has been looked at.
enum Step {
    Send(Arc<Webhook>),
    Defer(Deferral, &'static str, Duration),
    End(ErrorClass, String),
}

/// Decides what is to be done with a duty that this message hands out for so many a time, and that was handed out before
/// in other messages. Pure.
fn decide(handed_out: u32, before: u32, webhook: Option<Arc<Webhook>>) -> Step {
    let all = before.saturating_add(handed_out);
    if all > MAX_HANDED_OUT {
        return Step::End(ErrorClass::GaveUp, format!("handed out {all} times without an end"));
    }
    let Some(webhook) = webhook else {
        return Step::Defer(
            Deferral::Park,
            "the webhook's definition has not arrived yet",
            NOT_KNOWN,
        );
    };
    match Standing::of(&webhook) {
        // The process that had it may have made the attempt, and the next of its order may be out. The record knows.
        Standing::Active if handed_out > 1 && webhook.ordering != Ordering::None => {
            Step::Defer(Deferral::Park, "it was handed out before", Duration::ZERO)
        }
        Standing::Active => Step::Send(webhook),
        Standing::Held(reason) => Step::Defer(Deferral::Hold, reason, Duration::ZERO),
        Standing::Gone(reason) => Step::Defer(Deferral::Cancel, reason, Duration::ZERO),
    }
}

impl Stage {
    /// The stage.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let meter = global::meter("posthaste");
        Self {
            ledger: Ledger::new(parts.bus),
            definitions: parts.definitions,
            clock: parts.clock,
            lanes: Lanes::new(parts.lanes),
            requests: Requests::new(parts.keys, parts.client.guard().clone()),
            client: parts.client,
            attempts: meter
                .u64_counter("posthaste_attempts")
                .with_description("Attempts, by outcome and error class")
                .build(),
            deferred: meter
                .u64_counter("posthaste_deliveries_deferred")
                .with_description("Deliveries of which no request was made: parked, held or cancelled")
                .build(),
            duration: meter
                .f64_histogram("posthaste_attempt_duration")
                .with_unit("s")
                .with_description("From the begin of a request to the end of its response")
                .build(),
        }
    }

    /// Looks after the lanes, and drops what is kept of webhooks that are gone or get nothing any more, until `stop`.
    pub async fn tend(&self, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(TEND_EVERY);
        let mut forgetting = tokio::time::interval(FORGET_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.lanes.tend(),
                _ = forgetting.tick() => self.forget(),
            }
        }
    }

    fn forget(&self) {
        self.lanes.forget_idle();
        self.client.tend();
        let is_gone = |webhook| self.definitions.webhook(webhook).is_none_or(|found| found.deleted);
        self.requests.forget(is_gone);
    }

    /// Works one message.
    pub async fn work(&self, message: Message, stop: &CancellationToken) -> Verdict {
        let handed_out = message.handed_out;
        let mut due = match DeliveryDue::decode(message.payload.clone()) {
            Ok(due) => due,
            Err(error) => return self.tell(&undecodable(&message, &error.to_string())).await,
        };
        let before = due.handed_out_before;
        // Whoever had it may have made the request.
        due.handed_out_before = due.handed_out_before.saturating_add(handed_out.saturating_sub(1));
        if let Some(trial) = &due.trial {
            return self.work_trial(&due, trial, handed_out).await;
        }
        let fact = match decide(handed_out, before, self.definitions.webhook(due.webhook)) {
            Step::Defer(kind, reason, retry_in) => self.defer(&due, kind, reason, retry_in),
            Step::End(class, error) => self.finish(
                &due,
                None,
                Made::failed(self.clock.now(), Outcome::FailedForGood, class, error),
            ),
            Step::Send(webhook) => {
                let admission = tokio::select! {
                    biased;
                    admission = self.lanes.enter(webhook.id, Own::from(&*webhook)) => admission,
                    () = stop.cancelled() => return Verdict::Again(Duration::ZERO),
                };
                match admission {
                    Admission::Parked(cause, wait) => self.defer(&due, Deferral::Park, cause.as_str(), wait),
                    Admission::Turn(mut turn) => {
                        failpoint::reach(Point::AttemptBegun);
                        let fact = self.attempt(&due, &webhook).await;
                        if let Fact::AttemptFinished(made) = &fact {
                            let (sign, throttled) = classify::sign(made.status, made.error_class, made.retry_after);
                            turn.report(sign, throttled);
                        }
                        failpoint::reach(Point::AttemptMade);
                        let verdict = self.tell(&fact).await;
                        // Kept until the ledger has it, so that a crash repeats no more than the lane has room for.
                        drop(turn);
                        return verdict;
                    }
                }
            }
        };
        self.tell(&fact).await
    }

    async fn attempt(&self, due: &DeliveryDue, webhook: &Arc<Webhook>) -> Fact {
        let ready = match due.trial {
            None => self.requests.prepare(webhook),
            Some(_) => self.requests.prepare_once(webhook),
        };
        let mut body = Bytes::new();
        let made = match ready {
            Ok(ready) => match ready
                .prepared
                .render(&due.event)
                .and_then(|it| Ok((it, ready.prepared.address(&due.event)?)))
            {
                Ok((rendered, addressed)) => {
                    body = rendered.body.clone();
                    self.send(due, &ready, &addressed, &rendered).await
                }
                // The same event and the same definition would come to the same again.
                Err(unsendable) => Ok(Made::failed(
                    self.clock.now(),
                    Outcome::FailedForGood,
                    ErrorClass::Webhook,
                    unsendable.to_string(),
                )),
            },
            // Refused like an address is: by what the webhook says, so it counts as its attempt.
            Err(Error::Url(refused) | Error::TokenUrl(refused)) => Ok(Made::failed(
                self.clock.now(),
                Outcome::Failed,
                ErrorClass::RefusedAddress,
                refused.to_string(),
            )),
            Err(error) => Err(error),
        };
        match made {
            Ok(made) => self.finish(due, Some((webhook, &body)), made),
            Err(error) => {
                // Ours or the operator's to put right, so it does not use up the receiver's attempts.
                tracing::error!(webhook = %webhook.id, error = &error as &dyn std::error::Error, "no request can be made");
                if due.trial.is_some() {
                    return self.unusable(due);
                }
                self.defer(
                    due,
                    Deferral::Park,
                    "the webhook's definition cannot be used by this service; see its log",
                    NOT_NOW,
                )
            }
        }
    }

    async fn send(
        &self,
        due: &DeliveryDue,
        ready: &Ready,
        addressed: &Addressed<'_>,
        rendered: &Rendered,
    ) -> Result<Made, Error> {
        let started_at = self.clock.now();
        let prepared = &ready.prepared;
        let mut headers = prepared.headers(&due.event, addressed, rendered, started_at)?;
        if due.trial.is_some() {
            headers.insert(request::TEST, HeaderValue::from_static("true"));
        }
        if due.run > 0 {
            headers.insert(request::REPLAY, HeaderValue::from(due.run));
        }
        let request = Unsent {
            method: Method::POST,
            target: &addressed.target,
            headers,
            body: rendered.body.clone(),
        };
        let redirect_is_success = prepared.webhook.redirect_is_success;
        Ok(exchange(&self.client, ready, request, started_at, redirect_is_success).await)
    }

    fn finish(&self, due: &DeliveryDue, by: Option<(&Webhook, &Bytes)>, made: Made) -> Fact {
        let outcome = match made.outcome {
            Outcome::Delivered => "delivered",
            Outcome::Failed | Outcome::FailedForGood => "failed",
        };
        let class = made.error_class.map_or("", ErrorClass::as_str);
        let labels = [KeyValue::new("outcome", outcome), KeyValue::new("error_class", class)];
        self.attempts.add(1, &labels);
        self.duration.record(made.duration.as_secs_f64(), &labels[..1]);
        Fact::AttemptFinished(AttemptFinished {
            attempt: due.attempt_ref(),
            event_id: due.event.id.clone(),
            event_type: due.event.event_type.clone(),
            webhook_revision: by.map_or(0, |(webhook, _)| webhook.revision),
            started_at: made.started_at,
            duration: made.duration,
            outcome: made.outcome,
            status: made.status,
            error_class: made.error_class,
            error: made.error,
            response_headers: made.headers,
            response_body: made.body,
            response_truncated: made.truncated,
            retry_after: made.retry_after,
            request_sha256: by.map_or_else(Bytes::new, |(_, body)| Bytes::copy_from_slice(&Sha256::digest(body))),
            handed_out: due.handed_out_before.saturating_add(1),
            ladder: by.map_or_else(Vec::new, |(webhook, _)| webhook.ladder.clone()),
            fail_after: by.and_then(|(webhook, _)| webhook.fail_after),
            trial: due.trial.as_ref().map(|trial| trial.kind),
            exchange: made.exchange,
        })
    }

    fn defer(&self, due: &DeliveryDue, kind: Deferral, reason: &str, retry_in: Duration) -> Fact {
        failpoint::reach(Point::AttemptDeferred);
        self.deferred.add(1, &[]);
        Fact::DeliveryDeferred(DeliveryDeferred {
            attempt: due.attempt_ref(),
            reason: reason.to_owned(),
            retry_in,
            deferred_at: self.clock.now(),
            kind,
        })
    }

    /// Tells the ledger. What has happened cannot be told too late, so this goes on until it is stored, however long
    /// NATS is away; the message is held meanwhile.
    async fn tell(&self, fact: &Fact) -> Verdict {
        let mut pause = Duration::from_millis(50);
        loop {
            let Err(error) = self.ledger.tell(fact).await else {
                failpoint::reach(Point::AttemptTold);
                return Verdict::Done;
            };
            tracing::debug!(%error, "the ledger entry waits for NATS");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
}

/// A duty nobody can read is set aside like a bad event, with the reason.
fn undecodable(message: &Message, error: &str) -> Fact {
    Fact::EventRejected(EventRejected {
        key: EventKey::of_message(message.stored_at, message.sequence),
        project: None,
        subject: message.subject.to_string(),
        reason: "poison".to_owned(),
        detail: format!("not a delivery this release can read: {error}"),
        payload: message.payload.slice(..message.payload.len().min(REJECTED_PAYLOAD_MAX)),
        payload_size: message.payload.len() as u64,
        received_at: message.stored_at,
    })
}

#[cfg(test)]
mod tests {
    use proto_schemas::id::{ProjectId, WebhookId};
    use uuid::Uuid;

    use super::*;

    fn webhook(ordering: Ordering) -> Option<Arc<Webhook>> {
        let (id, project) = (Uuid::from_u128(2), Uuid::from_u128(1));
        Some(Arc::new(Webhook {
            ordering,
            ..Webhook::blank(WebhookId::from_uuid(id), ProjectId::from_uuid(project))
        }))
    }

    #[test]
    fn a_duty_that_is_handed_out_again_and_again_ends_whichever_messages_do_it() {
        let last = MAX_HANDED_OUT;
        for ordering in [Ordering::None, Ordering::Webhook] {
            assert!(matches!(decide(1, last - 1, webhook(ordering.clone())), Step::Send(_)));
            for (handed_out, before) in [(last + 1, 0), (1, last), (2, last - 1), (1, u32::MAX)] {
                let step = decide(handed_out, before, webhook(ordering.clone()));
                assert!(
                    matches!(step, Step::End(ErrorClass::GaveUp, _)),
                    "{handed_out} {before}"
                );
            }
        }
    }

    #[test]
    fn a_duty_in_order_that_was_handed_out_before_asks_the_record_first() {
        assert!(matches!(decide(1, 0, webhook(Ordering::Webhook)), Step::Send(_)));
        assert!(matches!(decide(2, 0, webhook(Ordering::None)), Step::Send(_)));
        for ordering in [Ordering::Webhook, Ordering::Key("data.key".into())] {
            assert!(matches!(
                decide(2, 0, webhook(ordering)),
                Step::Defer(Deferral::Park, _, Duration::ZERO)
            ));
        }
    }
}
