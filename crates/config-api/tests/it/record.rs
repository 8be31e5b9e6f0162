//! The record, as it is read.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use proto_schemas::event::Event;
use proto_schemas::id::{AttemptRef, EventKey, ProjectId, WebhookId};
use proto_schemas::ledger::{AttemptFinished, ErrorClass, EventAccepted, EventRejected, Outcome, SkipReason};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::attempts::{self, NewAttempt};
use store::pending_deliveries::{self, Deferred, Step, Then};
use store::{Store, events, partitions, rejected_events};

use crate::support::*;

const START: Timestamp = Timestamp::constant(1_770_000_000, 0);

fn key(number: u64) -> EventKey {
    EventKey::of_message(START, number)
}

/// A record to be read: a project and three webhooks of it.
pub(crate) struct Recorded {
    pub(crate) store: Store,
    pub(crate) project: ProjectId,
    pub(crate) webhooks: Vec<WebhookId>,
}

impl Recorded {
    async fn event(&self, number: u64, owed: &[usize], skipped: &[(usize, SkipReason)]) {
        let event = Event {
            key: key(number),
            id: format!("evt_{number}"),
            project: self.project,
            event_type: if number.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
            occurred_at: START,
            accepted_at: START,
            attributes: BTreeMap::from([("region".to_owned(), "eu".to_owned())]),
            content_type: String::new(),
            payload: format!(r#"{{"n": {number}.0}}"#).into(),
            traceparent: String::new(),
        };
        let fact = EventAccepted {
            event,
            owed: owed.iter().map(|index| self.webhooks[*index]).collect(),
            skipped: skipped
                .iter()
                .map(|(index, reason)| (self.webhooks[*index], *reason))
                .collect(),
            warnings: Vec::new(),
            held: Vec::new(),
            ordered: Vec::new(),
        };
        events::insert(&mut self.store.connection().await.unwrap(), &[&fact])
            .await
            .unwrap();
    }

    pub(crate) fn reference(&self, number: u64, webhook: usize, attempt: u32) -> AttemptRef {
        let (event, webhook) = (key(number), self.webhooks[webhook]);
        AttemptRef {
            event,
            project: self.project,
            webhook,
            run: 0,
            attempt,
            release: 0,
            handed_out_before: 0,
        }
    }

    async fn attempt(&self, reference: AttemptRef, status: Option<u16>) {
        self.attempts([(reference, status)]).await;
    }

    /// Records attempts in one transaction.
    pub(crate) async fn attempts(&self, made: impl IntoIterator<Item = (AttemptRef, Option<u16>)>) {
        let facts: Vec<AttemptFinished> = made
            .into_iter()
            .map(|(reference, status)| Self::fact(reference, status))
            .collect();
        let rows: Vec<NewAttempt<'_>> = facts
            .iter()
            .map(|fact| NewAttempt {
                fact,
                next_attempt_at: None,
            })
            .collect();
        attempts::insert(&mut self.store.connection().await.unwrap(), &rows)
            .await
            .unwrap();
    }

    /// Records failed attempts of a webhook, numbered from `from` on, with errors of this size.
    pub(crate) async fn large_attempts(&self, from: u32, count: u32, size: usize) {
        for attempt in from..from + count {
            let fact = AttemptFinished {
                error: "x".repeat(size),
                ..Self::fact(self.reference(1, 0, attempt), Some(500))
            };
            let row = NewAttempt {
                fact: &fact,
                next_attempt_at: None,
            };
            attempts::insert(&mut self.store.connection().await.unwrap(), &[row])
                .await
                .unwrap();
        }
    }

    fn fact(reference: AttemptRef, status: Option<u16>) -> AttemptFinished {
        let delivered = status == Some(200);
        let number = u64::from(reference.attempt);
        AttemptFinished {
            attempt: reference,
            event_id: "evt".to_owned(),
            event_type: "even".to_owned(),
            webhook_revision: 1,
            started_at: START + Duration::from_secs(number),
            duration: Duration::from_micros(1_500),
            outcome: if delivered { Outcome::Delivered } else { Outcome::Failed },
            status,
            error_class: (!delivered).then_some(if status.is_some() {
                ErrorClass::Status
            } else {
                ErrorClass::Connect
            }),
            error: String::new(),
            response_headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
            response_body: "näh".into(),
            response_truncated: false,
            retry_after: None,
            request_sha256: vec![0; 32].into(),
            handed_out: 1,
            ladder: vec![Duration::ZERO; 3],
            fail_after: None,
            trial: None,
            exchange: proto_schemas::ledger::Exchange::default(),
        }
    }
}

/// Six events over three webhooks, in every state.
pub(crate) async fn recorded(world: &World, service: &Service) -> Recorded {
    let project = service.client.post("/v1/projects", json!({ "name": "shop" })).await;
    let mut webhooks = Vec::new();
    for name in ["a", "b", "c"] {
        let webhook = service.client.post("/v1/projects/shop/webhooks", simple(name)).await;
        webhooks.push(id(&webhook).parse().unwrap());
    }
    let it = Recorded {
        store: world.store().await,
        project: id(&project).parse().unwrap(),
        webhooks,
    };
    let mut connection = it.store.connection().await.unwrap();
    partitions::ensure(&mut connection, partitions::day(key(1)))
        .await
        .unwrap();

    it.event(1, &[0, 1], &[(2, SkipReason::Paused)]).await;
    for number in 2..=6 {
        it.event(number, &[0], &[]).await;
    }
    // 1/a delivered, 1/b scheduled after a 503, 1/c skipped, 2 parked, 3 dead, 4 delivered, 5 and 6 queued
    it.attempt(it.reference(1, 0, 1), Some(200)).await;
    it.attempt(it.reference(1, 1, 1), Some(503)).await;
    it.attempt(it.reference(3, 0, 1), None).await;
    it.attempt(it.reference(4, 0, 1), Some(404)).await;
    it.attempt(it.reference(4, 0, 2), Some(200)).await;
    let steps = vec![
        Step {
            after: it.reference(1, 1, 1),
            reason: "503".to_owned(),
            due_at: Some(Timestamp::MAX),
        },
        Step {
            after: it.reference(3, 0, 1),
            reason: "gave up".to_owned(),
            due_at: None,
        },
    ];
    pending_deliveries::step(&mut connection, steps, START).await.unwrap();
    let parked = Deferred {
        attempt: it.reference(2, 0, 1),
        reason: "no room".to_owned(),
        then: Then::Parked(START),
    };
    pending_deliveries::defer(&mut connection, vec![parked], START)
        .await
        .unwrap();
    it
}

fn column<'a>(page: &'a Value, field: &str) -> Vec<&'a str> {
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item[field].as_str().unwrap())
        .collect()
}

/// Every item of a list, page by page of `limit`.
async fn all(client: &Client, path: &str, limit: u32) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let sign = if path.contains('?') { '&' } else { '?' };
        let page = client.get(&format!("{path}{sign}limit={limit}{cursor}")).await;
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

#[tokio::test]
async fn every_delivery_has_a_state_and_pages_lose_none() {
    let world = World::new().await;
    let service = world.start().await;
    let it = recorded(&world, &service).await;
    let api = &service.client;
    let deliveries = all(api, "/v1/projects/shop/deliveries", 250).await;
    let states: Vec<(&str, &str, &str)> = deliveries
        .iter()
        .map(|item| {
            ["event_id", "webhook_name", "state"]
                .map(|field| item[field].as_str().unwrap())
                .into()
        })
        .collect();
    assert_eq!(
        states,
        [
            ("evt_6", "a", "queued"),
            ("evt_5", "a", "queued"),
            ("evt_4", "a", "delivered"),
            ("evt_3", "a", "dead"),
            ("evt_2", "a", "parked"),
            ("evt_1", "a", "delivered"),
            ("evt_1", "b", "scheduled"),
            ("evt_1", "c", "skipped"),
        ]
    );
    assert_eq!(deliveries[2]["attempts"], 2);
    assert_eq!(
        (&deliveries[3]["reason"], &deliveries[3]["attempts"]),
        (&json!("gave up"), &json!(1))
    );
    assert_eq!(deliveries[7]["reason"], "paused");
    for limit in [1, 2, 3, 7, 8] {
        assert_eq!(
            all(api, "/v1/projects/shop/deliveries", limit).await,
            deliveries,
            "{limit}"
        );
    }
    for state in ["delivered", "scheduled", "parked", "held", "dead", "skipped", "queued"] {
        let filtered = all(api, &format!("/v1/projects/shop/deliveries?state={state}"), 1).await;
        let expected: Vec<Value> = deliveries
            .iter()
            .filter(|item| item["state"] == state)
            .cloned()
            .collect();
        assert_eq!(filtered, expected, "{state}");
    }
    let of_one = all(api, "/v1/projects/shop/deliveries?event_id=evt_1&webhook=b", 50).await;
    assert_eq!(of_one, [deliveries[6].clone()]);

    // While an attempt is being made, the delivery still reads as scheduled.
    let released = AttemptRef {
        attempt: 2,
        release: 1,
        ..it.reference(1, 1, 1)
    };
    let mut connection = it.store.connection().await.unwrap();
    pending_deliveries::mark_released(&mut connection, &[released], START, START)
        .await
        .unwrap();
    let of_one = all(api, "/v1/projects/shop/deliveries?state=scheduled", 50).await;
    assert_eq!((of_one.len(), &of_one[0]["next_attempt_at"]), (1, &Value::Null));
    service.stop().await;
}

#[tokio::test]
async fn attempts_are_found_by_event_webhook_status_and_time() {
    let world = World::new().await;
    let service = world.start().await;
    let it = recorded(&world, &service).await;
    let api = &service.client;
    let attempts = all(api, "/v1/projects/shop/attempts", 250).await;
    assert_eq!(attempts.len(), 5);
    assert_eq!(attempts[0]["id"], it.reference(4, 0, 2).attempt_id());
    for limit in [1, 2, 5] {
        assert_eq!(all(api, "/v1/projects/shop/attempts", limit).await, attempts, "{limit}");
    }
    for (filter, count) in [
        ("status=delivered", 2),
        ("status=failed", 3),
        ("status=503", 1),
        ("status=4xx", 1),
        ("status=2xx", 2),
        ("webhook=b", 1),
        ("event_id=evt_1", 2),
        ("event_id=evt_1&webhook=a", 1),
        ("event_id=evt_none", 0),
        ("type=odd", 0),
        ("type=even&status=503", 1),
        ("search=ev", 5),
        ("search=evt_", 0),
        ("error_class=status", 2),
        ("error_class=connect", 1),
        ("state=delivered", 3),
        ("state=scheduled", 1),
        ("state=dead", 1),
        ("state=parked", 0),
        ("since=2026-02-02T02:40:02Z", 1),
        ("until=2026-02-02T02:40:02Z", 4),
    ] {
        assert_eq!(
            all(api, &format!("/v1/projects/shop/attempts?{filter}"), 1).await.len(),
            count,
            "{filter}"
        );
    }

    let shown = api
        .get(&format!(
            "/v1/projects/shop/attempts/{}",
            it.reference(1, 1, 1).attempt_id()
        ))
        .await;
    assert_eq!(
        (&shown["status"], &shown["duration_ms"], &shown["outcome"]),
        (&json!(503), &json!(1.5), &json!("failed"))
    );
    let response =
        json!({ "headers": [{ "key": "content-type", "value": "text/plain" }], "body": "näh", "truncated": false });
    assert_eq!(shown["response"], response);
    let shown = api
        .get(&format!(
            "/v1/projects/shop/attempts/{}",
            it.reference(3, 0, 1).attempt_id()
        ))
        .await;
    assert_eq!(
        (&shown["status"], &shown["response"], &shown["error_class"]),
        (&Value::Null, &Value::Null, &json!("connect"))
    );

    for wrong in ["state=queued", "error_class=bad", "status=ok", "serch=x"] {
        let (status, _) = api
            .call(Method::GET, &format!("/v1/projects/shop/attempts?{wrong}"), None)
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
    }

    // Another project's attempt is not found through one's own.
    api.post("/v1/projects", json!({ "name": "other" })).await;
    let path = format!("/v1/projects/other/attempts/{}", it.reference(1, 1, 1).attempt_id());
    assert_eq!(api.call(Method::GET, &path, None).await.0, StatusCode::NOT_FOUND);
    service.stop().await;
}

#[tokio::test]
async fn events_are_found_by_type_and_shown_with_the_producers_bytes() {
    let world = World::new().await;
    let service = world.start().await;
    let it = recorded(&world, &service).await;
    let api = &service.client;
    let page = api.get("/v1/projects/shop/events?limit=4").await;
    assert_eq!(column(&page, "id"), ["evt_6", "evt_5", "evt_4", "evt_3"]);
    assert_eq!(all(api, "/v1/projects/shop/events", 1).await.len(), 6);
    assert_eq!(
        column(&api.get("/v1/projects/shop/events?type=odd").await, "id"),
        ["evt_5", "evt_3", "evt_1"]
    );
    assert_eq!(
        all(api, "/v1/projects/shop/events?since=2026-02-02T02:40:00Z", 50)
            .await
            .len(),
        6
    );
    assert_eq!(
        all(api, "/v1/projects/shop/events?until=2026-02-02T02:40:00Z", 50)
            .await
            .len(),
        0
    );

    let shown = api.get("/v1/projects/shop/events/evt_1").await;
    assert_eq!(shown["data"], json!({ "n": 1.0 }));
    assert_eq!(
        (&shown["content_type"], &shown["size"]),
        (&json!("application/json"), &json!(10))
    );
    assert_eq!(shown["owed"].as_array().unwrap().len(), 2);
    assert_eq!(
        shown["skipped"],
        json!([{ "webhook": it.webhooks[2].as_uuid(), "reason": "paused" }])
    );
    let (status, _) = api.call(Method::GET, "/v1/projects/shop/events/evt_9", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    service.stop().await;
}

#[tokio::test]
async fn rejected_events_are_shown_to_their_project_and_all_to_the_administrator() {
    let world = World::new().await;
    let service = world.start().await;
    let it = recorded(&world, &service).await;
    let api = &service.client;
    for (number, project, payload) in [(1, Some(it.project), "not json"), (2, None, "nobody's")] {
        let fact = EventRejected {
            key: key(number),
            project,
            subject: "events.shop.a".to_owned(),
            reason: "not_json".to_owned(),
            detail: "send JSON".to_owned(),
            payload: payload.into(),
            payload_size: payload.len() as u64,
            received_at: START,
        };
        rejected_events::insert(&mut it.store.connection().await.unwrap(), &[&fact])
            .await
            .unwrap();
    }
    assert_eq!(
        column(&api.get("/v1/projects/shop/rejected-events").await, "body"),
        ["not json"]
    );
    assert_eq!(
        column(&api.get("/v1/rejected-events").await, "body"),
        ["nobody's", "not json"]
    );
    service.stop().await;
}
