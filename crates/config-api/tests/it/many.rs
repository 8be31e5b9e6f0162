//! Ten thousand webhooks in one project.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::clock::Clock;
use jiff::Timestamp;
use proto_schemas::id::WebhookId;
use reqwest::Method;
use serde_json::{Value, json};
use store::webhooks::{self, Webhook};
use uuid::Uuid;

use crate::support::*;

const MANY: usize = 10_000;
const W: &str = "/v1/projects/shop/webhooks";
const NO_LIMIT: [&str; 4] = ["--rate-limit", "1000000", "--rate-limit-burst", "1000000"];

/// A service, and a project with the webhooks `w0`, `w1` and so on; every tenth has a label.
async fn with_many(world: &World) -> Service {
    let service = world.start_with(&NO_LIMIT).await;
    let project = service.client.post("/v1/projects", json!({ "name": "shop" })).await;
    let project = id(&project).parse().unwrap();
    let store = world.store().await;
    let mut transaction = store.begin().await.unwrap();
    let begun = Clock::System.now().as_millisecond() - i64::try_from(MANY).unwrap();
    for n in 0..MANY {
        let millis = begun + i64::try_from(n).unwrap();
        let made_at = Timestamp::from_millisecond(millis).unwrap();
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        let id = uuid::Builder::from_unix_timestamp_millis(u64::try_from(millis).unwrap(), &bytes).into_uuid();
        let mut webhook = Webhook {
            name: format!("w{n}"),
            url: format!("https://192.5.6.30/{n}"),
            events: vec!["invoice.*".to_owned()],
            ..Webhook::blank(WebhookId::from_uuid(id), project, made_at)
        };
        if n % 10 == 0 {
            webhook.labels.insert("team".to_owned(), "blue".to_owned());
        }
        webhooks::insert(&mut transaction, &webhook).await.unwrap();
    }
    transaction.commit().await.unwrap();
    service
}

async fn page(client: &Client, query: &str, cursor: Option<&str>) -> Value {
    let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    client.get(&format!("{W}?{query}{cursor}")).await
}

fn ids(page: &Value) -> impl Iterator<Item = Uuid> + '_ {
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["id"].as_str().unwrap().parse().unwrap())
}

/// Times of a whole walk through the list, page by page.
async fn walk(client: &Client, query: &str) -> (usize, Vec<Duration>) {
    let (mut count, mut times, mut cursor) = (0, Vec::new(), None::<String>);
    loop {
        let begun = Instant::now();
        let page = page(client, query, cursor.as_deref()).await;
        times.push(begun.elapsed());
        count += ids(&page).count();
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return (count, times),
        }
    }
}

#[tokio::test]
async fn a_page_of_ten_thousand_webhooks_takes_less_than_a_tenth_of_a_second() {
    let world = World::new().await;
    let service = with_many(&world).await;
    for (query, count) in [
        ("limit=50", MANY),
        ("limit=50&label=team:blue", MANY / 10),
        ("limit=50&state=active", MANY),
        ("limit=50&event=invoice.paid", MANY),
        ("limit=50&name=w99", 111),
    ] {
        let (found, mut times) = walk(&service.client, query).await;
        assert_eq!(found, count, "{query}");
        times.sort();
        let p99 = times[(times.len() * 99).div_ceil(100) - 1];
        println!(
            "{query}: {} pages, p50 {:?}, p99 {p99:?}",
            times.len(),
            times[times.len() / 2]
        );
        assert!(p99 < Duration::from_millis(100), "{query}: p99 {p99:?}");
    }
    let mut times = Vec::new();
    for n in 0..1_000 {
        let begun = Instant::now();
        service.client.get(&format!("{W}/w{}", n * 7)).await;
        times.push(begun.elapsed());
    }
    times.sort();
    println!("one: p50 {:?}, p99 {:?}", times[500], times[990]);
    assert!(times[990] < Duration::from_millis(100));
    service.stop().await;
}

#[tokio::test]
async fn a_walk_through_ten_thousand_webhooks_meets_each_that_stays_once_while_others_come_and_go() {
    let world = World::new().await;
    let service = with_many(&world).await;
    let client = &service.client;
    let (mut seen, mut cursor, mut gone) = (HashMap::<Uuid, usize>::new(), None::<String>, 0);
    for round in 0_usize.. {
        let page = page(client, "limit=250", cursor.as_deref()).await;
        for id in ids(&page) {
            *seen.entry(id).or_default() += 1;
        }
        let Some(next) = page["next"].as_str() else { break };
        cursor = Some(next.to_owned());
        // One goes that was seen, the very last of the page, one comes, for which there is room now, and one goes that was
        // not seen.
        let last = page["items"].as_array().unwrap().last().unwrap();
        client.delete(&format!("{W}/{}", id(last))).await;
        let mut new = simple(&format!("new{round}"));
        new["events"] = json!(["*"]);
        client.post(W, new).await;
        let ahead = format!("{W}/w{round}");
        if client.call(Method::DELETE, &ahead, None).await.0 == 204 {
            gone += 1;
        }
    }
    assert!(seen.values().all(|times| *times == 1), "none comes twice");
    assert_eq!(
        seen.len(),
        MANY - gone,
        "what stays or was seen before it went, is there; what is new is not"
    );
    service.stop().await;
}

#[tokio::test]
async fn a_project_has_at_most_ten_thousand_webhooks() {
    let world = World::new().await;
    let service = with_many(&world).await;
    let client = &service.client;
    let (status, problem) = client.call(Method::POST, W, Some(simple("one-more"))).await;
    assert_eq!(status, 409, "{problem}");
    let said = problem["detail"].as_str().unwrap();
    assert!(said.contains("10000 webhooks") && said.contains("delete one"), "{said}");
    client.delete(&format!("{W}/w7")).await;
    // Of any number at once there is room for one.
    let at_once = (0..4).map(|n| client.call(Method::POST, W, Some(simple(&format!("at-once-{n}")))));
    let mut found: Vec<u16> = Vec::new();
    for (status, _) in futures::future::join_all(at_once).await {
        found.push(status.as_u16());
    }
    found.sort_unstable();
    assert_eq!(found, [201, 409, 409, 409]);
    service.stop().await;
}
