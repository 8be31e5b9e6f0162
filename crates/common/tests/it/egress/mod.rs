//! The guarded client as the services make it, before name servers and receivers of the tests' own.
//!
//! Of loopback, [`ALLOWED`] is allowed here and plays the public internet; all the rest is what a request must not reach.

mod addresses;
mod anything;
mod bodies;
mod flooding;
mod http2;
mod kept;
mod name_server;
mod names;
mod receiver;
mod resent;
mod sessions;
mod sink;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use common::egress::{Client, Config, Error, Exchange, Request, Response, Target};
use http::{HeaderMap, Method};

use self::name_server::NameServer;

/// More than any request here takes that is not to run into it.
const PLENTY: Duration = Duration::from_secs(20);
/// Addresses that the configurations of these tests allow.
const ALLOWED: [&str; 3] = ["127.0.0.2", "127.0.0.4", "::1"];

/// Lets webhooks go to [`ALLOWED`] and asks `server` for names.
fn asking(server: &NameServer) -> Config {
    Config {
        allow_http: true,
        allow_cidrs: ALLOWED.join(",").parse().unwrap(),
        name_servers: server.address.to_string().parse().unwrap(),
        ..Config::default()
    }
}

async fn exchange(client: &Client, target: &Target, timeout: Duration) -> Exchange {
    let request = Request {
        method: Method::POST,
        target,
        tls: None,
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"{}"),
        timeout,
    };
    client.send(request).await
}

async fn post(client: &Client, url: &str) -> Result<Response, Error> {
    let target = client.guard().check(url).unwrap();
    exchange(client, &target, PLENTY).await.outcome
}
