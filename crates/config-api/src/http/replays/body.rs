//! What is asked for.

use common::http::{FieldError, Problem};
use common::model::Pattern;
use jiff::Timestamp;
use proto_schemas::id::{EventKey, WebhookId};
use serde::Deserialize;
use store::log::{self, State};
use store::projects::Project;
use store::replays::{Kind, Selection};
use store::{Connection, webhooks};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::{Api, failed};

/// Most webhooks, events, types or reasons that can be named.
const NAMED_MAX: usize = 100;

/// Most deliveries a second that can be asked for.
const RATE_MAX: u32 = 10_000;

/// States that are an end: whatever else a delivery is, it is under way already.
const SETTLED: [State; 4] = [State::Delivered, State::Dead, State::Skipped, State::Cancelled];

/// Those that nobody has.
const MISSED: [State; 2] = [State::Dead, State::Skipped];

/// Which deliveries are to be made again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = NewReplay)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Chosen {
    /// To these webhooks, by name or id; at most 100.
    webhooks: Option<Vec<String>>,
    /// Of the events with these ids; at most 100.
    events: Option<Vec<String>>,
    /// Of events whose type one of these patterns matches: `invoice.paid`, `invoice.*`, `*`; at most 100.
    types: Option<Vec<String>>,
    /// Of events accepted from this instant on.
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-01-31T12:00:00Z")]
    since: Option<Timestamp>,
    /// Of events accepted before this instant; now, if absent.
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-01-31T12:00:00Z")]
    until: Option<Timestamp>,
    /// In one of these states: `dead`, `skipped`, `delivered`, `cancelled`. `dead` and `skipped`, if absent.
    states: Option<Vec<String>>,
    /// In their state for one of these reasons, word for word; at most 100. What a filter kept out is taken only where
    /// the reason `filtered` is among them.
    reasons: Option<Vec<String>>,
    /// Deliveries begun in a second, at most; as fast as the operator allows, if absent.
    #[schema(minimum = 1, maximum = 10000)]
    rate: Option<u32>,
    /// Count the deliveries, and do nothing else.
    #[serde(default)]
    dry_run: bool,
}

/// Which dead letters are to be put away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Discard {
    /// Of these webhooks, by name or id; by its id a deleted one, too; at most 100.
    webhooks: Option<Vec<String>>,
    /// Of the events with these ids; at most 100.
    events: Option<Vec<String>>,
    /// Of events whose type one of these patterns matches; at most 100.
    types: Option<Vec<String>>,
    /// Of events accepted from this instant on.
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-01-31T12:00:00Z")]
    since: Option<Timestamp>,
    /// Of events accepted before this instant; now, if absent.
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-01-31T12:00:00Z")]
    until: Option<Timestamp>,
    /// Dead for one of these reasons, word for word; at most 100.
    reasons: Option<Vec<String>>,
    /// Count the letters, and do nothing else.
    #[serde(default)]
    dry_run: bool,
}

impl From<Discard> for Chosen {
    fn from(discard: Discard) -> Self {
        Self {
            webhooks: discard.webhooks,
            events: discard.events,
            types: discard.types,
            since: discard.since,
            until: discard.until,
            states: Some(vec![State::Dead.as_str().to_owned()]),
            reasons: discard.reasons,
            rate: None,
            dry_run: discard.dry_run,
        }
    }
}

/// What is asked for, as it can be ordered.
pub(in crate::http) struct Selected {
    pub(in crate::http) selection: Selection,
    pub(in crate::http) rate: Option<u32>,
    pub(in crate::http) dry_run: bool,
}

impl Chosen {
    /// Looks up what is named, and says of everything that is not right what is wrong with it.
    pub(in crate::http) async fn select(self, api: &Api, project: &Project, kind: Kind) -> Result<Selected, Problem> {
        let now = api.now();
        let mut errors = self.faults();
        let mut connection = api.connection_in(project.id).await?;
        let webhooks = match &self.webhooks {
            None => None,
            Some(named) => Some(webhook_ids(&mut connection, project, named, kind, &mut errors).await?),
        };
        let events = match &self.events {
            None => None,
            Some(ids) => Some(event_keys(&mut connection, project, ids, &mut errors).await?),
        };
        if !errors.is_empty() {
            return Err(Problem::fields(errors));
        }
        let states = match &self.states {
            Some(words) => words.iter().filter_map(|word| State::parse(word)).collect(),
            None => MISSED.to_vec(),
        };
        // What happens while it goes on is not part of it, or it might never end. Named events happened before.
        let until = self.until.or(events.is_none().then_some(now));
        let selection = Selection {
            webhooks,
            events,
            event_ids: self.events,
            types: self.types,
            from: self.since.map(EventKey::floor),
            to: until.map(EventKey::floor),
            states,
            reasons: self.reasons,
            of_deleted: kind == Kind::Discard,
        };
        Ok(Selected {
            selection,
            rate: self.rate,
            dry_run: self.dry_run,
        })
    }

    /// What is wrong with it, as far as can be said without looking anything up.
    fn faults(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (path, named) in [
            ("/webhooks", &self.webhooks),
            ("/events", &self.events),
            ("/types", &self.types),
            ("/states", &self.states),
            ("/reasons", &self.reasons),
        ] {
            match named.as_deref() {
                Some([]) => errors.push(FieldError::new(path, "it names none; leave it out to narrow nothing")),
                Some(named) if named.len() > NAMED_MAX => {
                    errors.push(FieldError::new(path, format!("at most {NAMED_MAX} can be named")));
                }
                _ => {}
            }
        }
        for (index, text) in self.types.iter().flatten().enumerate() {
            if let Err(error) = Pattern::parse(text) {
                errors.push(FieldError::new(&format!("/types/{index}"), error.to_string()));
            }
        }
        for (index, word) in self.states.iter().flatten().enumerate() {
            if !State::parse(word).is_some_and(|state| SETTLED.contains(&state)) {
                let words = SETTLED.map(State::as_str).join(", ");
                let detail = format!("not a state from which a delivery can be made again; there are {words}");
                errors.push(FieldError::new(&format!("/states/{index}"), detail));
            }
        }
        if self.rate.is_some_and(|rate| !(1..=RATE_MAX).contains(&rate)) {
            errors.push(FieldError::new("/rate", format!("a number from 1 to {RATE_MAX}")));
        }
        if self.since.zip(self.until).is_some_and(|(since, until)| since > until) {
            errors.push(FieldError::new("/since", "it lies after `until`"));
        }
        errors
    }
}

async fn webhook_ids(
    connection: &mut Connection,
    project: &Project,
    named: &[String],
    kind: Kind,
    errors: &mut Vec<FieldError>,
) -> Result<Vec<WebhookId>, Problem> {
    let mut ids = Vec::with_capacity(named.len());
    for (index, name) in named.iter().take(NAMED_MAX).enumerate() {
        let found = webhooks::find(connection, project.id, name).await.map_err(failed)?;
        match (found, Uuid::parse_str(name)) {
            (Some(webhook), _) => ids.push(webhook.id),
            // What a deleted one has left behind can be put away.
            (None, Ok(id)) if kind == Kind::Discard => ids.push(WebhookId::from_uuid(id)),
            (None, _) => errors.push(FieldError::new(
                &format!("/webhooks/{index}"),
                "there is no such webhook in this project",
            )),
        }
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

async fn event_keys(
    connection: &mut Connection,
    project: &Project,
    ids: &[String],
    errors: &mut Vec<FieldError>,
) -> Result<Vec<EventKey>, Problem> {
    let mut keys = Vec::with_capacity(ids.len());
    for (index, id) in ids.iter().take(NAMED_MAX).enumerate() {
        // Of several with one id the newest, which is the one that is shown under it.
        match log::event_keys(connection, project.id, id)
            .await
            .map_err(failed)?
            .first()
        {
            Some(key) => keys.push(*key),
            None => errors.push(FieldError::new(
                &format!("/events/{index}"),
                "there is no such event in this project's record (yet, or any more)",
            )),
        }
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(json: serde_json::Value) -> Vec<String> {
        let chosen: Chosen = serde_json::from_value(json).unwrap();
        chosen.faults().into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn every_field_that_is_not_right_is_named() {
        let wrong = serde_json::json!({
            "webhooks": [], "types": ["a.b", "a..b"], "states": ["dead", "scheduled", "x"], "rate": 0,
            "since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z",
        });
        assert_eq!(
            faults(wrong),
            [
                "#/webhooks",
                "#/types/1",
                "#/states/1",
                "#/states/2",
                "#/rate",
                "#/since"
            ]
        );
        let many: Vec<String> = (0..101).map(|n| format!("e{n}")).collect();
        assert_eq!(faults(serde_json::json!({ "events": many })), ["#/events"]);
        assert_eq!(
            faults(serde_json::json!({ "types": ["*"], "states": ["skipped"], "rate": 10 })),
            [] as [&str; 0]
        );
    }
}
