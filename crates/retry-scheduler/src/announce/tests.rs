use jiff::Timestamp;
use proto_schemas::id::{ProjectId, WebhookId};
use proto_schemas::operational;
use serde_json::Value;
use store::alerts::About;
use uuid::Uuid;

use super::*;

fn waiting(number: u128, webhook: Option<u128>, second: i64) -> Waiting {
    Waiting {
        id: format!("op_d_{number}"),
        project: ProjectId::from_uuid(Uuid::from_u128(1)),
        webhook: webhook.map(|id| (WebhookId::from_uuid(Uuid::from_u128(id)), "orders".to_owned())),
        event_type: operational::DELIVERY_DEAD.to_owned(),
        reason: format!("reason {number}"),
        detail: json!({ "attempts": number as u64 }),
        occurred_at: Timestamp::from_second(second).unwrap(),
        is_mailed: true,
    }
}

#[test]
fn a_burst_about_one_webhook_is_one_alert() {
    let burst: Vec<Waiting> = (0..1000).map(|n| waiting(n, Some(1 + n % 2), 10 + n as i64)).collect();
    let alerts = gathered(&burst.iter().collect::<Vec<_>>());
    assert_eq!(alerts.len(), 2);
    let (about, alert) = &alerts[1];
    let expected = About {
        project: burst[0].project,
        webhook: Some(WebhookId::from_uuid(Uuid::from_u128(2))),
    };
    assert_eq!(
        (about, alert.events, alert.reason.as_str()),
        (&expected, 500, "reason 999")
    );
    assert_eq!((alert.first_at.as_second(), alert.last_at.as_second()), (11, 1009));
}

#[test]
fn nothing_is_gathered_for_who_wants_no_mail() {
    let unwanted = Waiting {
        is_mailed: false,
        ..waiting(1, None, 1)
    };
    assert_eq!(gathered(&[&unwanted]), []);
}

#[test]
fn an_event_holds_webhook_reason_and_detail() {
    let read = |event: &Waiting| serde_json::from_slice::<Value>(&data(event)).unwrap();
    let id = Uuid::from_u128(2);
    assert_eq!(
        read(&waiting(7, Some(2), 1)),
        json!({ "webhook": { "id": id, "name": "orders" }, "reason": "reason 7", "attempts": 7 })
    );
    assert_eq!(read(&waiting(7, None, 1))["webhook"], Value::Null);
}
