//! The OpenAPI documents, by tools that nobody here wrote: they are valid, a client can be generated from them, and the
//! API does what they say.

use posthaste::local::Folder;
use posthaste_tests::{ADMIN_TOKEN, Cluster, Receiver, Role, Setup};
use reqwest::Method;
use serde_json::json;

use crate::clients::{client, python, run, run_in, tool};

async fn document(cluster: &Cluster, role: Role) -> String {
    let (status, text) = cluster.text(role, "/openapi.json").await.unwrap();
    assert_eq!(status, 200);
    text
}

#[tokio::test]
async fn both_documents_are_openapi_3_1() {
    let cluster = Cluster::start().await.unwrap();
    let folder = Folder::temporary().unwrap();
    for role in [Role::ConfigApi, Role::Ingest] {
        let path = folder.path().join(format!("{}.json", role.name()));
        std::fs::write(&path, document(&cluster, role).await).unwrap();
        run(
            tool("openapi-spec-validator"),
            &["--schema", "3.1", path.to_str().unwrap()],
            "",
        )
        .await;
    }
}

#[tokio::test]
async fn a_generated_client_creates_a_webhook() {
    let cluster = Cluster::start().await.unwrap();
    let receiver = Receiver::start().await;
    cluster.admin.create_project("acme").await.unwrap();
    let folder = Folder::temporary().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("api.json"), document(&cluster, Role::ConfigApi).await).unwrap();
    std::fs::write(path("config.yml"), "post_hooks: []\n").unwrap();
    let generate = [
        "generate",
        "--path",
        &path("api.json"),
        "--meta",
        "none",
        "--output-path",
        &path("posthaste_client"),
        "--config",
        &path("config.yml"),
    ];
    run(tool("openapi-python-client"), &generate, "").await;
    let api = cluster.url(Role::ConfigApi).unwrap();
    let folder = folder.path().to_str().unwrap();
    let args = [folder, &api, ADMIN_TOKEN, "acme", &receiver.url];
    let id = python("generated.py", &args, "").await;
    let found = cluster.admin.list("/v1/projects/acme/webhooks").await.unwrap();
    assert_eq!(found[0]["id"], id.trim());
}

/// No 5xx, no status, header or body that the document does not know, bad input refused: schemathesis makes up requests
/// by the document and checks the answers against it.
#[tokio::test]
async fn the_apis_do_what_their_documents_say() {
    // It asks without a valid token more often than anybody may.
    let setup = Setup {
        env: vec![("POSTHASTE_REFUSED_TOKENS_PER_MINUTE", "0".to_owned())],
        ..Setup::default()
    };
    let cluster = Cluster::start_with(setup).await.unwrap();
    let receiver = Receiver::start().await;
    cluster.admin.create_project("acme").await.unwrap();
    cluster
        .admin
        .create_webhook("acme", "all", &receiver.url, json!({}))
        .await
        .unwrap();
    // 1NCE's paths name no project: it is the token's.
    let project = json!({ "name": "sims", "profile": "once" });
    cluster
        .admin
        .ok(Method::POST, "/v1/projects", Some(&project))
        .await
        .unwrap();
    let made = cluster
        .admin
        .ok(Method::POST, "/v1/projects/sims/tokens", Some(&json!({})))
        .await;
    let made = made.unwrap();
    let folder = Folder::temporary().unwrap();
    let config = client("schemathesis.toml");
    for (role, token, paths) in [
        (Role::ConfigApi, ADMIN_TOKEN, "^/v"),
        (Role::ConfigApi, made["token"].as_str().unwrap(), "^/management-api"),
        (Role::Ingest, ADMIN_TOKEN, "^/v"),
    ] {
        let document = format!("{}/openapi.json", cluster.url(role).unwrap());
        let authorization = format!("Authorization: Bearer {token}");
        let args = [
            "--config-file",
            config.to_str().unwrap(),
            "run",
            &document,
            "--header",
            &authorization,
            "--include-path-regex",
            paths,
        ];
        // It leaves what it has generated where it runs.
        run_in(folder.path(), tool("schemathesis"), &args).await;
    }
}
