//! The server, spoken to over sockets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::routing::{get, post};
use axum::{Extension, Router};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

mod http2;

/// Longer than anything here takes, shorter than anybody waits for a test.
const DEADLINE: Duration = Duration::from_secs(20);

struct Server {
    addr: SocketAddr,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

async fn start(app: Router, limits: Limits) -> Server {
    start_behind("", app, limits).await
}

async fn start_behind(proxies: &str, app: Router, limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (app, proxies) = (crate::http::complete(app), Proxies(proxies.parse().unwrap()));
    let ended = tokio::spawn(serve(listener, app, limits, proxies, stop.clone()));
    Server { addr, stop, ended }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// A connection whose buffer here has room again with each read, so that the system finds nothing wrong with it.
    async fn connect_with_small_buffer(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(self.addr).await.unwrap()
    }

    /// Sends a whole request on a connection of its own and reads until the server closes.
    async fn say(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        to_end(&mut stream).await
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(DEADLINE, self.ended).await.unwrap().unwrap();
    }
}

async fn to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut bytes))
        .await
        .expect("the server closes the connection");
    String::from_utf8(bytes).unwrap()
}

/// Reads one answer whose body is `ok`.
async fn ok(stream: &mut TcpStream) {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\nok") {
        let mut buffer = [0; 1024];
        let read = timeout(DEADLINE, stream.read(&mut buffer))
            .await
            .expect("an answer")
            .unwrap();
        assert_ne!(read, 0, "closed after {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..read]);
    }
}

fn quick() -> Limits {
    Limits {
        head: Duration::from_millis(200),
        idle: Duration::from_millis(600),
        unread: Duration::from_millis(300),
        ..Limits::default()
    }
}

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const GET_AND_CLOSE: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

fn hello() -> Router {
    Router::new().route("/", get(async || "ok"))
}

#[test]
fn what_it_puts_up_with_unless_told_otherwise() {
    let seconds = Duration::from_secs;
    let expected = Limits {
        max_connections: 10_000,
        max_connections_per_address: 1_000,
        max_body_memory: 256 << 20,
        head: seconds(10),
        idle: seconds(75),
        unread: seconds(30),
        ping: seconds(20),
        pong: seconds(10),
        finish: seconds(10),
    };
    assert_eq!(Limits::default(), expected);
}

#[tokio::test]
async fn an_answer_carries_the_requests_id() {
    let server = start(hello(), Limits::default()).await;
    let answer = server.say(GET_AND_CLOSE).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-request-id: req_"), "{answer}");
    let given = GET_AND_CLOSE.replace("host", "x-request-id: mine\r\nhost");
    assert!(server.say(&given).await.contains("\r\nx-request-id: mine\r\n"));

    let answer = server.say(&given.replace("GET / ", "GET /nowhere ")).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(
        answer.contains(r#""instance":"urn:posthaste:request:mine""#),
        "{answer}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_long_or_has_too_many_lines_is_refused() {
    let server = start(hello(), Limits::default()).await;
    let with = |lines: &str| GET_AND_CLOSE.replace("host", &format!("{lines}host"));
    // Two lines are there already.
    for (lines, expected) in [
        ("x: y\r\n".repeat(62), "200 OK"),
        ("x: y\r\n".repeat(63), "431 "),
        (format!("x: {}\r\n", "y".repeat(60 * 1024)), "200 OK"),
        (format!("x: {}\r\n", "y".repeat(65 * 1024)), "431 "),
    ] {
        let answer = server.say(&with(&lines)).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected}")),
            "{} bytes: {answer}",
            lines.len()
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn where_a_request_comes_from_is_said_by_its_connection_or_by_a_proxy_that_is_known() {
    let app = || Router::new().route("/", get(async |Extension(Peer(address))| address.to_string()));
    let forged = GET_AND_CLOSE.replace("host", "x-forwarded-for: 192.0.2.7\r\nforwarded: for=192.0.2.7\r\nhost");
    for (proxies, expected) in [
        ("", "127.0.0.1"),
        ("192.0.2.0/24", "127.0.0.1"),
        ("127.0.0.1", "192.0.2.7"),
    ] {
        let server = start_behind(proxies, app(), Limits::default()).await;
        let answer = server.say(&forged).await;
        assert!(
            answer.ends_with(&format!("\r\n\r\n{expected}")),
            "{proxies:?}: {answer}"
        );
        server.stop().await;
    }
}

#[tokio::test]
async fn a_panic_is_a_500_with_the_requests_id_and_nothing_else() {
    async fn broken() -> &'static str {
        panic!("the canary is {}", 42)
    }
    let server = start(hello().route("/broken", get(broken)), Limits::default()).await;
    let answer = server.say(&GET_AND_CLOSE.replace("GET / ", "GET /broken ")).await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("content-type: application/problem+json"), "{answer}");
    assert!(answer.contains("urn:posthaste:request:req_"), "{answer}");
    assert!(!answer.contains("canary"), "{answer}");
    assert!(
        server.say(GET_AND_CLOSE).await.starts_with("HTTP/1.1 200 "),
        "the server goes on"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut_off() {
    let server = start(hello(), quick()).await;
    for beginning in ["", "P", "PRI * HT", "GET / HTTP/1.1\r\nhost: x\r\n"] {
        let begun = Instant::now();
        let mut stream = server.connect().await;
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let rest = tokio::spawn(async move {
            let (mut read, mut write) = stream.into_split();
            let trickle = tokio::spawn(async move {
                let mut ticks = tokio::time::interval(Duration::from_millis(50));
                loop {
                    ticks.tick().await;
                    if beginning.len() > 8 && write.write_all(b"x: y\r\n").await.is_err() {
                        return;
                    }
                }
            });
            let mut bytes = Vec::new();
            let _ = timeout(DEADLINE, read.read_to_end(&mut bytes))
                .await
                .expect("the server closes the connection");
            trickle.abort();
            bytes
        });
        assert_eq!(rest.await.unwrap(), b"", "{beginning:?}");
        let took = begun.elapsed();
        assert!(took >= quick().head, "{beginning:?}");
        assert!(
            took < quick().idle,
            "{beginning:?}: by the limit of heads, not of idleness"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_second_head_may_not_trickle_either() {
    let server = start(hello(), quick()).await;
    let mut stream = server.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    ok(&mut stream).await;
    let begun = Instant::now();
    stream.write_all(b"GET / HT").await.unwrap();
    assert_eq!(to_end(&mut stream).await, "");
    assert!(
        begun.elapsed() < Duration::from_millis(550),
        "by the limit of heads, not of idleness"
    );
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_longer_than_a_head_may_take_but_not_for_ever() {
    let server = start(hello(), quick()).await;
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(GET.as_bytes()).await.unwrap();
        ok(&mut stream).await;
        let early = timeout(Duration::from_millis(400), stream.read_u8()).await;
        assert!(early.is_err(), "closed within the time it may be idle");
    }
    assert_eq!(to_end(&mut stream).await, "");
    server.stop().await;
}

#[tokio::test]
async fn a_handler_and_a_long_answer_may_take_longer_than_a_head() {
    let chunks = || {
        let chunks = futures::stream::unfold(0, |n| async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            (n < 4).then(|| (Ok::<_, Infallible>("chunk"), n + 1))
        });
        Body::from_stream(chunks)
    };
    let slow = async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        "slow but sure"
    };
    let app = Router::new()
        .route("/slow", get(slow))
        .route("/long", get(async move || chunks()));
    let server = start(app, quick()).await;
    let slow = GET_AND_CLOSE.replace("GET / ", "GET /slow ");
    let long = GET_AND_CLOSE.replace("GET / ", "GET /long ");
    let (slow, long) = tokio::join!(server.say(&slow), server.say(&long));
    assert!(slow.ends_with("slow but sure"), "{slow}");
    assert_eq!(long.matches("chunk\r\n").count(), 4, "{long}");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let (given_up, is_given_up) = tokio::sync::oneshot::channel::<()>();
    let given_up = Arc::new(std::sync::Mutex::new(Some(given_up)));
    let endless = async move || {
        let given_up = given_up.lock().unwrap().take();
        // Whatever it owns goes when the server drops the answer.
        Body::from_stream(futures::stream::unfold(given_up, |given_up| async move {
            Some((Ok::<_, Infallible>(vec![b'x'; 64 * 1024]), given_up))
        }))
    };
    let limits = Limits {
        unread: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = start(Router::new().route("/", get(endless)), limits).await;
    let mut stream = server.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    assert!(timeout(DEADLINE, is_given_up).await.unwrap().is_err());
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_a_little_now_and_then_is_cut_off() {
    let (given_up, is_given_up) = tokio::sync::oneshot::channel::<()>();
    let given_up = Arc::new(std::sync::Mutex::new(Some(given_up)));
    let written = Arc::new(AtomicUsize::new(0));
    let endless = {
        let written = Arc::clone(&written);
        async move || {
            let given_up = given_up.lock().unwrap().take();
            Body::from_stream(futures::stream::unfold((given_up, written), |state| async move {
                state.1.fetch_add(64, Ordering::Relaxed);
                Some((Ok::<_, Infallible>(vec![b'x'; 64 * 1024]), state))
            }))
        }
    };
    let limits = Limits {
        unread: Duration::from_millis(500),
        finish: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = start(Router::new().route("/", get(endless)), limits).await;
    let mut stream = server.connect_with_small_buffer().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    let reading = read_every(&mut stream, Duration::from_millis(100), 2048);
    let cut_off = async {
        tokio::select! { _ = reading => {}, gone = is_given_up => assert!(gone.is_err()) }
    };
    timeout(DEADLINE, cut_off).await.expect("the answer is given up");
    let written = written.load(Ordering::Relaxed);
    assert!(written < 1024, "{written} KiB lie in the system's buffers");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_is_slow_gets_all_of_a_long_answer() {
    const LONG: usize = 4 * 1024 * 1024;
    let limits = Limits {
        unread: Duration::from_millis(500),
        finish: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = start(Router::new().route("/", get(async || vec![b'x'; LONG])), limits).await;
    let mut stream = server.connect_with_small_buffer().await;
    stream.write_all(GET_AND_CLOSE.as_bytes()).await.unwrap();
    let begun = Instant::now();
    let reading = read_every(&mut stream, Duration::from_millis(10), 16 * 1024);
    let read = timeout(DEADLINE, reading).await.expect("the end of the answer");
    assert!(read > LONG, "{read} bytes of {LONG}");
    assert!(begun.elapsed() > Duration::from_secs(2), "it was not slow");
    server.stop().await;
}

/// Reads so much each time, to the end; all that was read.
async fn read_every(stream: &mut TcpStream, pause: Duration, bytes: usize) -> usize {
    let (mut ticks, mut read, mut buffer) = (tokio::time::interval(pause), 0, vec![0; bytes]);
    loop {
        ticks.tick().await;
        let mut wanted = buffer.as_mut_slice();
        while !wanted.is_empty() {
            match stream.read(wanted).await {
                Ok(more @ 1..) => {
                    read += more;
                    wanted = &mut wanted[more..];
                }
                Ok(0) | Err(_) => return read,
            }
        }
    }
}

#[tokio::test]
async fn an_http_2_client_is_served() {
    let server = start(hello(), quick()).await;
    let stream = TokioIo::new(server.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..2 {
        let request = Request::get(format!("http://{}/", server.addr))
            .body(Body::empty())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        // Longer than an HTTP/1.1 connection may be idle here.
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    drop(sender);
    let _ = connection.await;
    server.stop().await;
}

#[tokio::test]
async fn connections_over_the_cap_wait_their_turn() {
    let server = start(
        hello(),
        Limits {
            max_connections: 1,
            ..Limits::default()
        },
    )
    .await;
    let mut first = server.connect().await;
    first.write_all(GET.as_bytes()).await.unwrap();
    ok(&mut first).await;

    let mut second = server.connect().await;
    second.write_all(GET.as_bytes()).await.unwrap();
    let early = timeout(Duration::from_millis(200), second.read_u8()).await;
    assert!(early.is_err(), "answered beyond the cap");
    drop(first);
    ok(&mut second).await;
    drop(second);
    server.stop().await;
}

#[tokio::test]
async fn connections_over_the_cap_of_an_address_are_closed() {
    let limits = Limits {
        max_connections_per_address: 2,
        ..Limits::default()
    };
    let server = start(hello(), limits).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    for stream in [&mut first, &mut second] {
        stream.write_all(GET.as_bytes()).await.unwrap();
        ok(stream).await;
    }
    assert_eq!(to_end(&mut server.connect().await).await, "", "answered beyond the cap");
    drop(first);
    let again = async { while !server.say(GET_AND_CLOSE).await.ends_with("ok") {} };
    timeout(DEADLINE, again).await.expect("there is room again");
    drop(second);
    server.stop().await;
}

#[tokio::test]
async fn bodies_take_so_much_memory_together_and_no_more() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
        async move |crate::http::Body(body): crate::http::Body| {
            // What was made of it is as large.
            let length = body.len();
            drop(body);
            begun.notify_one();
            go_on.notified().await;
            length.to_string()
        }
    };
    let limits = Limits {
        max_body_memory: 1000,
        ..Limits::default()
    };
    let server = start(Router::new().route("/", post(handler)), limits).await;
    let post =
        |length: usize| format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    let whole = |length: usize| post(length) + &"x".repeat(length);
    // What is only announced takes nothing.
    let mut announced = server.connect().await;
    announced.write_all(post(900).as_bytes()).await.unwrap();

    let mut first = server.connect().await;
    first.write_all(whole(600).as_bytes()).await.unwrap();
    timeout(DEADLINE, begun.notified()).await.expect("it is taken");
    let refused = server.say(&whole(600)).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("\r\nretry-after: 2\r\n"), "{refused}");
    go_on.notify_one();
    assert!(to_end(&mut first).await.ends_with("\r\n\r\n600"));

    // It is given back: by who was answered, and by who was refused.
    let mut second = server.connect().await;
    second.write_all(whole(1000).as_bytes()).await.unwrap();
    timeout(DEADLINE, begun.notified()).await.expect("it is taken");
    go_on.notify_one();
    assert!(to_end(&mut second).await.ends_with("\r\n\r\n1000"));
    drop(announced);
    server.stop().await;
}

#[tokio::test]
async fn told_to_stop_it_answers_what_is_in_progress_and_takes_nothing_new() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
        async move || {
            begun.notify_one();
            go_on.notified().await;
            "ok"
        }
    };
    let server = start(Router::new().route("/", post(handler)), Limits::default()).await;
    let mut idle = server.connect().await;
    let mut stream = server.connect().await;
    stream.write_all(GET.replace("GET", "POST").as_bytes()).await.unwrap();
    begun.notified().await;

    server.stop.cancel();
    assert_eq!(to_end(&mut idle).await, "", "an idle connection is closed");
    assert!(!server.ended.is_finished());
    // The listener closes a moment after the token is cancelled.
    let refused = async {
        while TcpStream::connect(server.addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, refused).await.expect("new connections are refused");
    go_on.notify_one();
    let answer = to_end(&mut stream).await;
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_off() {
    let begun = Arc::new(Notify::new());
    let handler = {
        let begun = Arc::clone(&begun);
        async move || {
            begun.notify_one();
            std::future::pending::<&'static str>().await
        }
    };
    let server = start(
        Router::new().route("/", get(handler)),
        Limits {
            finish: Duration::from_millis(100),
            ..Limits::default()
        },
    )
    .await;
    let mut stream = server.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    begun.notified().await;
    server.stop().await;
    assert_eq!(to_end(&mut stream).await, "");
}

#[tokio::test]
async fn requests_are_counted_by_method_and_status() {
    metrics::install("test").unwrap();
    let server = start(hello(), Limits::default()).await;
    server.say(&GET_AND_CLOSE.replace("GET", "BREW")).await;
    server.stop().await;
    let text = metrics::text().unwrap();
    let counted =
        r#"http_server_request_duration_seconds_count{http_request_method="_OTHER",http_response_status_code="405""#;
    assert!(text.contains(counted), "{text}");
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_body_says_that_the_connection_ends() {
    let app = Router::new().route("/", post(async |_: crate::http::Body| "ok"));
    let server = start(app.layer(axum::extract::DefaultBodyLimit::max(8)), Limits::default()).await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n";
    let answer = server.say(&format!("{head}{}", "x".repeat(100_000))).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");

    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream
            .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi")
            .await
            .unwrap();
        ok(&mut stream).await;
    }
    server.stop().await;
}
