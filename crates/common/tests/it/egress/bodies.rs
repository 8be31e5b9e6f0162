//! Receivers that answer too slowly, too much, half or not at all: whatever they do, a request is over with its deadline,
//! keeps no more than its caps, and leaves no connection behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::egress::{BODY_KEPT_MAX, Client, Error, Response};
use proto_schemas::ledger::ErrorClass;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::exchange;
use super::receiver::{Receiver, development, read_head, read_to_the_end};

const DEADLINE: Duration = Duration::from_millis(500);
/// How long after its deadline a request may still be there.
const GRACE: Duration = Duration::from_secs(1);
/// What the sockets on both sides may hold of what nobody reads, and some more; an unbounded reader gets past it at once.
const UNREAD_MAX: usize = 24 * 1024 * 1024;

/// What came of a request to a receiver that does this with its connection.
async fn outcome_of<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> Result<Response, Error> {
    let receiver = Receiver::start(serve).await;
    let client = Client::new(&development()).unwrap();
    let outcome = outcome_at(&client, receiver.port).await;
    assert_eq!(receiver.connections(), 1);
    timeout(GRACE, receiver.is_left())
        .await
        .expect("the connection is closed with its request");
    outcome
}

async fn outcome_at(client: &Client, port: u16) -> Result<Response, Error> {
    let begun = Instant::now();
    let outcome = outcome_within(client, port, DEADLINE).await;
    assert!(begun.elapsed() < DEADLINE + GRACE, "{:?}: {outcome:?}", begun.elapsed());
    if let Ok(response) = &outcome {
        assert!(response.body.len() <= BODY_KEPT_MAX);
    }
    outcome
}

async fn outcome_within(client: &Client, port: u16, deadline: Duration) -> Result<Response, Error> {
    let target = client.guard().check(&format!("http://127.0.0.1:{port}/")).unwrap();
    exchange(client, &target, deadline).await.outcome
}

/// A receiver that says `first` and then `again` and again, as fast as it is read.
async fn outcome_of_endless(first: &'static str, again: String) -> Result<Response, Error> {
    let written = Arc::new(AtomicUsize::new(0));
    let counted = written.clone();
    let again: Arc<str> = again.into();
    let outcome = outcome_of(move |mut stream| {
        let (counted, again) = (counted.clone(), again.clone());
        async move {
            read_head(&mut stream).await;
            if stream.write_all(first.as_bytes()).await.is_ok() {
                while let Ok(length) = stream.write(again.as_bytes()).await {
                    counted.fetch_add(length, Ordering::Relaxed);
                }
            }
        }
    })
    .await;
    let written = written.load(Ordering::Relaxed);
    assert!(written < UNREAD_MAX, "{written} bytes were taken");
    outcome
}

/// A receiver that says `first`, and then `again` every now and then.
async fn outcome_of_dripping(first: &'static str, again: &'static str) -> Result<Response, Error> {
    outcome_of(move |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(first.as_bytes()).await;
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        while stream.write_all(again.as_bytes()).await.is_ok() {
            pace.tick().await;
        }
    })
    .await
}

/// A receiver that says this and then nothing more.
async fn outcome_of_stopping(says: &'static str) -> Result<Response, Error> {
    outcome_of(move |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(says.as_bytes()).await;
        read_to_the_end(&mut stream).await;
    })
    .await
}

/// A receiver that says this and then resets the connection.
async fn outcome_of_resetting(says: &'static str) -> Result<Response, Error> {
    outcome_of(move |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(says.as_bytes()).await;
        // Closed with nothing left to send, so that what was said arrives before the reset does.
        stream.set_zero_linger().unwrap();
    })
    .await
}

fn class_and_status(outcome: Result<Response, Error>) -> (ErrorClass, Option<u16>) {
    let error = outcome.unwrap_err();
    (error.class, error.status.map(|status| status.as_u16()))
}

#[tokio::test]
async fn what_drips_is_cut_off_at_the_deadline_wherever_it_does() {
    for (first, again, status) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", "x", Some(200)),
        ("HTTP/1.1 200 OK\r\n\r\n", "x", Some(200)),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "1\r\nx\r\n",
            Some(200),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
            "x: y\r\n",
            Some(200),
        ),
        ("HTTP/1.1 200 OK\r\n", "x: y\r\n", None),
        ("HTTP/1.1 200 OK\r\nx: ", "y", None),
        ("HTTP/1.1 200 ", "O", None),
        ("", "HTTP/1.1 103 Early Hints\r\n\r\n", None),
    ] {
        assert_eq!(
            class_and_status(outcome_of_dripping(first, again).await),
            (ErrorClass::Timeout, status),
            "{first}{again}…"
        );
    }
}

#[tokio::test]
async fn who_refuses_has_refused_whether_or_not_the_rest_comes() {
    const BUSY: &str = "HTTP/1.1 429 Busy\r\nretry-after: 7\r\ncontent-length: 100000\r\n\r\nlater";
    for outcome in [
        outcome_of_stopping(BUSY).await,
        outcome_of_dripping(BUSY, "x").await,
        outcome_of_stopping("HTTP/1.1 500 No\r\nretry-after: 7\r\ntransfer-encoding: chunked\r\n\r\n5\r\nlater\r\n")
            .await,
    ] {
        let response = outcome.unwrap();
        assert!(response.status == 429 || response.status == 500);
        assert_eq!(response.headers["retry-after"], "7");
        assert!(
            response.body.starts_with(b"later") && response.truncated,
            "{response:?}"
        );
    }
}

#[tokio::test]
async fn who_drips_the_head_and_then_the_body_has_one_deadline_for_both() {
    const DEADLINE: Duration = Duration::from_secs(2);
    const PACE: Duration = Duration::from_millis(50);
    let receiver = Receiver::start(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        let mut pace = tokio::time::interval(PACE);
        // Nine tenths of the time for the head.
        for _ in 0..36 {
            pace.tick().await;
            let _ = stream.write_all(b"x: y\r\n").await;
        }
        let _ = stream.write_all(b"content-length: 100000\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            pace.tick().await;
        }
    })
    .await;
    let begun = Instant::now();
    let outcome = outcome_within(&Client::new(&development()).unwrap(), receiver.port, DEADLINE).await;
    let took = begun.elapsed();
    assert_eq!(class_and_status(outcome), (ErrorClass::Timeout, Some(200)));
    // A deadline of the body's own would end at nearly twice that.
    assert!(took < DEADLINE + GRACE, "{took:?}");
}

#[tokio::test]
async fn who_switches_protocols_unasked_has_answered_and_is_left() {
    // Whatever is spoken then, nobody here speaks it.
    let response = outcome_of_endless(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n",
        "x".repeat(64 * 1024),
    )
    .await
    .unwrap();
    assert_eq!(
        (response.status.as_u16(), response.body.len(), response.truncated),
        (101, 0, false)
    );
}

#[tokio::test]
async fn who_stops_answering_is_waited_for_until_the_deadline() {
    for (says, status) in [
        ("", None),
        ("HTTP/1.1 200 OK\r\nx:", None),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", Some(200)),
        // Huge, and nothing behind it.
        ("HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n", Some(200)),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9223372036854775807\r\n\r\n",
            Some(200),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7fffffffffffffff\r\n",
            Some(200),
        ),
    ] {
        assert_eq!(
            class_and_status(outcome_of_stopping(says).await),
            (ErrorClass::Timeout, status),
            "{says}"
        );
    }
}

#[tokio::test]
async fn a_length_that_is_no_number_is_no_http() {
    for length in [
        "18446744073709551616",
        "99999999999999999999999",
        "-1",
        "0x10",
        "1, 2",
        "",
    ] {
        let outcome = outcome_of(move |mut stream| async move {
            read_head(&mut stream).await;
            let says = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            let _ = stream.write_all(says.as_bytes()).await;
            read_to_the_end(&mut stream).await;
        })
        .await;
        assert_eq!(class_and_status(outcome), (ErrorClass::Body, None), "{length}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_left_as_soon_as_it_is_too_long() {
    let begun = Instant::now();
    for first in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9223372036854775807\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7fffffffffffffff\r\n",
    ] {
        let response = outcome_of_endless(first, "x".repeat(64 * 1024)).await.unwrap();
        assert_eq!((response.body.len(), response.truncated), (BODY_KEPT_MAX, true));
    }
    for (first, again) in [
        // Headers, one header, the status line.
        ("HTTP/1.1 200 OK\r\n", "x-a: y\r\n".repeat(8000)),
        ("HTTP/1.1 200 OK\r\nx-a: ", "y".repeat(64 * 1024)),
        ("HTTP/1.1 200 ", "OK".repeat(32 * 1024)),
    ] {
        assert_eq!(
            class_and_status(outcome_of_endless(first, again).await),
            (ErrorClass::Body, None),
            "{first}"
        );
    }
    for (first, again) in [
        // What is around the chunks of a body rather than in it.
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;",
            "x".repeat(64 * 1024),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ",
            "y".repeat(64 * 1024),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
            "x: y\r\n".repeat(8000),
        ),
    ] {
        assert_eq!(
            class_and_status(outcome_of_endless(first, again).await),
            (ErrorClass::Body, Some(200)),
            "{first}"
        );
    }
    assert!(begun.elapsed() < DEADLINE * 9, "none of them waits for its deadline");
}

#[tokio::test]
async fn one_who_only_says_that_an_answer_will_come_is_left_at_the_deadline() {
    // Small pieces, and no bound on how much is taken: it is read, and thrown away.
    let outcome = outcome_of(|mut stream| async move {
        read_head(&mut stream).await;
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(100);
        while stream.write_all(hints.as_bytes()).await.is_ok() {}
    })
    .await;
    assert_eq!(class_and_status(outcome), (ErrorClass::Timeout, None));
}

#[tokio::test]
async fn a_reset_is_told_whenever_it_comes() {
    let at_once = outcome_of(|stream| async move { stream.set_zero_linger().unwrap() }).await;
    assert_eq!(class_and_status(at_once), (ErrorClass::Connect, None));
    for (says, expected) in [
        ("", (ErrorClass::Connect, None)),
        ("HTTP/1.1 20", (ErrorClass::Connect, None)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n", (ErrorClass::Connect, None)),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
            (ErrorClass::Body, Some(200)),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
            (ErrorClass::Body, Some(200)),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
            (ErrorClass::Body, Some(200)),
        ),
    ] {
        assert_eq!(class_and_status(outcome_of_resetting(says).await), expected, "{says}");
    }
}

#[tokio::test]
async fn who_does_not_accept_a_connection_is_waited_for_until_the_deadline() {
    let client = Client::new(&development()).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let listener = socket.listen(1).unwrap();
    // The system accepts as many as wait for the program to do so, and those hear nothing.
    assert_eq!(
        class_and_status(outcome_at(&client, address.port()).await),
        (ErrorClass::Timeout, None)
    );
    // Beyond that it does not answer a connection's first packet.
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        waiting.push(stream);
        assert!(waiting.len() < 64, "the system accepts without end");
    }
    assert_eq!(
        class_and_status(outcome_at(&client, address.port()).await),
        (ErrorClass::Timeout, None)
    );
    drop(listener);
}

#[tokio::test]
async fn a_hundred_bad_receivers_at_once_hold_nobody_up() {
    let slow = Receiver::start(|mut stream| async move { read_to_the_end(&mut stream).await }).await;
    let client = Client::new(&development()).unwrap();
    let begun = Instant::now();
    let port = slow.port;
    let requests = (0..100).map(|_| outcome_at(&client, port));
    for outcome in futures::future::join_all(requests).await {
        assert_eq!(class_and_status(outcome), (ErrorClass::Timeout, None));
    }
    assert!(begun.elapsed() < DEADLINE + GRACE, "{:?}", begun.elapsed());
    timeout(GRACE, slow.is_left())
        .await
        .expect("every connection is closed");
}
