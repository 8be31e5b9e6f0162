//! TLS and authentication of receivers.

use proto_schemas::definition::{Authentication, ClientCertificate, Tls};

use super::*;

/// The fields that say who asks a receiver, and who it is.
#[test]
fn fields_of_tls_and_authentication_are_written_and_read_as_before() {
    let tls = Tls {
        ca: Some("-----BEGIN CERTIFICATE-----\n…".into()),
        client_certificate: Some(ClientCertificate {
            chain: "-----BEGIN CERTIFICATE-----\n…".into(),
            sealed_key: "v1|k|n|key".into(),
        }),
    };
    let basic = Authentication::Basic {
        username: "posthaste".into(),
        sealed_password: "v1|k|n|p".into(),
    };
    let credentials = |scope: Option<&str>| Authentication::ClientCredentials {
        token_url: "https://id.example.com/token".into(),
        client_id: "c-1".into(),
        sealed_client_secret: "v1|k|n|s".into(),
        scope: scope.map(str::to_owned),
    };
    for (name, tls, authentication) in [
        ("webhook_tls_basic", Some(tls), Some(basic)),
        (
            "webhook_client_credentials",
            None,
            Some(credentials(Some("hooks:write"))),
        ),
        ("webhook_client_credentials_no_scope", None, Some(credentials(None))),
    ] {
        let webhook = Webhook {
            tls,
            authentication,
            ..webhook_definition()
        };
        assert_eq!(Webhook::decode(golden(name, &webhook.encode())).unwrap(), webhook);
    }
    let of_a_later_release = wire::WebhookDefinition {
        authentication: Some(wire::AuthenticationDefinition { kind: None }),
        ..wire::WebhookDefinition::decode(Bytes::from(webhook_definition().encode())).unwrap()
    };
    assert_eq!(
        Webhook::decode(of_a_later_release.encode_to_vec().into()),
        Err(DecodeError::Missing("authentication"))
    );

    let Fact::AttemptFinished(finished) = facts().remove(2).1 else {
        panic!("the third fact is an attempt")
    };
    let fact = Fact::AttemptFinished(AttemptFinished {
        status: None,
        error_class: Some(ErrorClass::Authentication),
        ..finished
    });
    let bytes = golden("attempt_finished_authentication", &fact.encode());
    assert_eq!(Fact::decode_all(bytes).unwrap(), [Ok(fact)]);
}
