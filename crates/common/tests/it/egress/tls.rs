//! What can be wrong with a receiver's TLS, and that each is told by its name.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::egress::{Client, Config, Error, Tls};
use proto_schemas::ledger::{ErrorClass, TlsFault};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::post;
use super::receiver::{Receiver, development, read_to_the_end};

/// What clients and servers here trust.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: tempfile::NamedTempFile,
}

/// A certificate and its key.
pub(super) type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        // No two have one name: a certificate of an authority's namesake is a forged one rather than an unknown one.
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{:?}", key.public_key_raw()));
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(issuer.pem().as_bytes()).unwrap();
        Self { issuer, file }
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&Config {
            ca_file: Some(self.file.path().to_owned()),
            ..development()
        })
        .unwrap()
    }

    /// As a webhook has it for its own.
    pub(super) fn trusted(&self) -> Tls {
        Tls::read(Some(&self.issuer.pem()), None).unwrap()
    }

    pub(super) fn issue(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        identity(&params.signed_by(&key, &self.issuer).unwrap(), &key)
    }

    /// What is wrong with a server of this configuration.
    async fn fault_of(&self, config: ServerConfig) -> (TlsFault, String) {
        let receiver = serve(config).await;
        told(
            post(&self.client(), &format!("https://127.0.0.1:{}/", receiver.port))
                .await
                .unwrap_err(),
        )
    }

    /// What is wrong with a server that says these bytes to the first it hears, and then nothing more.
    async fn fault_of_bytes(&self, bytes: &'static [u8], then_closes: bool) -> (TlsFault, String) {
        let receiver = Receiver::start(move |mut stream| async move {
            let mut hello = [0; 4096];
            let _ = stream.read(&mut hello).await;
            let _ = stream.write_all(bytes).await;
            if !then_closes {
                read_to_the_end(&mut stream).await;
            }
        })
        .await;
        told(
            post(&self.client(), &format!("https://127.0.0.1:{}/", receiver.port))
                .await
                .unwrap_err(),
        )
    }
}

fn identity(certificate: &Certificate, key: &KeyPair) -> Identity {
    (
        certificate.der().clone(),
        PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    )
}

fn told(error: Error) -> (TlsFault, String) {
    assert_eq!(error.class, ErrorClass::Tls, "{error:?}");
    (error.tls_fault.unwrap(), error.to_string())
}

pub(super) fn for_loopback() -> CertificateParams {
    CertificateParams::new(["127.0.0.1".to_owned()]).unwrap()
}

pub(super) fn server(identity: Identity) -> ServerConfig {
    with_clients(
        identity,
        &[&rustls::version::TLS13, &rustls::version::TLS12],
        &["h2", "http/1.1"],
        None,
    )
}

pub(super) fn with_clients(
    (certificate, key): Identity,
    versions: &[&'static rustls::SupportedProtocolVersion],
    protocols: &[&str],
    clients: Option<&Authority>,
) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

/// Shakes hands and then reads; it never answers a request.
async fn serve(config: ServerConfig) -> Receiver {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Receiver::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(mut session) = acceptor.accept(stream).await {
                let mut read = [0; 4096];
                while session.read(&mut read).await.is_ok_and(|length| length > 0) {}
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_named() {
    let (known, unknown) = (Authority::new(), Authority::new());
    let text = "the certificate is not from a known authority, or its intermediate certificates are not sent along";
    assert_eq!(
        known.fault_of(server(unknown.issue(&for_loopback()))).await,
        (TlsFault::UnknownIssuer, text.to_owned())
    );
    // One that signed itself is its own authority, and nobody knows it.
    let key = KeyPair::generate().unwrap();
    let mut own = for_loopback();
    own.distinguished_name.push(DnType::CommonName, "nobody else");
    let own = own.self_signed(&key).unwrap();
    assert_eq!(
        known.fault_of(server(identity(&own, &key))).await,
        (TlsFault::UnknownIssuer, text.to_owned())
    );
}

#[tokio::test]
async fn an_intermediate_certificate_that_is_not_sent_along_is_named() {
    let root = Authority::new();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "between");
    let between = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &root.issuer).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = for_loopback().signed_by(&key, &between).unwrap();
    assert_eq!(
        root.fault_of(server(identity(&leaf, &key))).await.0,
        TlsFault::UnknownIssuer
    );
}

#[tokio::test]
async fn a_certificate_is_good_in_its_time_only() {
    let authority = Authority::new();
    let mut expired = for_loopback();
    expired.not_after = date_time_ymd(2020, 1, 1);
    assert_eq!(
        authority.fault_of(server(authority.issue(&expired))).await,
        (TlsFault::Expired, "the certificate has expired".to_owned())
    );
    let mut early = for_loopback();
    early.not_before = date_time_ymd(2200, 1, 1);
    early.not_after = date_time_ymd(2201, 1, 1);
    assert_eq!(
        authority.fault_of(server(authority.issue(&early))).await,
        (TlsFault::NotYetValid, "the certificate is not valid yet".to_owned())
    );
}

#[tokio::test]
async fn a_certificate_for_another_host_or_use_is_named() {
    let authority = Authority::new();
    for names in [
        vec!["other.example"],
        vec!["127.0.0.2"],
        vec!["localhost", "*.0.0.1"],
        vec![],
    ] {
        let params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        assert_eq!(
            authority.fault_of(server(authority.issue(&params))).await,
            (TlsFault::WrongName, "the certificate is for another host".to_owned()),
            "{names:?}"
        );
    }
    let mut for_mail = for_loopback();
    for_mail.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    assert_eq!(
        authority.fault_of(server(authority.issue(&for_mail))).await,
        (TlsFault::InvalidCertificate, "the certificate is not valid".to_owned())
    );
}

#[tokio::test]
async fn a_port_without_tls_is_named() {
    let authority = Authority::new();
    for says in [
        &b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.example ESMTP\r\n",
    ] {
        assert_eq!(
            authority.fault_of_bytes(says, true).await,
            (
                TlsFault::NotTls,
                "the server does not speak TLS on this port".to_owned()
            ),
            "{:?}",
            str::from_utf8(says)
        );
    }
}

#[tokio::test]
async fn a_server_without_tls_in_common_is_named() {
    let authority = Authority::new();
    // One that speaks only a key exchange that nobody offers it.
    let (certificate, key) = authority.issue(&for_loopback());
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::MLKEM768];
    let config = ServerConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let (fault, text) = authority.fault_of(config).await;
    assert_eq!(fault, TlsFault::Incompatible, "{text}");

    // One that says so: the fatal alert protocol_version.
    assert_eq!(
        authority.fault_of_bytes(b"\x15\x03\x01\x00\x02\x02\x46", true).await,
        (
            TlsFault::Incompatible,
            "the server offers no TLS 1.2 or newer".to_owned()
        )
    );
    // One that answers in TLS 1.1, which is not offered: its hello with no session and TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA.
    const TLS_1_1_HELLO: &[u8] = b"\x16\x03\x02\x00\x2a\x02\x00\x00\x26\x03\x02\
        rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr\x00\xc0\x13\x00";
    let (fault, text) = authority.fault_of_bytes(TLS_1_1_HELLO, false).await;
    assert_eq!(fault, TlsFault::Incompatible, "{text}");
}

#[tokio::test]
async fn a_handshake_that_ends_early_is_named() {
    let authority = Authority::new();
    let ended = "the connection was closed during the TLS handshake".to_owned();
    assert_eq!(
        authority.fault_of_bytes(b"", true).await,
        (TlsFault::Ended, ended.clone())
    );
    // In the middle of a record.
    assert_eq!(
        authority.fault_of_bytes(b"\x16\x03\x03\x00\x7a\x02\x00", true).await,
        (TlsFault::Ended, ended)
    );
    // With the fatal alert internal_error.
    let (fault, text) = authority.fault_of_bytes(b"\x15\x03\x03\x00\x02\x02\x50", true).await;
    assert_eq!(
        (fault, text.as_str()),
        (TlsFault::Ended, "the server ended the TLS handshake: InternalError")
    );
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_waited_for_no_longer_than_a_connection() {
    let authority = Authority::new();
    let begun = Instant::now();
    assert_eq!(
        authority.fault_of_bytes(b"\x16\x03\x03\x00\x7a\x02\x00", false).await,
        (TlsFault::Timeout, "the TLS handshake took too long".to_owned())
    );
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

/// In TLS 1.3 the server says so when the client has already begun to send its request; and over HTTP/2 the connection is
/// not the request's own.
#[tokio::test]
async fn a_server_that_wants_a_client_certificate_is_named_whatever_is_spoken() {
    let authority = Authority::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for protocol in ["http/1.1", "h2"] {
            let identity = authority.issue(&for_loopback());
            let config = with_clients(identity, &[version], &[protocol], Some(&authority));
            assert_eq!(
                authority.fault_of(config).await,
                (
                    TlsFault::CertificateWanted,
                    "the server asks for a client certificate".to_owned()
                ),
                "{version:?} {protocol}"
            );
        }
    }
}
