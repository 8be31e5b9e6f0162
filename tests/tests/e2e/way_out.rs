//! By which way requests leave, and where none may go.

use std::sync::{Arc, Mutex};

use posthaste_tests::{Cluster, Producer, Receiver, Role, Setup, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// An HTTP proxy that makes tunnels to a port on loopback, whatever host is asked for, and keeps what it was asked.
struct Proxy {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(tunnel(stream, Arc::clone(&noted)));
            }
        });
        Self {
            url,
            asked,
            _task: AbortOnDropHandle::new(task),
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn tunnel(mut stream: TcpStream, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or_default() == 0 {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let line = head.lines().next().unwrap().to_owned();
    asked.lock().unwrap().push(line.clone());
    let port = line.split(' ').nth(1).unwrap().rsplit(':').next().unwrap();
    let mut receiver = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut receiver).await;
}

async fn publish(cluster: &Cluster, id: &str) {
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let id = format!("acme:{id}");
    producer
        .publish("events.acme.a", &[("Nats-Msg-Id", &id)], r#"{"a":1}"#)
        .await
        .unwrap();
}

async fn attempt(cluster: &Cluster, event: &str) -> Value {
    let path = format!("/v1/projects/acme/attempts?event_id={event}");
    let item = eventually("the attempt in the log", || async {
        cluster.admin.list(&path).await.unwrap().into_iter().next()
    })
    .await;
    let path = format!("/v1/projects/acme/attempts/{}", item["id"].as_str().unwrap());
    cluster.admin.ok(Method::GET, &path, None).await.unwrap()
}

fn port(receiver: &Receiver) -> &str {
    receiver.url.trim_end_matches("/hook").rsplit(':').next().unwrap()
}

#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    let proxy = Proxy::start().await;
    let env = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ]
    .map(|name| (name, proxy.url.clone()))
    .to_vec();
    let cluster = Cluster::start_with(Setup {
        env,
        ..Setup::default()
    })
    .await
    .unwrap();
    cluster.admin.create_project("acme").await.unwrap();
    let receiver = Receiver::start().await;
    cluster
        .create_webhook("acme", "one", &receiver.url, json!({}))
        .await
        .unwrap();
    publish(&cluster, "e1").await;
    assert_eq!(attempt(&cluster, "e1").await["status"], 200);
    assert_eq!(proxy.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn requests_leave_by_the_operators_proxy_which_resolves_their_hosts() {
    let proxy = Proxy::start().await;
    let cluster = Cluster::start_with(Setup {
        env: vec![
            ("POSTHASTE_EGRESS_PROXY", proxy.url.clone()),
            // What is not public stays closed: the proxy is where it is because the operator says so.
            ("POSTHASTE_EGRESS_ALLOW_CIDRS", String::new()),
        ],
        ..Setup::default()
    })
    .await
    .unwrap();
    for role in [Role::ConfigApi, Role::Dispatcher] {
        assert!(
            cluster.log(role).contains("the proxy's to enforce"),
            "it is said at start"
        );
    }
    cluster.admin.create_project("acme").await.unwrap();
    let receiver = Receiver::start().await;
    let url = format!("http://receiver.example:{}/hook", port(&receiver));
    cluster.create_webhook("acme", "one", &url, json!({})).await.unwrap();
    publish(&cluster, "e1").await;
    let log = attempt(&cluster, "e1").await;
    assert_eq!((&log["status"], &log["peer"]), (&json!(200), &Value::Null), "{log}");
    assert_eq!(
        receiver.received()[0].headers["host"],
        format!("receiver.example:{}", port(&receiver))
    );
    assert_eq!(
        proxy.asked(),
        [format!("CONNECT receiver.example:{} HTTP/1.1", port(&receiver))]
    );

    let literal = json!({ "name": "two", "url": receiver.url, "events": ["*"] });
    let path = "/v1/projects/acme/webhooks";
    let (status, problem) = cluster.admin.call(Method::POST, path, Some(&literal)).await.unwrap();
    assert_eq!(
        (status.as_u16(), &problem["errors"][0]["detail"]),
        (422, &json!("target address not allowed"))
    );
}

#[tokio::test]
async fn no_webhook_leads_back_to_the_platform() {
    let own = |hosts: &str| Setup {
        env: vec![("POSTHASTE_EGRESS_OWN_HOSTS", hosts.to_owned())],
        ..Setup::default()
    };
    let mut cluster = Cluster::start_with(own("hooks.example.com")).await.unwrap();
    cluster.admin.create_project("acme").await.unwrap();
    for url in ["https://hooks.example.com/in", "https://eu.HOOKS.example.com./in"] {
        let hook = json!({ "name": "own", "url": url, "events": ["*"] });
        let path = "/v1/projects/acme/webhooks";
        let (status, problem) = cluster.admin.call(Method::POST, path, Some(&hook)).await.unwrap();
        assert_eq!(status, 422);
        let error = json!({ "pointer": "#/url", "detail": "target address not allowed" });
        assert_eq!(problem["errors"], json!([error]));
    }
    let (_, metrics) = cluster.text(Role::ConfigApi, "/metrics").await.unwrap();
    let counted = metrics
        .lines()
        .find(|line| line.starts_with("ssrf_refused_total") && line.contains("own_host"));
    assert!(counted.is_some_and(|line| line.ends_with(" 2")), "{metrics}");

    // Saved before the name was the platform's own, it is refused when it is to be sent to.
    let receiver = Receiver::start().await;
    let url = format!("http://localhost:{}/hook", port(&receiver));
    cluster
        .create_webhook("acme", "one", &url, json!({ "retry": false }))
        .await
        .unwrap();
    cluster.terminate(Role::Dispatcher).await.unwrap();
    let env = [("POSTHASTE_EGRESS_OWN_HOSTS", "localhost")];
    cluster.restart_doomed(Role::Dispatcher, &env).await.unwrap();
    publish(&cluster, "e1").await;
    let log = attempt(&cluster, "e1").await;
    assert_eq!(log["error_class"], "refused_address", "{log}");
    assert_eq!(log["error"], "target address not allowed");
    assert_eq!(receiver.count(), 0);
}
