//! A certificate authority of a test's own, and receivers that speak TLS.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// An authority that nobody knows.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate.
    pub pem: String,
    /// The same as it goes over the wire.
    pub der: Bytes,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// Makes one, with a name of its own.
    ///
    /// # Errors
    /// Where there is no key to be had.
    pub fn new() -> anyhow::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(1);
        let mut params = CertificateParams::default();
        let name = format!("Test authority {}", MADE.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
        })
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a name or address.
    ///
    /// # Errors
    /// Where the name is none.
    pub fn certificate(&self, name: &str) -> anyhow::Result<Certificate> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.issuer)?;
        Ok(Certificate {
            pem: certificate.pem(),
            der: Bytes::copy_from_slice(certificate.der()),
            key: key.serialize_pem(),
        })
    }

    /// How a receiver on loopback speaks TLS, that asks its clients for certificates of `clients`.
    ///
    /// # Errors
    /// Where the settings cannot be used.
    pub fn acceptor(&self, clients: Option<&Self>) -> anyhow::Result<TlsAcceptor> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&key, &self.issuer)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            rustls::ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(clients.issuer.der().clone())?;
                let roots = Arc::new(roots);
                let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Takes connections and makes TLS sessions of them.
pub(crate) struct TlsListener {
    pub(crate) tcp: TcpListener,
    pub(crate) acceptor: TlsAcceptor,
}

/// The certificate that a client has shown.
#[derive(Debug, Clone)]
pub(crate) struct Shown(pub(crate) Option<Bytes>);

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = Shown;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, _)) = self.tcp.accept().await else {
                continue;
            };
            match self.acceptor.accept(stream).into_fallible().await {
                Ok(stream) => {
                    let chain = stream.get_ref().1.peer_certificates();
                    let shown = chain.and_then(|chain| Some(Bytes::copy_from_slice(chain.first()?)));
                    return (stream, Shown(shown));
                }
                // Closed with something unread, the connection would be reset, and why it was closed lost.
                Err((_, mut stream)) => drop(tokio::spawn(async move {
                    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
                })),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(Shown(None))
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Shown {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.remote_addr().clone()
    }
}
