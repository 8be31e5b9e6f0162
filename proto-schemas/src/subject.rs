//! Subjects. User text reaches a subject only after the checks in [`crate::id`].

use crate::id::{ProjectId, WebhookId};

/// `events.<project>.<event type>`: what producers publish on. The project is its name or its id.
#[must_use]
pub fn event(project: &str, event_type: &str) -> String {
    format!("events.{project}.{event_type}")
}

/// What an `events.…` subject names, or `None` where a part is missing.
#[must_use]
pub fn parse_event(subject: &str) -> Option<(&str, &str)> {
    let (project, event_type) = subject.strip_prefix("events.")?.split_once('.')?;
    Some((project, event_type))
}

/// `deliveries.<project>.<webhook>`
#[must_use]
pub fn delivery(project: ProjectId, webhook: WebhookId) -> String {
    format!(
        "deliveries.{}.{}",
        project.as_uuid().as_simple(),
        webhook.as_uuid().as_simple()
    )
}

/// `seen.<project>.<event id>`: what is known of an id that a producer chose.
#[must_use]
pub fn seen(project: ProjectId, event_id: &str) -> String {
    format!("seen.{}.{event_id}", project.as_uuid().as_simple())
}

/// What ledger entries are published on.
pub const LEDGER: &str = "ledger.facts";
