//! How the API answers: tags and conditions, repeated requests, limits, places of what was made.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::*;

const W: &str = "/v1/projects/shop/webhooks";

#[tokio::test]
async fn what_was_made_says_where_it_is_and_which_version_it_is() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    let made = api
        .send(Method::POST, "/v1/projects", &[], Some(json!({ "name": "shop" })))
        .await;
    assert_eq!(
        (made.status, made.header("location")),
        (StatusCode::CREATED, Some("/v1/projects/shop"))
    );
    let token = api
        .send(Method::POST, "/v1/projects/shop/tokens", &[], Some(json!({})))
        .await;
    let webhook = api.send(Method::POST, W, &[], Some(simple("w"))).await;
    for made in [made, token, webhook] {
        let found = api.send(Method::GET, made.header("location").unwrap(), &[], None).await;
        assert_eq!(found.status, StatusCode::OK);
        assert_eq!(found.header("etag"), made.header("etag"));
        let again = [("if-none-match", found.header("etag").unwrap())];
        let again = api
            .send(Method::GET, made.header("location").unwrap(), &again, None)
            .await;
        assert_eq!((again.status, again.body), (StatusCode::NOT_MODIFIED, Value::Null));
    }
    service.stop().await;
}

#[tokio::test]
async fn of_two_who_change_the_same_version_one_is_told_so() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    let made = api.send(Method::POST, W, &[], Some(simple("w"))).await;
    let read = [("if-match", made.header("etag").unwrap())];
    let path = format!("{W}/w");
    let change = |description: &str| Some(json!({ "description": description }));
    let (first, second) = tokio::join!(
        api.send(Method::PATCH, &path, &read, change("one")),
        api.send(Method::PATCH, &path, &read, change("two")),
    );
    let mut statuses = [first.status.as_u16(), second.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
    assert_eq!(api.send(Method::DELETE, &path, &read, None).await.status, 412);
    let now = api.send(Method::GET, &path, &[], None).await;
    let now = [("if-match", now.header("etag").unwrap())];
    assert_eq!(api.send(Method::DELETE, &path, &now, None).await.status, 204);

    let project = api.send(Method::GET, "/v1/projects/shop", &[], None).await;
    let read = [("if-match", project.header("etag").unwrap())];
    let change = |check: &str| Some(json!({ "schema_check": check }));
    let changed = api
        .send(Method::PATCH, "/v1/projects/shop", &read, change("warn"))
        .await;
    assert_eq!(
        (changed.status.as_u16(), &changed.body["schema_check"]),
        (200, &json!("warn"))
    );
    let refused = api.send(Method::PATCH, "/v1/projects/shop", &read, change("off")).await;
    assert_eq!(refused.status, 412);
    service.stop().await;
}

#[tokio::test]
async fn a_request_repeated_with_its_key_is_done_once_and_answered_alike() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    let key = [("idempotency-key", "order-66")];
    let first = api.send(Method::POST, W, &key, Some(simple("w"))).await;
    assert_eq!(
        (first.status.as_u16(), first.header("idempotent-replayed")),
        (201, None)
    );
    assert!(first.body["secret"].is_string());
    let again = api.send(Method::POST, W, &key, Some(simple("w"))).await;
    assert_eq!(
        (again.status.as_u16(), again.header("idempotent-replayed")),
        (201, Some("true"))
    );
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("location"), first.header("location"));
    let list = api.get(W).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));

    let other = api.send(Method::POST, W, &key, Some(simple("other"))).await;
    assert_eq!(
        (other.status.as_u16(), &other.body["type"]),
        (422, &json!("urn:posthaste:problem:idempotency_key_reused"))
    );
    let long = "x".repeat(256);
    let refused = api
        .send(Method::POST, W, &[("idempotency-key", &long)], Some(simple("x")))
        .await;
    assert_eq!(refused.status, 400);

    // Another token's keys are its own.
    let token = api.post("/v1/projects/shop/tokens", json!({})).await;
    let own = api.with_token(token["token"].as_str().unwrap());
    assert_eq!(own.send(Method::POST, W, &key, Some(simple("w"))).await.status, 409);
    // A refusal is repeated, too.
    let refused = own.send(Method::POST, W, &key, Some(simple("w"))).await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("idempotent-replayed")),
        (409, Some("true"))
    );
    service.stop().await;
}

/// How many entries in the trail say that a secret was shown.
async fn reveals(api: &Client) -> usize {
    let trail = api.get("/v1/projects/shop/audit?reveals=true").await;
    trail["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_secret_that_is_shown_again_is_in_the_trail_again() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    let requests = [
        (W.to_owned(), simple("w"), "secret"),
        ("/v1/projects/shop/tokens".to_owned(), json!({}), "token"),
        (format!("{W}/w:rotate-secret"), json!({}), "secret"),
    ];
    for (n, (path, body, member)) in requests.iter().enumerate() {
        let (key, before) = (format!("key-{n}"), reveals(api).await);
        let key = [("idempotency-key", key.as_str())];
        let first = api.send(Method::POST, path, &key, Some(body.clone())).await;
        assert!(first.body[member].is_string(), "{path}: {}", first.body);
        assert_eq!(reveals(api).await, before + 1, "{path}");
        let again = api.send(Method::POST, path, &key, Some(body.clone())).await;
        assert_eq!(
            (again.header("idempotent-replayed"), &again.body),
            (Some("true"), &first.body)
        );
        assert_eq!(reveals(api).await, before + 2, "{path}");
        let entry = api.get("/v1/projects/shop/audit").await["items"][0].clone();
        assert_eq!(
            (&entry["path"], &entry["status"], entry["location"].as_str()),
            (&json!(path), &json!(first.status.as_u16()), first.header("location"))
        );
    }
    // What shows nothing, and does nothing, is not in it.
    let trail = async || {
        api.get("/v1/projects/shop/audit").await["items"]
            .as_array()
            .unwrap()
            .len()
    };
    let key = [("idempotency-key", "pause")];
    api.send(Method::POST, &format!("{W}/w:pause"), &key, None).await;
    let before = trail().await;
    let again = api.send(Method::POST, &format!("{W}/w:pause"), &key, None).await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(trail().await, before);
    // Where it cannot be noted, it is not shown.
    world.sql("REVOKE INSERT ON audit_entries FROM CURRENT_USER").await;
    let again = api
        .send(Method::POST, W, &[("idempotency-key", "key-0")], Some(simple("w")))
        .await;
    assert!(
        again.status.is_server_error() && again.body["secret"].is_null(),
        "{}",
        again.body
    );
    service.stop().await;
}

#[tokio::test]
async fn a_secret_that_is_good_for_nothing_any_more_is_left_out_of_an_answer_given_again() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    let create = async || {
        api.send(Method::POST, W, &[("idempotency-key", "w")], Some(simple("w")))
            .await
    };
    let rotate = async |key: &str, body: Value| {
        let path = format!("{W}/w:rotate-secret");
        api.send(Method::POST, &path, &[("idempotency-key", key)], Some(body))
            .await
    };
    let first = create().await;
    assert!(first.body["secret"].is_string());
    let rotated = rotate("gently", json!({})).await;
    assert_eq!(create().await.body, first.body, "the first one still signs");

    let leaked = rotate("leaked", json!({ "overlap": "0s" })).await;
    let before = reveals(api).await;
    for (again, first) in [(create().await, &first), (rotate("gently", json!({})).await, &rotated)] {
        assert_eq!(
            (again.status, again.header("idempotent-replayed")),
            (first.status, Some("true"))
        );
        let mut rest = first.body.clone();
        rest.as_object_mut().unwrap().remove("secret");
        assert_eq!(again.body, rest);
    }
    assert_eq!(reveals(api).await, before, "nothing was shown");
    assert_eq!(rotate("leaked", json!({ "overlap": "0s" })).await.body, leaked.body);

    let tokens = "/v1/projects/shop/tokens";
    let make = async || {
        api.send(Method::POST, tokens, &[("idempotency-key", "t")], Some(json!({})))
            .await
    };
    let token = make().await;
    assert_eq!(make().await.body, token.body);
    api.delete(&format!("{tokens}/{}", id(&token.body))).await;
    let again = make().await;
    assert_eq!(
        (&again.body["id"], &again.body["token"]),
        (&token.body["id"], &Value::Null)
    );
    service.stop().await;
}

#[tokio::test]
async fn a_repetition_counts_as_a_request_and_only_once() {
    let world = World::new().await;
    let limits = ["--rate-limit", "1", "--rate-limit-burst", "20"];
    let service = world.start_with(&limits).await;
    let api = &service.client;
    let left = async || {
        let answer = api.send(Method::GET, "/v1/projects", &[], None).await;
        answer.header("ratelimit-remaining").unwrap().parse::<i64>().unwrap()
    };
    let create = async |name: &str| {
        let project = Some(json!({ "name": name }));
        api.send(Method::POST, "/v1/projects", &[("idempotency-key", name)], project)
            .await
    };
    let before = left().await;
    for name in ["one", "two", "three", "four", "five"] {
        assert_eq!(create(name).await.status, StatusCode::CREATED);
    }
    // What is had back meanwhile only makes it more.
    let after = left().await;
    assert!(after >= before - 6, "{before}, then {after}");
    let answers = futures::future::join_all((0..40).map(|_| create("one"))).await;
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!((20..=35).contains(&refused.len()), "{}", refused.len());
    assert!(refused.iter().all(|answer| answer.header("retry-after").is_some()));
    service.stop().await;
}

#[tokio::test]
async fn who_may_not_write_leaves_no_keys() {
    let world = World::new().await;
    let service = world.start().await;
    let admin = &service.client;
    admin.post("/v1/projects", json!({ "name": "shop" })).await;
    let kept = async || world.number("SELECT count(*) FROM idempotency_keys").await;
    let key = [("idempotency-key", "k")];
    for (scopes, rows) in [(json!(["read", "publish"]), 0), (json!(["configure"]), 1)] {
        let token = admin
            .post("/v1/projects/shop/tokens", json!({ "scopes": scopes }))
            .await;
        let client = admin.with_token(token["token"].as_str().unwrap());
        for path in ["/v1/projects/nowhere/webhooks", "/v1/projects/shop/tokens"] {
            let answer = client.send(Method::POST, path, &key, Some(json!({}))).await;
            assert!(
                [403, 404, 422].contains(&answer.status.as_u16()),
                "{path}: {}",
                answer.body
            );
            assert_eq!(answer.header("idempotent-replayed"), None);
        }
        assert_eq!(kept().await, rows, "{scopes}");
    }
    service.stop().await;
}

#[tokio::test]
async fn of_many_repetitions_at_once_one_makes_it_and_none_makes_another() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    let key = [("idempotency-key", "k")];
    let requests = (0..8).map(|_| api.send(Method::POST, "/v1/projects/shop/tokens", &key, Some(json!({}))));
    let mut statuses = BTreeMap::new();
    for answer in futures::future::join_all(requests).await {
        *statuses.entry(answer.status.as_u16()).or_insert(0) += 1;
    }
    assert!(
        statuses.keys().all(|status| [201, 409].contains(status)),
        "{statuses:?}"
    );
    let tokens = api.get("/v1/projects/shop/tokens").await;
    assert_eq!(tokens["items"].as_array().map(Vec::len), Some(1), "{statuses:?}");
    service.stop().await;
}

#[tokio::test]
async fn who_asks_too_much_is_told_when_to_come_again() {
    let world = World::new().await;
    let limits = [
        "--rate-limit",
        "1",
        "--rate-limit-burst",
        "3",
        "--refused-tokens-per-minute",
        "2",
    ];
    let service = world.start_with(&limits).await;
    let api = &service.client;
    let answers: Vec<Answer> =
        futures::future::join_all((0..6).map(|_| api.send(Method::GET, "/v1/projects", &[], None))).await;
    let refused = answers.iter().filter(|answer| answer.status == 429);
    let refused: Vec<&Answer> = refused.collect();
    assert!((1..=3).contains(&refused.len()), "{}", refused.len());
    assert!(refused[0].header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    for answer in &answers {
        assert_eq!(answer.header("ratelimit-limit"), Some("3"));
        assert!(answer.header("ratelimit-remaining").is_some() && answer.header("ratelimit-reset").is_some());
    }
    let guesser = api.with_token("ph_nobodys_token");
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(
            guesser
                .send(Method::GET, "/v1/projects", &[], None)
                .await
                .status
                .as_u16(),
        );
    }
    assert_eq!(statuses, [401, 401, 429]);
    service.stop().await;
}

#[tokio::test]
async fn a_webhooks_revisions_say_who_changed_what() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    let token = api.post("/v1/projects/shop/tokens", json!({ "name": "ops" })).await;
    let mut new = simple("w");
    new["headers"] = json!([{ "key": "X-Api-Key", "value": "canary-7f3a" }]);
    let webhook = api.post(W, new).await;
    let ops = api.with_token(token["token"].as_str().unwrap());
    let path = format!("{W}/{}", id(&webhook));
    let change = json!({ "retry": { "delays": ["0s", "1m"] }, "labels": { "team": "blue" } });
    ops.patch(&path, change).await;
    // Nothing changes: no revision.
    ops.patch(&path, json!({ "labels": { "team": "blue" } })).await;

    let list = api.get(&format!("{path}/revisions")).await;
    let who: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (&it["revision"], &it["token_name"]))
        .collect();
    assert_eq!(who, [(&json!(2), &json!("ops")), (&json!(1), &json!("administrator"))]);
    assert!(!list.to_string().contains("canary") && !list.to_string().contains("whsec"));
    let diff = api.get(&format!("{path}/revisions/2/diff")).await;
    assert_eq!(
        diff,
        json!({ "from": 1, "to": 2, "changes": [
            { "pointer": "/retry", "from": null, "to": { "delays": ["0s", "1m"] } },
            { "pointer": "/labels/team", "to": "blue" },
        ] })
    );
    assert_eq!(
        api.get(&format!("{path}/revisions/2/diff?from=2")).await["changes"],
        json!([])
    );
    assert_eq!(api.call(Method::GET, &format!("{path}/revisions/3"), None).await.0, 404);
    api.delete(&path).await;
    let last = api.get(&format!("{path}/revisions/3")).await;
    assert_eq!(last["definition"], json!({ "deleted": true }));
    service.stop().await;
}

#[tokio::test]
async fn lists_of_webhooks_are_filtered() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    for (name, more) in [
        (
            "slack-blue",
            json!({ "labels": { "team": "blue", "env": "prod" }, "events": ["invoice.*"] }),
        ),
        ("slack-red", json!({ "labels": { "team": "red" }, "active": false })),
        ("Pager", json!({ "events": ["incident.opened"] })),
    ] {
        let mut new = simple(name);
        new.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        api.post(W, new).await;
    }
    let names = async |query: &str| -> Vec<String> {
        let list = api.get(&format!("{W}?{query}")).await;
        let names = list["items"].as_array().unwrap().iter();
        names
            .map(|webhook| webhook["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("label=team:blue").await, ["slack-blue"]);
    assert_eq!(names("label=team:blue,env:prod").await, ["slack-blue"]);
    assert_eq!(names("label=team:blue,env:test").await, [""; 0]);
    assert_eq!(names("name=SLACK").await, ["slack-red", "slack-blue"]);
    assert_eq!(names("name=100%25").await, [""; 0]);
    assert_eq!(names("state=paused").await, ["slack-red"]);
    assert_eq!(names("event=invoice.paid").await, ["slack-red", "slack-blue"]);
    // A page that is full ends where the next one begins, filtered or not.
    let page = api.get(&format!("{W}?event=invoice.paid&limit=1")).await;
    let next = page["next"].as_str().unwrap();
    assert_eq!(
        names(&format!("event=invoice.paid&limit=1&cursor={next}")).await,
        ["slack-blue"]
    );
    for wrong in [
        "state=off",
        "label=team",
        "label=",
        "colour=red",
        "name=%00",
        "limit=0",
        "cursor=x",
    ] {
        assert_eq!(
            api.call(Method::GET, &format!("{W}?{wrong}"), None).await.0,
            400,
            "{wrong}"
        );
    }
    service.stop().await;
}

#[tokio::test]
async fn a_secret_is_made_up_given_or_none() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    let with = |name: &str, secret: Value| {
        let mut new = simple(name);
        new["secret"] = secret;
        new
    };
    let made_up = api.post(W, simple("a")).await;
    assert!(made_up["secret"].is_string() && made_up["has_secret"] == true);
    let given = api.post(W, with("b", json!("a long enough secret"))).await;
    assert!(given.get("secret").is_none() && given["has_secret"] == true);
    let none = api.post(W, with("c", Value::Null)).await;
    assert!(none.get("secret").is_none() && none["has_secret"] == false);
    assert_eq!(api.call(Method::POST, W, Some(with("d", json!("short")))).await.0, 422);
    service.stop().await;
}

#[tokio::test]
async fn profiles_and_source_addresses_are_there_for_all_who_may_read() {
    let world = World::new().await;
    let service = world
        .start_with(&["--source-addresses", "192.0.2.7,2001:db8::/64"])
        .await;
    let api = &service.client;
    let list = api.get("/v1/profiles").await;
    for profile in list["items"].as_array().unwrap() {
        assert_eq!(
            &api.get(&format!("/v1/profiles/{}", profile["name"].as_str().unwrap()))
                .await,
            profile
        );
    }
    assert_eq!(api.call(Method::GET, "/v1/profiles/none", None).await.0, 404);
    let addresses = api.get("/v1/source-addresses").await;
    assert_eq!(addresses, json!({ "addresses": ["192.0.2.7", "2001:db8::/64"] }));
    service.stop().await;
}
