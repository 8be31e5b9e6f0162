use common::http::parse;
use common::profile::{Profiles, Switch};
use serde_json::{Value, json};

use super::*;
use crate::facades::blank_webhook;

/// A profile with the option that this façade switches.
fn profile() -> Profile {
    let profiles = Profiles::load(&common::profile::Config::default()).unwrap();
    let mut profile = profiles.get("standard").unwrap().clone();
    profile.options = vec![Switch {
        name: "json_payload".to_owned(),
        description: String::new(),
        default: false,
    }];
    profile
}

const DOCUMENTED: &str = r#"{
    "name": "webhook-name-1",
    "url": "https://www.your-endpoint.com/messages1",
    "headers": {"x-api-key": "ABCDEFGHIJKLMNOPQRSTUVWXYZ"},
    "eventTypes": [{ "type": "TELEMETRY_DATA" }]
}"#;

fn changes(body: &str) -> Changes {
    let new: NewIntegration = parse(body.as_bytes()).unwrap();
    new.into_changes(&profile()).unwrap()
}

fn stored() -> Webhook {
    Webhook {
        name: "beeceptor-webhook-int".to_owned(),
        url: "https://beeceptor.example/".to_owned(),
        events: vec!["LIFECYCLE".to_owned(), "TELEMETRY_DATA".to_owned()],
        created_at: "2022-09-16T11:01:11.390499Z".parse().unwrap(),
        updated_at: "2022-12-09T11:23:48.609Z".parse().unwrap(),
        ..blank_webhook()
    }
}

fn shown(delivered_at: Option<Timestamp>) -> Value {
    let view = IntegrationView::of(&stored(), &profile(), Phase::IntegrationActive, delivered_at);
    serde_json::to_value(view).unwrap()
}

#[test]
fn the_documented_request_makes_a_webhook() {
    let changes = changes(DOCUMENTED);
    assert_eq!(changes.name.as_deref(), Some("webhook-name-1"));
    assert_eq!(changes.url.as_deref(), Some("https://www.your-endpoint.com/messages1"));
    assert_eq!(changes.events.unwrap(), ["TELEMETRY_DATA"]);
    assert!(changes.options.is_none());
    let header = &changes.headers.unwrap()[0];
    assert_eq!(
        (header.key.as_str(), header.value.as_deref(), header.protected),
        ("x-api-key", Some("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), None)
    );
}

#[test]
fn name_and_url_are_enough() {
    let changes = changes(r#"{"name":"a","url":"https://a.example"}"#);
    assert_eq!(changes.events.unwrap(), ["TELEMETRY_DATA", "LIFECYCLE"]);
}

#[test]
fn the_documented_edit_changes_what_it_names() {
    let changed: ChangedIntegration = parse(
        br#"{ "eventTypes": [ { "type": "LIFECYCLE" } ], "url": "www.example.com", "jsonPayloadEnabled": false }"#,
    )
    .unwrap();
    assert_eq!(changed.url().as_deref(), Some("https://www.example.com"));
    let changes = changed.into_changes(&stored(), &profile()).unwrap();
    assert_eq!(changes.events.unwrap(), ["LIFECYCLE"]);
    assert_eq!(changes.url.as_deref(), Some("https://www.example.com"));
    assert!(changes.name.is_none() && changes.headers.is_none());
    assert!(changes.options.is_none(), "it is off already");
}

#[test]
fn json_payload_is_an_option_of_the_profile() {
    let on = changes(r#"{"name":"a","url":"https://a.example","jsonPayloadEnabled":true}"#);
    assert_eq!(on.options, Some(BTreeMap::from([("json_payload".to_owned(), true)])));
    let mut webhook = stored();
    webhook.settings.options = on.options.unwrap();
    assert!(json_payload(&webhook, &profile()));
    let changed: ChangedIntegration = parse(br#"{"jsonPayloadEnabled":false}"#).unwrap();
    let changes = changed.into_changes(&webhook, &profile()).unwrap();
    assert_eq!(
        changes.options,
        Some(BTreeMap::from([("json_payload".to_owned(), false)]))
    );
}

#[test]
fn an_integration_is_shown_as_documented() {
    let documented = json!({
        "lastSuccessfulMessageDelivery": "2022-12-07T12:29:51.927Z",
        "name": "beeceptor-webhook-int",
        "state": "INTEGRATION_ACTIVE",
        "type": "WEBHOOK",
        "createdTime": "2022-09-16T11:01:11.390Z",
        "updatedTime": "2022-12-09T11:23:48.609Z",
        "eventTypes": [
            { "type": "LIFECYCLE", "version": "1.0.0" },
            { "type": "TELEMETRY_DATA", "version": "1.0.0" }
        ]
    });
    let view = shown(Some("2022-12-07T12:29:51.927831Z".parse().unwrap()));
    for (member, value) in documented.as_object().unwrap() {
        assert_eq!(&view[member], value, "{member}");
    }
    assert!(view["id"].is_string());
    assert_eq!(view.get("headers"), None);
}

#[test]
fn before_the_first_delivery_there_is_no_time_of_it() {
    assert_eq!(shown(None).get("lastSuccessfulMessageDelivery"), None);
    assert_eq!(shown(None)["createdTime"], "2022-09-16T11:01:11.390Z");
}

#[test]
fn whole_seconds_have_their_zeros() {
    let mut webhook = stored();
    webhook.created_at = "2022-09-16T11:01:11Z".parse().unwrap();
    let view = IntegrationView::of(&webhook, &profile(), Phase::RolloutStarted, None);
    assert_eq!(
        serde_json::to_value(view).unwrap()["createdTime"],
        "2022-09-16T11:01:11.000Z"
    );
}

#[test]
fn states_come_down_to_three() {
    let phase = |state, published| serde_json::to_value(Phase::of(state, published)).unwrap();
    assert_eq!(phase(WebhookState::Pending, true), "ROLLOUT_STARTED");
    assert_eq!(phase(WebhookState::Active, false), "ROLLOUT_STARTED");
    assert_eq!(phase(WebhookState::Active, true), "INTEGRATION_ACTIVE");
    for state in [WebhookState::Failed, WebhookState::Disabled, WebhookState::Paused] {
        for published in [true, false] {
            assert_eq!(phase(state, published), "INTEGRATION_FAILED");
        }
    }
}

#[test]
fn an_unknown_type_or_version_is_refused_in_its_place() {
    let refused = |types: Value| {
        let body = json!({ "name": "a", "url": "https://a.example", "eventTypes": types }).to_string();
        let new: NewIntegration = parse(body.as_bytes()).unwrap();
        let errors = new.into_changes(&profile()).unwrap_err();
        errors.into_iter().map(|error| error.pointer).collect::<Vec<_>>()
    };
    assert_eq!(
        refused(json!([{ "type": "LIFECYCLE" }, { "type": "DATA_BROKER" }])),
        ["#/eventTypes/1/type"]
    );
    assert_eq!(
        refused(json!([{ "type": "LIFECYCLE", "version": "2.0.0" }])),
        ["#/eventTypes/0/version"]
    );
}

#[test]
fn the_models_fields_have_their_names_here() {
    let headers = ["a".to_owned(), "x/y".to_owned()];
    assert_eq!(named("/events/1", &headers).as_deref(), Some("/eventTypes/1/type"));
    assert_eq!(named("/events", &headers).as_deref(), Some("/eventTypes"));
    assert_eq!(named("/headers/1/value", &headers).as_deref(), Some("/headers/x~1y"));
    assert_eq!(
        named("/options/json_payload", &headers).as_deref(),
        Some("/jsonPayloadEnabled")
    );
    assert_eq!(named("/url", &headers), None);
}

#[test]
fn pages_count_from_one_and_there_is_always_one() {
    let cut = |page: usize, page_size: usize, all: Vec<u32>| {
        let query = PageQuery { page, page_size };
        query.check().unwrap();
        serde_json::to_value(query.cut(all)).unwrap()
    };
    assert_eq!(cut(1, 50, vec![]), json!({ "page": 1, "pageAmount": 1, "items": [] }));
    assert_eq!(
        cut(2, 2, vec![1, 2, 3]),
        json!({ "page": 2, "pageAmount": 2, "items": [3] })
    );
    assert_eq!(
        cut(9, 2, vec![1, 2, 3]),
        json!({ "page": 9, "pageAmount": 2, "items": [] })
    );
    for (page, page_size) in [(0, 10), (1, 0), (1, 251)] {
        assert!(PageQuery { page, page_size }.check().is_err());
    }
}
