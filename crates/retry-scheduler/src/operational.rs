//! What is told of which cause. Pure.
//!
//! What becomes of the delivery of an operational event raises none: that is why telling never goes in circles.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use proto_schemas::event::Event;
use proto_schemas::id::{AttemptRef, WebhookId};
use proto_schemas::ledger::{AttemptFinished, EventRejected};
use proto_schemas::{operational, subject};
use serde_json::json;
use store::operational_events::{ExpiringSecret, OperationalEvent};
use store::webhook_health::{Health, Locked, StoppedState};

use crate::health::ended_at;

/// Longest reason, in bytes. Some quote what a producer or receiver wrote; all travel in events and e-mails.
pub const REASON_MAX: usize = 4096;

/// A reason, cut.
fn cut(reason: &str) -> String {
    reason[..reason.floor_char_boundary(REASON_MAX)].to_owned()
}

/// The id of an operational event, made of its cause: `op_`, a letter for the kind, and what identifies the cause.
fn id(kind: char, cause: &[&[u8]]) -> String {
    format!("op_{kind}_{}", URL_SAFE_NO_PAD.encode(cause.concat()))
}

/// A delivery is dead after this attempt.
#[must_use]
pub fn dead(fact: &AttemptFinished, reason: &str) -> Option<OperationalEvent> {
    let (status, class) = (fact.status, fact.error_class.map(|class| class.as_str()));
    let raised = dead_delivery(
        &fact.attempt,
        (&fact.event_id, &fact.event_type),
        reason,
        ended_at(fact),
    )?;
    Some(with_outcome(raised, status, class))
}

/// A delivery is dead, of which this attempt cannot be made, or cannot be recorded.
#[must_use]
pub fn impossible(event: &Event, attempt: &AttemptRef, reason: &str, now: Timestamp) -> Option<OperationalEvent> {
    dead_delivery(attempt, (&event.id, &event.event_type), reason, now)
}

fn dead_delivery(
    attempt: &AttemptRef,
    (event_id, event_type): (&str, &str),
    reason: &str,
    occurred_at: Timestamp,
) -> Option<OperationalEvent> {
    if operational::is_operational(event_type) {
        return None;
    }
    let (event, webhook) = (attempt.event.as_uuid(), attempt.webhook.as_uuid());
    let raised = OperationalEvent {
        id: id('d', &[event.as_bytes(), webhook.as_bytes(), &attempt.run.to_be_bytes()]),
        project: attempt.project,
        webhook: Some(attempt.webhook),
        event_type: operational::DELIVERY_DEAD,
        reason: cut(reason),
        detail: json!({
            "event": { "id": event_id, "type": event_type },
            "run": attempt.run,
            "attempts": attempt.attempt,
        }),
        occurred_at,
    };
    Some(with_outcome(raised, None, None))
}

fn with_outcome(mut raised: OperationalEvent, status: Option<u16>, class: Option<&str>) -> OperationalEvent {
    raised.detail["status"] = json!(status);
    raised.detail["error_class"] = json!(class);
    raised
}

/// A message on NATS could not become an event. Of one that only Posthaste may publish, nothing is told.
#[must_use]
pub fn rejected(fact: &EventRejected) -> Option<OperationalEvent> {
    let project = fact.project?;
    if subject::parse_event(&fact.subject).is_some_and(|(_, event_type)| operational::is_operational(event_type)) {
        return None;
    }
    Some(OperationalEvent {
        id: id('r', &[fact.key.as_uuid().as_bytes()]),
        project,
        webhook: None,
        event_type: operational::EVENT_REJECTED,
        reason: cut(&fact.detail),
        detail: json!({ "subject": fact.subject, "rejection": fact.reason, "key": fact.key.to_string() }),
        occurred_at: fact.received_at,
    })
}

/// A webhook's failures have stopped it: its health was `locked`'s and is `health` after these.
#[must_use]
pub fn stopped(locked: &Locked, health: &Health, failed: &[&AttemptFinished]) -> Option<OperationalEvent> {
    let stopped = health.stopped.as_ref()?;
    if locked.health.stopped.as_ref() == Some(stopped) {
        return None;
    }
    let by_operational = failed
        .iter()
        .filter(|fact| fact.started_at == stopped.at)
        .any(|fact| operational::is_operational(&fact.event_type));
    if by_operational {
        return None;
    }
    let (letter, event_type) = match stopped.state {
        StoppedState::Failed => ('f', operational::WEBHOOK_FAILED),
        StoppedState::Disabled => ('x', operational::WEBHOOK_DISABLED),
    };
    Some(OperationalEvent {
        id: of_webhook(letter, locked.webhook, stopped.at),
        project: locked.project,
        webhook: Some(locked.webhook),
        event_type,
        reason: cut(&stopped.reason),
        detail: json!({ "failures_in_a_row": health.failures_in_a_row }),
        occurred_at: stopped.at,
    })
}

/// Whether a webhook that delivers at `delivered_at` was stopped before, and restarted since: that it recovers is then
/// told, where it was told that it was stopped.
#[must_use]
pub fn may_recover(locked: &Locked, delivered_at: Timestamp) -> bool {
    let Some((stopped, restart)) = locked.health.stopped.as_ref().zip(locked.restarted_at) else {
        return false;
    };
    stopped.at <= restart && delivered_at > restart
}

/// A webhook that was stopped and restarted has delivered.
#[must_use]
pub fn recovered(locked: &Locked, stopped_at: Timestamp, delivered_at: Timestamp) -> OperationalEvent {
    OperationalEvent {
        id: of_webhook('b', locked.webhook, stopped_at),
        project: locked.project,
        webhook: Some(locked.webhook),
        event_type: operational::WEBHOOK_RECOVERED,
        reason: "delivered again after its restart".to_owned(),
        detail: json!({ "stopped_at": stopped_at.to_string() }),
        occurred_at: delivered_at,
    }
}

/// An earlier secret will soon sign nothing any more.
#[must_use]
pub fn expiring(secret: &ExpiringSecret, now: Timestamp) -> OperationalEvent {
    let (webhook, id_of_secret) = (secret.webhook.as_uuid(), secret.secret.as_uuid());
    OperationalEvent {
        id: id('s', &[webhook.as_bytes(), id_of_secret.as_bytes()]),
        project: secret.project,
        webhook: Some(secret.webhook),
        event_type: operational::SECRET_EXPIRING,
        reason: "the overlap of its rotation ends".to_owned(),
        detail: json!({ "secret": id_of_secret, "expires_at": secret.expires_at.to_string() }),
        occurred_at: now,
    }
}

fn of_webhook(letter: char, webhook: WebhookId, instant: Timestamp) -> String {
    let webhook = webhook.as_uuid();
    id(letter, &[webhook.as_bytes(), &instant.as_microsecond().to_be_bytes()])
}

#[cfg(test)]
mod tests;
