//! What a mail says. Pure. It names project, webhook, event, reason and time, and what to do; addresses of receivers, which
//! may hold secrets, and what events hold are not in it.

use std::fmt::Write as _;
use std::time::Duration;

use proto_schemas::operational;
use serde_json::Value;
use store::alerts::{About, Alert, Gathered};

/// Longest reason that is repeated; some quote what came.
const REASON_MAX: usize = 300;

/// Subject and body.
pub(super) fn compose(about: About, gathered: &Gathered, interval: Duration) -> (String, String) {
    let project = line(&gathered.project);
    let what: Vec<String> = gathered.alerts.iter().map(|alert| counted(alert, false)).collect();
    let what = what.join(", ");
    let mut body = format!("Project: {project}\n");
    let subject = match (&gathered.webhook, about.webhook) {
        (Some(name), Some(id)) => {
            // Writing to a String cannot fail.
            let _ = writeln!(body, "Webhook: {} ({id})", line(name));
            format!("[Posthaste] {project}, webhook {}: {what}", line(name))
        }
        _ => format!("[Posthaste] {project}: {what}"),
    };
    for alert in &gathered.alerts {
        let _ = write!(body, "\n{} ({})\n", counted(alert, true), alert.event_type);
        match alert.events {
            1 => {
                let _ = writeln!(body, "  When:   {}", alert.last_at);
            }
            _ => {
                let _ = writeln!(body, "  When:   {} to {}", alert.first_at, alert.last_at);
            }
        }
        let last = if alert.events == 1 { "" } else { "the last: " };
        if let Some(event) = event(&alert.detail) {
            let _ = writeln!(body, "  Event:  {last}{event}");
        }
        if let Some(expires_at) = alert.detail["expires_at"].as_str() {
            let _ = writeln!(body, "  Ends:   {last}{}", line(expires_at));
        }
        let _ = writeln!(body, "  Reason: {last}{}", line(&alert.reason));
        let _ = writeln!(body, "  To do:  {}", to_do(&alert.event_type));
    }
    let _ = write!(
        body,
        "\nThere is at most one such mail about a webhook in {}. Who gets them is `alert_emails` of the project.\n",
        humantime::format_duration(interval)
    );
    (subject, body)
}

/// The event it is about, by id and type.
fn event(detail: &Value) -> Option<String> {
    let event = &detail["event"];
    let (id, event_type) = (event["id"].as_str()?, event["type"].as_str()?);
    Some(format!("{} ({})", line(id), line(event_type)))
}

/// `3 deliveries dead`
fn counted(alert: &Alert, capital: bool) -> String {
    let (one, many) = match alert.event_type.as_str() {
        operational::DELIVERY_DEAD => ("delivery is dead", "deliveries are dead"),
        operational::WEBHOOK_DISABLED => ("disabled", "times disabled"),
        operational::WEBHOOK_FAILED => ("failed", "times failed"),
        operational::WEBHOOK_RECOVERED => ("recovered", "times recovered"),
        operational::EVENT_REJECTED => ("event was rejected", "events were rejected"),
        operational::SECRET_EXPIRING => ("an earlier secret expires", "earlier secrets expire"),
        other => (other, other),
    };
    let counts_one = matches!(
        alert.event_type.as_str(),
        operational::DELIVERY_DEAD | operational::EVENT_REJECTED
    );
    let text = match alert.events {
        1 if counts_one => format!("1 {one}"),
        1 => one.to_owned(),
        events => format!("{events} {many}"),
    };
    match (capital, text.chars().next()) {
        (true, Some(first)) => first.to_uppercase().chain(text.chars().skip(1)).collect(),
        _ => text,
    }
}

fn to_do(event_type: &str) -> &'static str {
    match event_type {
        operational::DELIVERY_DEAD => {
            "see GET …/attempts?event_id=… for what the receiver answered; put it right, then have it delivered again"
        }
        operational::WEBHOOK_DISABLED | operational::WEBHOOK_FAILED => {
            "put the receiver right, then POST …/webhooks/{webhook}:restart; until then it gets nothing"
        }
        operational::WEBHOOK_RECOVERED => "nothing; what was skipped meanwhile is in GET …/deliveries?state=skipped",
        operational::EVENT_REJECTED => "see GET …/rejected-events, put the producer right, and publish again",
        operational::SECRET_EXPIRING => "make sure that the receiver takes the current secret",
        _ => "see the log",
    }
}

/// Text on one line, cut short.
fn line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(REASON_MAX)
        .collect();
    if text.chars().count() > REASON_MAX {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proto_schemas::id::{ProjectId, WebhookId};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn alert(event_type: &str, events: u32, reason: &str, detail: Value) -> Alert {
        Alert {
            event_type: event_type.to_owned(),
            events,
            reason: reason.to_owned(),
            detail,
            first_at: Timestamp::from_second(1_768_473_000).unwrap(),
            last_at: Timestamp::from_second(1_768_473_060).unwrap(),
        }
    }

    fn about(webhook: Option<u128>) -> About {
        About {
            project: ProjectId::from_uuid(Uuid::from_u128(1)),
            webhook: webhook.map(|id| WebhookId::from_uuid(Uuid::from_u128(id))),
        }
    }

    #[test]
    fn a_mail_says_what_of_which_webhook_when_why_and_what_to_do() {
        let detail = json!({ "event": { "id": "e9", "type": "order.paid" } });
        let gathered = Gathered {
            up_to: 9,
            project: "acme".to_owned(),
            webhook: Some("orders".to_owned()),
            emails: Vec::new(),
            alerts: vec![
                alert(
                    operational::DELIVERY_DEAD,
                    100_000,
                    "gave up after 6 attempts; the last: 503",
                    detail,
                ),
                alert(operational::WEBHOOK_FAILED, 1, "5 failed attempts in a row", json!({})),
            ],
        };
        let (subject, body) = compose(about(Some(2)), &gathered, Duration::from_secs(300));
        assert_eq!(
            subject,
            "[Posthaste] acme, webhook orders: 100000 deliveries are dead, failed"
        );
        let expected = "Project: acme\n\
             Webhook: orders (00000000-0000-0000-0000-000000000002)\n\
             \n\
             100000 deliveries are dead (posthaste.delivery.dead)\n\
             \u{20} When:   2026-01-15T10:30:00Z to 2026-01-15T10:31:00Z\n\
             \u{20} Event:  the last: e9 (order.paid)\n\
             \u{20} Reason: the last: gave up after 6 attempts; the last: 503\n\
             \u{20} To do:  see GET …/attempts?event_id=… for what the receiver answered; put it right, then have it delivered again\n\
             \n\
             Failed (posthaste.webhook.failed)\n\
             \u{20} When:   2026-01-15T10:31:00Z\n\
             \u{20} Reason: 5 failed attempts in a row\n\
             \u{20} To do:  put the receiver right, then POST …/webhooks/{webhook}:restart; until then it gets nothing\n\
             \n\
             There is at most one such mail about a webhook in 5m. Who gets them is `alert_emails` of the project.\n";
        assert_eq!(body, expected);
    }

    #[test]
    fn nothing_that_came_from_outside_breaks_out_of_its_line() {
        let gathered = Gathered {
            up_to: 1,
            project: "acme".to_owned(),
            webhook: None,
            emails: Vec::new(),
            alerts: vec![alert(
                operational::EVENT_REJECTED,
                1,
                &format!("the subject\r\nBcc: x@example.com {}", "y".repeat(1000)),
                json!({}),
            )],
        };
        let (subject, body) = compose(about(None), &gathered, Duration::from_secs(300));
        assert_eq!(subject, "[Posthaste] acme: 1 event was rejected");
        assert!(!body.contains("\nBcc") && body.contains("  Bcc: x@example.com"));
        assert!(body.lines().all(|line| line.chars().count() < 400));
    }
}
