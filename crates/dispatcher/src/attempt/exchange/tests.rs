//! Over real sockets: a receiver, and a token endpoint beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::response::IntoResponse as _;
use axum::routing::post;
use common::crypto::{Context, KeyRing};
use proto_schemas::definition::{Authentication, SEALED_CLIENT_SECRET, Webhook};
use proto_schemas::id::{ProjectId, WebhookId};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::*;
use crate::requests::Requests;

/// Long for what is to be at once, and short for who waits for it.
const TIMEOUT: Duration = Duration::from_millis(500);
/// How long after its webhook's timeout an attempt may still be there.
const GRACE: Duration = Duration::from_secs(1);

/// How long an endpoint takes to answer.
#[derive(Clone, Copy)]
enum Answers {
    After(Duration),
    Never,
}

use Answers::{After, Never};

const AT_ONCE: Answers = After(Duration::ZERO);

impl Answers {
    async fn come(self) {
        match self {
            After(time) => tokio::time::sleep(time).await,
            Never => std::future::pending().await,
        }
    }
}

/// A webhook whose receiver wants access tokens.
struct World {
    client: egress::Client,
    ready: Arc<Ready>,
    /// How often a token was asked for, and that one is.
    tokens: Arc<AtomicUsize>,
    asked: Arc<Notify>,
    _server: AbortOnDropHandle<()>,
}

impl World {
    /// Tokens are given out like this, good for an hour; the receiver answers to each number of a token like this.
    async fn start(
        token: Answers,
        receiver: Answers,
        answer: fn(usize) -> (u16, &'static str),
        timeout: Duration,
    ) -> Self {
        let (tokens, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counted, told) = (Arc::clone(&tokens), Arc::clone(&asked));
        let give = move || {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            told.notify_one();
            async move {
                token.come().await;
                format!(r#"{{"access_token":"{number}","token_type":"Bearer","expires_in":3600}}"#)
            }
        };
        let receive = move |headers: HeaderMap| async move {
            receiver.come().await;
            let shown = headers[header::AUTHORIZATION].to_str().unwrap();
            let (status, retry_after) = answer(shown.strip_prefix("Bearer ").unwrap().parse().unwrap());
            let status = StatusCode::from_u16(status).unwrap();
            (status, [(header::RETRY_AFTER, retry_after)]).into_response()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new()
            .route("/token", post(give))
            .route("/in", post(receive));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let config = egress::Config {
            allow_http: true,
            allow_cidrs: "127.0.0.0/8".parse().unwrap(),
            ..egress::Config::default()
        };
        let client = egress::Client::new(&config).unwrap();
        Self {
            ready: ready(&base, timeout, &client),
            client,
            tokens,
            asked,
            _server: AbortOnDropHandle::new(server),
        }
    }

    async fn attempt(&self) -> Made {
        let request = Unsent {
            method: Method::POST,
            target: &self.ready.prepared.target,
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"{}"),
        };
        exchange(&self.client, &self.ready, request, Timestamp::UNIX_EPOCH, false).await
    }
}

fn ready(base: &str, timeout: Duration, client: &egress::Client) -> Arc<Ready> {
    let keys = KeyRing::parse("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
    let (id, project) = (Uuid::from_u128(2), ProjectId::from_uuid(Uuid::from_u128(1)));
    let context = Context {
        project,
        object: id,
        field: SEALED_CLIENT_SECRET,
    };
    let webhook = Webhook {
        url: format!("{base}/in"),
        timeout,
        authentication: Some(Authentication::ClientCredentials {
            token_url: format!("{base}/token"),
            client_id: "c-1".to_owned(),
            sealed_client_secret: keys.seal(&context, b"hush"),
            scope: None,
        }),
        ..Webhook::blank(WebhookId::from_uuid(id), project)
    };
    let requests = Requests::new(keys, client.guard().clone());
    requests.prepare_once(&Arc::new(webhook)).unwrap()
}

fn well(_: usize) -> (u16, &'static str) {
    (200, "")
}

#[tokio::test]
async fn a_token_endpoint_that_says_nothing_ends_the_attempt_with_the_webhooks_timeout() {
    let world = World::start(Never, AT_ONCE, well, TIMEOUT).await;
    let begun = Instant::now();
    let made = world.attempt().await;
    let took = begun.elapsed();
    assert!(took < TIMEOUT + GRACE, "{took:?}");
    assert_eq!(
        (made.outcome, made.error_class, made.error.as_str()),
        (
            Outcome::Failed,
            Some(ErrorClass::Authentication),
            "no access token: no response within 500ms"
        )
    );
    assert!(made.duration >= TIMEOUT && made.duration <= took, "{made:?}");
}

#[tokio::test]
async fn a_token_is_waited_for_no_longer_than_ten_seconds() {
    let world = World::start(Never, AT_ONCE, well, Duration::from_secs(60)).await;
    let attempt = world.attempt();
    let clock = async {
        world.asked.notified().await;
        // From here on everybody waits, and the tests' clock goes on by itself.
        tokio::time::pause();
    };
    let (made, ()) = tokio::join!(attempt, clock);
    assert_eq!(made.error_class, Some(ErrorClass::Authentication));
    let seconds = made.duration.as_secs_f64();
    assert!((9.0..11.0).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn of_many_that_wait_for_a_token_in_turn_each_ends_with_its_own_timeout() {
    let world = World::start(Never, AT_ONCE, well, TIMEOUT).await;
    let all = futures::future::join_all(std::iter::repeat_with(|| world.attempt()).take(50));
    let all = tokio::time::timeout(TIMEOUT + GRACE, all).await;
    for made in all.expect("nobody waits for another's attempt") {
        assert_eq!(made.error_class, Some(ErrorClass::Authentication));
    }
    assert_eq!(world.tokens.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_the_token_takes_is_taken_from_the_requests_time_and_shows_in_it() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    // A timeout of the request's own would end at nearly twice that.
    let slow = After(TIMEOUT * 9 / 10);
    let world = World::start(slow, Never, well, TIMEOUT).await;
    let begun = Instant::now();
    let made = world.attempt().await;
    assert!(begun.elapsed() < TIMEOUT + GRACE, "{:?}", begun.elapsed());
    assert_eq!(
        (made.error_class, made.error.as_str()),
        (Some(ErrorClass::Timeout), "no response within 2s")
    );
    assert!(made.duration >= TIMEOUT, "{made:?}");

    let slow = Duration::from_millis(100);
    let world = World::start(After(slow), AT_ONCE, well, TIMEOUT).await;
    let made = world.attempt().await;
    let first_byte = made.exchange.timings.first_byte.unwrap();
    assert_eq!(made.outcome, Outcome::Delivered);
    assert!(first_byte >= slow && made.duration >= first_byte, "{made:?}");
}

#[tokio::test]
async fn a_token_that_the_receiver_refuses_is_had_anew_for_the_next_attempt() {
    let answer = |token| (if token == 0 { 401 } else { 200 }, "");
    let world = World::start(AT_ONCE, AT_ONCE, answer, TIMEOUT).await;
    for (status, outcome) in [
        (401, Outcome::Failed),
        (200, Outcome::Delivered),
        (200, Outcome::Delivered),
    ] {
        let made = world.attempt().await;
        assert_eq!((made.status, made.outcome), (Some(status), outcome));
    }
    assert_eq!(world.tokens.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_receiver_that_says_nothing_ends_the_attempt_with_the_webhooks_timeout() {
    let world = World::start(AT_ONCE, Never, well, TIMEOUT).await;
    let begun = Instant::now();
    let made = world.attempt().await;
    assert!(begun.elapsed() < TIMEOUT + GRACE, "{:?}", begun.elapsed());
    assert_eq!(made.error_class, Some(ErrorClass::Timeout));
}

#[tokio::test]
async fn how_long_a_receiver_wants_to_be_left_alone_is_told_of_a_failure_alone() {
    for (status, retry_after) in [(429, Some(Duration::from_secs(7))), (200, None), (410, None)] {
        let answer: fn(usize) -> (u16, &'static str) = match status {
            429 => |_| (429, "7"),
            410 => |_| (410, "7"),
            _ => |_| (200, "7"),
        };
        let world = World::start(AT_ONCE, AT_ONCE, answer, TIMEOUT).await;
        let made = world.attempt().await;
        assert_eq!((made.status, made.retry_after), (Some(status), retry_after));
    }
}
