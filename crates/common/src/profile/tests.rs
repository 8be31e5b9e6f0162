//! Profiles.

use proto_schemas::event::Event;
use proto_schemas::id::{EventKey, ProjectId};
use serde_json::{Value, json};

use super::*;
use crate::render::{Expressions, Renderer, Subject};

const GOOD: &str = include_str!("../../../../deploy/profiles/standard.toml");

fn refused(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    parse(Path::new("/p/standard.toml"), &GOOD.replace(from, to))
        .unwrap_err()
        .to_string()
}

#[test]
fn every_shipped_profile_is_read_and_none_is_forgotten() {
    let profiles = Profiles::load(&Config::default()).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/profiles");
    let files = files(&folder).unwrap();
    let stems: Vec<_> = files
        .iter()
        .map(|file| file.file_stem().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(profiles.names(), stems.join(", "));
    assert!(profiles.get(DEFAULT).is_some());
}

#[test]
fn cloudthinker_is_what_its_document_says() {
    let profiles = Profiles::load(&Config::default()).unwrap();
    let profile = profiles.get("cloudthinker").unwrap();
    let Body::Envelope(members) = &profile.body else {
        panic!("no envelope")
    };
    let names: Vec<_> = members.iter().map(|member| member.0.as_str()).collect();
    assert_eq!(names, ["id", "type", "timestamp", "workspace_id", "data"]);
    assert_eq!(
        profile.ladder.iter().map(Duration::as_secs).collect::<Vec<_>>(),
        [0, 60, 300, 1800, 7200, 28800]
    );
    assert_eq!(profile.timeout, Duration::from_secs(30));
    assert_eq!(
        profile.signature.body_hmac_header.as_deref(),
        Some("X-CloudThinker-Signature")
    );
    assert!(!profile.redirect_is_success);
}

#[test]
fn a_folder_adds_profiles_and_replaces_shipped_ones() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("standard.toml"), GOOD.replace("15s", "7s")).unwrap();
    std::fs::write(
        folder.path().join("mine.toml"),
        GOOD.replace("\"standard\"", "\"mine\""),
    )
    .unwrap();
    std::fs::write(folder.path().join("README.md"), "not a profile").unwrap();
    let profiles = Profiles::load(&Config {
        profiles_dir: Some(folder.path().to_owned()),
    })
    .unwrap();
    assert_eq!(profiles.names(), "cloudthinker, mine, once, standard, ubiops, uniskai");
    assert_eq!(profiles.get("standard").unwrap().timeout, Duration::from_secs(7));
    assert_eq!(profiles.iter().count(), 6);
}

#[test]
fn a_folder_that_is_not_there_is_named_with_its_setting() {
    let config = Config {
        profiles_dir: Some("/nowhere/at/all".into()),
    };
    let error = Profiles::load(&config).unwrap_err().to_string();
    assert!(
        error.contains("/nowhere/at/all") && error.contains("POSTHASTE_PROFILES_DIR"),
        "{error}"
    );
}

#[test]
fn what_is_wrong_is_named_with_file_and_line() {
    let line = |setting: &str| GOOD.lines().position(|line| line.starts_with(setting)).unwrap() + 1;
    for (from, to, setting, reason) in [
        ("name = \"standard\"", "name = \"other\"", "name", "`standard`"),
        (
            "standard_webhooks =",
            "standard_webhook =",
            "standard_webhooks =",
            "unknown field `standard_webhook`",
        ),
        ("\"0s\", \"5s\"", "\"0s\", \"soon\"", "delays", "`soon`"),
        (
            "delays = [\"0s\", \"5s\", \"5m\", \"30m\", \"2h\", \"5h\", \"10h\", \"10h\"]",
            "delays = []",
            "delays",
            "1 to 50",
        ),
        ("timeout = \"15s\"", "timeout = \"2h\"", "timeout", "1m"),
        ("success = [\"2xx\"]", "success = [\"3xx\"]", "success", "2xx"),
        ("success = [\"2xx\"]", "success = [\"4xx\"]", "success", "4xx"),
        ("name = \"type\"", "name = \"id\"", "members", "`id` is there twice"),
        ("kind = \"envelope\"", "kind = \"parcel\"", "kind =", "parcel"),
    ] {
        let error = refused(from, to);
        let expected = format!("/p/standard.toml, line {}: ", line(setting));
        assert!(error.starts_with(&expected), "{error}, not {expected}");
        assert!(error.contains(reason), "{error}");
    }
}

fn shipped(name: &str) -> Profile {
    Profiles::load(&Config::default()).unwrap().get(name).unwrap().clone()
}

/// The body of a profile for an event.
fn body(profile: &str, event_type: &str, data: &[u8], attributes: &[(&str, &str)], options: &[&str]) -> Value {
    let at = "2022-12-09T15:12:29.915Z".parse().unwrap();
    let event = Event {
        key: EventKey::of_message(at, 7),
        id: "evt_1".into(),
        project: ProjectId::from_uuid(uuid::Uuid::nil()),
        event_type: event_type.into(),
        occurred_at: at,
        accepted_at: at,
        attributes: attributes.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        content_type: match serde_json::from_slice::<Value>(data) {
            Ok(_) if attributes.is_empty() => String::new(),
            _ => "application/octet-stream".into(),
        },
        payload: data.to_vec().into(),
        traceparent: String::new(),
    };
    let options: Vec<String> = options.iter().map(|it| (*it).to_owned()).collect();
    let renderer = Renderer::compile(&shipped(profile).body).unwrap();
    let rendered = renderer.render(&Subject::new(&event, "p", &options)).unwrap();
    serde_json::from_slice(&rendered.body).unwrap()
}

#[test]
fn ubiops_is_what_its_document_says() {
    let profile = shipped("ubiops");
    assert!(profile.redirect_is_success && !profile.generate_secret);
    assert!(profile.protected_values_follow_url);
    assert_eq!((profile.timeout.as_secs(), profile.timeout_max.as_secs()), (10, 30));
    assert_eq!(profile.ladder, [Duration::ZERO]);
    let data =
        br#"{"deployment_id":"d","deployment_name":"model","deployment_version_id":"i","deployment_version_name":"v1",
        "request_id":"r","status":"completed","result":{"a":1}}"#;
    let flat = json!({"event": "deployment_request_completed", "deployment_id": "d", "deployment_name": "model",
        "deployment_version_id": "i", "deployment_version_name": "v1", "request_id": "r", "status": "completed",
        "text": "Request r to deployment model (version v1) has completed"});
    assert_eq!(body("ubiops", "deployment_request_completed", data, &[], &[]), flat);
    let mut with_result = flat;
    with_result["result"] = json!({"a": 1});
    assert_eq!(
        body("ubiops", "deployment_request_completed", data, &[], &["include_result"]),
        with_result
    );
    let pipeline = br#"{"pipeline_id":"p","pipeline_name":"flow","pipeline_version_id":"i","pipeline_version_name":"v2","request_id":"r","status":"failed"}"#;
    assert_eq!(
        body(
            "ubiops",
            "pipeline_request_finished",
            pipeline,
            &[],
            &["include_result"]
        ),
        json!({"event": "pipeline_request_finished", "pipeline_id": "p", "pipeline_name": "flow", "pipeline_version_id": "i",
            "pipeline_version_name": "v2", "request_id": "r", "status": "failed",
            "text": "Request r to pipeline flow (version v2) has finished: failed"})
    );
}

#[test]
fn a_result_of_more_than_16_kb_stays_out() {
    for (length, there) in [(15_998, true), (15_999, false), (200_000, false)] {
        let data = json!({"request_id": "r", "result": "x".repeat(length)}).to_string();
        let made = body(
            "ubiops",
            "deployment_request_completed",
            data.as_bytes(),
            &[],
            &["include_result"],
        );
        assert_eq!(made.get("result").is_some(), there, "{length}");
    }
}

#[test]
fn an_ubiops_event_has_the_attributes_that_webhooks_ask_for() {
    let expressions = Expressions::compile(&shipped("ubiops").event_attributes).unwrap();
    for (event_type, data, expected) in [
        (
            "deployment_request_failed",
            json!({"deployment_name": "m", "deployment_version_name": "v1"}),
            json!({"object_type": "deployment", "object_name": "m", "version": "v1", "default_version": "true"}),
        ),
        (
            "pipeline_request_started",
            json!({"pipeline_name": "f", "pipeline_version_name": 2, "pipeline_version_default": false}),
            json!({"object_type": "pipeline", "object_name": "f", "version": "2", "default_version": "false"}),
        ),
        ("other", json!([]), json!({"default_version": "true"})),
    ] {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let event = Event {
            key: EventKey::of_message(at, 7),
            id: "e".into(),
            project: ProjectId::from_uuid(uuid::Uuid::nil()),
            event_type: event_type.into(),
            occurred_at: at,
            accepted_at: at,
            attributes: BTreeMap::new(),
            content_type: String::new(),
            payload: bytes::Bytes::new(),
            traceparent: String::new(),
        };
        assert!(expressions.use_data());
        assert_eq!(json!(expressions.values(&event, "p", Some(&data))), expected);
    }
}

#[test]
fn once_is_what_its_documents_say() {
    let profile = shipped("once");
    assert_eq!(
        (profile.fail_after, profile.unique_url, profile.generate_secret),
        (Some(5), true, false)
    );
    assert!(profile.protected_values_follow_url);
    assert_eq!(profile.timeout.as_secs(), 20);
    assert_eq!(
        profile.ladder.iter().map(Duration::as_secs).collect::<Vec<_>>(),
        [0, 150, 180, 420, 1020]
    );
    let data = br#"{"payload":{"type":"JSON","value":{"latitude":7.5}},"received":"1670598749915","id":"1-6393505d","source":"UDP",
        "type":"TELEMETRY_DATA","version":"1.0.0","device":{"iccid":"8988","ip":"100.91.200.24","imsi":"9014"}}"#;
    let as_json: Value = serde_json::from_slice(data).unwrap();
    let mut as_base64 = as_json.clone();
    // {"latitude":7.5}
    as_base64["payload"] = json!({"type": "BASE64", "value": "eyJsYXRpdHVkZSI6Ny41fQ=="});
    assert_eq!(body("once", "TELEMETRY_DATA", data, &[], &["json_payload"]), as_json);
    assert_eq!(body("once", "TELEMETRY_DATA", data, &[], &[]), as_base64);
    // And the other way round.
    let data = as_base64.to_string();
    assert_eq!(
        body("once", "TELEMETRY_DATA", data.as_bytes(), &[], &["json_payload"]),
        as_json
    );
    assert_eq!(body("once", "TELEMETRY_DATA", data.as_bytes(), &[], &[]), as_base64);
    let lifecycle = json!({"lifecycle": {"type": "DEVICE_FIRST_TIME_REGISTERED", "message": "m"}, "received": "1670830184814",
        "id": "1-6396d868", "type": "LIFECYCLE", "version": "1.0.0", "device": {"iccid": "1", "ip": "2", "imsi": "3"}});
    assert_eq!(
        body(
            "once",
            "LIFECYCLE",
            lifecycle.to_string().as_bytes(),
            &[],
            &["json_payload"]
        ),
        lifecycle
    );
}

#[test]
fn a_devices_bytes_go_out_as_base64_or_as_json_if_they_are_json() {
    let device = [("iccid", "8988"), ("source", "UDP")];
    let made = |bytes: &[u8], payload: Value, options: &[&str]| {
        assert_eq!(
            body("once", "TELEMETRY_DATA", bytes, &device, options),
            json!({"payload": payload, "received": "1670598749915", "id": "evt_1", "source": "UDP", "type": "TELEMETRY_DATA",
                "version": "1.0.0", "device": {"iccid": "8988", "ip": null, "imsi": null}})
        );
    };
    made(b"\x01\x02", json!({"type": "BASE64", "value": "AQI="}), &[]);
    made(
        b"\x01\x02",
        json!({"type": "BASE64", "value": "AQI="}),
        &["json_payload"],
    );
    made(b"{\"t\":1}", json!({"type": "BASE64", "value": "eyJ0IjoxfQ=="}), &[]);
    made(
        b"{\"t\":1}",
        json!({"type": "JSON", "value": {"t": 1}}),
        &["json_payload"],
    );
}

#[test]
fn a_mistake_in_an_expression_or_option_is_named_with_file_and_line() {
    const ONCE: &str = include_str!("../../../../deploy/profiles/once.toml");
    const UBIOPS: &str = include_str!("../../../../deploy/profiles/ubiops.toml");
    for (name, text, from, to, setting, says) in [
        (
            "once",
            ONCE,
            "{{ data.lifecycle|default(omit) }}",
            "{{ data.lifecycle|deflaut(omit) }}",
            "template",
            "/lifecycle: line 1, column 19: there is no filter `deflaut`",
        ),
        (
            "once",
            ONCE,
            "{{ data.lifecycle|default(omit) }}",
            "{{ dta.lifecycle }}",
            "template",
            "there is no `dta`; there are id, type,",
        ),
        (
            "ubiops",
            UBIOPS,
            "version = \"data.pipeline",
            "version = \"variables.pipeline",
            "version",
            "there is no `variables`",
        ),
        (
            "once",
            ONCE,
            "{{ data.lifecycle|default(omit) }}",
            "{{ options.jsn }}",
            "template",
            "`options.jsn`",
        ),
        (
            "once",
            ONCE,
            "    \"device\": {",
            "    \"device\": ",
            "template",
            "not JSON",
        ),
        (
            "once",
            ONCE,
            "[options.json_payload]",
            "[options.other]\ndescription = \"x\"\ndefault = true\n[options.json_payload]",
            "template",
            "never asks for the option `other`",
        ),
        (
            "once",
            ONCE,
            "\":ip:\" = \"data.device.ip|",
            "\":ip:\" = \"data.device.|",
            "\":ip:\"",
            "column",
        ),
        (
            "once",
            ONCE,
            "\":ip:\" = \"data.device.ip|",
            "\":ip:\" = \"device.ip|",
            "\":ip:\"",
            "there is no `device`",
        ),
        ("once", ONCE, "\":ip:\"", "\"{ip}\"", "\"{ip}\"", "`:name:`"),
        (
            "once",
            ONCE,
            "fail_after = 5",
            "fail_after = 0",
            "fail_after",
            "at least 1",
        ),
        (
            "once",
            ONCE,
            "timeout_max = \"20s\"",
            "timeout_max = \"2s\"",
            "timeout_max",
            "less than `timeout`",
        ),
        (
            "once",
            ONCE,
            "unique_url = true",
            "unique = true",
            "unique =",
            "unknown field",
        ),
        (
            "ubiops",
            UBIOPS,
            "object_name = \"data",
            "object_name = \"date",
            "object_name",
            "there is no `date`",
        ),
        (
            "ubiops",
            UBIOPS,
            "object_name =",
            "objectName =",
            "objectName",
            "a-z, 0-9",
        ),
        (
            "ubiops",
            UBIOPS,
            "catalogue = \"ubiops\"",
            "schema_check = \"maybe\"",
            "schema_check",
            "maybe",
        ),
        (
            "ubiops",
            UBIOPS,
            "version = \"data.pipeline",
            "version = \"data.|pipeline",
            "version",
            "line 1",
        ),
        (
            "standard",
            GOOD,
            "pause = \"drop\"",
            "pause = \"keep\"",
            "pause",
            "keep",
        ),
        (
            "standard",
            GOOD,
            "follow_url = false",
            "follow_url = false\n[options.x]\ndescription = \"x\"\ndefault = false",
            "x",
            "options are for templates",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let text = text.replacen(from, to, 1);
        let error = parse(Path::new(&format!("/p/{name}.toml")), &text)
            .unwrap_err()
            .to_string();
        let line = text
            .lines()
            .position(|line| line.starts_with(setting) && setting.len() > 1);
        let place = line.map_or(format!("/p/{name}.toml"), |line| {
            format!("/p/{name}.toml, line {}: ", line + 1)
        });
        assert!(error.starts_with(&place), "{error}, not {place}");
        assert!(error.contains(says), "{error}, not {says}");
    }
}

#[test]
fn a_file_is_checked_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("standard.toml");
    std::fs::write(&file, GOOD).unwrap();
    assert_eq!(check(&file).unwrap().name, "standard");
    let error = check(&folder.path().join("no.toml")).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read ") && error.ends_with("no.toml"),
        "{error}"
    );
}
