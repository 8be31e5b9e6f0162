//! What goes over a TLS session arrives, all of it, and the session ends as TLS has it end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::egress::Request;
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::receiver::Receiver;
use super::tls::{Authority, for_loopback, with_clients};

/// More than the system keeps of what nobody reads.
const LENGTH: usize = 16 * 1024 * 1024;

/// Reads a request's head and [`LENGTH`] bytes of its body, a little at a time, so that whoever writes has always more to
/// write than may be.
async fn read_slowly(session: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(session.read_u8().await?);
    }
    let (mut left, mut piece) = (LENGTH, [0; 4096]);
    while left > 0 {
        left -= match session.read(&mut piece).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => length,
        };
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_body_arrives_whole_however_slowly_it_is_read_and_its_session_is_closed_not_cut_off() {
    let authority = Authority::new();
    let versions = &[&rustls::version::TLS13, &rustls::version::TLS12];
    let config = with_clients(authority.issue(&for_loopback()), versions, &["http/1.1"], None);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (tell, mut told) = mpsc::channel(1);
    let receiver = Receiver::start(move |stream| {
        let (acceptor, tell) = (acceptor.clone(), tell.clone());
        async move {
            let mut session = acceptor.accept(stream).await.unwrap();
            if read_slowly(&mut session).await.is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                session.write_all(answer).await.unwrap();
                // Nothing, and then the end, of which TLS tells (RFC 8446 §6.1).
                tell.send(session.read(&mut [0]).await).await.unwrap();
            }
        }
    })
    .await;
    let client = authority.client();
    let url = format!("https://127.0.0.1:{}/", receiver.port);
    let target = client.guard().check(&url).unwrap();
    let request = Request {
        method: Method::POST,
        target: &target,
        tls: None,
        headers: HeaderMap::new(),
        body: Bytes::from(vec![b'x'; LENGTH]),
        timeout: Duration::from_secs(30),
    };
    assert_eq!(client.send(request).await.outcome.unwrap().status, 200);
    assert_eq!(told.recv().await.unwrap().unwrap(), 0);
}
