use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::header;
use axum::routing::post;
use bytes::Bytes;
use common::crypto::{Context, KeyRing};
use http::HeaderMap;
use proto_schemas::definition::{Authentication, SEALED_CLIENT_SECRET, Webhook};
use proto_schemas::id::{ProjectId, WebhookId};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::*;

/// A webhook whose access tokens are had from an endpoint on loopback, and how often that was asked.
struct World {
    client: Client,
    prepared: Prepared,
    asked: Arc<AtomicUsize>,
    _server: AbortOnDropHandle<()>,
}

impl World {
    /// The endpoint answers the nth question, from 0, like this.
    async fn start(answer: impl Fn(usize) -> (u16, String) + Clone + Send + Sync + 'static) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let handler = move |headers: HeaderMap, body: String| {
            let (status, text) = answer(counted.fetch_add(1, Ordering::SeqCst));
            async move {
                assert_eq!(headers[header::AUTHORIZATION], "Basic Yy0xOmh1c2g=");
                assert_eq!(body, "grant_type=client_credentials&scope=a+b");
                // Others come meanwhile.
                tokio::task::yield_now().await;
                (StatusCode::from_u16(status).unwrap(), text)
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let app = axum::Router::new().route("/token", post(handler));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let config = egress::Config {
            allow_http: true,
            allow_cidrs: "127.0.0.0/8".parse().unwrap(),
            ..egress::Config::default()
        };
        let client = Client::new(&config).unwrap();
        Self {
            prepared: prepared(&url, &client),
            client,
            asked,
            _server: AbortOnDropHandle::new(server),
        }
    }

    async fn get(&self, token: &AccessToken) -> Result<HeaderValue, Missing> {
        let credentials = self.prepared.client_credentials.as_ref().unwrap();
        token
            .get(credentials, &self.prepared, &self.client, Instant::now())
            .await
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn prepared(token_url: &str, client: &Client) -> Prepared {
    let keys = KeyRing::parse("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
    let (id, project) = (Uuid::from_u128(2), ProjectId::from_uuid(Uuid::from_u128(1)));
    let context = Context {
        project,
        object: id,
        field: SEALED_CLIENT_SECRET,
    };
    let webhook = Webhook {
        url: "https://example.com/".to_owned(),
        authentication: Some(Authentication::ClientCredentials {
            token_url: token_url.to_owned(),
            client_id: "c-1".to_owned(),
            sealed_client_secret: keys.seal(&context, b"hush"),
            scope: Some("a b".to_owned()),
        }),
        ..Webhook::blank(WebhookId::from_uuid(id), project)
    };
    Prepared::of(&Arc::new(webhook), &keys, client.guard()).unwrap()
}

fn granted(token: usize, expires_in: u32) -> (u16, String) {
    (
        200,
        format!(r#"{{"access_token":"t{token}","token_type":"Bearer","expires_in":{expires_in}}}"#),
    )
}

#[tokio::test]
async fn of_many_at_once_one_asks_and_all_have_what_it_got() {
    let world = World::start(|asked| granted(asked, 3600)).await;
    let token = AccessToken::default();
    for _ in 0..2 {
        let all = std::iter::repeat_with(|| world.get(&token)).take(50);
        for value in futures::future::join_all(all).await {
            assert_eq!(value.unwrap(), "Bearer t0");
        }
    }
    assert_eq!(world.asked(), 1);
}

#[tokio::test]
async fn of_many_at_once_one_asks_even_where_what_it_gets_is_good_for_no_other() {
    let world = World::start(|asked| granted(asked, 0)).await;
    let token = AccessToken::default();
    for (value, asked) in [("Bearer t0", 1), ("Bearer t1", 2)] {
        let all = std::iter::repeat_with(|| world.get(&token)).take(50);
        for got in futures::future::join_all(all).await {
            assert_eq!(got.unwrap(), value);
        }
        assert_eq!(world.asked(), asked);
    }
}

#[tokio::test]
async fn a_token_is_refused_while_another_is_asked_for() {
    let world = World::start(|asked| granted(asked, 3600)).await;
    let token = AccessToken::default();
    let first = world.get(&token).await.unwrap();
    let asking = token.asking.lock().await;
    // At once, though somebody is asking.
    token.refused(&first);
    drop(asking);
    assert_eq!(world.get(&token).await.unwrap(), "Bearer t1");
}

#[tokio::test]
async fn of_many_at_once_all_share_the_failure_of_the_one_that_asked_and_the_next_asks_again() {
    let world = World::start(|_| (401, r#"{"error":"invalid_client"}"#.to_owned())).await;
    let token = AccessToken::default();
    for asked in 1..=2 {
        let all = std::iter::repeat_with(|| world.get(&token)).take(50);
        for value in futures::future::join_all(all).await {
            let missing = value.unwrap_err();
            assert_eq!(missing.class, ErrorClass::Authentication);
            assert!(missing.text.ends_with("401 Unauthorized (invalid_client)"), "{missing}");
        }
        assert_eq!(world.asked(), asked);
    }
}

#[tokio::test]
async fn another_is_asked_for_when_one_has_expired_or_was_refused() {
    let world = World::start(|asked| granted(asked, if asked == 0 { 0 } else { 3600 })).await;
    let token = AccessToken::default();
    let first = world.get(&token).await.unwrap();
    let second = world.get(&token).await.unwrap();
    assert_eq!(
        (&first, &second),
        (
            &HeaderValue::from_static("Bearer t0"),
            &HeaderValue::from_static("Bearer t1")
        )
    );
    // Refused late, by when there is another.
    token.refused(&first);
    assert_eq!(world.get(&token).await.unwrap(), second);
    token.refused(&second);
    assert_eq!(world.get(&token).await.unwrap(), "Bearer t2");
    assert_eq!(world.asked(), 3);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_named_and_one_that_no_request_may_go_to_is_not() {
    let open = World::start(|asked| granted(asked, 3600)).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let unreachable = World {
        prepared: prepared(&format!("http://{closed}/"), &open.client),
        client: open.client.clone(),
        asked: Arc::default(),
        _server: AbortOnDropHandle::new(tokio::spawn(async {})),
    };
    let missing = unreachable.get(&AccessToken::default()).await.unwrap_err();
    assert_eq!(
        (missing.class, missing.text.as_str()),
        (ErrorClass::Authentication, "no access token: connection refused")
    );
    // Sent to by who may not: its definition is from before the rules.
    let strict = Client::new(&egress::Config {
        allow_http: true,
        ..egress::Config::default()
    });
    let refused = World {
        client: strict.unwrap(),
        ..open
    };
    let missing = refused.get(&AccessToken::default()).await.unwrap_err();
    assert_eq!(
        (missing.class, missing.text.as_str()),
        (ErrorClass::RefusedAddress, "target address not allowed")
    );
    assert_eq!(refused.asked(), 0);
}

fn answer(status: u16, body: &'static str) -> Response {
    Response {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(body.as_bytes()),
        truncated: false,
    }
}

#[test]
fn a_token_is_kept_until_shortly_before_it_expires() {
    for (expires_in, seconds) in [
        (r#","expires_in":3600"#, 3570.0),
        (r#","expires_in":100"#, 90.0),
        (r#","expires_in":2.0"#, 1.8),
        (r#","expires_in":"100""#, 90.0),
        (r#","expires_in":"soon""#, 270.0),
        (r#","expires_in":0"#, 0.0),
        (r#","expires_in":-5"#, 0.0),
        (r#","expires_in":1e300"#, 0.0),
        (r#","expires_in":9999999"#, 86_370.0),
        (r#","expires_in":null"#, 270.0),
        ("", 270.0),
    ] {
        let body = format!(r#"{{"access_token":"t","token_type":"bearer"{expires_in},"scope":"x"}}"#);
        let response = Response {
            body: body.into(),
            ..answer(200, "")
        };
        let granted = read(&response).unwrap();
        assert_eq!(granted.kept_for.as_secs_f64(), seconds, "{expires_in}");
        assert_eq!(granted.value, "Bearer t");
        assert!(granted.value.is_sensitive());
    }
}

#[test]
fn what_is_no_token_is_named_and_nothing_of_it_repeated() {
    for (status, body, text) in [
        (
            401,
            r#"{"error":"invalid_client","error_description":"hush"}"#,
            "the token endpoint answered 401 Unauthorized (invalid_client)",
        ),
        (
            400,
            r#"{"error":"hush"}"#,
            "the token endpoint answered 400 Bad Request",
        ),
        (
            400,
            r#"["invalid_client"]"#,
            "the token endpoint answered 400 Bad Request",
        ),
        (503, "hush", "the token endpoint answered 503 Service Unavailable"),
        (302, "", "the token endpoint answered 302 Found"),
        (
            200,
            "hush",
            "the token endpoint's answer holds no access_token and token_type in JSON",
        ),
        (
            200,
            r#"["hush","Bearer",3600]"#,
            "the token endpoint's answer holds no access_token and token_type in JSON",
        ),
        (
            200,
            r#"{"access_token":"hush"}"#,
            "the token endpoint's answer holds no access_token and token_type in JSON",
        ),
        (
            200,
            r#"{"access_token":"hush","token_type":"mac"}"#,
            "the token endpoint gives tokens that are no bearer tokens",
        ),
        (
            200,
            r#"{"access_token":"hush\n","token_type":"Bearer"}"#,
            "the token endpoint's access_token fits into no header",
        ),
        (
            200,
            r#"{"access_token":"","token_type":"Bearer"}"#,
            "the token endpoint's access_token fits into no header",
        ),
    ] {
        let missing = read(&answer(status, body)).unwrap_err();
        assert_eq!(missing.class, ErrorClass::Authentication);
        assert_eq!(missing.text, format!("no access token: {text}"));
    }
    let long = Response {
        truncated: true,
        ..answer(200, "{")
    };
    let missing = read(&long).unwrap_err();
    assert_eq!(missing.text, "no access token: the token endpoint's answer is too long");
}
