use std::collections::BTreeMap;

use common::egress;
use common::profile::Profiles;
use jiff::Timestamp;
use proto_schemas::id::{ProjectId, WebhookId};
use secrecy::ExposeSecret as _;
use store::webhooks::MaybeSealed;
use uuid::Uuid;

use super::*;

struct World {
    guard: Guard,
    profiles: Profiles,
    keys: KeyRing,
}

impl World {
    fn new() -> Self {
        Self {
            guard: Guard::new(&egress::Config::default()).unwrap(),
            profiles: Profiles::load(&common::profile::Config::default()).unwrap(),
            keys: KeyRing::parse("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap(),
        }
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            guard: &self.guard,
            profile: self.profiles.get("cloudthinker").unwrap(),
            keys: &self.keys,
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn open(&self, webhook: &Webhook, field: &str, sealed: &str) -> String {
        let context = Context {
            project: webhook.project,
            object: webhook.id.as_uuid(),
            field,
        };
        let plain = self.keys.open(&context, sealed).unwrap();
        String::from_utf8(plain.expose_secret().to_vec()).unwrap()
    }
}

fn blank() -> Webhook {
    let (id, project) = (Uuid::from_u128(2), Uuid::from_u128(1));
    Webhook {
        name: "slack".to_owned(),
        url: "https://example.com/".to_owned(),
        events: vec!["*".to_owned()],
        ..Webhook::blank(
            WebhookId::from_uuid(id),
            ProjectId::from_uuid(project),
            Timestamp::UNIX_EPOCH,
        )
    }
}

fn header(key: &str, value: Option<&str>, protected: Option<bool>) -> ValueChange {
    ValueChange {
        key: key.to_owned(),
        value: value.map(str::to_owned),
        protected,
    }
}

fn with_headers(headers: Vec<ValueChange>) -> Changes {
    Changes {
        headers: Some(headers),
        ..Changes::default()
    }
}

fn pointers(errors: &[FieldError]) -> Vec<&str> {
    errors.iter().map(|error| error.pointer.as_str()).collect()
}

#[test]
fn no_changes_change_nothing() {
    let world = World::new();
    let mut webhook = blank();
    Changes::default().apply(&mut webhook, &world.rules()).unwrap();
    assert_eq!(webhook, blank());
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let world = World::new();
    let changes = Changes {
        name: Some(String::new()),
        url: Some("http://127.0.0.1/".to_owned()),
        events: Some(vec!["a".to_owned(), "a.*.b".to_owned()]),
        secret: Some(Some("short".to_owned())),
        headers: Some(vec![
            header("Host", Some("x"), None),
            header("X-A", Some("a\nb"), None),
            header("x-a", Some("b"), None),
        ]),
        retry: Some(Some(Retry::Delays(Vec::new()))),
        timeout: Some(Some(Duration::from_secs(61))),
        ..Changes::default()
    };
    let errors = changes.apply(&mut blank(), &world.rules()).unwrap_err();
    assert_eq!(
        pointers(&errors),
        [
            "#/name",
            "#/url",
            "#/events/1",
            "#/secret",
            "#/retry/delays",
            "#/timeout",
            "#/headers/0/key",
            "#/headers/1/value",
            "#/headers/2/key",
        ]
    );
}

#[test]
fn an_address_is_stored_as_it_will_be_sent_to() {
    let world = World::new();
    let mut webhook = blank();
    let changes = Changes {
        url: Some("HTTPS://EXAMPLE.com:443/a/../b?q=1".to_owned()),
        ..Changes::default()
    };
    changes.apply(&mut webhook, &world.rules()).unwrap();
    assert_eq!(webhook.url, "https://example.com/b?q=1");
}

#[test]
fn secrets_and_protected_headers_are_stored_sealed() {
    let world = World::new();
    let mut webhook = blank();
    let changes = Changes {
        secret: Some(Some("a secret of mine".to_owned())),
        headers: Some(vec![
            header("Authorization", Some("Bearer canary"), None),
            header("X-Team", Some("blue"), None),
            header("X-Own", Some("hidden"), Some(true)),
            header("X-Public-Key", Some("readable"), Some(false)),
        ]),
        ..Changes::default()
    };
    changes.apply(&mut webhook, &world.rules()).unwrap();
    assert!(!format!("{webhook:?}").contains("canary"));
    let secret = webhook.secrets[0].sealed.clone();
    assert_eq!(
        world.open(&webhook, &secret.id.sealed_for(), &secret.sealed),
        "a secret of mine"
    );
    // Once more, as the release before looks for it.
    let sealed = webhook.sealed_secret.clone().unwrap();
    assert_eq!(world.open(&webhook, "secret", &sealed), "a secret of mine");
    let MaybeSealed::Sealed(sealed) = &webhook.headers[0].value else {
        panic!("not sealed")
    };
    assert_eq!(world.open(&webhook, "header:authorization", sealed), "Bearer canary");
    assert_eq!(webhook.headers[1].value, MaybeSealed::Plain("blue".to_owned()));
    assert!(matches!(webhook.headers[2].value, MaybeSealed::Sealed(_)));
    assert_eq!(webhook.headers[3].value, MaybeSealed::Plain("readable".to_owned()));
}

#[test]
fn variables_are_sealed_for_themselves_and_kept_like_headers() {
    let world = World::new();
    let mut webhook = blank();
    let with = |variables| Changes {
        variables: Some(variables),
        ..Changes::default()
    };
    let first = vec![
        header("routing_key", Some("canary"), None),
        header("team", Some("blue"), None),
        header("Team", Some("another"), None),
    ];
    with(first).apply(&mut webhook, &world.rules()).unwrap();
    assert!(!format!("{webhook:?}").contains("canary"));
    let MaybeSealed::Sealed(sealed) = webhook.variables[0].value.clone() else {
        panic!("not sealed")
    };
    assert_eq!(world.open(&webhook, "variable:routing_key", &sealed), "canary");
    assert_eq!(webhook.variables[1].value, MaybeSealed::Plain("blue".to_owned()));

    let second = vec![header("Team", None, None), header("routing_key", None, None)];
    with(second).apply(&mut webhook, &world.rules()).unwrap();
    assert_eq!(webhook.variables[0].value, MaybeSealed::Plain("another".to_owned()));
    assert_eq!(webhook.variables[1].value, MaybeSealed::Sealed(sealed));

    let many = (0..33).map(|i| header(&format!("v{i}"), Some(""), None)).collect();
    let errors = with(many).apply(&mut blank(), &world.rules()).unwrap_err();
    assert_eq!(pointers(&errors), ["#/variables"]);
    let large = (0..5)
        .map(|i| header(&format!("v{i}"), Some(&"v".repeat(4096)), None))
        .collect();
    let errors = with(large).apply(&mut blank(), &world.rules()).unwrap_err();
    assert_eq!(pointers(&errors), ["#/variables"]);
}

#[test]
fn a_header_without_a_value_keeps_the_stored_one() {
    let world = World::new();
    let mut webhook = blank();
    let first = vec![
        header("Authorization", Some("canary"), None),
        header("X-Team", Some("blue"), None),
    ];
    with_headers(first).apply(&mut webhook, &world.rules()).unwrap();
    let before = webhook.headers.clone();

    let second = vec![header("authorization", None, None), header("X-Team", None, None)];
    with_headers(second).apply(&mut webhook, &world.rules()).unwrap();
    assert_eq!(webhook.headers[0].value, before[0].value);
    assert_eq!(webhook.headers[1].value, before[1].value);

    // Given a new value, it stays what it was: protected, whatever its name sounds like.
    for (value, protected) in [("first", Some(true)), ("second", None)] {
        with_headers(vec![header("X-A", Some(value), protected)])
            .apply(&mut webhook, &world.rules())
            .unwrap();
        assert!(matches!(webhook.headers[0].value, MaybeSealed::Sealed(_)), "{value}");
        assert_eq!(webhook.headers.len(), 1);
    }
}

#[test]
fn a_protected_value_does_not_become_readable() {
    let world = World::new();
    let mut webhook = blank();
    with_headers(vec![header("X-A", Some("hidden"), Some(true))])
        .apply(&mut webhook, &world.rules())
        .unwrap();
    let revealing = with_headers(vec![header("X-A", None, Some(false))]);
    let errors = revealing.apply(&mut webhook.clone(), &world.rules()).unwrap_err();
    assert_eq!(pointers(&errors), ["#/headers/0/value"]);

    // The other way round is no loss.
    with_headers(vec![header("X-A", Some("seen"), Some(false))])
        .apply(&mut webhook, &world.rules())
        .unwrap();
    with_headers(vec![header("X-A", None, Some(true))])
        .apply(&mut webhook, &world.rules())
        .unwrap();
    let MaybeSealed::Sealed(sealed) = &webhook.headers[0].value else {
        panic!("not sealed")
    };
    assert_eq!(world.open(&webhook, "header:x-a", sealed), "seen");
}

#[test]
fn a_header_without_a_value_needs_a_stored_one() {
    let world = World::new();
    let errors = with_headers(vec![header("X-A", None, None)])
        .apply(&mut blank(), &world.rules())
        .unwrap_err();
    assert_eq!(pointers(&errors), ["#/headers/0/value"]);
}

#[test]
fn headers_have_limits_together() {
    let world = World::new();
    let many = (0..33).map(|i| header(&format!("X-{i}"), Some(""), None)).collect();
    let errors = with_headers(many).apply(&mut blank(), &world.rules()).unwrap_err();
    assert_eq!(pointers(&errors), ["#/headers"]);

    let large = (0..5)
        .map(|i| header(&format!("X-{i}"), Some(&"v".repeat(4096)), None))
        .collect();
    let errors = with_headers(large).apply(&mut blank(), &world.rules()).unwrap_err();
    assert_eq!(pointers(&errors), ["#/headers"]);
}

#[test]
fn the_header_a_profile_signs_with_is_reserved() {
    let world = World::new();
    let changes = with_headers(vec![header("x-cloudthinker-signature", Some("sha256=0"), None)]);
    let errors = changes.apply(&mut blank(), &world.rules()).unwrap_err();
    assert_eq!(pointers(&errors), ["#/headers/0/key"]);
}

#[test]
fn retry_and_timeout_go_back_to_the_profiles() {
    let world = World::new();
    let mut webhook = blank();
    let own = Changes {
        retry: Some(Some(Retry::Never)),
        timeout: Some(Some(Duration::from_secs(5))),
        ..Changes::default()
    };
    own.apply(&mut webhook, &world.rules()).unwrap();
    assert_eq!(
        (webhook.retry.clone(), webhook.timeout),
        (Some(Retry::Never), Some(Duration::from_secs(5)))
    );
    let profiles = Changes {
        retry: Some(None),
        timeout: Some(None),
        ..Changes::default()
    };
    profiles.apply(&mut webhook, &world.rules()).unwrap();
    assert_eq!((webhook.retry, webhook.timeout), (None, None));
}

#[test]
fn what_a_webhook_says_of_delivery_is_kept_and_null_gives_it_back_to_the_profile() {
    let world = World::new();
    let mut webhook = blank();
    let own = Changes {
        filter: Some(Some(serde_json::json!({ "data": { "a": 1 } }))),
        transform: Some(Some(serde_json::json!({ "text": "{{ data.title }}" }))),
        redirect_is_success: Some(Some(true)),
        rate_limit: Some(Some(RateLimit {
            requests: 10,
            window_ms: 1_000,
        })),
        max_in_flight: Some(Some(100)),
        hold_while_paused: Some(Some(true)),
        fail_after: Some(Some(0)),
        ..Changes::default()
    };
    own.apply(&mut webhook, &world.rules()).unwrap();
    assert_eq!(
        (webhook.settings.max_in_flight, webhook.settings.fail_after),
        (Some(100), Some(0))
    );
    assert_eq!(webhook.settings.hold_while_paused, Some(true));
    let reset = Changes {
        filter: Some(None),
        transform: Some(None),
        body: Some(None),
        signature: Some(None),
        redirect_is_success: Some(None),
        rate_limit: Some(None),
        max_in_flight: Some(None),
        hold_while_paused: Some(None),
        fail_after: Some(None),
        ..Changes::default()
    };
    reset.apply(&mut webhook, &world.rules()).unwrap();
    assert_eq!(webhook, blank());
}

#[test]
fn what_is_over_a_limit_is_named_all_at_once() {
    let world = World::new();
    let limit = |requests, window_ms| Some(Some(RateLimit { requests, window_ms }));
    let changes = Changes {
        rate_limit: limit(0, 99),
        max_in_flight: Some(Some(101)),
        fail_after: Some(Some(10_001)),
        timeout: Some(Some(world.rules().profile.timeout_max + Duration::from_millis(1))),
        transform: Some(Some(serde_json::json!({}))),
        body: Some(Some(BodyKind::Raw)),
        options: Some(BTreeMap::from([("include_result".to_owned(), true)])),
        labels: Some(BTreeMap::from([("a/b".to_owned(), "\n".to_owned())])),
        ..Changes::default()
    };
    let errors = changes.apply(&mut blank(), &world.rules()).unwrap_err();
    assert_eq!(
        pointers(&errors),
        [
            "#/labels/a~1b",
            "#/timeout",
            "#/body",
            "#/rate_limit/requests",
            "#/rate_limit/per",
            "#/max_in_flight",
            "#/fail_after",
            "#/options/include_result",
        ]
    );
    assert!(errors[7].detail.contains("`cloudthinker` has no options"), "{errors:?}");
}

#[test]
fn no_header_of_a_webhook_stands_where_its_signature_does() {
    let world = World::new();
    let signed_in = |name: &str| {
        Some(Some(SignatureSettings {
            standard_webhooks: false,
            body_hmac_header: Some(name.to_owned()),
        }))
    };
    let mut webhook = blank();
    let both = Changes {
        signature: signed_in("X-Sig"),
        ..with_headers(vec![header("x-sig", Some("mine"), None)])
    };
    assert_eq!(
        pointers(&both.apply(&mut webhook, &world.rules()).unwrap_err()),
        ["#/headers/0/key"]
    );

    let mut webhook = blank();
    with_headers(vec![header("x-sig", Some("mine"), None)])
        .apply(&mut webhook, &world.rules())
        .unwrap();
    let later = Changes {
        signature: signed_in("X-Sig"),
        ..Changes::default()
    };
    let errors = later.apply(&mut webhook, &world.rules()).unwrap_err();
    assert_eq!(pointers(&errors), ["#/signature/body_hmac_header"]);
}

#[test]
fn a_secret_may_be_taken_away() {
    let world = World::new();
    let mut webhook = blank();
    let secret = |secret: Option<&str>| Changes {
        secret: Some(secret.map(str::to_owned)),
        ..Changes::default()
    };
    secret(Some("a long enough secret"))
        .apply(&mut webhook, &world.rules())
        .unwrap();
    assert!(webhook.sealed_secret.is_some() && webhook.secrets.len() == 1);
    secret(None).apply(&mut webhook, &world.rules()).unwrap();
    assert!(webhook.sealed_secret.is_none() && webhook.secrets.is_empty());
}

#[test]
fn a_private_key_signs_no_header_that_needs_a_shared_secret() {
    let world = World::new();
    let private = Changes {
        secret: Some(Some("whsk_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".to_owned())),
        ..Changes::default()
    };
    // The profile has such a header.
    let errors = private.clone().apply(&mut blank(), &world.rules()).unwrap_err();
    assert_eq!(pointers(&errors), ["#/signature/body_hmac_header"]);
    let standard = Changes {
        signature: Some(Some(SignatureSettings {
            standard_webhooks: true,
            body_hmac_header: None,
        })),
        ..private
    };
    let mut webhook = blank();
    standard.clone().apply(&mut webhook, &world.rules()).unwrap();
    assert!(webhook.secrets[0].public_key.as_deref().unwrap().starts_with("whpk_"));
    assert_eq!(webhook.sealed_secret, None);
    let other_kind = Changes {
        secret_kind: Some(SecretKind::V1),
        ..standard
    };
    let errors = other_kind.apply(&mut blank(), &world.rules()).unwrap_err();
    assert_eq!(pointers(&errors), ["#/secret"]);
}

mod receiver;
