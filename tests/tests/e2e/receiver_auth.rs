//! Receivers that want to know who asks, and are known by an authority of their own.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use posthaste_tests::{Answer, Api, Authority, Cluster, Producer, Receiver, Role, eventually};
use reqwest::Method;
use serde_json::{Value, json};

const HOOK: &str = "/v1/projects/acme/webhooks/one";

/// Nobody may see this.
const CANARY: &str = "canary-in-the-coal-mine";

async fn publish(producer: &Producer, id: &str) {
    let id = format!("acme:{id}");
    producer
        .publish("events.acme.a", &[("Nats-Msg-Id", &id)], r#"{"a":1}"#)
        .await
        .unwrap();
}

/// What the log has of an event's last attempt, once there are so many.
async fn attempt(api: &Api, event: &str, count: usize) -> Value {
    let path = format!("/v1/projects/acme/attempts?event_id={event}");
    let newest = eventually("the attempt in the log", || async {
        let found = api.list(&path).await.unwrap();
        (found.len() >= count).then(|| found[0].clone())
    })
    .await;
    let path = format!("/v1/projects/acme/attempts/{}", newest["id"].as_str().unwrap());
    api.ok(Method::GET, &path, None).await.unwrap()
}

async fn patch(cluster: &Cluster, changes: Value) -> Value {
    let changed = cluster.admin.ok(Method::PATCH, HOOK, Some(&changes)).await.unwrap();
    cluster.definitions_in_force().await.unwrap();
    changed
}

/// The pointers of what is wrong with a change.
async fn refused(api: &Api, changes: Value) -> Vec<String> {
    let (status, problem) = api.call(Method::PATCH, HOOK, Some(&changes)).await.unwrap();
    assert_eq!(status, 422, "{problem}");
    let errors = problem["errors"].as_array().unwrap();
    errors
        .iter()
        .map(|error| error["pointer"].as_str().unwrap().to_owned())
        .collect()
}

/// Everything that the API has to say of the webhook and that the services have logged.
async fn everything_said(cluster: &Cluster) -> String {
    let mut said = String::new();
    for path in [HOOK, "/v1/projects/acme/webhooks", &format!("{HOOK}/revisions")] {
        said += &cluster.admin.ok(Method::GET, path, None).await.unwrap().to_string();
    }
    said += &Role::ALL.map(|role| cluster.log(role)).concat();
    said
}

#[tokio::test]
async fn an_authority_and_a_client_certificate_are_one_webhooks_own() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    api.create_project("acme").await.unwrap();
    let (servers, clients) = (Authority::new().unwrap(), Authority::new().unwrap());
    let receiver = Receiver::over_tls(servers.acceptor(Some(&clients)).unwrap()).await;
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let more = json!({ "tls": { "ca": servers.pem() }, "retry": false });
    cluster
        .create_webhook("acme", "one", &receiver.url, more)
        .await
        .unwrap();

    publish(&producer, "e1").await;
    let failed = attempt(api, "e1", 1).await;
    assert_eq!(
        (&failed["error_class"], &failed["tls_fault"]),
        (&json!("tls"), &json!("certificate_wanted"))
    );

    let own = clients.certificate("posthaste.example").unwrap();
    let tls = json!({ "ca": servers.pem(), "client_certificate": own.pem, "client_key": own.key });
    let shown = patch(&cluster, json!({ "tls": tls })).await;
    assert_eq!(
        shown["tls"],
        json!({ "ca": servers.pem(), "client_certificate": own.pem })
    );
    publish(&producer, "e2").await;
    assert_eq!(attempt(api, "e2", 1).await["status"], 200);

    // As it was shown, it can be sent back: the key stays. What does not fit it is refused.
    patch(&cluster, json!({ "tls": shown["tls"], "description": "as before" })).await;
    publish(&producer, "e3").await;
    assert_eq!(attempt(api, "e3", 1).await["status"], 200);
    let other = clients.certificate("other.example").unwrap();
    let unfit = json!({ "tls": { "ca": servers.pem(), "client_certificate": other.pem } });
    assert_eq!(refused(api, unfit).await, ["#/tls/client_key"]);
    for received in receiver.received() {
        assert_eq!(received.client_certificate.as_ref(), Some(&own.der));
    }
    assert_eq!(receiver.count(), 2);

    // Another webhook gets no benefit of it, while the connections are still open; and a test of it says so, too.
    cluster
        .create_webhook("acme", "two", &receiver.url, json!({ "retry": false }))
        .await
        .unwrap();
    publish(&producer, "e4").await;
    attempt(api, "e4", 2).await;
    let of_two = api
        .list("/v1/projects/acme/attempts?event_id=e4&webhook=two")
        .await
        .unwrap();
    assert_eq!(of_two[0]["error_class"], "tls");
    assert_eq!(receiver.count(), 3);

    let key: String = own.key.lines().filter(|line| !line.starts_with('-')).collect();
    let said = everything_said(&cluster).await;
    assert!(!said.contains("PRIVATE KEY") && !said.contains(&key[8..40]), "{said}");
}

#[tokio::test]
async fn a_password_is_sent_with_every_request_and_shown_nowhere() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    api.create_project("acme").await.unwrap();
    let receiver = Receiver::start().await;
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let basic = json!({ "type": "basic", "username": "me", "password": CANARY });
    let more = json!({ "authentication": basic });
    let hook = cluster
        .create_webhook("acme", "one", &receiver.url, more)
        .await
        .unwrap();
    assert_eq!(hook["authentication"], json!({ "type": "basic", "username": "me" }));

    let value = |username: &str| {
        use base64::Engine as _;
        let pair = format!("{username}:{CANARY}");
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    };
    publish(&producer, "e1").await;
    let log = attempt(api, "e1", 1).await;
    assert_eq!(receiver.received()[0].headers["authorization"], value("me"));

    let preview = api
        .ok(Method::POST, &format!("{HOOK}:preview"), Some(&json!({})))
        .await
        .unwrap();
    for (request, protected) in [(&log["request"], true), (&preview["request"], false)] {
        let headers = request["headers"].as_array().unwrap();
        let shown = headers.iter().find(|line| line["key"] == "authorization").unwrap();
        assert_eq!(shown["value"], Value::Null, "{request}");
        assert!(!protected || shown["protected"] == true);
    }
    assert_eq!(log["request"]["reproduced"], true, "{log}");

    // The password stays where none is given.
    patch(
        &cluster,
        json!({ "authentication": { "type": "basic", "username": "you" } }),
    )
    .await;
    publish(&producer, "e2").await;
    attempt(api, "e2", 1).await;
    assert_eq!(receiver.received()[1].headers["authorization"], value("you"));
    // The log of before still shows what was sent, by the revision of then.
    assert_eq!(attempt(api, "e1", 1).await["request"]["reproduced"], true);

    let own = json!({ "headers": [{ "key": "Authorization", "value": "Bearer x" }] });
    assert_eq!(refused(api, own).await, ["#/headers/0/key"]);
    let said = everything_said(&cluster).await;
    assert!(!said.contains(CANARY) && !said.contains(&value("me")[6..]), "{said}");
}

/// Gives out access tokens that are good for a while, and knows them again.
struct TokenEndpoint {
    receiver: Receiver,
    shared: Arc<Shared>,
}

struct Shared {
    given: AtomicUsize,
    last: Mutex<Option<(String, Instant)>>,
    lifetime_ms: AtomicU64,
    closed: std::sync::atomic::AtomicBool,
}

impl TokenEndpoint {
    async fn start() -> Self {
        let shared = Arc::new(Shared {
            given: AtomicUsize::new(0),
            last: Mutex::new(None),
            lifetime_ms: AtomicU64::new(3_600_000),
            closed: false.into(),
        });
        let receiver = Receiver::scripted({
            let shared = Arc::clone(&shared);
            move |request, _| {
                // `c-1` and the canary, by HTTP Basic.
                assert_eq!(
                    request.headers["authorization"],
                    "Basic Yy0xOmNhbmFyeS1pbi10aGUtY29hbC1taW5l"
                );
                assert_eq!(&request.body[..], b"grant_type=client_credentials&scope=hooks%3Awrite");
                if shared.closed.load(Ordering::SeqCst) {
                    return Answer {
                        body: json!({ "error": "invalid_client", "error_description": CANARY }).to_string(),
                        ..Answer::status(401)
                    };
                }
                let lifetime = Duration::from_millis(shared.lifetime_ms.load(Ordering::SeqCst));
                let token = format!("{CANARY}-{}", shared.given.fetch_add(1, Ordering::SeqCst));
                *shared.last.lock().unwrap() = Some((token.clone(), Instant::now() + lifetime));
                let answer = json!({ "access_token": token, "token_type": "Bearer", "expires_in": lifetime.as_secs() });
                Answer {
                    headers: vec![("content-type", "application/json".to_owned())],
                    body: answer.to_string(),
                    ..Answer::status(200)
                }
            }
        })
        .await;
        Self { receiver, shared }
    }

    fn given(&self) -> usize {
        self.shared.given.load(Ordering::SeqCst)
    }

    /// Whoever shows the last one that was given out is told 401 from now on.
    fn revoke(&self) {
        *self.shared.last.lock().unwrap() = None;
    }
}

#[tokio::test]
async fn an_access_token_serves_many_requests_and_is_had_anew_when_it_expires_or_is_refused() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    api.create_project("acme").await.unwrap();
    // All access tokens begin like it, and nothing that any service writes may hold it.
    api.canaries.add("access token", CANARY);
    let endpoint = TokenEndpoint::start().await;
    let receiver = Receiver::scripted({
        let shared = Arc::clone(&endpoint.shared);
        move |request, _| {
            let shown = request
                .headers
                .get("authorization")
                .and_then(|value| value.to_str().ok());
            let last = shared.last.lock().unwrap();
            let is_good = last
                .as_ref()
                .is_some_and(|(token, until)| shown == Some(&format!("Bearer {token}")) && Instant::now() < *until);
            Answer::status(if is_good { 200 } else { 401 })
        }
    })
    .await;
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let authentication = json!({
        "type": "oauth2_client_credentials",
        "token_url": endpoint.receiver.url,
        "client_id": "c-1",
        "client_secret": CANARY,
        "scope": "hooks:write",
    });
    let more = json!({ "authentication": authentication, "retry": { "delays": ["0s", "0s", "0s"] } });
    cluster
        .create_webhook("acme", "one", &receiver.url, more)
        .await
        .unwrap();

    // Many at once have one between them.
    for number in 0..40 {
        publish(&producer, &format!("e{number}")).await;
    }
    let delivered = || async { (receiver.count() >= 40).then_some(()) };
    eventually("all deliveries", delivered).await;
    assert_eq!((receiver.count(), endpoint.given()), (40, 1));
    let log = attempt(api, "e7", 1).await;
    assert_eq!(
        (&log["status"], &log["request"]["reproduced"]),
        (&json!(200), &json!(true)),
        "{log}"
    );

    // One that the receiver takes no more fails one attempt; the next has another.
    endpoint.revoke();
    publish(&producer, "revoked").await;
    let log = attempt(api, "revoked", 2).await;
    assert_eq!(log["status"], 200, "{log}");
    assert_eq!(endpoint.given(), 2);

    // One that expires is replaced before it does: nobody ever shows an expired one.
    endpoint.shared.lifetime_ms.store(2_000, Ordering::SeqCst);
    endpoint.revoke();
    let mut number = 0;
    eventually("tokens that have expired", || {
        number += 1;
        let (producer, endpoint, id) = (&producer, &endpoint, format!("x{number}"));
        async move {
            publish(producer, &id).await;
            attempt(api, &id, 1).await;
            (endpoint.given() >= 5).then_some(())
        }
    })
    .await;
    let refusals = api.list("/v1/projects/acme/attempts?status=401").await.unwrap();
    assert_eq!(refusals.len(), 2, "the two that were revoked: {refusals:?}");

    // A test asks for itself, and tells why there is none; of what a stranger says only known words are repeated.
    endpoint.shared.closed.store(true, Ordering::SeqCst);
    let begun = api.ok(Method::POST, &format!("{HOOK}:test"), None).await.unwrap();
    let path = format!("/v1/projects/acme/tests/{}", begun["id"].as_str().unwrap());
    let test = eventually("the test", || async {
        let test = api.ok(Method::GET, &path, None).await.unwrap();
        (test["status"] != "pending").then_some(test)
    })
    .await;
    assert_eq!(test["status"], "failed");
    assert_eq!(test["error_class"], "authentication");
    let text = "no access token: the token endpoint answered 401 Unauthorized (invalid_client)";
    assert_eq!(test["error_message"], text);
    let found = api
        .list("/v1/projects/acme/attempts?error_class=authentication")
        .await
        .unwrap();
    assert!(!found.is_empty());

    let metadata =
        json!({ "type": "oauth2_client_credentials", "token_url": "http://169.254.169.254/", "client_id": "c" });
    let pointers = refused(api, json!({ "authentication": metadata })).await;
    // Even if it could be reached: it would not be sent what is stored.
    assert_eq!(
        pointers,
        ["#/authentication/token_url", "#/authentication/client_secret"]
    );
    assert!(!everything_said(&cluster).await.contains(CANARY));
}
