//! TLS and authentication.

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use store::webhooks::Authentication;

use super::*;

/// A certificate and its key, in PEM.
fn certificate(not_after: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["posthaste.example".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(not_after, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn with_tls(ca: Option<&str>, client_certificate: Option<&str>, client_key: Option<&str>) -> Changes {
    Changes {
        tls: Some(Some(TlsChange {
            ca: ca.map(str::to_owned),
            client_certificate: client_certificate.map(str::to_owned),
            client_key: client_key.map(str::to_owned),
        })),
        ..Changes::default()
    }
}

fn with_authentication(change: AuthenticationChange) -> Changes {
    Changes {
        authentication: Some(Some(change)),
        ..Changes::default()
    }
}

fn basic(username: &str, password: Option<&str>) -> Changes {
    with_authentication(AuthenticationChange::Basic {
        username: username.to_owned(),
        password: password.map(str::to_owned),
    })
}

fn credentials(token_url: &str, client_secret: Option<&str>) -> Changes {
    with_authentication(AuthenticationChange::ClientCredentials {
        token_url: token_url.to_owned(),
        client_id: "c-1".to_owned(),
        client_secret: client_secret.map(str::to_owned),
        scope: None,
    })
}

fn refused(changes: Changes, webhook: &Webhook) -> Vec<FieldError> {
    let world = World::new();
    let rules = Rules {
        now: "2026-01-02T03:04:05Z".parse().unwrap(),
        ..world.rules()
    };
    changes.apply(&mut webhook.clone(), &rules).unwrap_err()
}

#[test]
fn a_client_key_is_stored_sealed_and_kept_where_none_is_given() {
    let world = World::new();
    let (pem, key) = certificate(2100);
    let mut webhook = blank();
    with_tls(Some(&pem), Some(&pem), Some(&key))
        .apply(&mut webhook, &world.rules())
        .unwrap();
    assert!(!format!("{webhook:?}").contains("PRIVATE"));
    let own = webhook.tls.clone().unwrap().client_certificate.unwrap();
    assert_eq!(world.open(&webhook, "tls:client_key", &own.sealed_key), key);

    // Without the authority, and as answers have it: without the key.
    with_tls(None, Some(&pem), None)
        .apply(&mut webhook, &world.rules())
        .unwrap();
    let tls = webhook.tls.clone().unwrap();
    assert_eq!((tls.ca, tls.client_certificate), (None, Some(own)));

    // The stored key is another certificate's than the new one.
    let (other, _) = certificate(2100);
    assert_eq!(
        pointers(&refused(with_tls(None, Some(&other), None), &webhook)),
        ["#/tls/client_key"]
    );

    with_tls(Some(&pem), None, None)
        .apply(&mut webhook, &world.rules())
        .unwrap();
    assert_eq!(
        webhook.tls.clone().unwrap().client_certificate,
        None,
        "and its key with it"
    );
    with_tls(None, None, None).apply(&mut webhook, &world.rules()).unwrap();
    assert_eq!(webhook, blank());
}

#[test]
fn what_no_session_could_be_made_with_is_refused_where_it_stands() {
    let (pem, key) = certificate(2100);
    let (_, other) = certificate(2100);
    let (expired, its_key) = certificate(2020);
    let long = format!("{pem}{}", "#".repeat(16 * 1024));
    for (changes, expected) in [
        (with_tls(Some("no PEM"), None, None), "#/tls/ca"),
        (with_tls(Some(&long), None, None), "#/tls/ca"),
        (with_tls(None, Some(&key), Some(&key)), "#/tls/client_certificate"),
        (
            with_tls(None, Some(&expired), Some(&its_key)),
            "#/tls/client_certificate",
        ),
        (with_tls(None, None, Some(&key)), "#/tls/client_certificate"),
        (with_tls(None, Some(&pem), None), "#/tls/client_key"),
        (with_tls(None, Some(&pem), Some(&other)), "#/tls/client_key"),
        (with_tls(None, Some(&pem), Some("-----BEGIN\0")), "#/tls/client_key"),
    ] {
        let errors = refused(changes, &blank());
        assert_eq!(pointers(&errors), [expected], "{errors:?}");
        assert!(!format!("{errors:?}").contains("PRIVATE"));
    }
}

#[test]
fn what_proves_who_asks_is_stored_sealed_and_kept_where_none_is_given() {
    let world = World::new();
    let mut webhook = blank();
    basic("me", Some("canary")).apply(&mut webhook, &world.rules()).unwrap();
    assert!(!format!("{webhook:?}").contains("canary"));
    basic("you", None).apply(&mut webhook, &world.rules()).unwrap();
    let Some(Authentication::Basic {
        username,
        sealed_password,
    }) = &webhook.authentication
    else {
        panic!("{webhook:?}")
    };
    assert_eq!(username, "you");
    assert_eq!(
        world.open(&webhook, "authentication:password", sealed_password),
        "canary"
    );

    // A password is no client's secret.
    let errors = refused(credentials("https://id.example.com/token", None), &webhook);
    assert_eq!(pointers(&errors), ["#/authentication/client_secret"]);
    credentials("https://ID.example.com:443/token", Some("canary"))
        .apply(&mut webhook, &world.rules())
        .unwrap();
    assert!(!format!("{webhook:?}").contains("canary"));
    let Some(Authentication::ClientCredentials {
        token_url,
        sealed_client_secret,
        ..
    }) = &webhook.authentication
    else {
        panic!("{webhook:?}")
    };
    assert_eq!(token_url, "https://id.example.com/token");
    let opened = world.open(&webhook, "authentication:client_secret", sealed_client_secret);
    assert_eq!(opened, "canary");
    assert_eq!(
        pointers(&refused(basic("me", None), &webhook)),
        ["#/authentication/password"]
    );

    let none = Changes {
        authentication: Some(None),
        ..Changes::default()
    };
    none.apply(&mut webhook, &world.rules()).unwrap();
    assert_eq!(webhook, blank());
}

#[test]
fn a_stored_client_secret_is_sent_nowhere_else() {
    let world = World::new();
    let mut webhook = blank();
    credentials("https://id.example.com/token", Some("canary"))
        .apply(&mut webhook, &world.rules())
        .unwrap();
    for elsewhere in [
        "https://evil.example.com/token",
        "https://id.example.com/another",
        "https://id.example.com:8443/token",
        "https://id.example.com/token?a=b",
    ] {
        let errors = refused(credentials(elsewhere, None), &webhook);
        assert_eq!(pointers(&errors), ["#/authentication/client_secret"], "{elsewhere}");
        let text = "give it anew: the stored one is for another `token_url`";
        assert_eq!(errors[0].detail, text);
    }

    // The same place in other words, as another client, for something else.
    let before = webhook.clone();
    with_authentication(AuthenticationChange::ClientCredentials {
        token_url: "https://ID.example.com:443/token".to_owned(),
        client_id: "c-2".to_owned(),
        client_secret: None,
        scope: Some("hooks:write".to_owned()),
    })
    .apply(&mut webhook, &world.rules())
    .unwrap();
    let sealed = |webhook: &Webhook| match &webhook.authentication {
        Some(Authentication::ClientCredentials {
            sealed_client_secret, ..
        }) => sealed_client_secret.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(sealed(&webhook), sealed(&before));

    credentials("https://evil.example.com/token", Some("theirs"))
        .apply(&mut webhook, &world.rules())
        .unwrap();
    let opened = world.open(&webhook, "authentication:client_secret", &sealed(&webhook));
    assert_eq!(opened, "theirs");
}

#[test]
fn access_tokens_are_had_from_where_webhooks_may_go() {
    for (token_url, text) in [
        ("https://169.254.169.254/token", "target address not allowed"),
        ("https://localhost/token", "target address not allowed"),
        ("http://id.example.com/", "the URL must start with https://"),
    ] {
        let errors = refused(credentials(token_url, Some("s")), &blank());
        assert_eq!(pointers(&errors), ["#/authentication/token_url"]);
        assert_eq!(errors[0].detail, text);
    }
}

#[test]
fn no_header_of_a_webhook_stands_where_its_authentication_does() {
    let world = World::new();
    let own = || {
        vec![
            header("X-A", Some("1"), None),
            header("authorization", Some("Bearer x"), None),
        ]
    };
    let both = Changes {
        headers: Some(own()),
        ..basic("me", Some("p"))
    };
    assert_eq!(pointers(&refused(both, &blank())), ["#/headers/1/key"]);

    let mut webhook = blank();
    with_headers(own()).apply(&mut webhook, &world.rules()).unwrap();
    assert_eq!(
        pointers(&refused(basic("me", Some("p")), &webhook)),
        ["#/authentication"]
    );

    let mut webhook = blank();
    basic("me", Some("p")).apply(&mut webhook, &world.rules()).unwrap();
    assert_eq!(pointers(&refused(with_headers(own()), &webhook)), ["#/headers/1/key"]);
}

#[test]
fn what_is_protected_goes_to_no_other_host() {
    let world = World::new();
    let mut webhook = blank();
    let first = Changes {
        headers: Some(vec![
            header("X-Team", Some("blue"), None),
            header("X-Api-Key", Some("canary"), None),
        ]),
        variables: Some(vec![header("routing_key", Some("canary"), None)]),
        ..basic("me", Some("canary"))
    };
    first.apply(&mut webhook, &world.rules()).unwrap();
    let moved = |url: &str| Changes {
        url: Some(url.to_owned()),
        ..Changes::default()
    };

    // Elsewhere at the same host.
    moved("https://example.com/another?a=b")
        .apply(&mut webhook.clone(), &world.rules())
        .unwrap();

    let all = ["#/headers/1/value", "#/variables/0/value", "#/authentication/password"];
    for elsewhere in ["https://evil.example.com/", "https://example.com:8443/"] {
        let errors = refused(moved(elsewhere), &webhook);
        assert_eq!(pointers(&errors), all, "{elsewhere}");
        assert_eq!(
            errors[0].detail,
            "give `X-Api-Key` anew: the stored value is for the host that `url` named before"
        );
    }
    // Said again as answers have it.
    let kept = Changes {
        headers: Some(vec![header("X-Api-Key", None, None), header("X-Team", None, None)]),
        variables: Some(Vec::new()),
        authentication: Some(None),
        ..moved("https://evil.example.com/")
    };
    assert_eq!(pointers(&refused(kept, &webhook)), ["#/headers/0/value"]);

    let anew = Changes {
        headers: Some(vec![
            header("X-Api-Key", Some("theirs"), None),
            header("X-Team", None, None),
        ]),
        variables: Some(vec![header("routing_key", Some("theirs"), None)]),
        url: Some("https://evil.example.com/".to_owned()),
        ..basic("me", Some("theirs"))
    };
    anew.apply(&mut webhook.clone(), &world.rules()).unwrap();

    // An access token goes to the host as well, wherever it was had from.
    let mut with_token = blank();
    credentials("https://id.example.com/token", Some("canary"))
        .apply(&mut with_token, &world.rules())
        .unwrap();
    let errors = refused(moved("https://evil.example.com/"), &with_token);
    assert_eq!(pointers(&errors), ["#/authentication/client_secret"]);

    // A platform whose documents say otherwise.
    for profile in ["ubiops", "once"] {
        let rules = Rules {
            profile: world.profiles.get(profile).unwrap(),
            ..world.rules()
        };
        moved("https://new.example.com/")
            .apply(&mut webhook.clone(), &rules)
            .unwrap();
    }
}
