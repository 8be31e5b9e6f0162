//! A small client of the REST API and of intake.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Canaries;

/// A client with one token. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    /// Base URL of config-api.
    pub api: String,
    /// Base URL of ingest.
    pub ingest: String,
    token: String,
    /// What the keys of its requests have in common, if they have keys, and how many there were.
    keys: Option<(String, Arc<AtomicU64>)>,
    /// What this client and its likes gave away and were given, and no other answer may hold.
    pub canaries: Canaries,
}

impl Api {
    /// A client of the two base URLs.
    #[must_use]
    pub fn new(api: &str, ingest: &str, token: &str) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test's own client, which talks to the services under test"
        )]
        let http = reqwest::Client::new();
        Self {
            http,
            api: api.to_owned(),
            ingest: ingest.to_owned(),
            token: token.to_owned(),
            keys: None,
            canaries: Canaries::default(),
        }
    }

    /// The same with an `Idempotency-Key` on each POST, which begins with this and is new for each.
    #[must_use]
    pub fn with_keys(&self, prefix: &str) -> Self {
        Self {
            keys: Some((prefix.to_owned(), Arc::default())),
            ..self.clone()
        }
    }

    /// The same with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// The same without any.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        self.with_token("")
    }

    /// One request to config-api, whatever comes of it.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(StatusCode, Value)> {
        self.send(method, &format!("{}{path}", self.api), body).await
    }

    /// One request to ingest, whatever comes of it.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn intake(&self, path: &str, body: &Value) -> anyhow::Result<(StatusCode, Value)> {
        self.send(Method::POST, &format!("{}{path}", self.ingest), Some(body))
            .await
    }

    /// A plain GET of any address: status and text.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn text(&self, url: &str) -> anyhow::Result<(u16, String)> {
        let response = self.http.get(url).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// A GET of config-api whose answer is read as it comes.
    ///
    /// # Errors
    /// Where there is no answer, or it is a refusal.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
        let mut request = self.http.get(format!("{}{path}", self.api));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request.send().await?.error_for_status()?)
    }

    /// One request with a body of any kind, to config-api or ingest by their base URL: only the status.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn say(
        &self,
        method: Method,
        url: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> anyhow::Result<StatusCode> {
        let mut request = self.http.request(method, url).header("content-type", content_type);
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        Ok(request.body(body).send().await?.status())
    }

    /// A POST of JSON with headers, to config-api or ingest by their base URL: all of the answer.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn post(&self, url: &str, headers: &[(&str, &str)], body: &Value) -> anyhow::Result<Response> {
        let mut request = self.http.post(url).json(body);
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request.send().await?)
    }

    /// What is answered to a request that announces a body and sends none of it, within `patience`: all of the answer, its
    /// head included.
    ///
    /// # Errors
    /// Where there is no answer, or none in time.
    pub async fn announce(&self, method: Method, url: &str, length: u64, patience: Duration) -> anyhow::Result<String> {
        let rest = url.strip_prefix("http://").context("no http url")?;
        let (authority, path) = rest.split_once('/').context("no path")?;
        let mut head = format!("{method} /{path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n");
        if !self.token.is_empty() {
            head += &format!("authorization: Bearer {}\r\n", self.token);
        }
        head += &format!("content-length: {length}\r\n\r\n");
        let mut stream = TcpStream::connect(authority).await?;
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        let reading = tokio::time::timeout(patience, stream.read_to_string(&mut answer));
        reading
            .await
            .with_context(|| format!("{method} {url}: no answer within {patience:?}"))??;
        Ok(answer)
    }

    async fn send(&self, method: Method, url: &str, body: Option<&Value>) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self.http.request(method.clone(), url);
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some((prefix, used)) = self.keys.as_ref().filter(|_| method == Method::POST) {
            let key = format!("{prefix}{}", used.fetch_add(1, Ordering::Relaxed));
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response: Response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        // Whoever makes a secret is shown it, once.
        if method != Method::POST {
            let found = self.canaries.plain(&text);
            ensure!(found.is_empty(), "{method} {url} gives away {found:?}: {text}");
        }
        let answer: Value = match text.is_empty() {
            true => Value::Null,
            false => serde_json::from_str(&text).with_context(|| format!("{status}: {text}"))?,
        };
        let place = url.rsplit('/').next().unwrap_or_default();
        self.canaries.add_all(place, &answer);
        if let Some(body) = body {
            self.canaries.add_all(place, body);
        }
        Ok((status, answer))
    }

    /// Every server-sent event of an answer, to its end: name and data.
    ///
    /// # Errors
    /// Where there is no answer, or one that is no such events.
    pub async fn events(&self, path: &str) -> anyhow::Result<Vec<(String, Value)>> {
        let url = format!("{}{path}", self.api);
        let response = self.http.get(&url).bearer_auth(&self.token).send().await?;
        ensure!(response.status().is_success(), "GET {path}: {}", response.status());
        let text = response.text().await?;
        let mut events = Vec::new();
        for event in text.split("\n\n") {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            if let (Some(name), Some(data)) = (field("event:"), field("data:")) {
                events.push((name.to_owned(), serde_json::from_str(data)?));
            }
        }
        Ok(events)
    }

    /// A request that must succeed.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn ok(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let (status, answer) = self.call(method.clone(), path, body).await?;
        ensure!(status.is_success(), "{method} {path}: {status} {answer}");
        Ok(answer)
    }

    /// Logs in as a browser does; the cookie.
    ///
    /// # Errors
    /// Where the token is refused.
    pub async fn log_in(&self) -> anyhow::Result<String> {
        let login = json!({ "token": self.token });
        let request = self.http.post(format!("{}/v1/session", self.api)).json(&login);
        let response = request.send().await?.error_for_status()?;
        let cookie = response.headers().get("set-cookie").context("no cookie is set")?;
        let (cookie, _) = cookie
            .to_str()?
            .split_once(';')
            .context("a cookie without attributes")?;
        let (_, secret) = cookie.split_once('=').context("a cookie without a value")?;
        self.canaries.add("session", secret);
        let cookie = cookie.to_owned();
        let session: Value = serde_json::from_slice(&response.bytes().await?)?;
        self.canaries
            .add("csrf token", session["csrf"].as_str().context("no csrf token")?);
        Ok(cookie)
    }

    /// Creates a project.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn create_project(&self, name: &str) -> anyhow::Result<Value> {
        self.ok(Method::POST, "/v1/projects", Some(&json!({ "name": name })))
            .await
    }

    /// Creates a webhook for every event, with `more` members.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn create_webhook(&self, project: &str, name: &str, url: &str, more: Value) -> anyhow::Result<Value> {
        let mut body = json!({ "name": name, "url": url, "events": ["*"] });
        if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
            body.extend(more);
        }
        self.ok(Method::POST, &format!("/v1/projects/{project}/webhooks"), Some(&body))
            .await
    }

    /// Every item of a list, over all its pages.
    ///
    /// # Errors
    /// Where a page is refused.
    pub async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let mut page = self
                .ok(Method::GET, &format!("{path}{separator}limit=250{cursor}"), None)
                .await?;
            if let Value::Array(found) = page["items"].take() {
                items.extend(found);
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }
}
