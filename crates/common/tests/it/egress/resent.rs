//! Requests over HTTP/2 of which their receiver says that it did not touch them are sent again, a few times; no others are,
//! since their receiver may have taken them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::receiver::Receiver;
use super::tls::{Authority, for_loopback, server};
use super::{PLENTY, exchange};

/// What is said to a request, in HTTP/2's numbers of errors.
#[derive(Debug, Clone, Copy)]
enum Says {
    /// The request is over.
    Reset(u8),
    /// So is the connection; none of its requests was looked at.
    Away(u8),
}

const NO_ERROR: u8 = 0;
const INTERNAL_ERROR: u8 = 2;
const REFUSED_STREAM: u8 = 7;
const ENHANCE_YOUR_CALM: u8 = 11;

impl Says {
    /// As a frame, to that stream (RFC 9113 §6.4, §6.8).
    fn frame(self, stream: [u8; 4]) -> Vec<u8> {
        match self {
            Self::Reset(why) => [&[0, 0, 4, 3, 0][..], &stream, &[0, 0, 0, why]].concat(),
            Self::Away(why) => vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, why],
        }
    }
}

/// A stream's answer and its end: `:status: 200`, from HPACK's table.
fn good(stream: [u8; 4]) -> Vec<u8> {
    [&[0, 0, 1, 1, 5][..], &stream, &[0x88]].concat()
}

/// Says these to the first requests, over whichever connections they come, and is well from then on.
async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    says: Arc<[Says]>,
    asked: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let mut session = acceptor.accept(stream).await?;
    let mut preface = [0; 24];
    session.read_exact(&mut preface).await?;
    // Settings, with nothing set.
    session.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
    loop {
        let mut head = [0; 9];
        session.read_exact(&mut head).await?;
        let [_, high, low, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u16::from_be_bytes([high, low]).into()];
        session.read_exact(&mut payload).await?;
        let answer = match (kind, flags) {
            // A request's headers.
            (1, _) => match says.get(asked.fetch_add(1, Ordering::SeqCst)) {
                Some(says) => says.frame(stream),
                None => good(stream),
            },
            // Settings, which are to be acknowledged.
            (4, 0) => vec![0, 0, 0, 4, 1, 0, 0, 0, 0],
            _ => continue,
        };
        session.write_all(&answer).await?;
    }
}

/// Whether a request to such a receiver is answered in the end, and how often it was sent.
async fn sent_to(says: Vec<Says>) -> (bool, usize) {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(server(authority.issue(&for_loopback()))));
    let asked = Arc::new(AtomicUsize::new(0));
    let (says, counted): (Arc<[Says]>, _) = (says.into(), asked.clone());
    let receiver = Receiver::start(move |stream| {
        let (acceptor, says, counted) = (acceptor.clone(), says.clone(), counted.clone());
        async move { drop(serve(stream, acceptor, says, counted).await) }
    })
    .await;
    let client = authority.client();
    let url = format!("https://127.0.0.1:{}/", receiver.port);
    let target = client.guard().check(&url).unwrap();
    let outcome = exchange(&client, &target, PLENTY).await.outcome;
    (outcome.is_ok(), asked.load(Ordering::SeqCst))
}

#[tokio::test]
async fn what_a_receiver_did_not_touch_is_sent_again_twice_at_most() {
    for (says, expected) in [
        (vec![], (true, 1)),
        (vec![Says::Reset(REFUSED_STREAM)], (true, 2)),
        (vec![Says::Away(NO_ERROR)], (true, 2)),
        (vec![Says::Reset(REFUSED_STREAM), Says::Away(NO_ERROR)], (true, 3)),
        (vec![Says::Reset(REFUSED_STREAM); 9], (false, 3)),
        (vec![Says::Away(NO_ERROR); 9], (false, 3)),
    ] {
        assert_eq!(sent_to(says.clone()).await, expected, "{says:?}");
    }
}

#[tokio::test]
async fn what_a_receiver_may_have_touched_is_not_sent_again() {
    for says in [
        Says::Reset(INTERNAL_ERROR),
        Says::Reset(NO_ERROR),
        Says::Away(ENHANCE_YOUR_CALM),
        Says::Away(REFUSED_STREAM),
    ] {
        assert_eq!(sent_to(vec![says]).await, (false, 1), "{says:?}");
    }
}
