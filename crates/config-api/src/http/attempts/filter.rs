//! Which attempts: the same words for the list, the export and the stream.

use common::http::{Code, Problem, page};
use jiff::Timestamp;
use proto_schemas::id::{EventKey, WebhookId};
use proto_schemas::ledger::ErrorClass;
use serde::Deserialize;
use store::Connection;
use store::log::{self, Attempt, AttemptFilter, State as DeliveryState, StatusFilter};
use store::projects::Project;
use utoipa::{IntoParams, ToSchema};

use super::super::webhook_filter;
use crate::api::failed;
use crate::replays;

/// Which attempts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Filter {
    /// Those of the event with this id.
    pub(super) event_id: Option<String>,
    /// Those of events whose id contains this text.
    pub(super) search: Option<String>,
    /// Those of this type.
    pub(super) r#type: Option<String>,
    /// Those of this webhook, by name or id; by its id a deleted one's can still be read.
    pub(super) webhook: Option<String>,
    /// `delivered`, `failed`, a status code such as 503, or a class of them such as 5xx.
    pub(super) status: Option<String>,
    /// Those of deliveries that are now in this state.
    #[param(value_type = Option<AttemptedState>, inline)]
    pub(super) state: Option<String>,
    /// Those that failed for this reason.
    #[param(value_type = Option<ErrorClassWord>, inline)]
    pub(super) error_class: Option<String>,
    /// Those of this replay, by its id or number.
    pub(super) replay: Option<String>,
    /// From this instant on.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-01-31T12:00:00Z")]
    pub(super) since: Option<Timestamp>,
    /// Before this instant.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-01-31T12:00:00Z")]
    pub(super) until: Option<Timestamp>,
    // Not flattened: serde would let misspelt names pass.
    /// Most items on the page.
    #[serde(default = "page::default_limit", deserialize_with = "page::limit")]
    #[param(minimum = 1, maximum = 250, default = 50)]
    pub(super) limit: u16,
    /// The `next` of the page before.
    pub(super) cursor: Option<String>,
}

/// The states of deliveries that have attempts.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "stands in the OpenAPI document for the words of State")]
pub(super) enum AttemptedState {
    Delivered,
    Scheduled,
    Parked,
    Held,
    Dead,
    Cancelled,
}

/// What can go wrong with a request.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "stands in the OpenAPI document for the words of ErrorClass")]
pub(super) enum ErrorClassWord {
    Dns,
    RefusedAddress,
    Connect,
    Tls,
    Timeout,
    Status,
    Body,
    Webhook,
    GaveUp,
    Authentication,
}

/// What a query says of attempts, as it was written.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) event_id: Option<String>,
    pub(super) search: Option<String>,
    pub(super) event_type: Option<String>,
    pub(super) webhook: Option<String>,
    pub(super) status: Option<String>,
    pub(super) state: Option<String>,
    pub(super) error_class: Option<String>,
    pub(super) replay: Option<String>,
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
}

impl From<Filter> for Asked {
    fn from(filter: Filter) -> Self {
        Self {
            event_id: filter.event_id,
            search: filter.search,
            event_type: filter.r#type,
            webhook: filter.webhook,
            status: filter.status,
            state: filter.state,
            error_class: filter.error_class,
            replay: filter.replay,
            since: filter.since,
            until: filter.until,
        }
    }
}

/// A query that was understood.
#[derive(Debug)]
pub(super) struct Chosen {
    asked: Asked,
    events: Option<Vec<EventKey>>,
    webhook: Option<WebhookId>,
    status: Option<StatusFilter>,
    state: Option<DeliveryState>,
    run: Option<u32>,
}

impl Chosen {
    /// Understands a query within a project.
    ///
    /// # Errors
    /// A word that is none, a webhook that is not there, or a failure of Postgres.
    pub(super) async fn of(connection: &mut Connection, project: &Project, asked: Asked) -> Result<Self, Problem> {
        let status = asked.status.as_deref().map(status_filter).transpose()?;
        let state = asked.state.as_deref().map(state_filter).transpose()?;
        if let Some(word) = &asked.error_class {
            check_error_class(word)?;
        }
        let webhook = webhook_filter(connection, project.id, asked.webhook.as_deref()).await?;
        let events = match &asked.event_id {
            Some(id) => Some(log::event_keys(connection, project.id, id).await.map_err(failed)?),
            None => None,
        };
        let run = match &asked.replay {
            Some(named) => Some(replays::number(connection, project, named).await?),
            None => None,
        };
        Ok(Self {
            asked,
            events,
            webhook,
            status,
            state,
            run,
        })
    }

    /// For the list.
    pub(super) fn filter(&self) -> AttemptFilter<'_> {
        AttemptFilter {
            events: self.events.as_deref(),
            event_type: self.asked.event_type.as_deref(),
            webhook: self.webhook,
            status: self.status,
            state: self.state,
            error_class: self.asked.error_class.as_deref(),
            containing: self.asked.search.as_deref(),
            since: self.asked.since,
            until: self.asked.until,
            run: self.run,
        }
    }

    /// Whether an attempt that was just recorded is among them. What it is now is all there is of it, so there is no
    /// state to ask for; and its event may not be on record yet, so events go by their id.
    pub(super) fn wants(&self, attempt: &Attempt) -> bool {
        let asked = &self.asked;
        asked.event_id.as_deref().is_none_or(|id| attempt.event_id == id)
            && asked
                .search
                .as_deref()
                .is_none_or(|text| attempt.event_id.contains(text))
            && asked
                .event_type
                .as_deref()
                .is_none_or(|name| attempt.event_type == name)
            && self.webhook.is_none_or(|webhook| attempt.attempt.webhook == webhook)
            && self.run.is_none_or(|run| attempt.attempt.run == run)
            && asked
                .error_class
                .as_deref()
                .is_none_or(|word| attempt.error_class.as_deref() == Some(word))
            && self.status.is_none_or(|status| match status {
                StatusFilter::Delivered => attempt.outcome == "delivered",
                StatusFilter::Failed => attempt.outcome == "failed",
                StatusFilter::Code(first, last) => {
                    attempt.status.is_some_and(|status| (first..=last).contains(&status))
                }
            })
    }
}

/// Reads `delivered`, `failed`, `503` or `5xx`.
fn status_filter(text: &str) -> Result<StatusFilter, Problem> {
    let refused = || {
        let detail = "`status` is `delivered`, `failed`, a status code such as 503, or a class of them such as 5xx";
        Problem::new(Code::MalformedQuery, detail)
    };
    match text {
        "delivered" => return Ok(StatusFilter::Delivered),
        "failed" => return Ok(StatusFilter::Failed),
        _ => {}
    }
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class
            .parse()
            .ok()
            .filter(|class| (1..=9).contains(class))
            .ok_or_else(refused)?;
        return Ok(StatusFilter::Code(class * 100, class * 100 + 99));
    }
    let code: u16 = text
        .parse()
        .ok()
        .filter(|code| (100..=999).contains(code))
        .ok_or_else(refused)?;
    Ok(StatusFilter::Code(code, code))
}

fn state_filter(word: &str) -> Result<DeliveryState, Problem> {
    let without_attempts = [DeliveryState::Skipped, DeliveryState::Queued];
    DeliveryState::parse(word)
        .filter(|state| !without_attempts.contains(state))
        .ok_or_else(|| {
            let words: Vec<&str> = DeliveryState::ALL
                .into_iter()
                .filter(|state| !without_attempts.contains(state))
                .map(DeliveryState::as_str)
                .collect();
            let words = words.join(", ");
            Problem::new(
                Code::MalformedQuery,
                format!("`{word}` is not the state of a delivery with attempts; these are {words}"),
            )
        })
}

fn check_error_class(word: &str) -> Result<(), Problem> {
    match ErrorClass::ALL.iter().any(|class| class.as_str() == word) {
        true => Ok(()),
        false => {
            let words = ErrorClass::ALL.map(ErrorClass::as_str).join(", ");
            Err(Problem::new(
                Code::MalformedQuery,
                format!("`{word}` is not an error class; these are {words}"),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_an_outcome_a_code_or_a_class() {
        assert_eq!(status_filter("delivered").unwrap(), StatusFilter::Delivered);
        assert_eq!(status_filter("failed").unwrap(), StatusFilter::Failed);
        assert_eq!(status_filter("503").unwrap(), StatusFilter::Code(503, 503));
        assert_eq!(status_filter("5xx").unwrap(), StatusFilter::Code(500, 599));
        for wrong in ["", "ok", "99", "1000", "xx", "0xx", "12xx", "-1", "5XX"] {
            assert_eq!(
                status_filter(wrong).unwrap_err().code(),
                Code::MalformedQuery,
                "{wrong}"
            );
        }
    }

    #[test]
    fn states_and_error_classes_are_words_of_closed_lists() {
        assert_eq!(state_filter("dead").unwrap(), DeliveryState::Dead);
        for wrong in ["queued", "skipped", "gone", ""] {
            assert!(state_filter(wrong).is_err(), "{wrong}");
        }
        assert!(check_error_class("refused_address").is_ok());
        assert!(check_error_class("tls ").is_err());
    }
}
