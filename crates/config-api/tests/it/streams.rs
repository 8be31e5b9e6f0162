//! Answers without end: exports, and streams of attempts.

use std::time::Duration;

use common::http::Code;
use config_api::streams::Streams;
use proto_schemas::id::{AttemptRef, ProjectId};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use store::log;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::record::{Recorded, recorded};
use crate::support::*;

const STREAM: &str = "/v1/projects/shop/attempts/stream";
const EXPORT: &str = "/v1/projects/shop/attempts/export";

/// Attempts of one webhook, numbered from `from` on.
fn numbered(it: &Recorded, webhook: usize, from: u32, count: u32) -> Vec<(AttemptRef, Option<u16>)> {
    (from..from + count)
        .map(|attempt| (it.reference(1, webhook, attempt), Some(200)))
        .collect()
}

/// A stream as its client reads it.
struct Events {
    answer: Response,
    read: String,
    last_id: String,
}

impl Events {
    async fn open(client: &Client, path: &str, last_id: Option<&str>) -> Self {
        let headers: Vec<(&str, &str)> = last_id.map(|id| ("Last-Event-ID", id)).into_iter().collect();
        let answer = client.open(path, &headers).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let mut events = Self {
            answer,
            read: String::new(),
            last_id: String::new(),
        };
        // The first block says where the stream begins.
        let first = events.block().await.unwrap();
        assert!(first.contains("retry: "), "{first}");
        events
    }

    /// The next block of lines; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.find("\n\n") {
                let block: String = self.read.drain(..end + 2).collect();
                if let Some(id) = block.lines().find_map(|line| line.strip_prefix("id: ")) {
                    self.last_id = id.to_owned();
                }
                return Some(block);
            }
            let chunk = timeout(Duration::from_secs(30), self.answer.chunk())
                .await
                .expect("something within half a minute");
            self.read += std::str::from_utf8(&chunk.ok()??).unwrap();
        }
    }

    /// The next attempt.
    async fn attempt(&mut self) -> Value {
        loop {
            let block = self.block().await.expect("an attempt");
            if let Some(data) = block.lines().find_map(|line| line.strip_prefix("data: ")) {
                assert!(block.contains("event: attempt\n"), "{block}");
                return serde_json::from_str(data).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn attempts_are_seen_as_they_are_recorded_and_by_whom_they_are_wanted() {
    let world = World::new().await;
    let service = world.start().await;
    let it = recorded(&world, &service).await;
    let api = &service.client;
    let mut all = Events::open(api, STREAM, None).await;
    let mut of_b = Events::open(api, &format!("{STREAM}?webhook=b&status=2xx"), None).await;

    let begun = Instant::now();
    it.attempts(numbered(&it, 0, 50, 2)).await;
    it.attempts([(it.reference(1, 1, 52), Some(503)), (it.reference(1, 1, 53), Some(200))])
        .await;
    let mut numbers = Vec::new();
    while numbers.len() < 4 {
        // What was there before may be told where another test's transaction was open when this began.
        let number = all.attempt().await["attempt"].as_u64().unwrap();
        numbers.extend((number >= 50).then_some(number));
    }
    assert_eq!(numbers, [50, 51, 52, 53]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let wanted = of_b.attempt().await;
    assert_eq!((&wanted["attempt"], &wanted["webhook_name"]), (&json!(53), &json!("b")));
    assert_eq!(
        wanted,
        api.get("/v1/projects/shop/attempts?webhook=b&status=2xx").await["items"][0],
        "an event is an item of the list"
    );
    drop((all, of_b));
    service.stop().await;
}

#[tokio::test]
async fn who_comes_back_gets_what_was_missed_once_and_in_order() {
    let world = World::new().await;
    let service = world.start().await;
    let it = recorded(&world, &service).await;
    let api = &service.client;
    let mut events = Events::open(api, STREAM, None).await;
    it.attempts(numbered(&it, 0, 50, 3)).await;
    // What was recorded before may be told, too, as long as another database's transaction is open.
    while events.attempt().await["attempt"] != 50 {}
    let last_id = events.last_id.clone();
    drop(events);

    // More than a page; some of it while it catches up.
    it.attempts(numbered(&it, 0, 60, 1_200)).await;
    let mut events = Events::open(api, STREAM, Some(&last_id)).await;
    it.attempts(numbered(&it, 0, 1_260, 40)).await;
    let mut numbers = Vec::new();
    for _ in 0..1_242 {
        numbers.push(events.attempt().await["attempt"].as_u64().unwrap());
    }
    let expected: Vec<u64> = (51..53).chain(60..1_300).collect();
    assert_eq!(numbers, expected);

    let answer = api.open(STREAM, &[("Last-Event-ID", "nonsense")]).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    drop(events);
    service.stop().await;
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_revoked_and_is_closed_to_others() {
    let world = World::new().await;
    let service = world.start().await;
    let it = recorded(&world, &service).await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "other" })).await;
    let token = async |project: &str, scopes: Value| {
        let path = format!("/v1/projects/{project}/tokens");
        api.post(&path, json!({ "name": "t", "scopes": scopes })).await
    };
    let reader = token("shop", json!(["read"])).await;
    for (token, status) in [
        (token("other", json!(["read"])).await, StatusCode::NOT_FOUND),
        (token("shop", json!(["publish"])).await, StatusCode::FORBIDDEN),
    ] {
        let client = api.with_token(token["token"].as_str().unwrap());
        for path in [STREAM, EXPORT] {
            assert_eq!(client.open(path, &[]).await.status(), status, "{path}");
        }
    }
    let client = api.with_token(reader["token"].as_str().unwrap());
    let mut events = Events::open(&client, STREAM, None).await;
    it.attempts(numbered(&it, 0, 50, 1)).await;
    events.attempt().await;
    api.delete(&format!("/v1/projects/shop/tokens/{}", id(&reader))).await;
    let ended = async { while events.block().await.is_some() {} };
    timeout(Duration::from_secs(5), ended)
        .await
        .expect("it ends within 5 s");
    service.stop().await;
}

#[tokio::test]
async fn a_stream_that_catches_up_ends_with_its_token_too() {
    let world = World::new().await;
    let service = world.start_with(&["--max-streams", "1"]).await;
    let it = recorded(&world, &service).await;
    let api = &service.client;
    let reader = json!({ "name": "t", "scopes": ["read"] });
    let reader = api.post("/v1/projects/shop/tokens", reader).await;
    let events = Events::open(api, STREAM, None).await;
    let last_id = events.last_id.clone();
    drop(events);
    // Less than is read at once, and more than a connection holds that nobody reads from.
    it.large_attempts(100, 450, 64 * 1024).await;
    until("the first stream has ended", async || {
        let mut slow = TcpStream::connect(api.authority()).await.unwrap();
        let token = reader["token"].as_str().unwrap();
        let head = format!(
            "GET {STREAM} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nlast-event-id: {last_id}\r\n\r\n"
        );
        slow.write_all(head.as_bytes()).await.unwrap();
        let mut begun = [0; 64];
        slow.read_exact(&mut begun).await.unwrap();
        let has_begun = begun.starts_with(b"HTTP/1.1 200");
        if has_begun {
            // Less time than a client that reads nothing is given.
            let since = Instant::now();
            api.delete(&format!("/v1/projects/shop/tokens/{}", id(&reader))).await;
            while api.open(STREAM, &[]).await.status() != StatusCode::OK {
                assert!(since.elapsed() < Duration::from_secs(5), "it does not end");
                tokio::task::yield_now().await;
            }
        }
        has_begun
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn of_one_project_and_of_a_process_only_so_many_answers_are_under_way() {
    let world = World::new().await;
    let database = world.store().await.database().clone();
    database.migrate().await.unwrap();
    let stop = CancellationToken::new();
    let streams = Streams::new(database, 60, stop.clone());
    let projects: Vec<ProjectId> = (0..5).map(|n| ProjectId::from_uuid(Uuid::from_u128(n))).collect();
    let begin = log::Recorded::before(0);

    let mut exports = Vec::new();
    for project in &projects[..4] {
        exports.extend((0..4).map(|_| streams.export(*project).unwrap()));
        let refused = streams.export(*project).unwrap_err();
        assert_eq!(refused.code(), Code::TooManyRequests);
    }
    assert_eq!(streams.export(projects[4]).unwrap_err().code(), Code::TooManyRequests);
    exports.pop();
    drop(streams.export(projects[4]).unwrap());
    drop(streams.export(projects[3]).unwrap());

    let mut watchers: Vec<_> = (0..50).map(|_| streams.watch(projects[0]).unwrap()).collect();
    assert_eq!(streams.watch(projects[0]).unwrap_err().code(), Code::TooManyRequests);
    for project in &projects[1..4] {
        watchers.extend((0..50).map(|_| streams.watch(*project).unwrap()));
    }
    assert_eq!(streams.watch(projects[4]).unwrap_err().code(), Code::TooManyRequests);
    watchers.remove(0);
    drop(streams.watch(projects[4]).unwrap());
    drop(streams.watch(projects[0]).unwrap());

    let follow = |project: ProjectId| streams.follow(project, begin);
    let mut followers: Vec<_> = (0..50).map(|_| follow(projects[0]).unwrap()).collect();
    assert_eq!(follow(projects[0]).unwrap_err().code(), Code::TooManyRequests);
    followers.extend((0..10).map(|_| follow(projects[1]).unwrap()));
    assert_eq!(follow(projects[1]).unwrap_err().code(), Code::TooManyRequests);
    drop(followers);
    drop(follow(projects[0]).unwrap());
    stop.cancel();
}

#[tokio::test]
async fn who_does_not_read_is_left_and_others_may_come() {
    let world = World::new().await;
    let service = world.start_with(&["--max-streams", "1"]).await;
    let it = recorded(&world, &service).await;
    let api = &service.client;
    let mut idle = TcpStream::connect(api.authority()).await.unwrap();
    let head = format!("GET {STREAM} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n\r\n");
    idle.write_all(head.as_bytes()).await.unwrap();
    let mut begun = [0; 64];
    idle.read_exact(&mut begun).await.unwrap();
    assert!(begun.starts_with(b"HTTP/1.1 200"));
    let another = api.open(STREAM, &[]).await;
    assert_eq!(another.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(another.headers().contains_key("retry-after"));

    // Far more than a connection holds that nobody reads from.
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut from = 100;
    loop {
        it.attempts(numbered(&it, 0, from, 1_000)).await;
        from += 1_000;
        if api.open(STREAM, &[]).await.status() == StatusCode::OK {
            break;
        }
        assert!(Instant::now() < deadline, "a reader that reads nothing is waited for");
    }
    drop(idle);
    service.stop().await;
}

#[tokio::test]
async fn a_stream_does_not_keep_the_service_from_stopping() {
    let world = World::new().await;
    let service = world.start().await;
    recorded(&world, &service).await;
    let mut events = Events::open(&service.client, STREAM, None).await;
    // Longer than a stop without streams takes would fail this.
    timeout(Duration::from_secs(8), service.stop()).await.expect("it stops");
    assert!(events.block().await.is_none());
}

#[tokio::test]
async fn an_export_is_the_list_line_by_line_and_goes_on_after_any_line() {
    let world = World::new().await;
    let service = world.start().await;
    let it = recorded(&world, &service).await;
    let api = &service.client;
    it.attempts(numbered(&it, 2, 100, 1_200)).await;
    let lines = async |query: &str| -> Vec<Value> {
        let answer = api.open(&format!("{EXPORT}{query}"), &[]).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
        let text = answer.text().await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let whole = lines("").await;
    assert_eq!(whole.len(), 1_205);
    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("/v1/projects/shop/attempts?limit=250{cursor}")).await;
        listed.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let without_cursor = |line: &Value| {
        let mut line = line.clone();
        line.as_object_mut().unwrap().remove("cursor");
        line
    };
    assert_eq!(whole.iter().map(without_cursor).collect::<Vec<_>>(), listed);
    for at in [0, 499, 700, 1_204] {
        let rest = lines(&format!("?cursor={}", whole[at]["cursor"].as_str().unwrap())).await;
        assert_eq!(rest, whole[at + 1..], "after line {at}");
    }
    let failed = lines("?status=failed&responses=true").await;
    assert_eq!(failed.len(), 3);
    let with_response = failed.iter().find(|line| line["status"] == 503).unwrap();
    assert_eq!(with_response["response"]["body"], "näh");
    let without = failed.iter().find(|line| line["status"].is_null()).unwrap();
    assert_eq!(without["response"], Value::Null);
    let (status, _) = api.call(Method::GET, &format!("{EXPORT}?cursor=x"), None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    service.stop().await;
}

#[tokio::test]
async fn an_export_is_broken_off_when_its_token_is_revoked() {
    let world = World::new().await;
    let service = world.start().await;
    let it = recorded(&world, &service).await;
    let api = &service.client;
    let reader = json!({ "name": "t", "scopes": ["read"] });
    let reader = api.post("/v1/projects/shop/tokens", reader).await;
    // Many pages, and more than a connection holds that nobody reads from.
    it.large_attempts(100, 450, 64 * 1024).await;
    let client = api.with_token(reader["token"].as_str().unwrap());
    let whole = async |client: &Client, revoked: bool| {
        let mut answer = client.open(&format!("{EXPORT}?responses=true"), &[]).await;
        assert_eq!(answer.status(), StatusCode::OK);
        if revoked {
            api.delete(&format!("/v1/projects/shop/tokens/{}", id(&reader))).await;
        }
        let mut lines = 0;
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) => lines += chunk.iter().filter(|byte| **byte == b'\n').count(),
                Ok(None) => break (lines, true),
                Err(_) => break (lines, false),
            }
        }
    };
    assert_eq!(whole(&client, false).await, (455, true));
    let (lines, is_whole) = whole(&client, true).await;
    assert!(!is_whole && lines < 455, "{lines} lines, to the end: {is_whole}");
    service.stop().await;
}
