use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use proto_schemas::ledger::{ErrorClass, TlsFault};
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::egress::connector::Open;

mod exchange;
mod guarded;
mod proxy;
mod tls;

const TIMEOUT: Duration = Duration::from_secs(10);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A receiver on loopback.
struct Receiver {
    port: u16,
    connections: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Receiver {
    /// Hands each connection to `serve`.
    async fn start<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream));
            }
        });
        Self {
            port,
            connections,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Reads each request whole and answers it with these bytes; closes after a request if `close`.
    async fn answering(answer: impl Into<Vec<u8>>, close: bool) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut stream| {
            let answer = answer.clone();
            async move {
                while read_request(&mut stream).await.is_some() {
                    let _ = stream.write_all(&answer).await;
                    if close {
                        break;
                    }
                }
            }
        })
        .await
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/in?key=hush", self.port)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// The next request's head and body; `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end].to_vec()).unwrap().to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap()
                .parse()
                .unwrap();
            let mut body = read.split_off(end + 4);
            while body.len() < length {
                stream.read_buf(&mut body).await.ok()?;
            }
            return Some((head, body));
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

fn development() -> Config {
    Config {
        allow_http: true,
        allow_cidrs: "127.0.0.0/8,::1".parse().unwrap(),
        ..Config::default()
    }
}

fn client() -> Client {
    Client::new(&development()).unwrap()
}

async fn post(client: &Client, url: &str, timeout: Duration) -> Result<Response, Error> {
    let target = client.guard().check(url).unwrap();
    let body = Bytes::from_static(b"{}");
    client
        .send(Request {
            method: Method::POST,
            target: &target,
            tls: None,
            headers: HeaderMap::new(),
            body,
            timeout,
        })
        .await
        .outcome
}

/// What goes wrong, as class and text.
async fn failure(url: &str, timeout: Duration) -> (ErrorClass, String) {
    let error = post(&client(), url, timeout).await.unwrap_err();
    (error.class, error.to_string())
}

#[tokio::test]
async fn a_request_arrives_as_it_was_given() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let receiver = Receiver::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            let request = read_request(&mut stream).await.unwrap();
            let answer = b"HTTP/1.1 202 Accepted\r\nx-one: 1\r\nx-two: \xff\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
            tell.send(request).await.unwrap();
        }
    })
    .await;
    let client = client();
    let target = client.guard().check(&receiver.url()).unwrap();
    let mut headers = HeaderMap::new();
    headers.append("webhook-id", HeaderValue::from_static("evt_1"));
    headers.append("content-type", HeaderValue::from_static("application/json"));
    let body = Bytes::from_static(br#"{"n": 1.0, "n": 2}"#);
    let exchange = client
        .send(Request {
            method: Method::POST,
            target: &target,
            tls: None,
            headers,
            body: body.clone(),
            timeout: TIMEOUT,
        })
        .await;
    let (peer, response) = (exchange.peer.unwrap(), exchange.outcome.unwrap());

    let (head, arrived) = told.recv().await.unwrap();
    assert_eq!(arrived, body);
    assert!(head.starts_with("post /in?key=hush http/1.1\r\n"), "{head}");
    for line in [
        "webhook-id: evt_1",
        "content-type: application/json",
        "content-length: 18",
        "accept: */*",
    ] {
        assert!(head.lines().any(|found| found == line), "{line} in {head}");
    }
    assert!(head.contains("user-agent: posthaste/"), "{head}");
    assert!(!head.contains("accept-encoding") && !head.contains("referer"), "{head}");

    assert_eq!(response.status, 202);
    assert_eq!(&response.body[..], b"ok");
    assert!(!response.truncated);
    assert_eq!(peer.port(), receiver.port);
    assert_eq!(
        response.header_lines(),
        [("x-one", "1"), ("x-two", "\u{fffd}"), ("content-length", "2")]
            .map(|(name, value)| (name.into(), value.into()))
    );
}

#[tokio::test]
async fn an_empty_body_has_a_length() {
    // The receiver does not answer a request without one.
    let receiver = Receiver::answering(OK, false).await;
    let client = client();
    let target = client.guard().check(&receiver.url()).unwrap();
    let request = Request {
        method: Method::POST,
        target: &target,
        tls: None,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        timeout: TIMEOUT,
    };
    assert_eq!(client.send(request).await.outcome.unwrap().status, 200);
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let receiver = Receiver::answering(OK, false).await;
    let client = client();
    for _ in 0..20 {
        assert_eq!(post(&client, &receiver.url(), TIMEOUT).await.unwrap().status, 200);
    }
    assert_eq!(receiver.connections(), 1);
}

/// A client that keeps so many connections for later requests.
fn keeping(connections: usize) -> Client {
    let one = client();
    let connector = Connector {
        open: Arc::new(Open::keeping(connections)),
        ..one.pools.connector.clone()
    };
    let sessions = Sessions::new(Vec::new()).unwrap();
    Client {
        pools: Arc::new(Pools::new(sessions, connector)),
        ..one
    }
}

#[tokio::test]
async fn beside_as_many_connections_as_are_kept_one_serves_a_single_request() {
    let [kept, beside] = [
        Receiver::answering(OK, false).await,
        Receiver::answering(OK, false).await,
    ];
    let one = keeping(1);
    for _ in 0..3 {
        for receiver in [&kept, &beside] {
            assert_eq!(post(&one, &receiver.url(), TIMEOUT).await.unwrap().status, 200);
        }
    }
    assert_eq!((kept.connections(), beside.connections()), (1, 3));
}

#[tokio::test]
async fn a_connection_that_is_closed_makes_room_for_another_to_be_kept() {
    let [closing, next] = [
        Receiver::answering(OK, true).await,
        Receiver::answering(OK, false).await,
    ];
    let one = keeping(1);
    assert_eq!(post(&one, &closing.url(), TIMEOUT).await.unwrap().status, 200);
    // That it was closed is noticed a little later.
    let until_one_is_kept = async {
        loop {
            let before = next.connections();
            assert_eq!(post(&one, &next.url(), TIMEOUT).await.unwrap().status, 200);
            if next.connections() == before {
                break;
            }
        }
    };
    tokio::time::timeout(TIMEOUT, until_one_is_kept).await.unwrap();
}

#[tokio::test]
async fn localhost_is_loopback_by_another_name() {
    let receiver = Receiver::answering(OK, false).await;
    let response = post(&client(), &format!("http://localhost:{}/", receiver.port), TIMEOUT)
        .await
        .unwrap();
    assert_eq!(response.status, 200);
}

#[tokio::test]
async fn redirects_are_answers() {
    let elsewhere = Receiver::answering(OK, false).await;
    for status in [301, 302, 303, 307, 308] {
        let answer = format!(
            "HTTP/1.1 {status} Away\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
            elsewhere.url()
        );
        let receiver = Receiver::answering(answer, false).await;
        let response = post(&client(), &receiver.url(), TIMEOUT).await.unwrap();
        assert_eq!(response.status, status);
        assert_eq!(response.headers["location"], elsewhere.url());
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn of_a_body_up_to_16_kib_are_kept_and_the_connection_too() {
    for (length, truncated) in [(16_384, false), (16_385, true), (65_535, true), (65_536, true)] {
        let body = "x".repeat(length);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        let receiver = Receiver::answering(answer, false).await;
        let client = client();
        for _ in 0..2 {
            let response = post(&client, &receiver.url(), TIMEOUT).await.unwrap();
            assert_eq!(response.body.len(), 16_384);
            assert_eq!(response.truncated, truncated, "{length}");
        }
        assert_eq!(receiver.connections(), 1);
    }
}

#[tokio::test]
async fn an_endless_body_is_left_after_64_kib() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let receiver = Receiver::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            read_request(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
            tell.send(()).await.unwrap();
        }
    })
    .await;
    let response = post(&client(), &receiver.url(), TIMEOUT).await.unwrap();
    assert_eq!(
        (response.status.as_u16(), response.body.len(), response.truncated),
        (200, BODY_KEPT_MAX, true)
    );
    told.recv().await.expect("the connection is closed, not kept");
}

#[tokio::test]
async fn endless_headers_are_refused_and_many_are_kept_in_part() {
    let many = "x-a: y\r\n".repeat(200_000);
    let receiver = Receiver::answering(format!("HTTP/1.1 200 OK\r\n{many}\r\n"), true).await;
    assert_eq!(failure(&receiver.url(), TIMEOUT).await.0, ErrorClass::Body);

    let long = format!("x-long: {}\r\n", "v".repeat(6_000)).repeat(4);
    let receiver = Receiver::answering(format!("HTTP/1.1 200 OK\r\n{long}content-length: 0\r\n\r\n"), true).await;
    let lines = post(&client(), &receiver.url(), TIMEOUT).await.unwrap().header_lines();
    assert_eq!(lines.len(), 2);
}

#[tokio::test]
async fn one_deadline_covers_head_and_body() {
    let short = Duration::from_millis(200);
    let silent = Receiver::start(|mut stream| async move {
        read_request(&mut stream).await;
        std::future::pending().await
    })
    .await;
    assert_eq!(
        failure(&silent.url(), short).await,
        (ErrorClass::Timeout, "no response within 200ms".to_owned())
    );

    let dripping = Receiver::start(|mut stream| async move {
        read_request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            .await
            .unwrap();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let error = post(&client(), &dripping.url(), short).await.unwrap_err();
    assert_eq!((error.class, error.status), (ErrorClass::Timeout, Some(StatusCode::OK)));
    assert_eq!(error.to_string(), "no complete response within 200ms");
}

#[tokio::test]
async fn what_goes_wrong_is_named() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port())
    };
    assert_eq!(
        failure(&closed, TIMEOUT).await,
        (ErrorClass::Connect, "connection refused".to_owned())
    );

    let mute = Receiver::answering("", true).await;
    assert_eq!(
        failure(&mute.url(), TIMEOUT).await,
        (
            ErrorClass::Connect,
            "the connection was closed before a response came".to_owned()
        )
    );

    let gibberish = Receiver::answering("SSH-2.0-OpenSSH_9.2\r\n\r\n", true).await;
    assert_eq!(
        failure(&gibberish.url(), TIMEOUT).await,
        (ErrorClass::Body, "the response is not valid HTTP".to_owned())
    );

    let broken = Receiver::answering("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", true).await;
    let error = post(&client(), &broken.url(), TIMEOUT).await.unwrap_err();
    assert_eq!((error.class, error.status), (ErrorClass::Body, Some(StatusCode::OK)));
    assert_eq!(error.to_string(), "the response broke off");

    assert_eq!(
        failure("http://nonexistent.localhost.invalid/", TIMEOUT).await.0,
        ErrorClass::Dns
    );
}

/// An authority of our own, whose file a client can be given.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: tempfile::NamedTempFile,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        // Of two with the same name one would be taken for the other, and found to sign badly.
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("authority {}", MADE.fetch_add(1, Ordering::SeqCst));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(issuer.pem().as_bytes()).unwrap();
        Self { issuer, file }
    }

    fn client(&self) -> Client {
        Client::new(&Config {
            ca_file: Some(self.file.path().to_owned()),
            ..development()
        })
        .unwrap()
    }

    /// A receiver that speaks TLS with a certificate for `name`, and both HTTP versions; it answers with the version.
    async fn receiver(&self, name: &str, expired: bool) -> Receiver {
        self.receiver_with(name, expired, None).await
    }

    /// The same, that asks its clients for certificates of this authority, where there is one.
    async fn receiver_with(&self, name: &str, expired: bool, clients: Option<&Self>) -> Receiver {
        let (chain, key) = self.certificate(name, expired);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(clients.issuer.der().clone()).unwrap();
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.unwrap())
            }
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = builder.with_single_cert(vec![chain.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Receiver::start(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let stream = match acceptor.accept(stream).into_fallible().await {
                    Ok(stream) => stream,
                    Err((_, mut stream)) => {
                        // Closed with something unread, the connection would be reset, and why it was closed lost.
                        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                        return;
                    }
                };
                let shown = stream
                    .get_ref()
                    .1
                    .peer_certificates()
                    .map(|chain| hex::encode(&chain[0]));
                let answer = hyper::service::service_fn(move |request: hyper::Request<_>| {
                    let text = shown.clone().unwrap_or_else(|| format!("{:?}", request.version()));
                    async move { Ok::<_, std::convert::Infallible>(hyper::Response::new(text)) }
                });
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            }
        })
        .await
    }

    /// A certificate for `name`, and its key.
    fn certificate(&self, name: &str, expired: bool) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

#[tokio::test]
async fn https_is_spoken_in_http_2_over_one_connection() {
    let authority = Authority::new();
    let receiver = authority.receiver("127.0.0.1", false).await;
    let client = authority.client();
    for _ in 0..3 {
        let response = post(&client, &format!("https://127.0.0.1:{}/", receiver.port), TIMEOUT)
            .await
            .unwrap();
        assert_eq!(&response.body[..], b"HTTP/2.0");
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn certificates_are_verified_and_what_is_wrong_with_one_is_named() {
    let authority = Authority::new();
    let unknown = "the certificate is not from a known authority, or its intermediate certificates are not sent along";
    for (client, name, expired, fault, text) in [
        (client(), "127.0.0.1", false, TlsFault::UnknownIssuer, unknown),
        (
            authority.client(),
            "other.example",
            false,
            TlsFault::WrongName,
            "the certificate is for another host",
        ),
        (
            authority.client(),
            "127.0.0.1",
            true,
            TlsFault::Expired,
            "the certificate has expired",
        ),
    ] {
        let receiver = authority.receiver(name, expired).await;
        let error = post(&client, &format!("https://127.0.0.1:{}/", receiver.port), TIMEOUT)
            .await
            .unwrap_err();
        assert_eq!((error.class, error.to_string().as_str()), (ErrorClass::Tls, text));
        assert_eq!(error.tls_fault, Some(fault));
    }
    let plain = Receiver::start(|mut stream| async move {
        let mut hello = [0; 64];
        let _ = stream.read(&mut hello).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    assert_eq!(
        failure(&format!("https://127.0.0.1:{}/", plain.port), TIMEOUT).await,
        (ErrorClass::Tls, "the server does not speak TLS on this port".to_owned())
    );
}

#[test]
fn a_file_without_authorities_is_refused_at_start() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"nothing").unwrap();
    for path in [file.path().to_owned(), "/nonexistent/ca.pem".into()] {
        let config = Config {
            ca_file: Some(path.clone()),
            ..Config::default()
        };
        assert!(
            Client::new(&config)
                .err()
                .unwrap()
                .to_string()
                .contains(&path.display().to_string())
        );
    }
}
