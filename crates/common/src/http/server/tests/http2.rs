//! What a server puts up with from a client that speaks HTTP/2 as it likes, written frame by frame (RFC 9113).

use super::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
/// `END_STREAM` and `END_HEADERS`.
const WHOLE: u8 = 5;

/// `SETTINGS_INITIAL_WINDOW_SIZE`
const INITIAL_WINDOW: u16 = 4;

/// `GET http://x/`, in HPACK (RFC 7541).
const GET_HEAD: [u8; 6] = [0x82, 0x86, 0x84, 0x01, 0x01, b'x'];

struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

/// A client that does what it is told and nothing of itself.
struct Raw(TcpStream);

impl Raw {
    async fn connect(server: &Server, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self(server.connect().await);
        raw.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        raw.send(&frame(SETTINGS, 0, 0, &settings_of(settings))).await;
        raw
    }

    async fn send(&mut self, frames: &[u8]) {
        // The server may be gone; what it said tells the test.
        let _ = self.0.write_all(frames).await;
    }

    /// The next frame; `None` at the end of the connection.
    async fn next(&mut self) -> Option<Frame> {
        let reading = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            Some(Frame {
                kind: head[3],
                flags: head[4],
                payload,
            })
        };
        timeout(DEADLINE, reading).await.expect("a frame, or the end")
    }

    /// Every frame up to the end of the connection, each of the server's pings answered.
    async fn live_on(mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        let living = async {
            while let Some(next) = self.next().await {
                if next.kind == PING && next.flags & ACK == 0 {
                    self.send(&frame(PING, ACK, 0, &next.payload)).await;
                }
                frames.push(next);
            }
        };
        timeout(DEADLINE, living).await.expect("the server ends the connection");
        frames
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn get_on(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &GET_HEAD)
}

fn settings_of(settings: &[(u16, u32)]) -> Vec<u8> {
    settings
        .iter()
        .flat_map(|(name, value)| [name.to_be_bytes().as_slice(), &value.to_be_bytes()].concat())
        .collect()
}

fn count(frames: &[Frame], kind: u8) -> usize {
    frames.iter().filter(|frame| frame.kind == kind).count()
}

/// What a GOAWAY is said for.
fn reason(frame: &Frame) -> u32 {
    u32::from_be_bytes(frame.payload[4..8].try_into().unwrap())
}

fn impatient() -> Limits {
    Limits {
        ping: Duration::from_millis(50),
        unread: Duration::from_millis(300),
        finish: Duration::from_millis(200),
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_client_is_told_what_it_may_do() {
    let server = start(hello(), Limits::default()).await;
    let mut client = Raw::connect(&server, &[]).await;
    let first = client.next().await.unwrap();
    assert_eq!(first.kind, SETTINGS);
    let says = |name: u16, value: u32| {
        let setting = settings_of(&[(name, value)]);
        assert!(
            first.payload.chunks(6).any(|said| said == setting),
            "{name}: {:?}",
            first.payload
        );
    };
    // Streams at once, a window, the length of a head.
    says(3, 128);
    says(INITIAL_WINDOW, 256 * 1024);
    says(6, 64 * 1024);
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_requests_that_are_taken_back_ends_the_connection() {
    let server = start(hello(), Limits::default()).await;
    let mut client = Raw::connect(&server, &[]).await;
    let flood = |stream| [get_on(stream), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat();
    let flood: Vec<u8> = (0..100).flat_map(|n| flood(2 * n + 1)).collect();
    client.send(&flood).await;
    let frames = client.live_on().await;
    let last = frames.iter().rfind(|frame| frame.kind == GOAWAY).expect("a GOAWAY");
    assert_eq!(reason(last), 11, "ENHANCE_YOUR_CALM");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_gone() {
    let limits = Limits {
        pong: Duration::from_millis(100),
        ..impatient()
    };
    let server = start(hello(), limits).await;
    let begun = Instant::now();
    let mut client = Raw::connect(&server, &[]).await;
    let mut pings = 0;
    while let Some(next) = client.next().await {
        pings += usize::from(next.kind == PING);
    }
    assert_eq!(pings, 1);
    assert!(begun.elapsed() >= Duration::from_millis(150));
    server.stop().await;
}

#[tokio::test]
async fn a_connection_without_requests_is_ended_even_if_it_answers_pings() {
    let limits = Limits {
        idle: Duration::from_millis(400),
        ..impatient()
    };
    let server = start(hello(), limits).await;
    let begun = Instant::now();
    let mut client = Raw::connect(&server, &[]).await;
    client.send(&get_on(1)).await;
    let frames = client.live_on().await;
    assert_eq!(
        (count(&frames, HEADERS), count(&frames, DATA)),
        (1, 1),
        "it was answered"
    );
    assert!(count(&frames, PING) > 4, "{} pings", count(&frames, PING));
    assert!(begun.elapsed() >= Duration::from_millis(400));
    let last = frames.iter().rfind(|frame| frame.kind == GOAWAY).expect("a GOAWAY");
    assert_eq!(reason(last), 0, "there is no fault in it");
    server.stop().await;
}

#[tokio::test]
async fn a_request_in_progress_keeps_its_connection() {
    let slow = async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        "ok"
    };
    let limits = Limits {
        idle: Duration::from_millis(200),
        ..impatient()
    };
    let server = start(Router::new().route("/", get(slow)), limits).await;
    let mut client = Raw::connect(&server, &[]).await;
    client.send(&get_on(1)).await;
    let frames = client.live_on().await;
    let data = frames.iter().find(|frame| frame.kind == DATA).expect("an answer");
    assert_eq!(data.payload, b"ok");
    server.stop().await;
}

#[tokio::test]
async fn an_answer_that_the_client_does_not_let_out_is_given_up() {
    // Of the short one hyper has nothing left once its first byte is on its way; of the long one it keeps most.
    for (window, length) in [(1, 2), (0, 2), (0, 200_000)] {
        let (held, is_given_up) = tokio::sync::oneshot::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(Some(held)));
        let answer = async move || {
            let held = held.lock().unwrap().take();
            Body::from_stream(futures::stream::iter([Ok::<_, Infallible>(bytes::Bytes::from_owner(
                Owner {
                    bytes: vec![b'x'; length],
                    _held: held,
                },
            ))]))
        };
        let server = start(Router::new().route("/", get(answer)), impatient()).await;
        let mut client = Raw::connect(&server, &[(INITIAL_WINDOW, window)]).await;
        client.send(&get_on(1)).await;
        let frames = client.live_on().await;
        assert_eq!(count(&frames, HEADERS), 1);
        assert!(count(&frames, PING) > 4, "{} pings", count(&frames, PING));
        assert_eq!(
            count(&frames, GOAWAY),
            2,
            "it is told, and those in progress are waited for"
        );
        let gone = timeout(DEADLINE, is_given_up).await.expect("nothing is kept of it");
        assert!(gone.is_err(), "window {window}, {length} bytes");
        server.stop().await;
    }
}

/// Bytes that are known to be gone when what they hold is.
struct Owner {
    bytes: Vec<u8>,
    _held: Option<tokio::sync::oneshot::Sender<()>>,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[tokio::test]
async fn a_long_answer_arrives_whole() {
    let long: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let answer = {
        let long = long.clone();
        async move || long.clone()
    };
    let server = start(Router::new().route("/", get(answer)), Limits::default()).await;
    let stream = TokioIo::new(server.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("http://{}/", server.addr))
        .body(Body::empty())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()["content-length"], "1000000");
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert!(body == long);
    drop(sender);
    let _ = connection.await;

    let mut stream = server.connect().await;
    stream.write_all(GET_AND_CLOSE.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.ends_with(&long));
    server.stop().await;
}
