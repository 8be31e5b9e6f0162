use common::http::parse;
use common::profile::{Profiles, Switch};
use serde_json::{Value, json};
use store::webhooks::{NamedValue, Settings};

use super::*;
use crate::facades::blank_webhook;

/// A profile with the option that this façade switches.
fn profile() -> Profile {
    let profiles = Profiles::load(&common::profile::Config::default()).unwrap();
    let mut profile = profiles.get("standard").unwrap().clone();
    profile.options = vec![Switch {
        name: "include_result".to_owned(),
        description: String::new(),
        default: false,
    }];
    profile
}

fn new(body: &Value) -> NewWebhook {
    parse(body.to_string().as_bytes()).unwrap()
}

fn documented() -> Value {
    json!({
        "name": "webhook-1",
        "url": "https://callback-url-webhook-1.com",
        "headers": [{ "key": "Authorization", "value": "Token 123", "protected": true }],
        "object_type": "deployment",
        "object_name": "deployment-1",
        "version": "v1",
        "event": "deployment_request_finished"
    })
}

fn with(member: &str, value: Value) -> Value {
    let mut body = documented();
    body[member] = value;
    body
}

/// The webhook that the documented answers are about.
fn stored() -> Webhook {
    let texts = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    Webhook {
        id: proto_schemas::id::WebhookId::from_uuid("e54251d8-e518-424f-bf7d-c45aaf26f72c".parse().unwrap()),
        name: "webhook-1".to_owned(),
        url: "https://callback-url-webhook-1.com/".to_owned(),
        events: vec!["deployment_request_finished".to_owned()],
        labels: texts(&[("event-type", "request-finished")]),
        attributes: texts(&[
            ("object_type", "deployment"),
            ("object_name", "deployment-1"),
            ("version", "v1"),
        ]),
        retry: Some(Retry::Never),
        timeout: Some(Duration::from_secs(10)),
        ..blank_webhook()
    }
}

fn refused(body: &Value) -> Vec<String> {
    let errors = new(body).into_changes(&profile()).unwrap_err();
    errors.into_iter().map(|error| error.pointer).collect()
}

#[test]
fn the_documented_request_makes_the_documented_webhook() {
    let changes = new(&documented()).into_changes(&profile()).unwrap();
    assert_eq!(changes.name.as_deref(), Some("webhook-1"));
    assert_eq!(changes.events.unwrap(), ["deployment_request_finished"]);
    assert_eq!(changes.attributes.unwrap(), stored().attributes);
    assert_eq!(changes.timeout, Some(Some(Duration::from_secs(10))));
    assert_eq!(changes.retry, Some(Some(Retry::Never)));
    assert_eq!(changes.active, None);
    let header = &changes.headers.unwrap()[0];
    assert_eq!(
        (header.key.as_str(), header.value.as_deref(), header.protected),
        ("Authorization", Some("Token 123"), Some(true))
    );
}

#[test]
fn a_webhook_is_shown_as_documented() {
    let view = serde_json::to_value(WebhookView::of(&stored(), &profile())).unwrap();
    let documented = json!({
        "id": "e54251d8-e518-424f-bf7d-c45aaf26f72c",
        "name": "webhook-1",
        "url": "https://callback-url-webhook-1.com",
        "headers": [],
        "object_type": "deployment",
        "object_name": "deployment-1",
        "version": "v1",
        "description": "",
        "labels": { "event-type": "request-finished" },
        "event": "deployment_request_finished",
        "timeout": 10,
        "enabled": true,
        "retry": false,
        "include_result": false
    });
    for (member, value) in documented.as_object().unwrap() {
        assert_eq!(&view[member], value, "{member}");
    }
    assert_eq!(view["creation_date"], "1970-01-01T00:00:00Z");
}

#[test]
fn a_protected_value_is_null_and_so_is_an_empty_one() {
    let mut webhook = stored();
    let header = |key: &str, value| NamedValue {
        key: key.to_owned(),
        value,
    };
    webhook.headers = vec![
        header("Authorization", MaybeSealed::Sealed("v1|secret".to_owned())),
        header("X-Team", MaybeSealed::Plain("blue".to_owned())),
        header("X-Empty", MaybeSealed::Plain(String::new())),
    ];
    let view = serde_json::to_value(WebhookView::of(&webhook, &profile())).unwrap();
    assert_eq!(
        view["headers"],
        json!([
            { "key": "Authorization", "value": null, "protected": true },
            { "key": "X-Team", "value": "blue", "protected": false },
            { "key": "X-Empty", "value": null, "protected": false },
        ])
    );
}

#[test]
fn without_a_version_the_default_one_is_meant() {
    for body in [with("version", json!(null)), {
        let mut body = documented();
        body.as_object_mut().unwrap().remove("version");
        body
    }] {
        let attributes = new(&body).into_changes(&profile()).unwrap().attributes.unwrap();
        assert_eq!(attributes.get("default_version").map(String::as_str), Some("true"));
        assert_eq!(attributes.get("version"), None);
        let webhook = Webhook { attributes, ..stored() };
        let view = serde_json::to_value(WebhookView::of(&webhook, &profile())).unwrap();
        assert_eq!(view["version"], Value::Null);
    }
}

#[test]
fn an_event_is_one_of_its_object_types() {
    for (object_type, event) in [
        ("deployment", "deployment_request_started"),
        ("deployment", "deployment_request_completed"),
        ("pipeline", "pipeline_request_failed"),
        ("pipeline", "pipeline_request_finished"),
    ] {
        let mut body = with("event", json!(event));
        body["object_type"] = json!(object_type);
        assert!(new(&body).into_changes(&profile()).is_ok(), "{event}");
    }
    for event in ["pipeline_request_failed", "deployment_request_cancelled", "*", ""] {
        assert_eq!(refused(&with("event", json!(event))), ["#/event"], "{event}");
    }
    assert_eq!(refused(&with("object_type", json!("experiment"))), ["#/object_type"]);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let mut body = with("timeout", json!(31));
    body["event"] = json!("x");
    body["object_name"] = json!("");
    body["version"] = json!("");
    assert_eq!(refused(&body), ["#/event", "#/object_name", "#/version", "#/timeout"]);
    assert_eq!(refused(&with("timeout", json!(0))), ["#/timeout"]);
}

#[test]
fn retry_is_the_profiles_ladder_or_one_that_every_profile_can_do_with() {
    let ladder = |name: &str| {
        let mut profile = profile();
        if name == "none" {
            profile.ladder = vec![Duration::ZERO];
        }
        let changes = new(&with("retry", json!(true))).into_changes(&profile).unwrap();
        let webhook = Webhook {
            retry: changes.retry.unwrap(),
            ..stored()
        };
        assert!(retries(&webhook, &profile), "{name}");
        webhook.retry
    };
    assert_eq!(ladder("its own"), None);
    assert_eq!(ladder("none"), Some(Retry::Delays(LADDER.to_vec())));
}

#[test]
fn a_change_leaves_alone_what_it_does_not_name() {
    let changed: ChangedWebhook = parse(br#"{"name":"new-webhook-name","headers":null}"#).unwrap();
    let changes = changed.into_changes(&stored(), &profile()).unwrap();
    assert_eq!(changes.name.as_deref(), Some("new-webhook-name"));
    assert!(changes.headers.is_none() && changes.attributes.is_none() && changes.timeout.is_none());
    assert!(changes.retry.is_none() && changes.active.is_none() && changes.options.is_none());
}

#[test]
fn a_change_of_the_event_stays_with_the_object_type() {
    let change = |event: &str| {
        let body = json!({ "event": event }).to_string();
        let changed: ChangedWebhook = parse(body.as_bytes()).unwrap();
        changed
            .into_changes(&stored(), &profile())
            .map(|changes| changes.events)
    };
    assert_eq!(
        change("deployment_request_failed").unwrap(),
        Some(vec!["deployment_request_failed".to_owned()])
    );
    assert_eq!(change("pipeline_request_failed").unwrap_err()[0].pointer, "#/event");
}

#[test]
fn delays_of_its_own_outlive_a_change_that_says_retry() {
    let mut webhook = stored();
    webhook.retry = Some(Retry::Delays(vec![Duration::ZERO, Duration::from_secs(1)]));
    let change = |body: &[u8]| {
        let changed: ChangedWebhook = parse(body).unwrap();
        changed.into_changes(&webhook, &profile()).unwrap().retry
    };
    assert_eq!(change(br#"{"retry":true}"#), None);
    assert_eq!(change(br#"{"retry":false}"#), Some(Some(Retry::Never)));
}

#[test]
fn include_result_is_an_option_among_others() {
    let mut webhook = stored();
    webhook.settings = Settings {
        options: BTreeMap::from([("other".to_owned(), true)]),
        ..Settings::default()
    };
    let change = |body: &[u8]| {
        let changed: ChangedWebhook = parse(body).unwrap();
        changed.into_changes(&webhook, &profile()).unwrap().options
    };
    let both = BTreeMap::from([("include_result".to_owned(), true), ("other".to_owned(), true)]);
    assert_eq!(change(br#"{"include_result":true}"#), Some(both));
    assert_eq!(change(br#"{"include_result":false}"#), None);
}

#[test]
fn what_cannot_be_said_in_these_words_is_not_shown() {
    let shown = |webhook: &Webhook| WebhookView::of(webhook, &profile()).is_some();
    assert!(shown(&stored()));
    assert!(!shown(&Webhook {
        events: vec!["a".to_owned(), "b".to_owned()],
        ..stored()
    }));
    assert!(!shown(&Webhook {
        attributes: BTreeMap::new(),
        ..stored()
    }));
}

#[test]
fn a_list_is_filtered_by_labels_object_type_and_event() {
    let view = WebhookView::of(&stored(), &profile()).unwrap();
    let wanted = |text: &str, object_type: Option<&str>, event: Option<&str>| {
        view.is_wanted(&Filter {
            labels: labels(text).unwrap(),
            object_type: object_type.map(str::to_owned),
            event: event.map(str::to_owned),
        })
    };
    assert!(wanted("", None, None));
    assert!(wanted("event-type:request-finished", Some("deployment"), None));
    assert!(!wanted("event-type:request-finished,team:blue", None, None));
    assert!(!wanted("event-type:other", None, None));
    assert!(!wanted("", Some("pipeline"), None));
    assert!(wanted("", None, Some("deployment_request_finished")));
    assert!(!wanted("", None, Some("deployment_request_failed")));
    assert!(labels("event-type").unwrap_err().contains("`event-type` has no colon"));
    assert_eq!(
        labels("a:1,b:2:3").unwrap(),
        [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2:3".to_owned())]
    );
}

#[test]
fn a_host_alone_is_given_back_as_it_was_given() {
    assert_eq!(as_given("https://a.example/"), "https://a.example");
    for same in [
        "https://a.example/hook/",
        "https://a.example/?x=/",
        "https://a.example",
        "/",
    ] {
        assert_eq!(as_given(same), same);
    }
}

#[test]
fn a_test_is_for_a_webhook_that_need_not_be_there() {
    let test: NewTest = parse(
        br#"{"url":"https://callback-url-webhook-1.com","object_type":"deployment","object_name":"deployment-1",
            "event":"deployment_request_finished"}"#,
    )
    .unwrap();
    let changes = NewWebhook::from(test).into_changes(&profile()).unwrap();
    assert_eq!(changes.events.unwrap(), ["deployment_request_finished"]);
    assert_eq!(changes.timeout, Some(Some(Duration::from_secs(10))));
}

#[test]
fn the_models_fields_have_their_names_here() {
    assert_eq!(named("/events/0").as_deref(), Some("/event"));
    assert_eq!(named("/attributes/object_name").as_deref(), Some("/object_name"));
    assert_eq!(named("/attributes/default_version").as_deref(), Some("/version"));
    assert_eq!(named("/options/include_result").as_deref(), Some("/include_result"));
    assert_eq!(named("/headers/0/value"), None);
}
