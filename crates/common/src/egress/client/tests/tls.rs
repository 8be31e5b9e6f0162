//! Webhooks' own TLS settings: each holds for the webhook that has it and for no other.

use super::*;
use crate::egress::{Tls, TlsError};

async fn answered(client: &Client, receiver: &Receiver, tls: Option<&Tls>) -> Result<Bytes, Error> {
    let target = client
        .guard()
        .check(&format!("https://127.0.0.1:{}/", receiver.port))
        .unwrap();
    let request = Request {
        method: Method::POST,
        target: &target,
        tls,
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"{}"),
        timeout: TIMEOUT,
    };
    client.send(request).await.outcome.map(|response| response.body)
}

fn fault(outcome: Result<Bytes, Error>) -> Option<TlsFault> {
    outcome.unwrap_err().tls_fault
}

impl Authority {
    fn trusted(&self) -> Tls {
        Tls::read(Some(&self.issuer.pem()), None).unwrap()
    }
}

#[tokio::test]
async fn an_authority_of_a_webhooks_own_vouches_for_its_receiver_and_for_no_others() {
    let (authority, other) = (Authority::new(), Authority::new());
    let receiver = authority.receiver("127.0.0.1", false).await;
    let client = client();
    let trusted = authority.trusted();
    for _ in 0..2 {
        assert_eq!(answered(&client, &receiver, Some(&trusted)).await.unwrap(), "HTTP/2.0");
    }
    assert_eq!(receiver.connections(), 1);
    // The connection is still there, and is not theirs.
    for tls in [None, Some(&other.trusted())] {
        assert_eq!(
            fault(answered(&client, &receiver, tls).await),
            Some(TlsFault::UnknownIssuer)
        );
    }
    // Read anew, as after any change of the definition, the same settings are the same.
    assert!(answered(&client, &receiver, Some(&authority.trusted())).await.is_ok());
    assert_eq!(receiver.connections(), 3);
    // It is added to those that vouch for everybody.
    let operators = authority.client();
    assert!(answered(&operators, &receiver, Some(&other.trusted())).await.is_ok());
}

#[tokio::test]
async fn what_an_authority_of_a_webhooks_own_has_against_a_certificate_is_named() {
    let authority = Authority::new();
    for (name, expired, expected) in [
        ("other.example", false, TlsFault::WrongName),
        ("127.0.0.1", true, TlsFault::Expired),
    ] {
        let receiver = authority.receiver(name, expired).await;
        let outcome = answered(&client(), &receiver, Some(&authority.trusted())).await;
        assert_eq!(fault(outcome), Some(expected));
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks_and_no_connection_is_anothers() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let receiver = authority.receiver_with("127.0.0.1", false, Some(&clients)).await;
    let client = authority.client();
    let own = |name: &str| {
        let (certificate, key) = clients.certificate(name, false);
        let tls = Tls::read(None, Some((&certificate.pem(), key.serialize_pem().as_bytes()))).unwrap();
        (hex::encode(certificate.der()), tls)
    };
    let (first, second) = (own("one.example"), own("two.example"));
    for (shown, tls) in [&first, &second, &first, &second] {
        assert_eq!(answered(&client, &receiver, Some(tls)).await.unwrap(), shown);
    }
    assert_eq!(receiver.connections(), 2);
    let error = answered(&client, &receiver, None).await.unwrap_err();
    assert_eq!(error.tls_fault, Some(TlsFault::CertificateWanted), "{error:?}");

    // One of an authority that the receiver does not know.
    let (certificate, key) = authority.certificate("three.example", false);
    let unknown = Tls::read(None, Some((&certificate.pem(), key.serialize_pem().as_bytes()))).unwrap();
    let error = answered(&client, &receiver, Some(&unknown)).await.unwrap_err();
    assert_eq!((error.class, error.tls_fault), (ErrorClass::Tls, Some(TlsFault::Ended)));
}

#[test]
fn what_is_no_certificate_and_whose_key_it_is_not_is_refused_when_read() {
    let authority = Authority::new();
    let (certificate, key) = authority.certificate("one.example", false);
    let (_, other) = authority.certificate("two.example", false);
    let (pem, key) = (certificate.pem(), key.serialize_pem());
    let other = other.serialize_pem();
    let read = |ca: Option<&str>, own: Option<(&str, &str)>| {
        let error = Tls::read(ca, own.map(|(chain, key)| (chain, key.as_bytes()))).unwrap_err();
        assert!(!error.to_string().contains("PRIVATE"), "{error}");
        error
    };
    let unreadable = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for ca in ["", &key, unreadable] {
        assert!(matches!(read(Some(ca), None), TlsError::Ca(_)), "{ca}");
    }
    for chain in ["", &key, unreadable] {
        let error = read(None, Some((chain, &key)));
        assert!(matches!(error, TlsError::Certificate(_)), "{chain}");
    }
    for key in ["", &pem] {
        assert!(matches!(read(None, Some((&pem, key))), TlsError::Key(_)), "{key}");
    }
    assert_eq!(
        read(None, Some((&pem, &other))),
        TlsError::Key("it is not the key of the certificate")
    );
    for (ca, reason) in [
        (key.clone(), "no certificate in PEM form"),
        ("-----BEGIN CERTIFICATE-----\n".to_owned(), "not in PEM form"),
        (unreadable.to_owned(), "one of them cannot be read"),
        (pem.repeat(17), "more than 16 certificates"),
    ] {
        let error = read(Some(&ca), None);
        assert_eq!(error.reason(), reason);
        assert_eq!(error.to_string(), format!("the authorities' certificates: {reason}"));
    }
    assert!(Tls::read(Some(&pem.repeat(16)), None).is_ok());
}

#[test]
fn a_client_certificate_that_has_expired_is_known() {
    let authority = Authority::new();
    let now: jiff::Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    for expired in [false, true] {
        let (certificate, key) = authority.certificate("one.example", expired);
        let tls = Tls::read(None, Some((&certificate.pem(), key.serialize_pem().as_bytes()))).unwrap();
        assert_eq!(tls.has_expired(now), expired);
        assert!(!tls.has_expired("2019-01-02T03:04:05Z".parse().unwrap()));
    }
    assert!(!authority.trusted().has_expired(now));
}

/// Shows a certificate whose key it does not have, as whoever has seen one can.
#[derive(Debug)]
struct Impostor(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for Impostor {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn a_certificate_is_nobodys_who_does_not_have_its_key() {
    let authority = Authority::new();
    let (certificate, _) = authority.certificate("127.0.0.1", false);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let other = PrivateKeyDer::try_from(KeyPair::generate().unwrap().serialize_der()).unwrap();
        let key = provider.key_provider.load_private_key(other).unwrap();
        let shown = rustls::sign::CertifiedKey::new(vec![certificate.der().clone()], key);
        let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Impostor(Arc::new(shown))));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let receiver = Receiver::start(move |stream| {
            let acceptor = acceptor.clone();
            async move { drop(acceptor.accept(stream).await) }
        })
        .await;
        for (client, tls) in [(client(), Some(authority.trusted())), (authority.client(), None)] {
            let fault = fault(answered(&client, &receiver, tls.as_ref()).await);
            assert_eq!(fault, Some(TlsFault::InvalidCertificate), "{version:?}");
        }
    }
}
