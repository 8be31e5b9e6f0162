use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proto_schemas::definition::{Body, Expression, NamedValue, SEALED_SECRET, Secret, SecretKind, Signature};
use proto_schemas::id::{EventKey, ProjectId, SecretId, WebhookId};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::clock::{Clock, Manual};
use crate::egress;

struct World {
    keys: KeyRing,
    webhook: Webhook,
    clock: Manual,
}

impl World {
    fn new() -> Self {
        let clock = Manual::at("2026-01-02T03:04:05Z".parse().unwrap());
        let webhook = Webhook {
            url: "https://example.com/".into(),
            signature: Signature {
                standard_webhooks: true,
                body_hmac_header: Some("x-signature".into()),
            },
            ..Webhook::blank(
                WebhookId::from_uuid(Uuid::from_u128(2)),
                ProjectId::from_uuid(Uuid::from_u128(1)),
            )
        };
        Self {
            keys: KeyRing::parse("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap(),
            webhook,
            clock,
        }
    }

    fn seal(&self, field: &str, plain: &[u8]) -> String {
        let context = Context {
            project: self.webhook.project,
            object: self.webhook.id.as_uuid(),
            field,
        };
        self.keys.seal(&context, plain)
    }

    /// Puts a secret in front of the others; they expire after `overlap`.
    fn rotate(&mut self, key: &Key, overlap: Duration) {
        let now = self.now();
        for earlier in &mut self.webhook.secrets {
            earlier.expires_at.get_or_insert(now + overlap);
        }
        let number = self.webhook.secrets.len() as u128 + 1;
        let id = SecretId::from_uuid(Uuid::from_u128(number));
        let secret = Secret {
            id,
            kind: key.kind(),
            sealed: self.seal(&id.sealed_for(), key.text().expose_secret().as_bytes()),
            created_at: now,
            expires_at: None,
        };
        self.webhook.secrets.insert(0, secret);
    }

    fn now(&self) -> Timestamp {
        Clock::from(self.clock.clone()).now()
    }

    fn prepared(&self) -> Result<Prepared, Error> {
        let guard = Guard::new(&egress::Config::default()).unwrap();
        Prepared::of(&Arc::new(self.webhook.clone()), &self.keys, &guard)
    }
}

fn event() -> Event {
    Event {
        key: EventKey::from_uuid(Uuid::from_u128(7)),
        id: "e1".into(),
        project: ProjectId::from_uuid(Uuid::from_u128(1)),
        event_type: "order.paid".into(),
        occurred_at: Timestamp::UNIX_EPOCH,
        accepted_at: Timestamp::UNIX_EPOCH,
        attributes: BTreeMap::new(),
        content_type: String::new(),
        payload: Bytes::from_static(b"{}"),
        traceparent: String::new(),
    }
}

#[test]
fn a_protected_header_is_protected_with_placeholders_in_it_as_well() {
    let mut world = World::new();
    world.rotate(&Key::generate(SecretKind::V1), Duration::ZERO);
    world.webhook.placeholders = vec![Expression {
        name: ":id:".into(),
        expression: "id".into(),
    }];
    let sealed = world.seal("header:x-api-key", b"hidden :id:");
    world.webhook.headers = vec![NamedValue {
        name: "x-api-key".into(),
        value: MaybeSealed::Sealed(sealed),
    }];
    let (prepared, event) = (world.prepared().unwrap(), event());
    let (rendered, addressed) = (prepared.render(&event).unwrap(), prepared.address(&event).unwrap());
    let headers = prepared.headers(&event, &addressed, &rendered, world.now()).unwrap();
    let value = &headers["x-api-key"];
    assert_eq!(value.as_bytes(), b"hidden e1");
    assert!(value.is_sensitive());
}

#[test]
fn a_header_with_placeholders_stands_in_place_of_the_default() {
    let mut world = World::new();
    world.webhook.placeholders = vec![Expression {
        name: ":id:".into(),
        expression: "id".into(),
    }];
    world.webhook.headers = ["user-agent", "accept", "content-type"]
        .map(|name| NamedValue {
            name: name.into(),
            value: MaybeSealed::Plain("of :id:".into()),
        })
        .into();
    let (prepared, event) = (world.prepared().unwrap(), event());
    let (rendered, addressed) = (prepared.render(&event).unwrap(), prepared.address(&event).unwrap());
    let headers = prepared.headers(&event, &addressed, &rendered, world.now()).unwrap();
    for name in ["user-agent", "accept", "content-type"] {
        let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(values, [b"of e1"], "{name}");
    }
}

#[test]
fn protected_variables_are_not_printed() {
    let mut world = World::new();
    let sealed = world.seal("variable:key", b"canary");
    world.webhook.variables = vec![NamedValue {
        name: "key".into(),
        value: MaybeSealed::Sealed(sealed),
    }];
    let opened = Opened::of(&world.webhook, &world.keys).unwrap();
    assert_eq!(opened.protected()[0].expose_secret(), "canary");
    assert!(!format!("{opened:?}").contains("canary"), "{opened:?}");
}

/// The signatures of a request made at `now`, and the header with room for one.
fn signed(prepared: &Prepared, now: Timestamp) -> (String, Option<String>) {
    let event = event();
    let (rendered, addressed) = (prepared.render(&event).unwrap(), prepared.address(&event).unwrap());
    let headers = prepared.headers(&event, &addressed, &rendered, now).unwrap();
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    (text("webhook-signature").unwrap(), text("x-signature"))
}

fn standard<'a>(now: Timestamp, keys: impl IntoIterator<Item = &'a Key>) -> String {
    sign::standard_webhooks("e1", now.as_second(), b"{}", keys)
}

fn body_hmac(key: &Key) -> Option<String> {
    match key {
        Key::V1(secret) => Some(sign::body_hmac(b"{}", secret)),
        Key::V1a(_) => None,
    }
}

#[test]
fn what_signs_is_what_is_live_when_the_attempt_is_made() {
    let mut world = World::new();
    let (old, new) = (Key::generate(SecretKind::V1), Key::generate(SecretKind::V1));
    world.rotate(&old, Duration::ZERO);
    world.rotate(&new, Duration::from_secs(60));
    // Prepared once: nothing is published when a secret expires.
    let prepared = world.prepared().unwrap();
    let now = world.now();
    assert_eq!(signed(&prepared, now), (standard(now, [&new, &old]), body_hmac(&new)));
    world.clock.advance(Duration::from_micros(59_999_999));
    let before = world.now();
    assert_eq!(signed(&prepared, before).0, standard(before, [&new, &old]));
    world.clock.advance(Duration::from_micros(1));
    let at = world.now();
    assert_eq!(signed(&prepared, at), (standard(at, [&new]), body_hmac(&new)));
    world.clock.advance(Duration::from_secs(1_000_000));
    let after = world.now();
    assert_eq!(signed(&prepared, after).0, standard(after, [&new]));
}

#[test]
fn the_header_with_room_for_one_has_the_current_shared_secret() {
    let mut world = World::new();
    let (shared, pair) = (Key::generate(SecretKind::V1), Key::generate(SecretKind::V1a));
    world.rotate(&shared, Duration::ZERO);
    world.rotate(&pair, Duration::from_secs(60));
    let now = world.now();
    let found = signed(&world.prepared().unwrap(), now);
    assert_eq!(found, (standard(now, [&pair, &shared]), body_hmac(&shared)));
    let later = now + Duration::from_secs(60);
    assert_eq!(
        signed(&world.prepared().unwrap(), later),
        (standard(later, [&pair]), None)
    );
}

#[test]
fn a_secret_that_a_release_before_published_signs() {
    let mut world = World::new();
    let key = Key::generate(SecretKind::V1);
    world.webhook.sealed_secret = Some(world.seal(SEALED_SECRET, key.text().expose_secret().as_bytes()));
    let now = world.now();
    assert_eq!(signed(&world.prepared().unwrap(), now).0, standard(now, [&key]));
}

/// A webhook with a protected variable `key` in body, url and a header.
fn with_variables(world: &World, value: &str) -> Webhook {
    let named = |name: &str, value| NamedValue {
        name: name.into(),
        value,
    };
    Webhook {
        url: "https://example.com/:key:".into(),
        headers: vec![named("x-key", MaybeSealed::Plain("a :key:".into()))],
        variables: vec![
            named("team", MaybeSealed::Plain("blue".into())),
            named("key", MaybeSealed::Sealed(world.seal("variable:key", value.as_bytes()))),
        ],
        placeholders: vec![Expression {
            name: ":key:".into(),
            expression: "variables.key".into(),
        }],
        body: Body::Template(
            json!({"team": "{{ variables.team }}", "key": "{{ variables.key }}", "piece": "{{ variables.key[:2] }}",
                "hidden": "is {{ variables.key|to_base64 }}", "gone": "{{ variables.gone }}"})
            .to_string(),
        ),
        ..world.webhook.clone()
    }
}

#[test]
fn a_protected_variable_is_in_what_is_sent_and_in_nothing_that_is_shown() {
    let mut world = World::new();
    world.webhook = with_variables(&world, "s3cret");
    let (prepared, event) = (world.prepared().unwrap(), event());
    let sent = prepared.render(&event).unwrap();
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&sent.body).unwrap(),
        json!({"team": "blue", "key": "s3cret", "piece": "s3", "hidden": "is czNjcmV0", "gone": null})
    );
    let shown = prepared.show(&event).unwrap();
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&shown.rendered.body).unwrap(),
        json!({"team": "blue", "key": "***", "piece": "**", "hidden": "is Kioq", "gone": null})
    );
    let missing: Vec<&str> = shown.missing.iter().map(|it| it.expression.as_str()).collect();
    assert_eq!(missing, ["variables.gone"]);
    for (addressed, path, header) in [
        (prepared.address(&event).unwrap(), "/s3cret", "a s3cret"),
        (shown.addressed, "/%2A%2A%2A", "a ***"),
    ] {
        assert_eq!(addressed.target.url().path(), path);
        let headers = prepared.headers(&event, &addressed, &sent, world.now()).unwrap();
        assert_eq!(headers["x-key"], header);
    }
}

#[test]
fn what_the_engine_says_of_a_failure_holds_no_protected_variable() {
    let mut world = World::new();
    // The engine names an argument that it does not know.
    let wrong: Vec<_> = (0..20).map(|_| "{{ [1]|sort(**{variables.key: 1}) }}").collect();
    world.webhook = Webhook {
        body: Body::Template(json!(wrong).to_string()),
        ..with_variables(&world, "s3cret")
    };
    let prepared = world.prepared().unwrap();
    let error = prepared.render(&event()).unwrap_err().to_string();
    assert!(
        error.contains("could not be worked out") && !error.contains("s3cret"),
        "{error}"
    );
    let error = prepared.show(&event()).err().unwrap().to_string();
    assert!(error.contains("***"), "{error}");
}

#[test]
fn a_variable_put_in_the_place_of_another_does_not_open() {
    let mut world = World::new();
    world.webhook = with_variables(&world, "s3cret");
    world.webhook.variables[1].name = "team".into();
    let error = world.prepared().err().unwrap().to_string();
    assert_eq!(
        error,
        "the webhook's variable:team cannot be decrypted with the keys this service has"
    );
}

#[test]
fn a_secret_put_in_the_place_of_another_does_not_open() {
    let mut world = World::new();
    world.rotate(&Key::generate(SecretKind::V1), Duration::ZERO);
    world.rotate(&Key::generate(SecretKind::V1), Duration::from_secs(60));
    let sealed = world.webhook.secrets[1].sealed.clone();
    world.webhook.secrets[0].sealed = sealed;
    assert!(matches!(world.prepared(), Err(Error::Sealed(..))));
}
