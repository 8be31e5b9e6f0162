//! Connections that are kept for later requests: not for long, not too many, and not when they have died.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::egress::{Client, Request};
use http::{HeaderMap, Method};
use proto_schemas::ledger::ErrorClass;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::receiver::{Receiver, development, read_head};
use super::tls::{Authority, for_loopback, server, with_clients};
use super::{PLENTY, exchange, post};

/// How long a connection may be there that is to be closed.
const GRACE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_connection_that_nobody_needs_is_closed_within_a_minute() {
    let receiver = Receiver::start(|mut stream| async move {
        loop {
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            if stream.write_all(answer).await.is_err() || stream.readable().await.is_err() {
                return;
            }
            // The other side has closed it.
            if stream.peek(&mut [0]).await.is_ok_and(|length| length == 0) {
                return;
            }
        }
    })
    .await;
    let client = Client::new(&development()).unwrap();
    let url = format!("http://127.0.0.1:{}/", receiver.port);
    for _ in 0..2 {
        assert!(post(&client, &url).await.is_ok());
    }
    assert_eq!(receiver.connections(), 1);
    tokio::time::pause();
    // Looked at every now and then, so not at once.
    for _ in 0..4 {
        tokio::time::advance(Duration::from_secs(16)).await;
    }
    tokio::time::resume();
    timeout(GRACE, receiver.is_left())
        .await
        .expect("the connection is closed though nobody asks for another");
}

/// Answers the first request over HTTP/2 and is not heard of any more, as if its machine were gone.
async fn answer_once(stream: TcpStream, acceptor: TlsAcceptor) -> std::io::Result<()> {
    let mut session = acceptor.accept(stream).await?;
    session.read_exact(&mut [0; 24]).await?;
    session.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
    loop {
        let mut head = [0; 9];
        session.read_exact(&mut head).await?;
        let [_, high, low, kind, flags, stream @ ..] = head;
        session
            .read_exact(&mut vec![0; u16::from_be_bytes([high, low]).into()])
            .await?;
        match (kind, flags) {
            (1, _) => {
                // `:status: 200`, and the end.
                session
                    .write_all(&[&[0, 0, 1, 1, 5][..], &stream, &[0x88]].concat())
                    .await?;
                session.flush().await?;
                return std::future::pending().await;
            }
            (4, 0) => session.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await?,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_connection_over_http_2_that_has_died_holds_a_request_up_for_half_a_minute_at_most() {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(server(authority.issue(&for_loopback()))));
    let receiver = Receiver::start(move |stream| {
        let acceptor = acceptor.clone();
        async move { drop(answer_once(stream, acceptor).await) }
    })
    .await;
    let client = authority.client();
    let url = format!("https://127.0.0.1:{}/", receiver.port);
    assert!(post(&client, &url).await.is_ok());
    // From here on everybody waits, and the tests' clock goes on by itself.
    tokio::time::pause();
    let begun = Instant::now();
    let target = client.guard().check(&url).unwrap();
    let error = exchange(&client, &target, Duration::from_secs(300))
        .await
        .outcome
        .unwrap_err();
    let took = begun.elapsed();
    assert_eq!(error.class, ErrorClass::Connect, "{error:?} after {took:?}");
    assert!(took <= Duration::from_secs(30), "{took:?}");
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn of_a_webhooks_own_connections_to_a_host_32_are_kept() {
    const AT_ONCE: usize = 40;
    let authority = Authority::new();
    let versions = &[&rustls::version::TLS13];
    let config = with_clients(authority.issue(&for_loopback()), versions, &["http/1.1"], None);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    // Nobody is answered before all are there, so each has a connection of its own.
    let all = Arc::new(Barrier::new(AT_ONCE));
    let receiver = Receiver::start(move |stream| {
        let (acceptor, all) = (acceptor.clone(), all.clone());
        async move {
            let mut session = acceptor.accept(stream).await.unwrap();
            let mut read = [0; 4096];
            let _ = session.read(&mut read).await;
            all.wait().await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            let _ = session.write_all(answer).await;
            while session.read(&mut read).await.is_ok_and(|length| length > 0) {}
        }
    })
    .await;
    let client = Client::new(&development()).unwrap();
    let url = format!("https://127.0.0.1:{}/", receiver.port);
    let (target, tls) = (client.guard().check(&url).unwrap(), authority.trusted());
    let requests = std::iter::repeat_with(|| Request {
        method: Method::POST,
        target: &target,
        tls: Some(&tls),
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"{}"),
        timeout: PLENTY,
    });
    let requests = requests.take(AT_ONCE).map(|request| client.send(request));
    for exchange in futures::future::join_all(requests).await {
        assert!(exchange.outcome.is_ok(), "{exchange:?}");
    }
    let fewer = async {
        while receiver.open() > 32 {
            tokio::task::yield_now().await;
        }
    };
    timeout(GRACE, fewer).await.expect("the others are closed");
    assert_eq!(receiver.open(), 32);
}
