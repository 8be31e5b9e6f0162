//! Fans events out: one message of stream EVENTS → a duty per webhook (stream DELIVERIES) and a ledger entry.
//!
//! In: what producers published. Out: `DeliveryDue` for every webhook that wants the event, and one `EventAccepted` that
//! says who it is owed to and who was skipped and why; or one `EventRejected`, where it is no event, or the schema of its
//! type refuses it and the project wants that to count.
//!
//! An event whose producer gave it an id takes that id first ([`repeats`]); what says the same again is dropped, and what
//! says something else under the id is rejected.
//!
//! A webhook that holds what comes while it is paused gets no duty, and neither does one whose deliveries go out in order:
//! the ledger is told, and retry-scheduler makes the duty when its time has come.
//!
//! Guarantee: the message is acked only after JetStream has acked everything it causes. A crash here hands the message
//! out again; its deliveries carry message ids made of the event's key, so those that were stored are not stored twice.
//! JetStream knows these ids for ten minutes; for how long it refuses the rest, has no end, so which of them were stored is
//! remembered while this process lives.

use std::cell::OnceCell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use common::bus::{self, Bus, Claim, Message, Seen, Verdict};
use common::definitions::{Definitions, Subscriber};
use common::failpoint::{self, Point};
use common::ledger::{self, Ledger};
use common::model::filter;
use common::render::Expressions;
use futures::FutureExt as _;
use futures::future::{join, join_all};
use opentelemetry::metrics::Counter;
use opentelemetry::{KeyValue, global};
use proto_schemas::definition::{Ordering, Project, SchemaCheck, WebhookState};
use proto_schemas::delivery::DeliveryDue;
use proto_schemas::event::Event;
use proto_schemas::id::{AttemptRef, EventKey, OrderKey, WebhookId};
use proto_schemas::ledger::{EventAccepted, EventRejected, Fact, REJECTED_PAYLOAD_MAX, SkipReason};
use proto_schemas::operational::is_operational;
use proto_schemas::seen::{Digest, SeenEvent};
use proto_schemas::subject;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::accept::{self, Reason, Rejection};
use crate::aside;
use crate::repeats::{self, Standing};
use crate::schema_check;

/// A message that was handed out this often without an end is set aside: each time, the process that had it died.
const MAX_HANDED_OUT: u32 = 20;

/// By how much a duty is larger than the ledger entry of its event at most, in bytes: its own ids and numbers, and the header
/// with its message id.
const DUTY_BYTES: usize = 256;

/// How much of what one event causes is on its way at once, and of what all cause, in bytes: each webhook's duty is a copy
/// of the event.
const ON_ITS_WAY: usize = 4 * 1024 * 1024;
const ALL_ON_THEIR_WAY: usize = 64 * 1024 * 1024;

/// The stage.
#[derive(Debug)]
pub struct FanOut {
    bus: Bus,
    /// For each byte of the duties that are on their way.
    way: Semaphore,
    seen: Seen,
    ledger: Ledger,
    definitions: Arc<Definitions>,
    max_event_bytes: usize,
    accepted: Counter<u64>,
    rejected: Counter<u64>,
    repeated: Counter<u64>,
    owed: Counter<u64>,
    skipped: Counter<u64>,
}

/// Why a message's consequences are not all durable yet.
#[derive(Debug, thiserror::Error)]
enum Unstored {
    #[error("a delivery was not stored")]
    Delivery(#[from] bus::Error),
    #[error(transparent)]
    Entry(#[from] ledger::Error),
}

impl Unstored {
    /// Whether no waiting changes it.
    fn is_too_large(&self) -> bool {
        matches!(
            self,
            Self::Delivery(bus::Error::TooLarge) | Self::Entry(ledger::Error::TooLarge)
        )
    }
}

/// What of an accepted event's consequences JetStream has not stored yet.
#[derive(Default)]
struct Left {
    due: Vec<WebhookId>,
    is_told: bool,
}

/// Who gets an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// The webhooks it is owed to.
    pub owed: Vec<WebhookId>,
    /// The webhooks that want its type and are skipped.
    pub skipped: Vec<(WebhookId, SkipReason)>,
    /// Those of the owed ones that hold what comes while they are paused.
    pub held: Vec<WebhookId>,
    /// Those whose deliveries go out in order, and by which key.
    pub ordered: Vec<(WebhookId, OrderKey)>,
}

impl Matched {
    /// The webhooks that a duty is to be made for.
    fn due(&self) -> impl Iterator<Item = WebhookId> {
        let kept_back =
            |webhook: &WebhookId| self.held.contains(webhook) || self.ordered.iter().any(|(it, _)| it == webhook);
        self.owed.iter().copied().filter(move |webhook| !kept_back(webhook))
    }
}

/// Decides who gets an event. Pure.
#[must_use]
pub fn decide(event: &Event, subscribers: &[Arc<Subscriber>]) -> Matched {
    let mut matched = Matched::default();
    // Taken apart for the first filter that asks, and once.
    let taken_apart = OnceCell::new();
    let subject = || taken_apart.get_or_init(|| filter::Subject::new(event, json(event)));
    let data = OnceCell::new();
    for subscriber in subscribers
        .iter()
        .filter(|subscriber| subscriber.wants(&event.event_type))
    {
        let id = subscriber.webhook.id;
        if !subscriber.accepts(event, subject) {
            matched.skipped.push((id, SkipReason::Filtered));
            continue;
        }
        let is_held = match subscriber.webhook.state {
            WebhookState::Active => false,
            WebhookState::Paused if subscriber.webhook.hold_while_paused => true,
            WebhookState::Paused => {
                matched.skipped.push((id, SkipReason::Paused));
                continue;
            }
            WebhookState::Pending | WebhookState::Failed | WebhookState::Disabled => {
                matched.skipped.push((id, SkipReason::Disabled));
                continue;
            }
        };
        matched.owed.push(id);
        if is_held {
            matched.held.push(id);
        }
        if let Some(key) = subscriber.order_key(event, || data.get_or_init(|| json(event)).as_ref()) {
            matched.ordered.push((id, key));
        }
    }
    matched
}

/// [`decide`], where it holds nobody up.
async fn who_gets(event: &Event, subscribers: Arc<[Arc<Subscriber>]>) -> Matched {
    if is_moderate(event, &subscribers) {
        return decide(event, &subscribers);
    }
    let event = event.clone();
    aside::run(move || decide(&event, &subscribers)).await
}

/// Whether who gets an event is so soon decided that it may be done in between. What a key costs depends on the payload,
/// which its expression is given, and on the expression, which may take as long as 64 KiB do.
fn is_moderate(event: &Event, subscribers: &[Arc<Subscriber>]) -> bool {
    let has_key =
        |it: &&Arc<Subscriber>| matches!(it.webhook.ordering, Ordering::Key(_)) && it.wants(&event.event_type);
    let keys = subscribers.iter().filter(has_key).count();
    keys * (event.payload.len() + 64 * 1024) <= 1024 * 1024
}

/// The payload, where it is JSON.
fn json(event: &Event) -> Option<serde_json::Value> {
    event.is_json().then(|| serde_json::from_slice(&event.payload).ok())?
}

/// Adds the attributes that the producer did not give and the project knows how to find.
fn add_attributes(event: &mut Event, project: &str, expressions: &Expressions) {
    if !expressions.add_to(event, project) {
        tracing::debug!(
            event = event.id,
            "attributes not added: they would be too many or too long"
        );
    }
}

impl FanOut {
    /// The stage over a bus and what is defined.
    #[must_use]
    pub fn new(bus: Bus, definitions: Arc<Definitions>, max_event_bytes: usize) -> Self {
        let meter = global::meter("posthaste");
        let counter = |name: &'static str, what: &'static str| meter.u64_counter(name).with_description(what).build();
        Self {
            ledger: Ledger::new(bus.clone()),
            seen: Seen::new(bus.clone()),
            bus,
            way: Semaphore::new(ALL_ON_THEIR_WAY),
            definitions,
            max_event_bytes,
            accepted: counter("posthaste_events_accepted", "Events accepted"),
            rejected: counter("posthaste_events_rejected", "Messages set aside, by reason"),
            repeated: counter(
                "posthaste_events_repeated",
                "Messages dropped because they say again what one with their id said before",
            ),
            owed: counter(
                "posthaste_deliveries_owed",
                "Deliveries owed, those that are held or go out in order included",
            ),
            skipped: counter(
                "posthaste_deliveries_skipped",
                "Deliveries not made because the webhook is paused or disabled, or does not want the event",
            ),
        }
    }

    /// Works one message. Never gives up on one while the process lives; `stop` hands it back.
    pub async fn work(&self, message: Message, stop: &CancellationToken) -> Verdict {
        // Decided once: what is published again after a failure must be what was published before it.
        let mut outcome = match self.decide(&message).await {
            Ok((event, warnings)) => {
                let matched = who_gets(&event, self.definitions.subscribers(event.project)).await;
                Ok((event, matched, warnings))
            }
            Err(rejection) => Err(rejection),
        };
        if let Ok((event, ..)) = &outcome
            && let Some(digest) = repeats::digest_of(&message, event)
        {
            match self.standing(&message, event, digest, stop).await {
                None => return Verdict::Again(Duration::ZERO),
                Some(Standing::Repeated) => {
                    tracing::debug!(event = event.id, "repeated; dropped");
                    self.repeated.add(1, &[]);
                    return Verdict::Done;
                }
                Some(Standing::Conflict) => {
                    outcome = Err(Rejection::new(Reason::Conflict, repeats::conflict(&event.id)));
                }
                Some(Standing::First | Standing::Claimed) => {}
            }
        }
        failpoint::reach(Point::FanOutDecided);
        let mut left = Left::default();
        if let Ok((_, matched, _)) = &outcome {
            left.due.extend(matched.due());
        }
        let mut pause = Duration::from_millis(50);
        loop {
            let stored = match &outcome {
                Ok((event, matched, warnings)) => self.publish(event, matched, warnings, &mut left).await,
                Err(rejection) => self.reject(&message, rejection).await,
            };
            let Err(error) = stored else { return Verdict::Done };
            if let Ok((event, matched, _)) = &outcome
                && error.is_too_large()
            {
                outcome = Err(self.too_large(event, matched));
                continue;
            }
            tracing::debug!(%error, "fan-out waits for NATS");
            tokio::select! {
                () = stop.cancelled() => return Verdict::Again(Duration::ZERO),
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(2)),
            }
        }
    }

    /// What the event is by its id, which it has from now on if nobody has it; `None` once told to stop.
    ///
    /// A crash after this hands the message out again, and then the id is found to be its own.
    async fn standing(
        &self,
        message: &Message,
        event: &Event,
        digest: Digest,
        stop: &CancellationToken,
    ) -> Option<Standing> {
        let wanted = SeenEvent {
            digest,
            event: Some(event.key),
        };
        let mut revision = repeats::claim_of(message);
        let mut pause = Duration::from_millis(50);
        loop {
            match self.seen.claim(event.project, &event.id, &wanted, revision).await {
                Ok(Claim::Made(_)) => return Some(Standing::First),
                Ok(Claim::Known(known, found)) => match repeats::decide(&known, &digest, event.key) {
                    Standing::Claimed => revision = found,
                    standing => return Some(standing),
                },
                Err(error) => {
                    tracing::debug!(%error, "an id waits for NATS");
                    tokio::select! {
                        () = stop.cancelled() => return None,
                        () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(2)),
                    }
                }
            }
        }
    }

    /// The event, and what its type has against it where that does not keep it out.
    async fn decide(&self, message: &Message) -> Result<(Event, Vec<String>), Rejection> {
        let poison = |detail: String| Rejection::new(Reason::Poison, detail);
        if message.handed_out > MAX_HANDED_OUT {
            return Err(poison(format!(
                "handed out {} times without an end",
                message.handed_out
            )));
        }
        let project = subject::parse_event(&message.subject).and_then(|(project, _)| self.definitions.project(project));
        AssertUnwindSafe(async {
            let mut event = accept::decide(message, project.as_deref(), self.max_event_bytes)?;
            let warnings = match &project {
                // Ours to answer for, whatever the project makes of its own events.
                Some(_) if is_operational(&event.event_type) => Vec::new(),
                Some(project) => {
                    if let Some(expressions) = self.definitions.event_attributes(project.id) {
                        add_attributes(&mut event, &project.name, &expressions);
                    }
                    self.check(project, &event).await?
                }
                None => Vec::new(),
            };
            Ok((event, warnings))
        })
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(poison("checking it ended in a panic; see the log".to_owned())))
    }

    async fn check(&self, project: &Project, event: &Event) -> Result<Vec<String>, Rejection> {
        let Some(event_type) = self.definitions.event_type(project, &event.event_type) else {
            return Ok(Vec::new());
        };
        let data = event.is_json().then_some(event.payload.as_ref());
        let faults = schema_check::ask(&event_type, &event.attributes, data).await;
        match project.schema_check {
            SchemaCheck::Reject if !faults.is_empty() => Err(Rejection::new(
                Reason::Schema,
                schema_check::detail(&event.event_type, &faults),
            )),
            _ => Ok(schema_check::warnings(&faults)),
        }
    }

    /// Why an event is set aside that would make a message that NATS does not take. Repeating it would change nothing, and
    /// hold up what is behind it.
    fn too_large(&self, event: &Event, matched: &Matched) -> Rejection {
        Rejection::new(
            Reason::TooLarge,
            format!(
                "the event, of {} bytes, and what is to be said of it and {} webhooks are together larger than a message of \
                 NATS may be (max_payload is {}); publish less in one event",
                event.payload.len(),
                matched.owed.len() + matched.skipped.len(),
                self.bus.max_payload()
            ),
        )
    }

    async fn publish(
        &self,
        event: &Event,
        matched: &Matched,
        warnings: &[String],
        left: &mut Left,
    ) -> Result<(), Unstored> {
        let entry = self.ledger.entry(&Fact::EventAccepted(EventAccepted {
            event: event.clone(),
            owed: matched.owed.clone(),
            skipped: matched.skipped.clone(),
            warnings: warnings.to_vec(),
            held: matched.held.clone(),
            ordered: matched.ordered.clone(),
        }))?;
        // Known before the first of them is on its way.
        let duty_bytes = entry.size() + DUTY_BYTES;
        if duty_bytes > self.bus.max_payload() {
            return Err(ledger::Error::TooLarge.into());
        }
        let Left { due, is_told } = left;
        let telling = async {
            if !*is_told {
                self.ledger.tell_entry(entry).await?;
                *is_told = true;
            }
            Ok::<_, Unstored>(())
        };
        let (delivered, told) = join(self.deliver(event, duty_bytes, due), telling).await;
        delivered?;
        told?;
        failpoint::reach(Point::FanOutStored);
        self.accepted.add(1, &[]);
        self.owed.add(matched.owed.len() as u64, &[]);
        self.skipped.add(matched.skipped.len() as u64, &[]);
        Ok(())
    }

    /// Publishes the duties of these webhooks, as many at once as may be on their way, and takes those from `due` that are
    /// stored.
    async fn deliver(&self, event: &Event, duty_bytes: usize, due: &mut Vec<WebhookId>) -> Result<(), bus::Error> {
        let mut failure = None;
        while !due.is_empty() && failure.is_none() {
            let at_once = (ON_ITS_WAY / duty_bytes).clamp(1, due.len());
            let webhooks: Vec<WebhookId> = due.drain(..at_once).collect();
            let bytes = (at_once * duty_bytes).min(ALL_ON_THEIR_WAY);
            // It is never closed, and what does not fit into a number is above the limit.
            let _room = self.way.acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX)).await;
            let mut storing = Vec::with_capacity(at_once);
            for webhook in &webhooks {
                storing.push(self.hand_over(event, *webhook).await);
                failpoint::reach(Point::FanOutBetween);
            }
            failpoint::reach(Point::FanOutPublished);
            let stored = join_all(storing.into_iter().map(async |storing| storing?.stored().await)).await;
            for (webhook, stored) in webhooks.into_iter().zip(stored) {
                if let Err(error) = stored {
                    due.push(webhook);
                    failure = Some(error);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn hand_over(&self, event: &Event, webhook: WebhookId) -> Result<bus::Storing, bus::Error> {
        let attempt = AttemptRef {
            event: event.key,
            project: event.project,
            webhook,
            run: 0,
            attempt: 1,
            release: 0,
            handed_out_before: 0,
        };
        let duty = DeliveryDue::encode_parts(event, attempt);
        let subject = subject::delivery(event.project, webhook);
        self.bus
            .publish_once(subject, &attempt.delivery_message_id(), duty)
            .await
    }

    async fn reject(&self, message: &Message, rejection: &Rejection) -> Result<(), Unstored> {
        let fact = Fact::EventRejected(EventRejected {
            key: EventKey::of_message(message.stored_at, message.sequence),
            project: subject::parse_event(&message.subject)
                .and_then(|(project, _)| self.definitions.project(project))
                .map(|project| project.id),
            subject: message.subject.to_string(),
            reason: rejection.reason.as_str().to_owned(),
            detail: rejection.detail.clone(),
            payload: message.payload.slice(..message.payload.len().min(REJECTED_PAYLOAD_MAX)),
            payload_size: message.payload.len() as u64,
            received_at: message.stored_at,
        });
        self.ledger.tell(&fact).await?;
        failpoint::reach(Point::FanOutRejected);
        tracing::warn!(subject = %message.subject, reason = rejection.reason.as_str(), detail = rejection.detail, "event rejected");
        self.rejected
            .add(1, &[KeyValue::new("reason", rejection.reason.as_str())]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use jiff::Timestamp;
    use proto_schemas::definition::Webhook;
    use proto_schemas::id::ProjectId;
    use uuid::Uuid;

    use super::*;

    const PROJECT: ProjectId = ProjectId::from_uuid(Uuid::from_u128(1));

    fn id(number: u128) -> WebhookId {
        WebhookId::from_uuid(Uuid::from_u128(number))
    }

    fn subscribers(webhooks: &[(WebhookState, bool, Ordering)]) -> Vec<Arc<Subscriber>> {
        webhooks
            .iter()
            .zip(1..)
            .map(|((state, hold_while_paused, ordering), number)| {
                Arc::new(Subscriber::of(&Arc::new(Webhook {
                    state: *state,
                    hold_while_paused: *hold_while_paused,
                    ordering: ordering.clone(),
                    ..Webhook::blank(id(number), PROJECT)
                })))
            })
            .collect()
    }

    fn event() -> Event {
        Event {
            key: EventKey::of_message(Timestamp::UNIX_EPOCH, 1),
            id: "evt".into(),
            project: PROJECT,
            event_type: "order.paid".into(),
            occurred_at: Timestamp::UNIX_EPOCH,
            accepted_at: Timestamp::UNIX_EPOCH,
            attributes: BTreeMap::new(),
            content_type: "application/json".into(),
            payload: Bytes::from_static(br#"{"customer":"c-1"}"#),
            traceparent: String::new(),
        }
    }

    #[test]
    fn a_paused_webhook_is_skipped_unless_it_holds_what_comes() {
        let matched = decide(
            &event(),
            &subscribers(&[
                (WebhookState::Active, true, Ordering::None),
                (WebhookState::Paused, false, Ordering::None),
                (WebhookState::Paused, true, Ordering::None),
                (WebhookState::Failed, true, Ordering::None),
            ]),
        );
        assert_eq!(matched.owed, [id(1), id(3)]);
        assert_eq!(matched.held, [id(3)]);
        assert_eq!(
            matched.skipped,
            [(id(2), SkipReason::Paused), (id(4), SkipReason::Disabled)]
        );
        assert_eq!(matched.due().collect::<Vec<_>>(), [id(1)]);
    }

    #[test]
    fn no_duty_is_made_for_what_goes_out_in_order() {
        let by_key = Ordering::Key("data.customer".into());
        let matched = decide(
            &event(),
            &subscribers(&[
                (WebhookState::Active, false, Ordering::Webhook),
                (WebhookState::Active, false, by_key.clone()),
                (WebhookState::Paused, true, by_key),
                (WebhookState::Active, false, Ordering::None),
            ]),
        );
        assert_eq!(matched.owed, [id(1), id(2), id(3), id(4)]);
        assert_eq!(matched.held, [id(3)]);
        let ordered: Vec<WebhookId> = matched.ordered.iter().map(|(webhook, _)| *webhook).collect();
        assert_eq!(ordered, [id(1), id(2), id(3)]);
        assert_eq!(matched.ordered[0].1, OrderKey::WHOLE);
        assert_eq!(matched.ordered[1].1, matched.ordered[2].1);
        assert_eq!(matched.due().collect::<Vec<_>>(), [id(4)]);
    }
    #[tokio::test]
    async fn keys_that_take_their_time_hold_nobody_up() {
        let by_key = |count| vec![(WebhookState::Active, false, Ordering::Key("data.customer".into())); count];
        let large = Event {
            payload: format!(r#"{{"customer":"c-1","more":"{}"}}"#, "x".repeat(900_000)).into(),
            ..event()
        };
        for (event, keys, is_soon) in [
            (event(), 15, true),
            (event(), 16, false),
            (large.clone(), 1, true),
            (large.clone(), 2, false),
        ] {
            let subscribers: Arc<[Arc<Subscriber>]> = subscribers(&by_key(keys)).into();
            let (payload, found) = (event.payload.len(), is_moderate(&event, &subscribers));
            assert_eq!(found, is_soon, "{keys} keys of {payload} bytes");
            let decided = who_gets(&event, Arc::clone(&subscribers)).await;
            assert_eq!(decided, decide(&event, &subscribers));
            assert_eq!(decided.ordered.len(), keys);
        }
        // What has no key costs nothing.
        let plain = vec![(WebhookState::Active, false, Ordering::None); 1000];
        let decided = who_gets(&large, subscribers(&plain).into()).now_or_never();
        assert_eq!(decided.unwrap().owed.len(), 1000);
    }
}
