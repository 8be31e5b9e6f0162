//! The console, in a real browser over the real services. What happens in the browser is in `tests/clients/console`; each
//! story fails where a page violates its policy, complains in the browser's console, or asks somebody else for anything.
//! What it looked like is kept in `target/console-screenshots`.

use std::path::Path;
use std::time::SystemTime;

use posthaste_tests::{ADMIN_TOKEN, Answer, Api, Cluster, Receiver, Setup, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::clients::{client, root, run};

/// Runs a story of `tests/clients/console` with what it has to know.
async fn tell(story: &str, cluster: &Cluster, more: Value) {
    the_bundle_is_of_the_sources();
    let screenshots = root().join("target/console-screenshots");
    std::fs::create_dir_all(&screenshots).unwrap();
    let mut told = json!({
        "api": cluster.admin.api,
        "ingest": cluster.admin.ingest,
        "token": ADMIN_TOKEN,
        "screenshots": screenshots,
    });
    if let (Value::Object(told), Value::Object(more)) = (&mut told, more) {
        told.extend(more);
    }
    let script = client("console").join(story);
    let modules = root().join(".tools/node");
    let args = [script.to_str().unwrap(), modules.to_str().unwrap()];
    run("node", &args, &told.to_string()).await;
}

/// A browser would show another console than the one that is to be tested.
fn the_bundle_is_of_the_sources() {
    fn newest(folder: &Path) -> SystemTime {
        let changed = std::fs::read_dir(folder).unwrap().map(|entry| {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => newest(&path),
                // Made of the API's document each time.
                false if path.ends_with("openapi.ts") => SystemTime::UNIX_EPOCH,
                false => path.metadata().unwrap().modified().unwrap(),
            }
        });
        changed.max().unwrap_or(SystemTime::UNIX_EPOCH)
    }
    let page = root().join("crates/console/dist/index.html");
    let made = page.metadata().and_then(|metadata| metadata.modified());
    let made = made
        .unwrap_or_else(|_| panic!("the console's bundle is missing: `make build` makes it, and the programs with it"));
    let sources = newest(&root().join("crates/console/web"));
    assert!(
        made >= sources,
        "the console's bundle is older than its sources: `make build` makes it anew"
    );
}

/// A token that is good for this project.
async fn token(api: &Api, project: &str, body: Value) -> String {
    let path = format!("/v1/projects/{project}/tokens");
    let made = api.ok(Method::POST, &path, Some(&body)).await.unwrap();
    made["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_page_that_is_served_is_the_one_that_was_made() {
    let cluster = Cluster::start().await.unwrap();
    the_bundle_is_of_the_sources();
    let made = std::fs::read_to_string(root().join("crates/console/dist/index.html")).unwrap();
    let api = &cluster.admin.api;
    for path in ["/console/", "/console/p/acme/webhooks"] {
        let (status, page) = cluster.admin.text(&format!("{api}{path}")).await.unwrap();
        assert_eq!(status, 200, "{page}");
        assert!(
            page == made,
            "the program has another page in it: `make build` makes it anew"
        );
    }
}

#[tokio::test]
async fn all_of_it_works_by_keyboard_alone() {
    let cluster = Cluster::start().await.unwrap();
    let receiver = Receiver::start().await;
    tell("story.mjs", &cluster, json!({ "receiver": receiver.url })).await;
    assert!(receiver.count() > 0);
}

#[tokio::test]
async fn what_strangers_write_is_text() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    // Each is told from the others, and each would run.
    let markup =
        |place: &str| format!("<img src=x onerror=\"window.ran='{place}'\"><script>window.ran='{place}'</script>");
    let (body, answered) = (markup("body"), "<script>window.ran='answered'</script>");
    let answer = Answer {
        headers: vec![
            ("x-answered", answered.to_owned()),
            ("content-type", "text/html".to_owned()),
        ],
        body: body.clone(),
        ..Answer::status(500)
    };
    let receiver = Receiver::scripted(move |_, _| answer.clone()).await;
    api.create_project("acme").await.unwrap();
    let name = "<img src=x onerror=window.ran='name'>";
    let filter = json!({ "data": { "text": { "$neq": markup("filter") } } });
    let hook = json!({
        "description": markup("description"),
        "labels": { "<b>label</b>": markup("label") },
        "headers": [{ "key": "X-Header", "value": markup("header"), "protected": false }],
        "retry": false,
        "filter": filter,
        "transform": { "text": format!("{} {{{{data.text}}}}", markup("transform")) },
    });
    cluster.create_webhook("acme", name, &receiver.url, hook).await.unwrap();
    let kind =
        json!({ "name": "note.written", "description": markup("type"), "example": { "text": markup("example") } });
    let types = "/v1/projects/acme/event-types";
    api.ok(Method::POST, types, Some(&kind)).await.unwrap();
    let token_name = "<img src=x onerror=window.ran='token'>";
    let token = token(api, "acme", json!({ "name": token_name, "scopes": ["admin"] })).await;
    let event = json!({ "type": "note.written", "data": { "text": markup("payload") }, "attributes": { "note": markup("attribute") } });
    let (status, said) = api.intake("/v1/projects/acme/events", &event).await.unwrap();
    assert_eq!(status.as_u16(), 202, "{said}");
    eventually("a dead letter", || async {
        let dead = api.list("/v1/projects/acme/dead-letters").await.unwrap();
        (!dead.is_empty()).then_some(())
    })
    .await;
    let in_json = |place: &str| markup(place).replace('"', "\\\"");
    let markup = json!({
        "name": name, "description": markup("description"), "label": markup("label"), "header": markup("header"),
        "filter": in_json("filter"), "transform": in_json("transform"), "payload": in_json("payload"),
        "attribute": markup("attribute"), "body": body, "answered": answered, "type": markup("type"), "token": token_name,
    });
    tell("strangers.mjs", &cluster, json!({ "token": token, "markup": markup })).await;
}

#[tokio::test]
async fn dead_letters_are_counted_and_made_again_and_the_form_shows_what_it_comes_to() {
    const LETTERS: usize = 3;
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    // Each event fails once.
    let receiver = Receiver::scripted(|_, before| Answer::status(if before < LETTERS { 500 } else { 200 })).await;
    api.create_project("acme").await.unwrap();
    let hook = json!({ "retry": false });
    cluster
        .create_webhook("acme", "flaky", &receiver.url, hook)
        .await
        .unwrap();
    for _ in 0..LETTERS {
        let event = json!({ "type": "invoice.paid", "data": {} });
        let (status, said) = api.intake("/v1/projects/acme/events", &event).await.unwrap();
        assert_eq!(status.as_u16(), 202, "{said}");
    }
    eventually("the dead letters", || async {
        let dead = api.list("/v1/projects/acme/dead-letters").await.unwrap();
        (dead.len() == LETTERS).then_some(())
    })
    .await;
    tell("letters.mjs", &cluster, json!({ "letters": LETTERS })).await;
    assert_eq!(receiver.count(), 2 * LETTERS);
}

#[tokio::test]
async fn webhooks_of_other_apis_are_shown_like_any_other() {
    let cluster = Cluster::start().await.unwrap();
    let (api, receiver) = (&cluster.admin, Receiver::start().await);
    for (project, profile) in [("studio", "ubiops"), ("sensors", "once")] {
        let project = json!({ "name": project, "profile": profile });
        api.ok(Method::POST, "/v1/projects", Some(&project)).await.unwrap();
    }
    let (studio, sensors) = (
        token(api, "studio", json!({ "name": "studio's" })).await,
        token(api, "sensors", json!({ "name": "sensors'" })).await,
    );
    let of_ubiops = json!({
        "name": "deployments",
        "url": format!("{}/ubiops", receiver.url),
        "object_type": "deployment",
        "object_name": "deployment-1",
        "event": "deployment_request_finished",
        "enabled": false,
    });
    let made = api.with_token(&studio);
    let made = made
        .ok(Method::POST, "/v2.1/projects/studio/webhooks", Some(&of_ubiops))
        .await;
    made.unwrap();
    let of_once = json!({ "name": "telemetry", "url": format!("{}/once", receiver.url) });
    let made = api.with_token(&sensors);
    let made = made
        .ok(
            Method::POST,
            "/management-api/v1/integrate/clouds/webhooks",
            Some(&of_once),
        )
        .await;
    made.unwrap();
    cluster.active("sensors", "telemetry").await.unwrap();
    let webhooks = json!([
        { "project": "studio", "token": studio, "name": "deployments", "url": of_ubiops["url"], "state": "paused" },
        { "project": "sensors", "token": sensors, "name": "telemetry", "url": of_once["url"], "state": "active" },
    ]);
    tell("facades.mjs", &cluster, json!({ "webhooks": webhooks })).await;
}

#[tokio::test]
async fn everything_can_be_said_of_a_webhook_in_the_form() {
    // UbiOps' options and event types, without what its document lets follow a url.
    let ubiops = std::fs::read_to_string(root().join("deploy/profiles/ubiops.toml")).unwrap();
    let follow = "protected_values_follow_url = true";
    assert!(ubiops.contains(follow));
    let profile = ubiops
        .replace(follow, "")
        .replace("name = \"ubiops\"", "name = \"studio\"");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("studio.toml"), profile).unwrap();
    let setup = Setup {
        env: vec![("POSTHASTE_PROFILES_DIR", folder.path().display().to_string())],
        ..Setup::default()
    };
    let cluster = Cluster::start_with(setup).await.unwrap();
    let (api, receiver, other) = (&cluster.admin, Receiver::start().await, Receiver::start().await);
    let project = json!({ "name": "studio", "profile": "studio" });
    api.ok(Method::POST, "/v1/projects", Some(&project)).await.unwrap();
    let ca = rcgen::generate_simple_self_signed(["receiver.example".to_owned()]).unwrap();
    let told = json!({
        "url": format!("{}/in", receiver.url), "elsewhere": format!("{}/in", other.url), "ca": ca.cert.pem(),
    });
    tell("form.mjs", &cluster, told).await;
}
