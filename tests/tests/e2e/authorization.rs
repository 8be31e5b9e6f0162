//! Every operation that the OpenAPI documents have, by whoever may not do it: without a good token, without the scope,
//! and as another project's.

use std::collections::BTreeMap;
use std::time::Duration;

use posthaste_tests::{Answer, Api, Cluster, Receiver, Setup, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const API: &str = include_str!("../../../docs/openapi.json");
const INGEST: &str = include_str!("../../../docs/openapi-ingest.json");

/// Every scope that a token can have.
const SCOPES: [&str; 4] = ["admin", "configure", "publish", "read"];

/// Well below the 15 s that a body may take.
const AT_ONCE: Duration = Duration::from_secs(7);

/// What a document says of an operation, and this test needs.
#[derive(Debug)]
struct Operation {
    id: String,
    method: Method,
    path: String,
    /// Whom it is there for.
    needs: Needs,
    is_intake: bool,
}

/// Whom an operation is there for.
#[derive(Debug, PartialEq, Eq)]
enum Needs {
    /// Everybody.
    Nothing,
    /// Whoever has a token.
    Token,
    /// Whoever has a token with this scope.
    Scope(String),
}

impl Operation {
    fn all() -> Vec<Self> {
        let mut operations = Vec::new();
        for (text, is_intake) in [(API, false), (INGEST, true)] {
            let document: Value = serde_json::from_str(text).unwrap();
            for (path, item) in document["paths"].as_object().unwrap() {
                for (method, operation) in item.as_object().unwrap() {
                    let needs = match operation["security"].as_array().unwrap().as_slice() {
                        [] => Needs::Nothing,
                        [needed] => match needed["token"].as_array().unwrap().as_slice() {
                            [] => Needs::Token,
                            [scope] => Needs::Scope(scope.as_str().unwrap().to_owned()),
                            several => panic!("{path}: {several:?}"),
                        },
                        several => panic!("{path}: {several:?}"),
                    };
                    operations.push(Self {
                        id: operation["operationId"].as_str().unwrap().to_owned(),
                        method: method.to_uppercase().parse().unwrap(),
                        path: path.clone(),
                        needs,
                        is_intake,
                    });
                }
            }
        }
        assert!(
            operations.len() > 70,
            "the documents have {} operations",
            operations.len()
        );
        operations
    }

    /// Whether the path names the project.
    fn is_of_a_project(&self) -> bool {
        self.path.contains("{project}")
    }

    /// Whether the path names something in a project.
    fn names_something(&self) -> bool {
        self.path.replace("{project}", "").contains('{')
            && !self.path.starts_with("/v1/profiles")
            && !self.path.starts_with("/v1/templates")
    }

    /// The path with these in the place of its variables, and what is to be done where it says so in its last one.
    fn path(&self, variables: &BTreeMap<&str, String>) -> String {
        let mut path = self.path.clone();
        for (name, value) in variables {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        assert!(!path.contains('{'), "{path}: what is its variable?");
        match self.id.as_str() {
            "act_on_event" | "act_on_delivery" => path + ":replay",
            "act_on_replay" => path + ":cancel",
            _ => path,
        }
    }

    /// A body that says nothing wrong, where one is needed.
    fn body(&self) -> Option<Value> {
        match self.id.as_str() {
            "create_event_type_version" => Some(json!({ "version": "9", "schema": {} })),
            "publish_event" => Some(json!({ "type": "order.paid", "data": 1 })),
            "publish_events" => Some(json!({ "events": [{ "type": "order.paid", "data": 1 }] })),
            _ if [Method::POST, Method::PATCH].contains(&self.method) => Some(json!({})),
            _ => None,
        }
    }

    /// The same operation with bodies that are wrong, or never come. What is wrong with the token is said all the same, and
    /// nothing of a body is waited for.
    async fn refuses_whatever_the_body(&self, client: &Api, which: &str, path: &str) {
        let base = if self.is_intake { &client.ingest } else { &client.api };
        let url = format!("{base}{path}");
        for (content_type, body) in [
            ("application/json", "{\"type\":"),
            ("text/plain", "nonsense"),
            ("application/json", ""),
        ] {
            let status = client.say(self.method.clone(), &url, content_type, body).await.unwrap();
            assert_eq!(status, 401, "{} with {which} token and `{body}`", self.id);
        }
        for length in [1_000, 1_000_000_000_000] {
            let answer = client
                .announce(self.method.clone(), &url, length, AT_ONCE)
                .await
                .unwrap();
            let is_refused = answer.starts_with("HTTP/1.1 401 ");
            assert!(
                is_refused,
                "{} with {which} token and {length} bytes to come: {answer}",
                self.id
            );
        }
    }

    async fn ask(&self, client: &Api, path: &str) -> (StatusCode, Value) {
        let body = self.body();
        let (status, mut answer) = match self.is_intake {
            true => client.intake(path, &body.unwrap()).await.unwrap(),
            false => client.call(self.method.clone(), path, body.as_ref()).await.unwrap(),
        };
        // The request's own id is all that may differ.
        if let Value::Object(answer) = &mut answer {
            answer.remove("instance");
        }
        (status, answer)
    }
}

/// A project with one or two of everything, somebody else's project, and who knows both.
struct World {
    cluster: Cluster,
    receiver: Receiver,
    operations: Vec<Operation>,
    /// The project's name, and what its things are called.
    mine: BTreeMap<&'static str, String>,
}

impl World {
    async fn start() -> Self {
        // Each refusal of this test comes from one address.
        let env = [
            "POSTHASTE_REFUSED_TOKENS_PER_MINUTE",
            "POSTHASTE_RATE_LIMIT",
            "POSTHASTE_RATE_LIMIT_BURST",
        ]
        .map(|name| (name, "100000".to_owned()));
        let setup = Setup {
            env: env.to_vec(),
            ..Setup::default()
        };
        let (cluster, receiver) = (Cluster::start_with(setup).await.unwrap(), Receiver::start().await);
        let broken = Receiver::scripted(|_, _| Answer::status(500)).await;
        let admin = &cluster.admin;
        for project in ["mine", "other"] {
            admin.create_project(project).await.unwrap();
        }
        let post = async |rest: &str, body: Value| {
            let path = format!("/v1/projects/mine/{rest}");
            admin.ok(Method::POST, &path, Some(&body)).await.unwrap()
        };
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let failing = json!({ "events": ["order.sent"], "retry": { "delays": ["0s"] } });
        let second = cluster
            .create_webhook("mine", "second", &broken.url, failing)
            .await
            .unwrap();
        let webhook = cluster
            .create_webhook("mine", "first", &receiver.url, json!({}))
            .await
            .unwrap();
        for event_type in ["order.paid", "order.sent"] {
            post(
                "event-types",
                json!({ "name": event_type, "version": "1", "schema": {} }),
            )
            .await;
        }
        for (id, event_type) in [("event-of-mine-1", "order.paid"), ("event-of-mine-2", "order.sent")] {
            let event = json!({ "type": event_type, "id": id, "data": { "secret": "of mine" } });
            let (status, answer) = admin.intake("/v1/projects/mine/events", &event).await.unwrap();
            assert_eq!(status, 202, "{answer}");
        }
        let attempt = eventually("every attempt on record", || async {
            let attempts = admin.list("/v1/projects/mine/attempts").await.unwrap();
            (attempts.len() == 3).then(|| text(&attempts[0]["id"]))
        })
        .await;
        let replay = post(
            "replays",
            json!({ "events": ["event-of-mine-1"], "states": ["delivered"] }),
        )
        .await;
        let test = post("tests", json!({ "webhook": "first" })).await;
        let token = post("tokens", json!({ "name": "a token of mine" })).await;
        eventually("all is done", || async { (receiver.count() == 4).then_some(()) }).await;
        let mine = BTreeMap::from([
            ("project", "mine".to_owned()),
            ("webhook", text(&webhook["id"])),
            ("failing", text(&second["id"])),
            ("event", "event-of-mine-1".to_owned()),
            ("attempt", attempt),
            ("replay", text(&replay["id"])),
            ("test", text(&test["id"])),
            ("token", text(&token["id"])),
            ("revision", "1".to_owned()),
            ("event_type", "order.paid".to_owned()),
            ("version", "1".to_owned()),
            ("profile", "standard".to_owned()),
            ("template", "slack".to_owned()),
        ]);
        Self {
            cluster,
            receiver,
            operations: Operation::all(),
            mine,
        }
    }

    /// A client with a new token of a project.
    async fn client(&self, project: &str, body: Value) -> (Api, String) {
        let path = format!("/v1/projects/{project}/tokens");
        let token = self.cluster.admin.ok(Method::POST, &path, Some(&body)).await.unwrap();
        let client = self.cluster.admin.with_token(token["token"].as_str().unwrap());
        (client, token["id"].as_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn every_operation_is_refused_without_a_good_token_and_without_its_scope() {
    let world = World::start().await;
    let admin = &world.cluster.admin;
    let in_a_second = common::clock::Clock::System.now() + jiff::SignedDuration::from_secs(1);
    let (expired, _) = world
        .client("mine", json!({ "scopes": SCOPES, "expires_at": in_a_second }))
        .await;
    let (revoked, id) = world.client("mine", json!({ "scopes": SCOPES })).await;
    let path = format!("/v1/projects/mine/tokens/{id}");
    admin.ok(Method::DELETE, &path, None).await.unwrap();
    for client in [&expired, &revoked] {
        eventually("the token is good no more", || async {
            let event = json!({ "type": "order.paid", "data": 1 });
            let (at_intake, _) = client.intake("/v1/projects/mine/events", &event).await.unwrap();
            let (at_api, _) = client.call(Method::GET, "/v1/projects/mine", None).await.unwrap();
            (at_intake == 401 && at_api == 401).then_some(())
        })
        .await;
    }
    let nobodys = admin.with_token("ph_0123456789abcdefghijklmnopqrstuv_000000");
    let refused = [
        ("no", &admin.anonymous()),
        ("nobody's", &nobodys),
        ("an expired", &expired),
        ("a revoked", &revoked),
    ];

    let mut without = BTreeMap::new();
    for scope in SCOPES {
        // Whoever may configure may read, and the administrator may do everything.
        let others = SCOPES.into_iter().filter(|other| match (scope, *other) {
            (_, "admin") | ("read", "configure") => false,
            (scope, other) => scope != other,
        });
        let scopes: Vec<&str> = others.collect();
        without.insert(scope, world.client("mine", json!({ "scopes": scopes })).await.0);
    }

    for operation in &world.operations {
        let path = operation.path(&world.mine);
        if operation.needs == Needs::Nothing {
            continue;
        }
        for (which, client) in refused {
            let (status, answer) = operation.ask(client, &path).await;
            assert_eq!(status, 401, "{} with {which} token: {answer}", operation.id);
            operation.refuses_whatever_the_body(client, which, &path).await;
        }
        let Needs::Scope(scope) = &operation.needs else {
            continue;
        };
        let (status, answer) = operation.ask(&without[scope.as_str()], &path).await;
        assert_eq!(status, 403, "{} without the scope {scope}: {answer}", operation.id);
        assert!(
            answer["detail"].as_str().unwrap().contains(scope.as_str()),
            "{}: {answer}",
            operation.id
        );
    }
}

#[tokio::test]
async fn what_is_in_another_project_is_as_if_it_were_nowhere() {
    let world = World::start().await;
    let admin = &world.cluster.admin;
    let (other, _) = world.client("other", json!({ "scopes": SCOPES })).await;
    let before = world.receiver.count();
    let is_mine = |answer: &Value| {
        let answer = answer.to_string();
        let mut names = world
            .mine
            .iter()
            .filter(|(name, _)| ["webhook", "event", "attempt", "replay"].contains(*name));
        names.any(|(_, value)| answer.contains(value)) || answer.contains("of mine")
    };
    let with = |changes: &[(&'static str, &str)]| {
        let mut variables = world.mine.clone();
        variables.extend(changes.iter().map(|(name, value)| (*name, (*value).to_owned())));
        variables
    };

    for operation in world
        .operations
        .iter()
        .filter(|operation| operation.needs != Needs::Nothing)
    {
        if operation.is_of_a_project() {
            // By the project's name, its answer is that of a project that does not exist.
            let (status, answer) = operation.ask(&other, &operation.path(&world.mine)).await;
            assert_eq!(status, 404, "{}: {answer}", operation.id);
            let nowhere = operation
                .ask(&other, &operation.path(&with(&[("project", "nowhere")])))
                .await;
            assert_eq!((status, answer), nowhere, "{}", operation.id);
        }
        // By ids of its own, neither: not through one's own project, and not by the token's.
        if operation.names_something() {
            let (status, answer) = operation
                .ask(&other, &operation.path(&with(&[("project", "other")])))
                .await;
            assert_eq!(status, 404, "{}: {answer}", operation.id);
            assert!(!is_mine(&answer), "{}: {answer}", operation.id);
        }
    }

    // A place in a list leads to one's own things.
    let mut places = 0;
    for operation in &world.operations {
        if operation.method != Method::GET || operation.names_something() || !operation.is_of_a_project() {
            continue;
        }
        let page = format!("{}?limit=1", operation.path(&world.mine));
        let Ok((StatusCode::OK, answer)) = admin.call(Method::GET, &page, None).await else {
            continue;
        };
        let Some(cursor) = answer["next"].as_str() else {
            continue;
        };
        places += 1;
        let path = format!("{}?cursor={cursor}", operation.path(&with(&[("project", "other")])));
        let (status, answer) = other.call(Method::GET, &path, None).await.unwrap();
        assert!(
            status != 500 && !is_mine(&answer),
            "{}: {status} {answer}",
            operation.id
        );
    }
    assert!(places >= 4, "only {places} lists went on");

    // What a body names is looked for in one's own project alone.
    let replay =
        json!({ "events": [world.mine["event"]], "webhooks": [world.mine["webhook"]], "states": ["delivered"] });
    for (path, body) in [
        ("/v1/projects/other/replays", &replay),
        ("/v1/projects/other/tests", &json!({ "webhook": world.mine["webhook"] })),
    ] {
        let (status, answer) = other.call(Method::POST, path, Some(body)).await.unwrap();
        assert!(status.is_client_error(), "{path}: {status} {answer}");
    }

    // A webhook that is gone has dead letters, too, so any may be named.
    let discard = "/v1/projects/other/dead-letters:discard";
    other
        .ok(
            Method::POST,
            discard,
            Some(&json!({ "webhooks": [world.mine["failing"]] })),
        )
        .await
        .unwrap();
    eventually("it was looked for them", || async {
        let orders = other.list("/v1/projects/other/replays").await.unwrap();
        orders.iter().all(|order| order["state"] == "finished").then_some(())
    })
    .await;

    // Nothing of it had any effect.
    let dead = admin.list("/v1/projects/mine/dead-letters").await.unwrap();
    assert_eq!(dead.len(), 1, "{dead:?}");
    let webhook = format!("/v1/projects/mine/webhooks/{}", world.mine["webhook"]);
    let shown = admin.ok(Method::GET, &webhook, None).await.unwrap();
    assert_eq!(
        (&shown["revision"], &shown["state"]),
        (&json!(1), &json!("active")),
        "{shown}"
    );
    world.cluster.definitions_in_force().await.unwrap();
    assert_eq!(world.receiver.count(), before);
}

#[tokio::test]
async fn whatever_may_change_something_is_in_the_audit_trail() {
    let world = World::start().await;
    let admin = &world.cluster.admin;
    let mut asked = Vec::new();
    for operation in &world.operations {
        if operation.needs == Needs::Nothing || operation.is_intake || operation.method == Method::GET {
            continue;
        }
        // The façade of one platform takes the project from the token.
        let (client, _) = world.client("mine", json!({ "scopes": SCOPES })).await;
        let path = operation.path(&world.mine);
        let client = match path.starts_with("/management-api/") {
            true => &client,
            false => admin,
        };
        let (status, answer) = operation.ask(client, &path).await;
        assert!(!status.is_server_error(), "{}: {answer}", operation.id);
        asked.push((operation.method.to_string(), path, status.as_u16()));
    }
    // The other webhook: one of the operations has deleted the first.
    let rotate = format!("/v1/projects/mine/webhooks/{}:rotate-secret", world.mine["failing"]);
    admin.ok(Method::POST, &rotate, Some(&json!({}))).await.unwrap();
    let entries = admin.list("/v1/audit").await.unwrap();
    for (method, path, status) in &asked {
        let is_it =
            |entry: &&Value| entry["method"] == **method && entry["path"] == **path && entry["status"] == *status;
        let entry = entries.iter().find(is_it);
        let entry = entry.unwrap_or_else(|| panic!("{method} {path} {status} is not in {entries:#?}"));
        assert!(entry["token"].is_string() && entry["address"] == "127.0.0.1", "{entry}");
    }
    // Whose it is, and what was shown.
    let mine = admin.list("/v1/projects/mine/audit?reveals=true").await.unwrap();
    let made = |path: &str| mine.iter().filter(|entry| entry["path"] == path).count();
    assert!(
        made("/v1/projects/mine/tokens") > 1 && made("/v1/projects/mine/webhooks") == 2,
        "{mine:#?}"
    );
    assert_eq!(made(&rotate), 1, "{mine:#?}");
    assert!(
        mine.iter()
            .all(|entry| entry["location"].is_string() || entry["path"].to_string().contains("rotate"))
    );
    let others = admin.list("/v1/projects/other/audit").await.unwrap();
    assert_eq!(others, Vec::<Value>::new());
}
