//! Integration templates.

use bytes::Bytes;
use proto_schemas::definition::Body;
use proto_schemas::event::Event;
use proto_schemas::id::{EventKey, ProjectId};
use serde_json::json;

use super::*;
use crate::render::{Renderer, Subject, Variables};

fn applied(name: &str, blanks: &[(&str, &str)]) -> Result<Applied, Error> {
    let blanks = blanks.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Templates::load().unwrap().get(name).unwrap().apply(&blanks)
}

fn body(applied: &Applied, event_type: &str, data: &Value) -> Value {
    let at = "2024-01-15T10:30:00Z".parse().unwrap();
    let event = Event {
        key: EventKey::of_message(at, 7),
        id: "evt_abc123".into(),
        project: ProjectId::from_uuid(uuid::Uuid::nil()),
        event_type: event_type.into(),
        occurred_at: at,
        accepted_at: at,
        attributes: BTreeMap::new(),
        content_type: String::new(),
        payload: Bytes::from(data.to_string()),
        traceparent: String::new(),
    };
    let renderer = Renderer::compile(&Body::Template(applied.transform.to_string())).unwrap();
    let values = applied.variables.iter().map(|it| (it.key.clone(), it.value.clone()));
    let variables = Variables::new(values.collect(), true);
    let subject = Subject::new(&event, "ws_1", &[]).with(&variables);
    serde_json::from_slice(&renderer.render(&subject).unwrap().body).unwrap()
}

#[test]
fn every_shipped_template_is_read_and_none_is_forgotten() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/templates");
    let mut stems: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    stems.sort();
    let templates = Templates::load().unwrap();
    assert_eq!(templates.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), stems);
}

#[test]
fn slack_gets_the_documents_own_line() {
    let slack = applied("slack", &[("path", "T0/B0/x")]).unwrap();
    assert_eq!(slack.url, "https://hooks.slack.com/services/T0/B0/x");
    assert_eq!(slack.transform, json!({"text": "New {{type}}: {{data.title}}"}));
    let data = json!({"title": "Right-size EC2 instance i-0abc123"});
    assert_eq!(
        body(&slack, "recommendation.created", &data).to_string(),
        r#"{"text":"New recommendation.created: Right-size EC2 instance i-0abc123"}"#
    );
}

#[test]
fn jira_gets_an_issue() {
    let blanks = [("site", "acme"), ("project_key", "OPS"), ("credentials", "bWU=")];
    let jira = applied("jira", &blanks).unwrap();
    assert_eq!(jira.url, "https://acme.atlassian.net/rest/api/3/issue");
    assert_eq!(
        (jira.headers[0].value.as_str(), jira.headers[0].protected),
        ("Basic bWU=", true)
    );
    let made = body(
        &jira,
        "recommendation.created",
        &json!({"title": format!("two\nlines{}", "x".repeat(300))}),
    );
    let fields = &made["fields"];
    assert_eq!(
        (&fields["project"]["key"], &fields["issuetype"]["name"]),
        (&json!("OPS"), &json!("Task"))
    );
    let summary = fields["summary"].as_str().unwrap();
    assert!(
        summary.starts_with("two linesx") && summary.chars().count() == 255,
        "{summary}"
    );
    assert_eq!(fields["description"]["type"], "doc");
}

#[test]
fn pagerduty_gets_an_event_that_opens_and_closes_an_incident() {
    let pagerduty = applied("pagerduty", &[("routing_key", "0123")]).unwrap();
    let variable = &pagerduty.variables[0];
    assert_eq!((variable.value.as_str(), variable.protected), ("0123", true));
    assert!(!pagerduty.transform.to_string().contains("0123"));
    let data = json!({"incident_id": "inc-1", "title": "Down", "severity": "high", "n": 1.50});
    assert_eq!(
        body(&pagerduty, "incident.created", &data),
        json!({"routing_key": "0123", "event_action": "trigger", "dedup_key": "inc-1", "payload": {"summary": "Down",
            "source": "ws_1", "severity": "error", "timestamp": "2024-01-15T10:30:00Z", "custom_details": data}})
    );
    let resolved = body(
        &pagerduty,
        "incident.resolved",
        &json!({"id": 7, "severity": "critical"}),
    );
    assert_eq!(
        (&resolved["event_action"], &resolved["dedup_key"]),
        (&json!("resolve"), &json!("7"))
    );
    assert_eq!(resolved["payload"]["severity"], "critical");
    assert_eq!(body(&pagerduty, "a", &json!({}))["payload"]["severity"], "error");
}

#[test]
fn teams_discord_and_generic_get_what_they_take() {
    let teams = applied("teams", &[("url", "https://x.example/a?sig=b")]).unwrap();
    assert_eq!(teams.url, "https://x.example/a?sig=b");
    let card = body(&teams, "a.b", &json!({"title": "T"}));
    let content = &card["attachments"][0]["content"];
    assert_eq!(
        (&content["type"], &content["body"][0]["text"]),
        (&json!("AdaptiveCard"), &json!("T"))
    );
    let discord = applied("discord", &[("path", "1/a-b")]).unwrap();
    let made = body(&discord, "a.b", &json!({"title": "x".repeat(3000)}));
    assert_eq!(made["content"], format!("**a.b** {}", "x".repeat(1900)));
    let generic = applied("generic", &[("url", "https://x.example/")]).unwrap();
    assert_eq!(generic.headers, []);
    assert_eq!(body(&generic, "a.b", &json!([1]))["data"], json!([1]));
}

#[test]
fn what_a_title_holds_stays_a_title() {
    let slack = applied("slack", &[("path", "a")]).unwrap();
    for title in [
        "say \"hi\"",
        "two\nlines",
        "🚀",
        "{{data.secret}} {% raw %}",
        "<path>",
        "\\",
    ] {
        let made = body(&slack, "t", &json!({"title": title, "secret": "s"}));
        assert_eq!(made, json!({"text": format!("New t: {title}")}));
    }
}

#[test]
fn a_blank_that_does_not_fit_is_named() {
    for (name, blanks, says) in [
        ("slack", vec![], "`path` has to be filled in: What follows"),
        ("slack", vec![("path", "  ")], "`path` has to be filled in"),
        (
            "slack",
            vec![("path", "a"), ("channel", "b")],
            "no `channel` to fill in; there is `path`",
        ),
        (
            "slack",
            vec![("path", "https://hooks.slack.com/services/T")],
            "`path` is a piece of a path",
        ),
        ("slack", vec![("path", "a/../b")], "`path` is a piece of a path"),
        ("slack", vec![("path", "a?b")], "`path` is a piece of a path"),
        (
            "jira",
            vec![("site", "evil.example/"), ("project_key", "A"), ("credentials", "b")],
            "`site` is a name of letters",
        ),
        (
            "jira",
            vec![("site", "a"), ("project_key", "A"), ("credentials", "b\nX: y")],
            "`credentials` holds characters",
        ),
        (
            "jira",
            vec![("site", "a"), ("project_key", "{{data}}"), ("credentials", "b")],
            "`project_key` holds `{{`",
        ),
    ] {
        let error = applied(name, &blanks).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_file_that_is_no_template_is_named() {
    let slack = include_str!("../../../../deploy/templates/slack.toml");
    for (from, to, says) in [
        ("name = \"slack\"", "name = \"slick\"", "not the file's name"),
        ("{{data.title}}", "{{data.title", "transform: /text"),
        ("{{data.title}}", "{{title}}", "there is no `title`"),
        ("services/<path>", "services/x", "nothing asks for `path`"),
        ("description", "descripton", "unknown field"),
    ] {
        let error = parse("slack.toml", &slack.replacen(from, to, 1))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("slack.toml: ") && error.contains(says), "{error}");
    }
}

#[test]
fn a_secret_that_would_be_readable_is_refused_with_file_and_reason() {
    let pagerduty = include_str!("../../../../deploy/templates/pagerduty.toml");
    for (from, to, says) in [
        (
            "{{ variables.routing_key }}",
            "<routing_key>",
            "pagerduty.toml: transform: it is readable, and `routing_key` is secret: let a protected one of `[[variables]]`",
        ),
        (
            "protected = true",
            "protected = false",
            "pagerduty.toml: routing_key: it is readable, and `routing_key` is secret",
        ),
    ] {
        let error = parse("pagerduty.toml", &pagerduty.replacen(from, to, 1)).unwrap_err();
        assert!(error.to_string().starts_with(says), "{error}");
    }
}
