//! Secrets over REST: rotated, shown once, erased.

use common::crypto::key_of;
use proto_schemas::definition::{Authentication, MaybeSealed, SecretKind};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{KEYS, World, defined, key, simple, until};

const HOOK: &str = "/v1/projects/shop/webhooks/slack";

#[tokio::test]
async fn a_rotation_shows_the_new_secret_once_and_leaves_none_in_the_record() {
    let world = World::new().await;
    let service = world.start().await;
    let client = &service.client;
    client.post("/v1/projects", json!({ "name": "shop" })).await;
    client.post("/v1/projects", json!({ "name": "other" })).await;
    let webhook = client.post("/v1/projects/shop/webhooks", simple("slack")).await;
    let first = webhook["secret"].as_str().unwrap().to_owned();

    let rotate = async |path: &str, body: Value| client.call(Method::POST, path, Some(body)).await;
    let path = format!("{HOOK}:rotate-secret");
    let (status, rotated) = rotate(&path, json!({})).await;
    assert_eq!(status, StatusCode::OK, "{rotated}");
    let second = rotated["secret"].as_str().unwrap().to_owned();
    assert!(second.starts_with("whsec_") && second != first);
    assert_eq!(rotated["revision"], 2);
    let (current, earlier) = (&rotated["secrets"][0], &rotated["secrets"][1]);
    assert_eq!(current["expires_at"], Value::Null);
    let instant = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let overlap = instant(&earlier["expires_at"]) - instant(&current["created_at"]);
    assert_eq!(
        overlap.total(jiff::Unit::Hour).unwrap(),
        24.0,
        "a day, where nothing else is said"
    );

    // A secret that was given is not told again, and a private key never is.
    let (_, given) = rotate(&path, json!({ "secret": "a secret of mine", "overlap": "1h" })).await;
    assert_eq!(given.get("secret"), None);
    let (_, pair) = rotate(&path, json!({ "kind": "v1a" })).await;
    assert_eq!((pair.get("secret"), &pair["secrets"][0]["kind"]), (None, &json!("v1a")));
    assert_eq!(pair["public_keys"][0], pair["secrets"][0]["public_key"]);
    assert_eq!(pair["secrets"].as_array().unwrap().len(), 3);

    let shown = client.get(HOOK).await.to_string();
    let revisions = client.get(&format!("{HOOK}/revisions")).await.to_string();
    for secret in [first.as_str(), &second, "a secret of mine", "whsk_"] {
        assert!(!shown.contains(secret) && !revisions.contains(secret));
    }
    let diff = client.get(&format!("{HOOK}/revisions/2/diff")).await;
    let pointers = diff["changes"].to_string();
    assert!(pointers.contains("/secrets/0/id"), "a rotation can be seen: {pointers}");

    for (body, pointer) in [
        (json!({ "overlap": "721h" }), "#/overlap"),
        (json!({ "secret": "short" }), "#/secret"),
        (
            json!({ "secret": "whpk_PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=" }),
            "#/secret",
        ),
        (json!({ "secret": "a secret of mine", "kind": "v1a" }), "#/secret"),
        (json!({ "kind": "v2" }), "#/kind"),
        (json!({ "grace": "1h" }), "#/grace"),
    ] {
        let (status, problem) = rotate(&path, body.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {problem}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    let elsewhere = format!(
        "/v1/projects/other/webhooks/{}:rotate-secret",
        webhook["id"].as_str().unwrap()
    );
    assert_eq!(rotate(&elsewhere, json!({})).await.0, StatusCode::NOT_FOUND);
    service.stop().await;
}

#[tokio::test]
async fn what_has_expired_is_erased_from_the_database_and_from_nats() {
    let world = World::new().await;
    let service = world.start().await;
    let (client, bucket, store) = (&service.client, world.bucket().await, world.store().await);
    let project = client.post("/v1/projects", json!({ "name": "shop" })).await;
    let webhook = client.post("/v1/projects/shop/webhooks", simple("slack")).await;
    let key = key(&project, &webhook);
    let rotation = json!({ "overlap": "1s", "kind": "v1a" });
    client
        .call(Method::POST, &format!("{HOOK}:rotate-secret"), Some(rotation))
        .await;
    let definition = defined(&bucket, &key).await.unwrap();
    let kinds: Vec<SecretKind> = definition.secrets.iter().map(|secret| secret.kind).collect();
    assert_eq!(kinds, [SecretKind::V1a, SecretKind::V1]);
    assert!(
        definition.sealed_secret.is_some(),
        "a dispatcher of the release before still signs"
    );
    until("the definition without it", async || {
        let definition = defined(&bucket, &key).await.unwrap();
        definition.secrets.len() == 1 && definition.sealed_secret.is_none()
    })
    .await;
    let rows = store::webhooks::by_ids(&mut store.connection().await.unwrap(), &[definition.id]).await;
    let row = rows.unwrap().remove(0);
    assert_eq!((row.secrets.len(), row.sealed_secret, row.revision), (1, None, 2));
    service.stop().await;
}

/// A certificate and its key, in PEM.
fn certificate() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["posthaste.example".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[tokio::test]
async fn what_an_older_key_seals_is_sealed_anew_until_the_key_can_be_taken_away() {
    const NEW: &str = "k2:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
    let world = World::new().await;
    let service = world.start().await;
    let (client, bucket) = (&service.client, world.bucket().await);
    let project = client.post("/v1/projects", json!({ "name": "shop" })).await;
    let mut wanted = simple("slack");
    wanted["headers"] = json!([{ "key": "X-Api-Key", "value": "hidden" }, { "key": "x-team", "value": "a" }]);
    let own = certificate();
    wanted["tls"] = json!({ "client_certificate": own.0, "client_key": own.1 });
    wanted["authentication"] = json!({ "type": "basic", "username": "me", "password": "hidden" });
    wanted["variables"] = json!([{ "key": "Routing_Key", "value": "hidden" }]);
    wanted["transform"] = json!(["{{ variables.Routing_Key }}"]);
    let webhook = client.post("/v1/projects/shop/webhooks", wanted).await;
    let (rotate, rotation) = (
        format!("{HOOK}:rotate-secret"),
        json!({ "overlap": "1h", "kind": "v1a" }),
    );
    client.call(Method::POST, &rotate, Some(rotation)).await;
    let before = client.get(HOOK).await;
    let key = key(&project, &webhook);
    let sealed = async || {
        let definition = defined(&bucket, &key).await.unwrap();
        let values = definition.headers.iter().chain(&definition.variables);
        let values = values.filter_map(|value| match &value.value {
            MaybeSealed::Sealed(sealed) => Some(sealed.clone()),
            MaybeSealed::Plain(_) => None,
        });
        let secrets = definition.secrets.iter().map(|secret| secret.sealed.clone());
        let own = definition.tls.iter().filter_map(|tls| tls.client_certificate.as_ref());
        let authentication = definition.authentication.iter().map(|it| match it {
            Authentication::Basic { sealed_password, .. } => sealed_password.clone(),
            Authentication::ClientCredentials {
                sealed_client_secret, ..
            } => sealed_client_secret.clone(),
        });
        values
            .chain(secrets)
            .chain(definition.sealed_secret.clone())
            .chain(own.map(|own| own.sealed_key.clone()))
            .chain(authentication)
            .collect::<Vec<String>>()
    };
    let under = |sealed: &[String], key: &str| sealed.iter().filter(|it| key_of(it) == Some(key)).count();
    assert_eq!(under(&sealed().await, "k1"), 7);
    let mut other = simple("other");
    other["authentication"] = json!({ "type": "oauth2_client_credentials", "client_id": "c",
        "token_url": "https://id.example.com/token", "client_secret": "hidden" });
    let other = client.post("/v1/projects/shop/webhooks", other).await;
    let others = self::key(&project, &other);
    service.stop().await;

    let service = world.start_with_keys(&format!("{NEW},{KEYS}")).await;
    until("everything sealed with the new key", async || {
        under(&sealed().await, "k2") == 7
    })
    .await;
    until("the other one's client secret as well", async || {
        let definition = defined(&bucket, &others).await.unwrap();
        let Some(Authentication::ClientCredentials {
            sealed_client_secret, ..
        }) = definition.authentication
        else {
            panic!("it has credentials")
        };
        key_of(&sealed_client_secret) == Some("k2")
    })
    .await;
    assert_eq!(service.client.get(HOOK).await, before, "nobody has changed anything");
    service.stop().await;

    // Without the old key, everything is as before: the preview opens what it signs with.
    let service = world.start_with_keys(NEW).await;
    let preview = format!("{HOOK}:preview");
    let (status, preview) = service.client.call(Method::POST, &preview, Some(json!({}))).await;
    assert_eq!(status, StatusCode::OK, "{preview}");
    assert!(preview.to_string().contains("webhook-signature"), "{preview}");
    assert_eq!(service.client.get(HOOK).await, before);
    service.stop().await;
}
