//! TLS sessions with receivers: by whom their certificates are vouched for, and what they are shown of ours.
//!
//! The system's authorities and those of the operator's file hold for every webhook. A webhook may name more, which hold
//! for it alone, and have a certificate of its own to show.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsConnector;

/// Most certificates of one chain, and most authorities of one webhook.
const CERTIFICATES_MAX: usize = 16;

/// What a webhook's sessions are made with, ready for use. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    /// Of all that is in it: two with the same one are the same.
    digest: Digest,
    authorities: Option<Arc<WebPkiServerVerifier>>,
    own: Option<Arc<CertifiedKey>>,
}

/// Identifies what is in a [`Tls`]; tells nothing of a key.
pub(super) type Digest = [u8; 32];

/// Why there is no [`Tls`], by the part that is wrong. The text is for the webhook's owner; nothing of a key is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The authorities.
    #[error("the authorities' certificates: {0}")]
    Ca(&'static str),
    /// The client certificate.
    #[error("the client certificate: {0}")]
    Certificate(&'static str),
    /// The client certificate's key.
    #[error("the client certificate's key: {0}")]
    Key(&'static str),
}

impl TlsError {
    /// What is wrong, without the part.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Ca(reason) | Self::Certificate(reason) | Self::Key(reason) => reason,
        }
    }
}

impl Tls {
    /// Reads authorities, and a certificate's chain with its private key, in PEM.
    ///
    /// # Errors
    /// [`TlsError`], also where the key is not the certificate's.
    pub fn read(ca: Option<&str>, client_certificate: Option<(&str, &[u8])>) -> Result<Self, TlsError> {
        let mut hasher = Sha256::new();
        let authorities = ca.map(|pem| read_authorities(pem, &mut hasher)).transpose()?;
        let own = client_certificate
            .map(|(chain, key)| read_own(chain, key, &mut hasher))
            .transpose()?;
        Ok(Self {
            digest: hasher.finalize().into(),
            authorities,
            own: own.map(Arc::new),
        })
    }

    /// Whether the client certificate, if there is one, has expired by `now`.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        let Some(certificate) = self.own.as_ref().and_then(|own| own.cert.first()) else {
            return false;
        };
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        // It is vouched for by nobody here, which is found out after its dates have been looked at.
        let checked = ParsedCertificate::try_from(certificate).and_then(|parsed| {
            let nobody = RootCertStore::empty();
            let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
            rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &[], now, algorithms)
        });
        matches!(
            checked,
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. }
            ))
        )
    }

    pub(super) const fn digest(&self) -> Digest {
        self.digest
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authorities", &self.authorities.is_some())
            .field("client_certificate", &self.own.is_some())
            .finish()
    }
}

fn read_authorities(pem: &str, hasher: &mut Sha256) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let certificates = read_certificates(pem).map_err(TlsError::Ca)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        note(hasher, b"ca", &certificate);
        roots
            .add(certificate)
            .map_err(|_| TlsError::Ca("one of them cannot be read"))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(aws_lc_rs::default_provider()))
        .build()
        .map_err(|_| TlsError::Ca("they cannot be used"))
}

fn read_own(chain: &str, key: &[u8], hasher: &mut Sha256) -> Result<CertifiedKey, TlsError> {
    let chain = read_certificates(chain).map_err(TlsError::Certificate)?;
    for certificate in &chain {
        note(hasher, b"certificate", certificate);
        ParsedCertificate::try_from(certificate)
            .map_err(|_| TlsError::Certificate("a certificate in it cannot be read"))?;
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| TlsError::Key("it is not a private key in PEM form, without a passphrase"))?;
    note(hasher, b"key", key.secret_der());
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Key("it is not the key of the certificate"),
        _ => TlsError::Key("it is of a kind that cannot be used; RSA from 2048 bits, ECDSA and Ed25519 can"),
    })
}

fn read_certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| "not in PEM form")?;
    match certificates.len() {
        0 => Err("no certificate in PEM form"),
        1..=CERTIFICATES_MAX => Ok(certificates),
        _ => Err("more than 16 certificates"),
    }
}

/// Adds a part, so that no two sequences of parts come to the same.
fn note(hasher: &mut Sha256, kind: &[u8], part: &[u8]) {
    for bytes in [kind, part] {
        hasher.update((bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    }
}

/// Makes the settings of sessions.
#[derive(Clone)]
pub(super) struct Sessions {
    provider: Arc<CryptoProvider>,
    general: Arc<dyn ServerCertVerifier>,
}

impl Sessions {
    /// Sessions with receivers vouched for by the system's authorities and the operator's.
    pub(super) fn new(operators: Vec<CertificateDer<'static>>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(operators, Arc::clone(&provider))?;
        Ok(Self {
            provider,
            general: Arc::new(verifier),
        })
    }

    /// The settings of sessions, HTTP/2 where the other side has it. Each call makes some of its own: a session is resumed
    /// only by the settings that it was begun with.
    pub(super) fn connector(&self, tls: Option<&Tls>) -> Result<TlsConnector, rustls::Error> {
        let general = Arc::clone(&self.general);
        let verifier: Arc<dyn ServerCertVerifier> = match tls.and_then(|tls| tls.authorities.clone()) {
            Some(added) => Arc::new(Either { added, general }),
            None => general,
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match tls.and_then(|tls| tls.own.clone()) {
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// A certificate is good that is vouched for by the added authorities or the general ones.
#[derive(Debug)]
struct Either {
    added: Arc<WebPkiServerVerifier>,
    general: Arc<dyn ServerCertVerifier>,
}

impl ServerCertVerifier for Either {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let by =
            |verifier: &dyn ServerCertVerifier| verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        by(&*self.added).or_else(|added| {
            // What the added ones have against it says more than that the general ones do not know it.
            by(&*self.general).map_err(|general| match general {
                rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => added,
                general => general,
            })
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.general.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.general.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.general.supported_verify_schemes()
    }
}
