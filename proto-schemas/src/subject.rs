//! Subjects. User text reaches a subject only after the checks in [`crate::id`].

use std::borrow::Cow;

use crate::id::{ProjectId, WebhookId};
use crate::stream::{SHARES, Shares, Stream};

/// `events.<project>.<event type>`: what producers publish on. The project is its name or its id.
#[must_use]
pub fn event(project: &str, event_type: &str) -> String {
    format!("events.{project}.{event_type}")
}

/// What stands in the place of the project where Posthaste itself publishes. No project is called so, and none can be: a
/// producer that may publish for its own project, `events.<project>.>`, cannot publish here.
const OPERATIONAL: &str = "_posthaste.";

/// `events._posthaste.<project>.<event type>`: what Posthaste itself publishes on.
#[must_use]
pub fn operational(project: ProjectId, event_type: &str) -> String {
    format!("events.{OPERATIONAL}{project}.{event_type}")
}

/// Whether a subject is one that Posthaste itself publishes on.
#[must_use]
pub fn is_operational(subject: &str) -> bool {
    subject
        .strip_prefix("events.")
        .is_some_and(|rest| rest.starts_with(OPERATIONAL))
}

/// The project and the event type that an `events.…` subject names, or `None` where a part is missing.
#[must_use]
pub fn parse_event(subject: &str) -> Option<(&str, &str)> {
    let named = subject.strip_prefix("events.")?;
    named.strip_prefix(OPERATIONAL).unwrap_or(named).split_once('.')
}

/// `deliveries.<share>.<project>.<webhook>`
#[must_use]
pub fn delivery(project: ProjectId, webhook: WebhookId) -> String {
    format!(
        "deliveries.{}.{}.{}",
        share(project),
        project.as_uuid().as_simple(),
        webhook.as_uuid().as_simple()
    )
}

/// `seen.<project>.<event id>`: what is known of an id that a producer chose.
#[must_use]
pub fn seen(project: ProjectId, event_id: &str) -> String {
    format!("seen.{}.{event_id}", project.as_uuid().as_simple())
}

/// The share of stream DELIVERIES that a project's deliveries are in: by the last bits of its id, which are random.
fn share(project: ProjectId) -> u128 {
    project.as_uuid().as_u128() % u128::from(SHARES)
}

/// The subject that a message was published on, by the one it has in the stream.
#[must_use]
pub fn published(stream: Stream, stored: &str) -> Cow<'_, str> {
    if stream.shares != Shares::Transformed {
        return Cow::Borrowed(stored);
    }
    let mut parts = stored.splitn(3, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(root), Some(_), Some(rest)) => Cow::Owned(format!("{root}.{rest}")),
        _ => Cow::Borrowed(stored),
    }
}

/// Whether a message is on a subject that none of the stream's consumers gets. The server takes a message on a subject
/// with `*` or `>` in it, and does not put the share into that.
#[must_use]
pub fn is_stray(stream: Stream, stored: &str) -> bool {
    stream.shares == Shares::Transformed && stored.split('.').any(|token| token == "*" || token == ">")
}

/// `_POSTHASTE.<service>`: how the subjects begin that a service gets its answers and messages on. Each has its own, so
/// that no user of NATS but the service's own need be allowed to listen there.
#[must_use]
pub fn inbox(service: &str) -> String {
    format!("_POSTHASTE.{service}")
}

/// What ledger entries are published on.
pub const LEDGER: &str = "ledger.facts";

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::stream::{DELIVERIES, EVENTS};

    #[test]
    fn a_stored_subject_leads_back_to_the_published_one() {
        assert_eq!(
            published(EVENTS, "events.7.acme.invoice.paid"),
            "events.acme.invoice.paid"
        );
        assert_eq!(published(EVENTS, "events.acme"), "events.acme");
        assert_eq!(published(DELIVERIES, "deliveries.7.a.b"), "deliveries.7.a.b");
    }

    #[test]
    fn what_the_server_cannot_put_into_a_share_is_astray() {
        for stray in ["events.acme.*", "events.acme.>", "events.*.a", "events.acme.a.*.b"] {
            assert!(is_stray(EVENTS, stray), "{stray}");
        }
        for other in ["events.7.acme.a", "events.acme", "events.7.acme.a*", "events.7.a>.b"] {
            assert!(!is_stray(EVENTS, other), "{other}");
        }
        assert!(!is_stray(DELIVERIES, "deliveries.*.a.b"));
    }

    #[test]
    fn a_delivery_is_in_its_projects_share() {
        let project = ProjectId::from_uuid(Uuid::from_u128(33));
        let webhook = WebhookId::from_uuid(Uuid::from_u128(2));
        assert!(delivery(project, webhook).starts_with("deliveries.1.00000000000000000000000000000021."));
    }
}
