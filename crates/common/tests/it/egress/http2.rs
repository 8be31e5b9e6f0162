//! The same over HTTP/2, where requests share a connection: a bad answer ends its own request and no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::egress::{BODY_KEPT_MAX, Client, Exchange};
use h2::server::SendResponse;
use proto_schemas::ledger::ErrorClass;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::exchange;
use super::receiver::Receiver;
use super::tls::{Authority, for_loopback, server};

const DEADLINE: Duration = Duration::from_millis(500);
const GRACE: Duration = Duration::from_secs(1);
/// What the windows of a stream let a receiver send before anybody has read.
const WINDOW_MAX: usize = 8 * 1024 * 1024;

/// Answers by the request's path.
async fn serve(stream: TcpStream, acceptor: TlsAcceptor, sent: Arc<AtomicUsize>) {
    let Ok(session) = acceptor.accept(stream).await else {
        return;
    };
    let Ok(mut connection) = h2::server::handshake(session).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request.uri().path().to_owned(), respond, sent.clone()));
    }
}

async fn answer(path: String, mut respond: SendResponse<Bytes>, sent: Arc<AtomicUsize>) {
    let mut head = http::Response::new(());
    match path.as_str() {
        "/silent" => std::future::pending().await,
        "/headers" => {
            for _ in 0..64 {
                head.headers_mut().append("x-long", "v".repeat(1000).parse().unwrap());
            }
            let _ = respond.send_response(head, true);
        }
        // As many as are taken over HTTP/1.1, too.
        "/many" => {
            for _ in 0..14 {
                head.headers_mut().append("x-long", "v".repeat(1000).parse().unwrap());
            }
            let _ = respond.send_response(head, true);
        }
        "/reset" => respond.send_reset(h2::Reason::INTERNAL_ERROR),
        "/broken" => {
            let mut body = respond.send_response(head, false).unwrap();
            body.send_data(Bytes::from_static(b"abc"), false).unwrap();
            body.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        "/endless" => {
            let mut body = respond.send_response(head, false).unwrap();
            loop {
                body.reserve_capacity(16 * 1024);
                let Some(Ok(room)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else {
                    return;
                };
                sent.fetch_add(room, Ordering::Relaxed);
                if body.send_data(Bytes::from(vec![b'x'; room]), false).is_err() {
                    return;
                }
            }
        }
        _ => {
            let _ = respond.send_response(head, true);
        }
    }
}

async fn send(client: &Client, port: u16, path: &str) -> Exchange {
    let target = client
        .guard()
        .check(&format!("https://127.0.0.1:{port}{path}"))
        .unwrap();
    let begun = Instant::now();
    let exchange = exchange(client, &target, DEADLINE).await;
    assert!(begun.elapsed() < DEADLINE + GRACE, "{path}: {:?}", begun.elapsed());
    exchange
}

/// A receiver, a client that trusts it, and how much was sent to endless requests.
async fn connected() -> (Receiver, Client, Arc<AtomicUsize>) {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(server(authority.issue(&for_loopback()))));
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let receiver = Receiver::start(move |stream| serve(stream, acceptor.clone(), counted.clone())).await;
    let client = authority.client();
    // A connection takes a while to make, and the deadlines here are short.
    while send(&client, receiver.port, "/good").await.outcome.is_err() {}
    (receiver, client, sent)
}

#[tokio::test]
async fn more_headers_than_are_taken_end_their_request_at_once() {
    let (receiver, client, _) = connected().await;
    for _ in 0..3 {
        let error = send(&client, receiver.port, "/headers").await.outcome.unwrap_err();
        assert!(error.class != ErrorClass::Timeout, "{error:?}");
        for path in ["/good", "/many"] {
            assert!(send(&client, receiver.port, path).await.outcome.is_ok(), "{path}");
        }
    }
}

#[tokio::test]
async fn a_bad_answer_ends_its_own_request_and_leaves_the_connection_to_others() {
    let (receiver, client, sent) = connected().await;
    let connections = receiver.connections();

    for _ in 0..3 {
        let error = send(&client, receiver.port, "/silent").await.outcome.unwrap_err();
        assert_eq!((error.class, error.status), (ErrorClass::Timeout, None));
        for path in ["/reset", "/broken"] {
            let error = send(&client, receiver.port, path).await.outcome.unwrap_err();
            assert!(error.class != ErrorClass::Timeout, "{path}: {error:?}");
        }
        let response = send(&client, receiver.port, "/endless").await.outcome.unwrap();
        assert_eq!((response.body.len(), response.truncated), (BODY_KEPT_MAX, true));
        assert!(send(&client, receiver.port, "/good").await.outcome.is_ok());
    }
    assert_eq!(receiver.connections(), connections);
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < 3 * WINDOW_MAX, "{sent} bytes were taken");
}
