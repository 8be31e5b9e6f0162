//! What would be sent: the request that an example event comes to, made as dispatcher makes it, shown and not sent.
//!
//! Nothing is stored and no address is looked up. Secrets are opened here to sign with; what is protected is marked as
//! such in the headers, for whoever shows them, and masked where it is a variable. Nothing is made of a protected variable
//! here: whoever asks chooses the template, and with the secret also what signs, so a signature would tell the value.

use std::sync::Arc;

use common::definitions::Subscriber;
use common::http::Problem;
use common::model::filter;
use common::render::Missing;
use common::request::{self, Prepared, Unsendable};
use http::HeaderMap;
use proto_schemas::event::Event;
use store::projects::Project;
use store::webhooks::Webhook;

use crate::api::Api;
use crate::resolve;
use crate::trials::{self, Sample};
use crate::webhooks::profile;

/// A request, and what there is to say of it.
#[derive(Debug)]
pub struct Preview {
    /// The event. Its id says that it is none.
    pub event: Event,
    /// Where the request would go, protected variables masked.
    pub url: String,
    /// All its headers but those of the connection; protected ones are sensitive.
    pub headers: HeaderMap,
    /// Its body, protected variables masked.
    pub body: bytes::Bytes,
    /// What a template looks for, in the event or among the variables, and does not find.
    pub missing: Vec<Missing>,
    /// Whether the template is the webhook's own.
    pub own_template: bool,
    /// Whether the webhook wants such an event.
    pub matches: Matches,
}

/// Whether a webhook wants an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matches {
    /// By its patterns of types.
    pub events: bool,
    /// By its attributes.
    pub attributes: bool,
    /// By its filter.
    pub filter: bool,
}

impl Matches {
    fn of(subscriber: &Subscriber, event: &Event) -> Self {
        let data = event.is_json().then(|| serde_json::from_slice(&event.payload).ok());
        let subject = filter::Subject::new(event, data.flatten());
        Self {
            events: subscriber.wants(&event.event_type),
            attributes: subscriber.finds_attributes(event),
            filter: subscriber.passes(|| &subject),
        }
    }

    /// By all of them.
    #[must_use]
    pub const fn all(self) -> bool {
        self.events && self.attributes && self.filter
    }
}

/// Makes a preview of a webhook, stored or not; its secrets are sealed for its id.
///
/// # Errors
/// What is wrong with the sample or, for its event, with the webhook; or a failure of Postgres.
pub async fn make(api: &Api, project: &Project, webhook: &Webhook, sample: Sample) -> Result<Preview, Problem> {
    let now = api.now();
    let event = trials::event(api, project, webhook, sample, now).await?;
    let definition = Arc::new(resolve::webhook(webhook, None, project, profile(api, project)?));
    let prepared = Prepared::of(&definition, &api.keys, &api.guard).map_err(unusable)?;
    let shown = prepared.show(&event).map_err(unsendable)?;
    let headers = prepared.headers(&event, &shown.addressed, &shown.rendered, now);
    let mut headers = headers.map_err(unusable)?;
    if prepared.client_credentials.is_some() {
        // One is had when a request is sent.
        headers.insert(http::header::AUTHORIZATION, request::hidden());
    }
    // A signature says nothing of its secret, and this one is sent to nobody; the log keeps those that were. With a mask
    // in the body, it is nobody's.
    for name in prepared.signature_headers() {
        match headers.get_mut(&name) {
            Some(value) if prepared.hides_variables() => *value = request::hidden(),
            Some(value) => value.set_sensitive(false),
            None => {}
        }
    }
    Ok(Preview {
        url: shown.addressed.target.as_str().to_owned(),
        headers,
        body: shown.rendered.body,
        missing: shown.missing,
        own_template: webhook.settings.transform.is_some(),
        matches: Matches::of(&Subscriber::of(&definition), &event),
        event,
    })
}

/// What was allowed when the webhook was saved and is not any more, or is ours to put right.
fn unusable(error: request::Error) -> Problem {
    match error {
        request::Error::Url(refused) => Problem::field("/url", refused.to_string()),
        request::Error::TokenUrl(refused) => Problem::field("/authentication/token_url", refused.to_string()),
        error => Problem::internal(error),
    }
}

fn unsendable(unsendable: Unsendable) -> Problem {
    let field = match unsendable {
        Unsendable::Body(_) => "/transform",
        Unsendable::Placeholder(_) | Unsendable::Url(_) | Unsendable::Host => "/url",
    };
    Problem::field(field, unsendable.to_string())
}
