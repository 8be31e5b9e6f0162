//! Event types over REST, and their way to the CONFIG bucket.

use std::time::Duration;

use common::bus::ConfigBucket;
use proto_schemas::definition::EventType;
use proto_schemas::stream::config_key::Key;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::*;

const TYPES: &str = "/v1/projects/shop/event-types";

async fn published(bucket: &ConfigBucket, key: &Key) -> Option<EventType> {
    let bytes = bucket.get(key).await.unwrap()?;
    Some(EventType::decode(bytes).unwrap())
}

fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().into_iter().flatten();
    errors.map(|error| error["pointer"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_type_is_made_versioned_deprecated_and_deleted_and_each_is_in_the_bucket() {
    let world = World::new().await;
    let (service, bucket) = (world.start().await, world.bucket().await);
    let api = &service.client;
    let project = api.post("/v1/projects", json!({ "name": "shop" })).await;
    let key = Key::EventType(id(&project).parse().unwrap(), "order.placed".into());
    let made = api
        .post(
            TYPES,
            json!({
                "name": "order.placed",
                "description": "An order",
                "schema": { "type": "object", "required": ["id"] },
                "example": { "id": 1 }
            }),
        )
        .await;
    assert_eq!(made["source"], "project");
    assert_eq!(made["versions"][0]["version"], "1.0.0");
    assert_eq!(made["versions"][0]["example"], json!({ "id": 1 }));
    let definition = published(&bucket, &key).await.unwrap();
    assert_eq!(definition.versions[0].schema, r#"{"type":"object","required":["id"]}"#);

    let path = format!("{TYPES}/order.placed");
    let version = api
        .post(
            &format!("{path}/versions"),
            json!({ "version": "2.0.0", "schema": false }),
        )
        .await;
    assert_eq!(version["schema"], false);
    assert_eq!(api.get(&format!("{path}/versions/2.0.0")).await, version);
    let changed = api
        .patch(
            &format!("{path}/versions/1.0.0"),
            json!({ "deprecated": true, "example": null }),
        )
        .await;
    assert_eq!(
        (&changed["deprecated"], &changed["example"]),
        (&json!(true), &Value::Null)
    );
    let definition = published(&bucket, &key).await.unwrap();
    let found: Vec<_> = definition
        .versions
        .iter()
        .map(|it| (it.version.as_str(), it.deprecated))
        .collect();
    assert_eq!(found, [("1.0.0", true), ("2.0.0", false)]);
    let changed = api.patch(&path, json!({ "description": "A customer's order" })).await;
    assert_eq!(changed["description"], "A customer's order");
    assert_eq!(api.get(&path).await, changed);

    api.delete(&path).await;
    assert!(published(&bucket, &key).await.unwrap().deleted);
    assert_eq!(api.call(Method::GET, &path, None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(api.call(Method::DELETE, &path, None).await.0, StatusCode::NOT_FOUND);
    service.stop().await;
}

#[tokio::test]
async fn all_that_is_wrong_with_a_type_is_said_at_its_place() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    let large = json!({ "description": "x".repeat(70_000) });
    let deep = (0..40).fold(json!({}), |within, _| json!({ "not": within }));
    for (body, expected) in [
        (
            json!({ "name": "a b", "version": "", "schema": { "type": "thing" } }),
            vec!["#/name", "#/version", "#/schema/type"],
        ),
        (json!({ "name": "a", "schema": [] }), vec!["#/schema"]),
        (json!({ "name": "a", "schema": large }), vec!["#/schema"]),
        (json!({ "name": "a", "schema": deep }), vec!["#/schema"]),
        (
            json!({ "name": "a", "schema": { "properties": { "a b": { "$ref": "https://example.com/x" } } } }),
            vec!["#/schema/properties/a%20b/$ref"],
        ),
        (
            json!({ "name": "a", "schema": { "required": ["id"] }, "example": {} }),
            vec!["#/example/id"],
        ),
        (json!({ "name": "a", "example": "x".repeat(70_000) }), vec!["#/example"]),
        (
            json!({ "name": "a", "description": "x".repeat(1001) }),
            vec!["#/description"],
        ),
        (json!({ "name": "a", "scheme": {} }), vec!["#/scheme"]),
    ] {
        let (status, problem) = api.call(Method::POST, TYPES, Some(body)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
        assert_eq!(pointers(&problem), expected, "{problem}");
    }
    api.post(TYPES, json!({ "name": "a", "schema": { "required": ["id"] } }))
        .await;
    let wrong = Some(json!({ "example": {} }));
    let (status, problem) = api
        .call(Method::PATCH, &format!("{TYPES}/a/versions/1.0.0"), wrong)
        .await;
    assert_eq!((status.as_u16(), pointers(&problem)), (422, vec!["#/example/id"]));
    for (method, path, body) in [
        (Method::POST, TYPES.to_owned(), json!({ "name": "a" })),
        (
            Method::POST,
            format!("{TYPES}/a/versions"),
            json!({ "version": "1.0.0" }),
        ),
    ] {
        assert_eq!(api.call(method, &path, Some(body)).await.0, StatusCode::CONFLICT);
    }
    service.stop().await;
}

#[tokio::test]
async fn the_schemas_of_a_type_stay_small_enough_for_one_message() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    let schema = json!({ "description": "x".repeat(60 * 1024) });
    api.post(TYPES, json!({ "name": "a", "schema": schema })).await;
    let path = format!("{TYPES}/a/versions");
    for version in ["2", "3", "4"] {
        api.post(&path, json!({ "version": version, "schema": schema })).await;
    }
    let fifth = json!({ "version": "5", "schema": schema });
    let (status, problem) = api.call(Method::POST, &path, Some(fifth)).await;
    assert_eq!((status.as_u16(), pointers(&problem)), (422, vec!["#/schema"]));
    service.stop().await;
}

#[tokio::test]
async fn a_catalogues_types_stand_beside_a_projects_own_which_go_before_them() {
    let world = World::new().await;
    let (service, bucket) = (world.start().await, world.bucket().await);
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop", "profile": "uniskai" }))
        .await;
    let key = Key::CatalogueType("uniskai".into(), "spot-recreated".into());
    assert!(!published(&bucket, &key).await.unwrap().deleted, "published at start");

    let shipped = api.get(&format!("{TYPES}/spot-recreated")).await;
    assert_eq!(
        (&shipped["source"], &shipped["versions"][0]["created_at"]),
        (&json!("catalogue"), &Value::Null)
    );
    for method in [Method::PATCH, Method::DELETE] {
        let body = (method == Method::PATCH).then(|| json!({ "description": "mine" }));
        let (status, problem) = api.call(method, &format!("{TYPES}/spot-recreated"), body).await;
        assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    }
    api.post(TYPES, json!({ "name": "spot-recreated" })).await;
    api.post(TYPES, json!({ "name": "a.first" })).await;

    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("{TYPES}?limit=3{cursor}")).await;
        for item in page["items"].as_array().unwrap() {
            found.push((
                item["name"].as_str().unwrap().to_owned(),
                item["source"].as_str().unwrap().to_owned(),
            ));
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found.len(), 9);
    assert!(found.is_sorted(), "{found:?}");
    assert_eq!(found[0], ("a.first".into(), "project".into()));
    assert!(found.contains(&("spot-recreated".into(), "project".into())));
    assert!(found.contains(&("spot-rollback".into(), "catalogue".into())));

    api.delete(&format!("{TYPES}/spot-recreated")).await;
    assert_eq!(api.get(&format!("{TYPES}/spot-recreated")).await["source"], "catalogue");
    service.stop().await;
}

#[tokio::test]
async fn what_the_bucket_lost_or_has_too_much_is_put_right_at_start() {
    let world = World::new().await;
    let (service, bucket) = (world.start().await, world.bucket().await);
    let project = service.client.post("/v1/projects", json!({ "name": "shop" })).await;
    service.client.post(TYPES, json!({ "name": "a" })).await;
    service.stop().await;
    let own = Key::EventType(id(&project).parse().unwrap(), "a".into());
    let stray = Key::CatalogueType("uniskai".into(), "no-longer".into());
    let stale = EventType {
        name: "no-longer".into(),
        versions: Vec::new(),
        deleted: false,
    };
    bucket.put(&own, Vec::new()).await.unwrap();
    bucket.put(&stray, stale.encode()).await.unwrap();
    let service = world.start().await;
    assert_eq!(published(&bucket, &own).await.unwrap().versions.len(), 1);
    assert!(published(&bucket, &stray).await.unwrap().deleted);
    service.stop().await;
}

#[tokio::test]
async fn types_are_read_with_read_and_changed_with_configure() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    api.post("/v1/projects", json!({ "name": "other" })).await;
    api.post(TYPES, json!({ "name": "a" })).await;
    let token = async |project: &str, scope: &str| {
        let made = api
            .post(&format!("/v1/projects/{project}/tokens"), json!({ "scopes": [scope] }))
            .await;
        api.with_token(made["token"].as_str().unwrap())
    };
    let (reader, stranger) = (token("shop", "read").await, token("other", "configure").await);
    for (client, method, path, body, status) in [
        (&reader, Method::GET, TYPES.to_owned(), None, 200),
        (
            &reader,
            Method::POST,
            TYPES.to_owned(),
            Some(json!({ "name": "b" })),
            403,
        ),
        (&reader, Method::PATCH, format!("{TYPES}/a"), Some(json!({})), 403),
        (
            &reader,
            Method::PATCH,
            format!("{TYPES}/a/versions/1.0.0"),
            Some(json!({})),
            403,
        ),
        (
            &reader,
            Method::POST,
            format!("{TYPES}/a/versions"),
            Some(json!({ "version": "2" })),
            403,
        ),
        (&reader, Method::DELETE, format!("{TYPES}/a"), None, 403),
        (&stranger, Method::GET, format!("{TYPES}/a"), None, 404),
        (&stranger, Method::DELETE, format!("{TYPES}/a"), None, 404),
    ] {
        let (found, problem) = client.call(method.clone(), &path, body).await;
        assert_eq!(found.as_u16(), status, "{method} {path}: {problem}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_schema_is_compiled_before_others_have_to_wait_and_who_deletes_waits_for_who_adds() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    let project = api.post("/v1/projects", json!({ "name": "shop" })).await;
    let schema = json!({ "type": "object" });
    api.post(TYPES, json!({ "name": "a", "schema": schema })).await;

    // Somebody is adding a version.
    let store = world.store().await;
    let mut adding = store.begin().await.unwrap();
    store::event_types::lock(&mut adding, id(&project).parse().unwrap())
        .await
        .unwrap();
    let version = format!("{TYPES}/a/versions/1.0.0");
    let refused = api.call(Method::PATCH, &version, Some(json!({ "example": 1 })));
    let (status, problem) = tokio::time::timeout(Duration::from_secs(4), refused)
        .await
        .expect("nothing is waited for");
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");

    let of_a = format!("{TYPES}/a");
    let deleted = api.call(Method::DELETE, &of_a, None);
    let waits = until("who deletes waits", async || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        world.number(waiting).await == 1
    });
    let release = async {
        waits.await;
        adding.commit().await.unwrap();
    };
    let ((status, _), ()) = tokio::join!(deleted, release);
    assert_eq!(status, StatusCode::NO_CONTENT);
    service.stop().await;
}
