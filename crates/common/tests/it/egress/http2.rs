//! The same over HTTP/2, where requests share a connection: a bad answer ends its own request and no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::egress::{BODY_KEPT_MAX, Client, Exchange};
use h2::server::SendResponse;
use proto_schemas::ledger::ErrorClass;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::exchange;
use super::receiver::Receiver;
use super::tls::{Authority, for_loopback, server};

const DEADLINE: Duration = Duration::from_millis(500);
const GRACE: Duration = Duration::from_secs(1);
/// What is read of an endless answer, what its stream's window lets a receiver send on top of that before anybody has read,
/// and a little more.
const SENT_MAX: usize = (64 + 64 + 32) * 1024;

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
    assert!(sent < 3 * SENT_MAX, "{sent} bytes were taken");
}

/// What a client says of how much may be sent that nobody has read, of a stream and of the connection (RFC 9113 §6.5.2,
/// §6.9.2); where it says nothing, HTTP/2 has it be 65,535 bytes.
async fn windows(stream: TcpStream, acceptor: TlsAcceptor) -> std::io::Result<(u32, u32)> {
    let mut session = acceptor.accept(stream).await?;
    session.read_exact(&mut [0; 24]).await?;
    // Settings, with nothing set: the request comes after them.
    session.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
    let (mut of_stream, mut of_connection) = (65_535, 65_535);
    loop {
        let mut head = [0; 9];
        session.read_exact(&mut head).await?;
        let [_, high, low, kind, ..] = head;
        let mut payload = vec![0; u16::from_be_bytes([high, low]).into()];
        session.read_exact(&mut payload).await?;
        match kind {
            1 => return Ok((of_stream, of_connection)),
            4 => {
                for setting in payload.chunks_exact(6).filter(|setting| setting[..2] == [0, 4]) {
                    of_stream = u32::from_be_bytes(setting[2..].try_into().unwrap());
                }
            }
            8 => of_connection += u32::from_be_bytes(payload.try_into().unwrap()),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_receiver_may_send_64_kib_of_a_request_and_1_mib_of_all_before_they_are_read() {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(server(authority.issue(&for_loopback()))));
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let receiver = Receiver::start(move |stream| {
        let (acceptor, tell) = (acceptor.clone(), tell.clone());
        async move { tell.send(windows(stream, acceptor).await.unwrap()).await.unwrap() }
    })
    .await;
    let _ = send(&authority.client(), receiver.port, "/").await;
    assert_eq!(told.recv().await, Some((64 * 1024, 1024 * 1024)));
}
