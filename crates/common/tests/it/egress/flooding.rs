//! Receivers that send over HTTP/2, as fast as it is read, what is no answer: each request ends with its deadline, and what
//! was sent is not kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::egress::{Client, Error, Response};
use proto_schemas::ledger::ErrorClass;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::exchange;
use super::receiver::Receiver;
use super::tls::{Authority, for_loopback, server};

const DEADLINE: Duration = Duration::from_secs(2);
/// How long after its deadline a request may still be there, among all that come at once.
const GRACE: Duration = Duration::from_secs(2);
/// By how much the memory of this process may grow meanwhile, other tests' included.
const GROWTH_MAX: usize = 128 * 1024 * 1024;

/// What a receiver sends, as frames (RFC 9113 §4.1).
#[derive(Clone)]
struct Flood {
    name: &'static str,
    /// Once, in answer to a request.
    first: Vec<u8>,
    /// Again and again.
    again: Vec<u8>,
    /// Whether the receiver reads what it is sent.
    reads: bool,
}

/// A frame of the first request's stream, or of none.
fn frame(kind: u8, flags: u8, of_stream: bool, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let stream = [0, 0, 0, u8::from(of_stream)];
    [&[0, 0, length, kind, flags][..], &stream, payload].concat()
}

const END_HEADERS: u8 = 4;
/// `:status: 200`, from HPACK's table.
const OK: [u8; 1] = [0x88];
/// `:status: 103`, written out.
const EARLY_HINTS: [u8; 5] = [0x08, 3, b'1', b'0', b'3'];

fn floods() -> Vec<Flood> {
    let of = |name, first: Vec<u8>, again: Vec<u8>| Flood {
        name,
        first,
        again,
        reads: true,
    };
    let mut floods = vec![
        of("ping", Vec::new(), frame(6, 0, false, &[7; 8])),
        of("settings", Vec::new(), frame(4, 0, false, &[])),
        // The size of HPACK's table, by turns.
        of(
            "changing settings",
            Vec::new(),
            [
                frame(4, 0, false, &[0, 1, 0, 0, 0, 0]),
                frame(4, 0, false, &[0, 1, 0, 0, 0x10, 0]),
            ]
            .concat(),
        ),
        of("empty continuations", frame(1, 0, true, &OK), frame(9, 0, true, &[])),
        of(
            "continuations",
            frame(1, 0, true, &OK),
            frame(9, 0, true, &[0, 1, b'x', 1, b'y']),
        ),
        of(
            "informational answers",
            Vec::new(),
            frame(1, END_HEADERS, true, &EARLY_HINTS),
        ),
        of("empty data", frame(1, END_HEADERS, true, &OK), frame(0, 0, true, &[])),
        of(
            "padding alone",
            frame(1, END_HEADERS, true, &OK),
            frame(0, 8, true, &[3, 0, 0, 0]),
        ),
        of("priorities", Vec::new(), frame(2, 0, true, &[0, 0, 0, 0, 9])),
        of("what nobody knows", Vec::new(), frame(0xbb, 0, false, &[0; 200])),
    ];
    let deaf: Vec<_> = floods[..3]
        .iter()
        .cloned()
        .map(|flood| Flood { reads: false, ..flood })
        .collect();
    floods.extend(deaf);
    floods
}

/// Reads up to the first request, and acknowledges settings.
async fn read_request(session: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<()> {
    session.read_exact(&mut [0; 24]).await?;
    session.write_all(&frame(4, 0, false, &[])).await?;
    loop {
        let mut head = [0; 9];
        session.read_exact(&mut head).await?;
        let [_, high, low, kind, flags, ..] = head;
        let mut payload = vec![0; u16::from_be_bytes([high, low]).into()];
        session.read_exact(&mut payload).await?;
        match (kind, flags) {
            (1, _) => return Ok(()),
            (4, 0) => session.write_all(&frame(4, 1, false, &[])).await?,
            _ => {}
        }
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, flood: Arc<Flood>) -> std::io::Result<()> {
    let mut session = acceptor.accept(stream).await?;
    read_request(&mut session).await?;
    session.write_all(&flood.first).await?;
    let piece = flood.again.repeat(64 * 1024 / flood.again.len());
    let (mut reader, mut writer) = tokio::io::split(session);
    let _reading = flood.reads.then(|| {
        AbortOnDropHandle::new(tokio::spawn(async move {
            let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
        }))
    });
    loop {
        writer.write_all(&piece).await?;
    }
}

async fn send(client: &Client, port: u16) -> Result<Response, Error> {
    let url = format!("https://127.0.0.1:{port}/");
    let target = client.guard().check(&url).unwrap();
    exchange(client, &target, DEADLINE).await.outcome
}

/// How many bytes of memory this process has.
fn memory() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn what_is_no_answer_ends_with_the_deadline_and_is_not_kept() {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(server(authority.issue(&for_loopback()))));
    let before = memory();
    let begun = Instant::now();
    let flooded = floods().into_iter().map(async |flood| {
        let name = flood.name;
        let (flood, acceptor) = (Arc::new(flood), acceptor.clone());
        let receiver = Receiver::start(move |stream| {
            let (acceptor, flood) = (acceptor.clone(), flood.clone());
            async move { drop(serve(stream, acceptor, flood).await) }
        })
        .await;
        (name, send(&authority.client(), receiver.port).await.unwrap_err())
    });
    let mut flooded = std::pin::pin!(futures::future::join_all(flooded));
    let (mut ticks, mut most) = (tokio::time::interval(Duration::from_millis(20)), before);
    let flooded = loop {
        tokio::select! {
            flooded = &mut flooded => break flooded,
            _ = ticks.tick() => most = most.max(memory()),
        }
    };
    assert!(begun.elapsed() < DEADLINE + GRACE, "{:?}", begun.elapsed());
    for (name, error) in flooded {
        let expected = match name {
            // Too much of these ends the connection, or the answer.
            "empty continuations" | "continuations" => ErrorClass::Connect,
            "empty data" | "padding alone" => ErrorClass::Body,
            _ => ErrorClass::Timeout,
        };
        assert_eq!(error.class, expected, "{name}: {error:?}");
    }
    assert!(most - before < GROWTH_MAX, "{} bytes more", most - before);
}
