//! Servers, a database per test, the service, and a client.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clap::Parser as _;
use common::bus::{Bus, ConfigBucket};
use common::service::{self, Args, Running};
use config_api::{Config, ConfigApi};
use posthaste::local::{Folder, Nats, Postgres, nats, postgres};
use proto_schemas::definition::Webhook;
use proto_schemas::id::{ProjectId, WebhookId};
use proto_schemas::stream::config_key::Key;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use store::{Database, Store};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

pub(crate) const ADMIN: &str = "the-administrators-token";
pub(crate) const KEYS: &str = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    config: Config,
}

/// One Postgres for all tests of this process; it ends with the process.
async fn postgres() -> &'static Postgres {
    static SERVER: OnceCell<(Folder, Postgres)> = OnceCell::const_new();
    let start = async || {
        let folder = Folder::temporary().unwrap();
        let path = folder.path().join("postgres");
        let server = Postgres::start(&path, &postgres::Options::default()).await.unwrap();
        (folder, server)
    };
    &SERVER.get_or_init(start).await.1
}

/// A NATS and a database of the test's own.
pub(crate) struct World {
    pub(crate) nats: Nats,
    pub(crate) database: String,
    _folder: Folder,
}

impl World {
    pub(crate) async fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let database = postgres().await.create_database(&name).await.unwrap();
        let folder = Folder::temporary().unwrap();
        let nats = Nats::start(&folder.path().join("nats"), &nats::Options::default())
            .await
            .unwrap();
        Self {
            nats,
            database,
            _folder: folder,
        }
    }

    fn config(&self, admin_token: &str) -> Config {
        self.config_with(admin_token, KEYS, &[])
    }

    fn config_with(&self, admin_token: &str, keys: &str, more: &[&str]) -> Config {
        self.config_over(&self.nats.url(), admin_token, keys, more)
    }

    fn config_over(&self, nats_url: &str, admin_token: &str, keys: &str, more: &[&str]) -> Config {
        let arguments = [
            "config-api",
            "--nats-url",
            nats_url,
            "--database-url",
            &self.database,
            "--encryption-keys",
            keys,
            "--admin-token",
            admin_token,
        ];
        Arguments::parse_from(arguments.iter().chain(more)).config
    }

    /// A config-api with the usual administrator.
    pub(crate) async fn start(&self) -> Service {
        self.start_as(ADMIN).await
    }

    pub(crate) async fn start_as(&self, admin_token: &str) -> Service {
        Self::run(self.config(admin_token), admin_token).await
    }

    /// A config-api with further arguments.
    pub(crate) async fn start_with(&self, more: &[&str]) -> Service {
        Self::run(self.config_with(ADMIN, KEYS, more), ADMIN).await
    }

    /// A config-api that reaches NATS at this address, and waits long for what it asks there.
    pub(crate) async fn start_over(&self, nats_url: &str) -> Service {
        let patient = ["--nats-ack-timeout", "30s"];
        Self::run(self.config_over(nats_url, ADMIN, KEYS, &patient), ADMIN).await
    }

    /// A config-api with these encryption keys.
    pub(crate) async fn start_with_keys(&self, keys: &str) -> Service {
        Self::run(self.config_with(ADMIN, keys, &[]), ADMIN).await
    }

    async fn run(config: Config, admin_token: &str) -> Service {
        let stop = CancellationToken::new();
        let args = Args::local("127.0.0.1:0".parse().unwrap());
        let running = service::start::<ConfigApi>(config, args, stop.clone()).await.unwrap();
        Service {
            client: Client::new(&running, admin_token),
            running,
            stop,
        }
    }

    pub(crate) async fn bucket(&self) -> ConfigBucket {
        let bus = Bus::connect(&self.config(ADMIN).nats, "test", Duration::from_secs(30))
            .await
            .unwrap();
        bus.config_bucket().await.unwrap()
    }

    pub(crate) async fn store(&self) -> Store {
        let database = Database::connect(&self.config(ADMIN).postgres, "test", Duration::from_secs(30)).await;
        database.unwrap().of_all_projects()
    }

    /// Puts SQL to the database, about all projects.
    pub(crate) async fn sql(&self, sql: &str) {
        let mut connection = <PgConnection as sqlx::Connection>::connect(&self.database)
            .await
            .unwrap();
        let sql = format!("SET posthaste.project = 'all'; {sql}");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
    }

    /// The number that SQL finds in the database, about all projects.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let mut connection = <PgConnection as sqlx::Connection>::connect(&self.database)
            .await
            .unwrap();
        sqlx::raw_sql("SET posthaste.project = 'all'")
            .execute(&mut connection)
            .await
            .unwrap();
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    /// The same with further arguments; its connections are called `one`.
    pub(crate) async fn store_with(&self, more: &[&str]) -> Store {
        let config = self.config_with(ADMIN, KEYS, more).postgres;
        let database = Database::connect(&config, "one", Duration::from_secs(30)).await;
        database.unwrap().of_all_projects()
    }
}

/// A running config-api.
pub(crate) struct Service {
    pub(crate) client: Client,
    running: Running,
    stop: CancellationToken,
}

impl Service {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.running.wait())
            .await
            .expect("it stops")
            .unwrap();
    }
}

/// All of an answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: reqwest::header::HeaderMap,
    /// Null where there is none.
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A client with one token, or with none.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    fn new(running: &Running, token: &str) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test's own client, which talks to the service under test"
        )]
        let http = reqwest::Client::new();
        Self {
            http,
            base: format!("http://{}", running.addr),
            token: Some(token.to_owned()),
        }
    }

    /// The same from another address of this machine.
    pub(crate) fn from(&self, address: [u8; 4]) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test's own client, which talks to the service under test"
        )]
        let http = reqwest::Client::builder().local_address(std::net::IpAddr::from(address));
        Self {
            http: http.build().unwrap(),
            ..self.clone()
        }
    }

    /// The same over HTTP/2.
    pub(crate) fn over_http2(&self) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test's own client, which talks to the service under test"
        )]
        let http = reqwest::Client::builder().http2_prior_knowledge();
        Self {
            http: http.build().unwrap(),
            ..self.clone()
        }
    }

    /// The same without a token.
    pub(crate) fn without_token(&self) -> Self {
        Self {
            token: None,
            ..self.clone()
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// The same with another token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// One request: status and JSON, null where there is no body.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let body = answer.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// One request with headers, and all of its answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let mut request = self.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        Answer {
            status: answer.status(),
            headers: answer.headers().clone(),
            body: serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null),
        }
    }

    /// A GET whose answer is read as it comes.
    pub(crate) async fn open(&self, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        let mut request = self.request(Method::GET, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    /// Host and port, for who speaks for himself.
    pub(crate) fn authority(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "GET {path}: {body}");
        body
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, body) = self.call(Method::POST, path, Some(body)).await;
        assert_eq!(status, StatusCode::CREATED, "POST {path}: {body}");
        body
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Value {
        let (status, body) = self.call(Method::PATCH, path, Some(body)).await;
        assert_eq!(status, StatusCode::OK, "PATCH {path}: {body}");
        body
    }

    pub(crate) async fn delete(&self, path: &str) {
        let (status, body) = self.call(Method::DELETE, path, None).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "DELETE {path}: {body}");
    }
}

/// A webhook as simple as can be. Its host needs no DNS.
pub(crate) fn simple(name: &str) -> Value {
    json!({ "name": name, "url": "https://192.5.6.30/hook", "events": ["*"] })
}

/// The id in an answer.
pub(crate) fn id(answer: &Value) -> String {
    answer["id"].as_str().unwrap().to_owned()
}

/// The key of a webhook's definition.
pub(crate) fn key(project: &Value, webhook: &Value) -> Key {
    let (project, webhook): (ProjectId, WebhookId) = (id(project).parse().unwrap(), id(webhook).parse().unwrap());
    Key::Webhook(project, webhook)
}

/// What the bucket says of a webhook.
pub(crate) async fn defined(bucket: &ConfigBucket, key: &Key) -> Option<Webhook> {
    bucket
        .get(key)
        .await
        .unwrap()
        .map(|bytes| Webhook::decode(bytes).unwrap())
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut met: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
    while !met().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
