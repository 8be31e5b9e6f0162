//! Operational events → stream EVENTS, and into what e-mails are made of.
//!
//! In: rows of `operational_events`, written in the transaction that recorded their cause. Out: an event for each, which
//! goes the way of any other, and for projects that have somebody told by e-mail, alerts ([`crate::alert`]).
//!
//! Guarantee: a row is deleted, and its alert written, in the transaction that holds it locked, and only when JetStream has
//! acked the event. A crash in between publishes it again, under the same event id. One that fits no message is deleted with
//! an error in the log: it would be in front of all the others.
//!
//! Besides, every few seconds: earlier secrets whose overlap ends within an hour.

use std::collections::HashMap;
use std::time::Duration;

use common::bus::{self, Bus};
use common::clock::Clock;
use common::failpoint::{self, Point};
use futures::future::join_all;
use proto_schemas::subject;
use serde_json::json;
use store::Store;
use store::alerts::{self, About, Alert};
use store::operational_events::{self, Waiting};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::next_step::later;
use crate::operational;
use crate::patience::Patience;

/// Events of one transaction.
const AT_ONCE: u32 = 500;

/// How often to look for events to publish. Nobody waits for them as one waits for a delivery.
const EVERY: Duration = Duration::from_millis(500);

/// How often to look for secrets that expire.
const SECRETS_EVERY: Duration = Duration::from_secs(15);

/// How long before its end an earlier secret is told of. Where the overlap is shorter, at once.
const AHEAD: Duration = Duration::from_secs(3600);

/// Why events wait.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres.
    #[error("operational events cannot be read")]
    Store(#[from] store::Error),
    /// NATS.
    #[error("operational events cannot be published")]
    Bus(#[from] bus::Error),
}

/// The stage.
#[derive(Debug)]
pub struct Announcer {
    /// Where from.
    pub store: Store,
    /// Where to.
    pub bus: Bus,
    /// What time it is.
    pub clock: Clock,
    /// Whether there is a mail server to tell by.
    pub mails: bool,
    /// For when Postgres is away.
    pub patience: Patience,
    /// What is counted.
    pub metrics: Metrics,
}

impl Announcer {
    /// Looks until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut secrets = tokio::time::interval(SECRETS_EVERY);
        loop {
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.publish().await.map(drop),
                _ = secrets.tick() => self.look_at_secrets().await.map_err(Error::from),
            };
            match looked {
                Ok(()) => {}
                Err(Error::Store(error)) => self.patience.fault(&error),
                // NATS' being away is told by the bus.
                Err(Error::Bus(error)) => tracing::debug!(%error, "operational events wait"),
            }
        }
    }

    /// Publishes what waits; tells how many events.
    ///
    /// # Errors
    /// [`Error`]; what was published before is gone from the table, and what was not stays.
    pub async fn publish(&self) -> Result<usize, Error> {
        let mut published = 0;
        loop {
            let mut transaction = self.store.begin().await?;
            let waiting = operational_events::claim(&mut transaction, AT_ONCE).await?;
            if waiting.is_empty() {
                transaction.rollback().await?;
                return Ok(published);
            }
            let stored = join_all(waiting.iter().map(|event| self.store_one(event))).await;
            let (mut told, mut failure) = (Vec::with_capacity(waiting.len()), None);
            for (event, stored) in waiting.iter().zip(stored) {
                match stored {
                    Ok(()) => told.push(event),
                    Err(error) => failure = Some(error),
                }
            }
            failpoint::reach(Point::AnnouncePublished);
            let ids: Vec<String> = told.iter().map(|event| event.id.clone()).collect();
            operational_events::delete(&mut transaction, &ids).await?;
            if self.mails {
                alerts::insert(&mut transaction, &gathered(&told)).await?;
            }
            failpoint::reach(Point::AnnounceDeleted);
            transaction.commit().await?;
            for event in &told {
                self.metrics.told(&event.event_type);
            }
            published += told.len();
            if let Some(error) = failure {
                return Err(error.into());
            }
            if waiting.len() < AT_ONCE as usize {
                return Ok(published);
            }
        }
    }

    async fn store_one(&self, event: &Waiting) -> Result<(), bus::Error> {
        let subject = subject::operational(event.project, &event.event_type);
        let storing = async {
            let storing = self
                .bus
                .publish_event(subject, &event.id, event.occurred_at, data(event));
            storing.await?.stored().await
        };
        match storing.await {
            // It will not get smaller, and those behind it wait.
            Err(error @ bus::Error::TooLarge) => {
                tracing::error!(
                    %error, event = event.id, event_type = event.event_type, project = %event.project,
                    "an operational event is not told"
                );
                Ok(())
            }
            stored => stored.map(drop),
        }
    }

    /// Has it told which secrets expire soon.
    ///
    /// # Errors
    /// Any [`store::Error`]
    pub async fn look_at_secrets(&self) -> Result<(), store::Error> {
        let now = self.clock.now();
        let mut transaction = self.store.begin().await?;
        operational_events::forget_expired(&mut transaction, now).await?;
        let found = operational_events::note_expiring(&mut transaction, now, later(now, AHEAD), AT_ONCE).await?;
        let raised: Vec<_> = found.iter().map(|secret| operational::expiring(secret, now)).collect();
        operational_events::insert(&mut transaction, &raised).await?;
        transaction.commit().await
    }
}

/// What the event holds: the webhook, why, and what else there is to say.
fn data(event: &Waiting) -> Vec<u8> {
    let webhook = event
        .webhook
        .as_ref()
        .map(|(id, name)| json!({ "id": id.as_uuid(), "name": name }));
    let mut data = json!({ "webhook": webhook, "reason": event.reason });
    if let (Some(data), Some(detail)) = (data.as_object_mut(), event.detail.as_object()) {
        data.extend(detail.clone());
    }
    data.to_string().into_bytes()
}

/// The alerts that these events come to: those of one kind about one webhook are one.
fn gathered(events: &[&Waiting]) -> Vec<(About, Alert)> {
    let mut alerts: HashMap<(About, &str), Alert> = HashMap::new();
    for event in events.iter().filter(|event| event.is_mailed) {
        let about = About {
            project: event.project,
            webhook: event.webhook.as_ref().map(|(id, _)| *id),
        };
        alerts
            .entry((about, event.event_type.as_str()))
            .and_modify(|alert| {
                alert.events = alert.events.saturating_add(1);
                alert.first_at = alert.first_at.min(event.occurred_at);
                alert.last_at = alert.last_at.max(event.occurred_at);
                alert.reason.clone_from(&event.reason);
                alert.detail.clone_from(&event.detail);
            })
            .or_insert_with(|| Alert {
                event_type: event.event_type.clone(),
                events: 1,
                reason: event.reason.clone(),
                detail: event.detail.clone(),
                first_at: event.occurred_at,
                last_at: event.occurred_at,
            });
    }
    let mut alerts: Vec<(About, Alert)> = alerts.into_iter().map(|((about, _), alert)| (about, alert)).collect();
    alerts.sort_by(|(a, one), (b, other)| (a, &one.event_type).cmp(&(b, &other.event_type)));
    alerts
}

#[cfg(test)]
mod tests;
