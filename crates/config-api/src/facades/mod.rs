//! The webhooks in other platforms' words: APIs that published clients speak, over the one model.
//!
//! - [`ubiops`]: UbiOps' webhooks and webhook tests, under `/v2` and `/v2.1`
//! - [`once`]: 1NCE's cloud integrations, under `/management-api/v1/integrate/clouds`
//!
//! A façade reads and writes JSON of its own and nothing else: what it makes is a webhook like any other, shown by `/v1`
//! and by the console, checked by the same rules and published by the same relay. In each, `body` maps between its JSON
//! and the model, without I/O.

mod once;
mod ubiops;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use common::http::{FieldError, Problem};
use proto_schemas::id::{ProjectId, WebhookId};
use store::Connection;
use store::webhooks::{self, Webhook, WebhookFilter};
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;

use crate::api::{Api, failed};

/// Webhooks read at once.
const PAGE: u32 = 250;

/// The routes of every façade.
pub(crate) fn router() -> Router<Arc<Api>> {
    Router::new()
        .nest("/v2", ubiops::router())
        .nest("/v2.1", ubiops::router())
        .nest("/management-api/v1/integrate/clouds", once::router())
}

/// What the routes of every façade are, those that are there twice told once.
pub(crate) fn document() -> OpenApi {
    let mut document = ubiops::Document::openapi();
    document.merge(once::Document::openapi());
    document
}

/// Every webhook of a project, oldest first.
async fn every_webhook(connection: &mut Connection, project: ProjectId) -> Result<Vec<Webhook>, Problem> {
    let mut all: Vec<Webhook> = Vec::new();
    loop {
        let before: Option<WebhookId> = all.last().map(|webhook| webhook.id);
        let every = WebhookFilter {
            labels: &BTreeMap::new(),
            name: None,
        };
        let page = webhooks::page(connection, project, &every, before, PAGE).await;
        let page = page.map_err(failed)?;
        let more = page.len() == PAGE as usize;
        all.extend(page);
        if !more {
            all.reverse();
            return Ok(all);
        }
    }
}

/// The name and the example of an event type of a catalogue, where it has that one.
fn example(catalogue: &str, event_type: &str) -> Option<(&'static str, &'static str)> {
    let types = proto_schemas::catalogue::get(catalogue)?.types;
    let found = types.iter().find(|known| known.name == event_type)?;
    Some((found.name, found.example))
}

/// The same problem, with fields by the names they have here. `named` gives a JSON pointer of the model's (`/events/0`)
/// the name it has in the façade; what it does not know stays.
fn in_own_words(problem: Problem, named: impl Fn(&str) -> Option<String>) -> Problem {
    if problem.errors().is_empty() {
        return problem;
    }
    let errors = problem.errors().iter().map(|error| {
        let pointer = error.pointer.strip_prefix('#').unwrap_or(&error.pointer);
        let pointer = named(pointer).unwrap_or_else(|| pointer.to_owned());
        FieldError::new(&pointer, error.detail.clone())
    });
    Problem::fields(errors.collect())
}

/// A webhook of which nothing is said.
#[cfg(test)]
fn blank_webhook() -> Webhook {
    use jiff::Timestamp;
    use uuid::Uuid;

    let (id, project) = (Uuid::from_u128(2), Uuid::from_u128(1));
    Webhook::blank(
        WebhookId::from_uuid(id),
        ProjectId::from_uuid(project),
        Timestamp::UNIX_EPOCH,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_field_is_named_as_the_request_named_it() {
        let problem = Problem::fields(vec![
            FieldError::new("/events/0", "no such type"),
            FieldError::new("/name", "too long"),
        ]);
        let named = |pointer: &str| (pointer == "/events/0").then(|| "/event".to_owned());
        let problem = in_own_words(problem, named);
        let pointers: Vec<&str> = problem.errors().iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["#/event", "#/name"]);
        assert_eq!(problem.detail(), Some("#/event: no such type; #/name: too long"));
    }
}
