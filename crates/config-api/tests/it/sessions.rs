//! Who is logged in with a browser, and what another site's page cannot do with it.

use common::token;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use store::sessions::{self, Session};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::*;

/// A browser that is logged in.
struct Browser {
    client: Client,
    cookie: String,
    csrf: String,
}

impl Browser {
    async fn log_in(client: &Client, token: &str) -> Self {
        let client = client.without_token();
        let login = json!({ "token": token });
        let answer = client.send(Method::POST, "/v1/session", &[], Some(login)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        let (cookie, attributes) = answer.header("set-cookie").unwrap().split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; Max-Age=43200; HttpOnly; Secure; SameSite=Lax");
        assert!(cookie.starts_with("__Host-posthaste="), "{cookie}");
        let csrf = answer.body["csrf"].as_str().unwrap().to_owned();
        assert!(!cookie.contains(&csrf), "the page must not learn what the cookie holds");
        Self {
            cookie: cookie.to_owned(),
            csrf,
            client,
        }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        let mut all = vec![("cookie", self.cookie.as_str())];
        all.extend(headers);
        self.client.send(method, path, &all, body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    async fn change(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.send(method, path, &[("x-csrf-token", &self.csrf)], body).await
    }
}

async fn project_token(admin: &Client, body: Value) -> Value {
    admin.post("/v1/projects", json!({ "name": "shop" })).await;
    admin.post("/v1/projects/shop/tokens", body).await
}

#[tokio::test]
async fn a_session_may_do_what_its_token_may_and_no_more() {
    let world = World::new().await;
    let service = world.start().await;
    let admin = &service.client;
    let token = project_token(admin, json!({ "name": "mine", "scopes": ["configure"] })).await;
    admin.post("/v1/projects", json!({ "name": "other" })).await;

    let browser = Browser::log_in(admin, token["token"].as_str().unwrap()).await;
    let who = browser.get("/v1/session").await;
    assert_eq!(who.status, StatusCode::OK);
    assert_eq!(who.body["token"], token["id"]);
    assert_eq!(who.body["project"]["name"], "shop");
    assert_eq!(who.body["scopes"], json!(["configure"]));
    assert_eq!(who.body["csrf"], browser.csrf);

    let made = browser
        .change(Method::POST, "/v1/projects/shop/webhooks", Some(simple("w")))
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert_eq!(browser.get("/v1/projects/shop/webhooks/w").await.status, StatusCode::OK);
    assert_eq!(browser.get("/v1/projects/other").await.status, StatusCode::NOT_FOUND);
    let refused = browser
        .change(Method::POST, "/v1/projects/shop/tokens", Some(json!({})))
        .await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.body["type"], "urn:posthaste:problem:missing_scope");

    // Who has a token of its own has no session, and is told who it is all the same.
    let who = admin.get("/v1/session").await;
    assert_eq!((&who["project"], &who["csrf"]), (&Value::Null, &Value::Null));
    assert_eq!(
        admin.call(Method::DELETE, "/v1/session", None).await.0,
        StatusCode::NOT_FOUND
    );

    // Who logged in and out is on record, like every other change.
    assert_eq!(
        browser.change(Method::DELETE, "/v1/session", None).await.status,
        StatusCode::NO_CONTENT
    );
    let trail = admin.get("/v1/projects/shop/audit").await;
    let told: Vec<_> = trail["items"].as_array().unwrap().iter().collect();
    for method in ["POST", "DELETE"] {
        let is_it = |entry: &&&Value| entry["method"] == method && entry["path"] == "/v1/session";
        let entry = told.iter().find(is_it).unwrap_or_else(|| panic!("{method}: {trail}"));
        assert_eq!(entry["token"], token["id"]);
    }
    service.stop().await;
}

#[tokio::test]
async fn another_sites_page_can_neither_change_nor_ask() {
    let world = World::new().await;
    let service = world.start().await;
    let admin = &service.client;
    project_token(admin, json!({})).await;
    let browser = Browser::log_in(admin, ADMIN).await;
    let other = Browser::log_in(admin, ADMIN).await;
    let path = "/v1/projects/shop/webhooks";
    let webhooks = async || admin.get(path).await["items"].as_array().unwrap().len();
    let host = format!("http://{}", admin.authority());

    let (csrf, of_another) = (
        ("x-csrf-token", browser.csrf.as_str()),
        ("x-csrf-token", other.csrf.as_str()),
    );
    admin.post(path, simple("kept")).await;
    let kept = format!("{path}/kept");
    let refused: [&[(&str, &str)]; 8] = [
        &[],
        &[("x-csrf-token", "")],
        &[("x-csrf-token", "0000")],
        &[of_another],
        &[csrf, ("sec-fetch-site", "cross-site")],
        &[csrf, ("sec-fetch-site", "same-site")],
        &[csrf, ("origin", "https://elsewhere.example")],
        &[csrf, ("origin", "null")],
    ];
    let changes = [
        (Method::POST, path, Some(simple("w"))),
        (Method::PATCH, &kept, Some(json!({ "active": false }))),
        (Method::DELETE, &kept, None),
    ];
    for headers in refused {
        for (method, path, body) in &changes {
            let answer = browser.send(method.clone(), path, headers, body.clone()).await;
            let what = format!("{method} {headers:?}: {}", answer.body);
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}");
            assert_eq!(answer.body["type"], "urn:posthaste:problem:cross_site", "{what}");
        }
    }
    assert_eq!(webhooks().await, 1);
    assert_eq!(admin.get(&kept).await["active"], true);
    // A form cannot say that it sends JSON, and what it can say is not taken.
    let form = browser
        .send(Method::POST, path, &[csrf, ("content-type", "text/plain")], None)
        .await;
    assert_eq!(form.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{}", form.body);
    for headers in [
        [("sec-fetch-site", "cross-site")],
        [("origin", "https://elsewhere.example")],
    ] {
        assert_eq!(
            browser.send(Method::GET, path, &headers, None).await.status,
            StatusCode::FORBIDDEN
        );
        let login = Some(json!({ "token": ADMIN }));
        let refused = browser.client.send(Method::POST, "/v1/session", &headers, login).await;
        assert_eq!(
            refused.status,
            StatusCode::FORBIDDEN,
            "nobody is logged in as somebody else unawares"
        );
    }
    // No page may read an answer, wherever it is from.
    let answer = browser.send(Method::GET, path, &[("origin", &host)], None).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));

    for (name, more) in [
        ("a", ("sec-fetch-site", "same-origin")),
        ("b", ("origin", host.as_str())),
    ] {
        let answer = browser
            .send(Method::POST, path, &[csrf, more], Some(simple(name)))
            .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{more:?}: {}", answer.body);
    }
    assert_eq!(webhooks().await, 3);
    service.stop().await;
}

#[tokio::test]
async fn a_session_ends_when_it_is_ended_with_its_token_and_in_time() {
    let world = World::new().await;
    let service = world.start().await;
    let admin = &service.client;
    let token = project_token(admin, json!({})).await;
    let text = token["token"].as_str().unwrap();
    let is_in = async |browser: &Browser| match browser.get("/v1/projects/shop").await.status {
        StatusCode::OK => true,
        StatusCode::UNAUTHORIZED => false,
        status => panic!("{status}"),
    };

    // Ended.
    let [first, second] = [Browser::log_in(admin, text).await, Browser::log_in(admin, text).await];
    let ended = first.change(Method::DELETE, "/v1/session", None).await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    assert!(
        ended
            .header("set-cookie")
            .unwrap()
            .starts_with("__Host-posthaste=; Path=/; Max-Age=0;")
    );
    assert!(!is_in(&first).await && is_in(&second).await);

    // Logged in anew: what was known before is good for nothing.
    let again = second
        .send(Method::POST, "/v1/session", &[], Some(json!({ "token": text })))
        .await;
    assert_eq!(again.status, StatusCode::CREATED);
    assert!(!is_in(&second).await);

    // In time: of these, known to have been begun and used so many minutes ago, only one goes on.
    let store = world.store().await;
    let now = common::clock::Clock::System.now();
    let ago = |minutes| -> Timestamp { now - SignedDuration::from_mins(minutes) };
    for (begun, seen, is_good) in [(100, 29, true), (100, 31, false), (12 * 60 + 1, 0, false)] {
        let cookie = format!("begun-{begun}-seen-{seen}");
        let session = Session {
            hash: token::hash(&cookie),
            token: token["id"].as_str().unwrap().parse().unwrap(),
            created_at: ago(begun),
            seen_at: ago(seen),
        };
        sessions::insert(&mut store.connection().await.unwrap(), &session, 50)
            .await
            .unwrap();
        let browser = Browser {
            client: admin.without_token(),
            cookie: format!("__Host-posthaste={cookie}"),
            csrf: String::new(),
        };
        assert_eq!(is_in(&browser).await, is_good, "{cookie}");
        if is_good {
            // It was used, so it has another half hour.
            let mut connection = store.connection().await.unwrap();
            let found = sessions::find(&mut connection, &session.hash, ago(700), ago(2))
                .await
                .unwrap();
            assert!(found.is_some(), "its use was not noted");
        }
    }

    // With its token.
    let last = Browser::log_in(admin, text).await;
    assert!(is_in(&last).await);
    admin.delete(&format!("/v1/projects/shop/tokens/{}", id(&token))).await;
    assert!(!is_in(&last).await);
    service.stop().await;
}

#[tokio::test]
async fn who_guesses_tokens_at_the_login_is_told_to_wait_and_others_are_not() {
    let world = World::new().await;
    let service = world.start_with(&["--refused-tokens-per-minute", "3"]).await;
    let admin = &service.client;
    let log_in = async |client: &Client, token: &str| {
        let login = Some(json!({ "token": token }));
        client
            .without_token()
            .send(Method::POST, "/v1/session", &[], login)
            .await
    };
    let of_shop = "/v1/projects/shop";
    let token = project_token(admin, json!({})).await;
    let neighbour = admin.with_token(token["token"].as_str().unwrap());
    let late = admin.post("/v1/projects/shop/tokens", json!({})).await;
    let later = admin.post("/v1/projects/shop/tokens", json!({})).await;
    let elsewhere = admin.post("/v1/projects/shop/tokens", json!({})).await;
    let browser = Browser::log_in(admin, ADMIN).await;
    browser.get(of_shop).await;
    neighbour.get(of_shop).await;
    for _ in 0..3 {
        let answer = log_in(admin, "a-guess-of-twenty-characters").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.body);
        assert_eq!(answer.header("set-cookie"), None);
    }
    // A right guess is told nothing else than a wrong one; so it is with cookies, and without a login.
    for guess in ["a-guess-of-twenty-characters", ADMIN] {
        let answer = log_in(admin, guess).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.body);
        assert_eq!(answer.header("set-cookie"), None);
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        let (status, _) = admin.with_token(guess).call(Method::GET, of_shop, None).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    }
    let cookie = [("cookie", "__Host-posthaste=guessed")];
    let answer = admin.without_token().send(Method::GET, of_shop, &cookie, None).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    // What is random nobody guesses: it has tries of its own.
    let late = late["token"].as_str().unwrap();
    admin.with_token(late).get(of_shop).await;
    assert_eq!(log_in(admin, late).await.status, StatusCode::CREATED);
    let revoked = token::generate();
    let revoked = admin.with_token(revoked.expose_secret());
    for _ in 0..30 {
        let (status, _) = revoked.call(Method::GET, of_shop, None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    let later = later["token"].as_str().unwrap();
    for stranger in [&revoked, &admin.with_token(later)] {
        let (status, _) = stranger.call(Method::GET, of_shop, None).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    }
    // And now nobody from here is even listened to who wants to log in.
    assert_eq!(refused_before_its_body_comes(admin, 100).await, "HTTP/1.1 429");

    // Who was there already goes on, and so does everybody elsewhere; and who shows nothing is told what to show.
    neighbour.get(of_shop).await;
    assert_eq!(browser.get(of_shop).await.status, StatusCode::OK);
    let there = admin.from([127, 0, 0, 2]);
    assert_eq!(log_in(&there, ADMIN).await.status, StatusCode::CREATED);
    there
        .with_token(elsewhere["token"].as_str().unwrap())
        .get(of_shop)
        .await;
    let (status, _) = admin.without_token().call(Method::GET, of_shop, None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    service.stop().await;
}

/// What a login is answered with whose body was announced and has not come.
async fn refused_before_its_body_comes(client: &Client, length: u32) -> String {
    let mut connection = TcpStream::connect(client.authority()).await.unwrap();
    let head = format!(
        "POST /v1/session HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut begun = [0; 12];
    tokio::time::timeout(std::time::Duration::from_secs(5), connection.read_exact(&mut begun))
        .await
        .expect("nothing of the body is waited for")
        .unwrap();
    String::from_utf8_lossy(&begun).into_owned()
}

#[tokio::test]
async fn of_who_logs_in_no_more_is_read_than_a_token_takes() {
    let world = World::new().await;
    let service = world.start().await;
    let admin = &service.client;
    assert_eq!(refused_before_its_body_comes(admin, 1025).await, "HTTP/1.1 413");
    let anybody = admin.without_token();
    for (length, status) in [(900, 401), (1024, 413)] {
        let login = json!({ "token": "x".repeat(length) });
        let answer = anybody.send(Method::POST, "/v1/session", &[], Some(login)).await;
        assert_eq!(answer.status, status, "{length}");
    }
    // A key makes no difference.
    let key = [("idempotency-key", "k")];
    let login = json!({ "token": "x".repeat(1024) });
    let answer = admin.send(Method::POST, "/v1/session", &key, Some(login)).await;
    assert_eq!(answer.status, 413);
    service.stop().await;
}

#[tokio::test]
async fn who_only_watches_does_not_keep_the_session() {
    let world = World::new().await;
    let service = world.start().await;
    let admin = &service.client;
    project_token(admin, json!({})).await;
    let browser = Browser::log_in(admin, ADMIN).await;
    let seen = async |minutes: u32| {
        let seen = format!("UPDATE sessions SET seen_at = now() - interval '{minutes} minutes'");
        world.sql(&seen).await;
    };
    let is_as_it_was = "SELECT count(*) FROM sessions WHERE seen_at < now() - interval '1 minute'";
    seen(20).await;
    let headers = [("cookie", browser.cookie.as_str()), ("accept", "text/event-stream")];
    let replay = admin
        .call(Method::POST, "/v1/projects/shop/replays", Some(json!({})))
        .await
        .1;
    let progress = format!("/v1/projects/shop/replays/{}/progress", id(&replay));
    let mut streams = Vec::new();
    for path in ["/v1/projects/shop/attempts/stream", &progress] {
        let mut stream = browser.client.open(path, &headers).await;
        assert_eq!(stream.status(), StatusCode::OK, "{path}");
        assert!(stream.chunk().await.unwrap().is_some(), "{path}");
        streams.push(stream);
    }
    assert_eq!(world.number(is_as_it_was).await, 1, "watching is no use of a session");

    // So it ends while they are open, and they with it.
    seen(31).await;
    for stream in &mut streams {
        let ended = async { while stream.chunk().await.is_ok_and(|chunk| chunk.is_some()) {} };
        tokio::time::timeout(std::time::Duration::from_secs(5), ended)
            .await
            .expect("it ends within 5 s");
    }
    assert_eq!(browser.get(&progress).await.status, StatusCode::UNAUTHORIZED);

    // Anything else is a use.
    seen(20).await;
    assert_eq!(browser.get("/v1/projects/shop").await.status, StatusCode::OK);
    assert_eq!(world.number(is_as_it_was).await, 0);
    service.stop().await;
}

#[tokio::test]
async fn of_a_tokens_sessions_the_newest_fifty_are_kept() {
    let world = World::new().await;
    let service = world.start().await;
    let first = Browser::log_in(&service.client, ADMIN).await;
    let mut last = Browser::log_in(&service.client, ADMIN).await;
    for _ in 0..49 {
        last = Browser::log_in(&service.client, ADMIN).await;
    }
    assert_eq!(first.get("/v1/projects").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(last.get("/v1/projects").await.status, StatusCode::OK);
    service.stop().await;
}
