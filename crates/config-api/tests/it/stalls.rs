//! A relay that stalls, loses its lock unawares, and goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proto_schemas::definition::Token;
use proto_schemas::stream::config_key::Key;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::*;

/// A way to NATS that can be stopped up.
struct Way {
    url: String,
    /// Whether what speaks of a token goes no further, nor what comes after it.
    stops: Arc<AtomicBool>,
    /// Whether anything has been stopped.
    stopped: watch::Receiver<bool>,
    open: watch::Sender<bool>,
}

impl Way {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let (stops, open) = (Arc::new(AtomicBool::new(false)), watch::Sender::new(false));
        let (said, stopped) = watch::channel(false);
        let shared = (Arc::clone(&stops), open.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                let (stops, mut open, said) = (Arc::clone(&shared.0), shared.1.subscribe(), said.clone());
                tokio::spawn(async move {
                    let mut bytes = vec![0; 64 * 1024];
                    while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
                        let speaks_of_one = bytes[..read].windows(17).any(|it| it == b"$KV.CONFIG.token.");
                        if stops.load(Ordering::SeqCst) && speaks_of_one {
                            said.send_replace(true);
                            open.wait_for(|open| *open).await.unwrap();
                        }
                        if to_server.write_all(&bytes[..read]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            url,
            stops,
            stopped,
            open,
        }
    }
}

#[tokio::test]
async fn a_relay_that_lost_its_lock_makes_no_revoked_token_good_again() {
    let world = World::new().await;
    let mut way = Way::to(world.nats.port()).await;
    let (stalling, bucket) = (world.start_over(&way.url).await, world.bucket().await);
    stalling.client.post("/v1/projects", json!({ "name": "shop" })).await;
    let tokens = "/v1/projects/shop/tokens";
    way.stops.store(true, Ordering::SeqCst);
    let made = stalling.client.post(tokens, json!({})).await;
    let hash = hex::encode(common::token::hash(made["token"].as_str().unwrap()));
    let is_revoked = async || {
        let found = bucket.get(&Key::Token(hash.clone())).await.unwrap();
        found.map(|bytes| Token::decode(bytes).unwrap().revoked)
    };
    let waiting = way.stopped.wait_for(|stopped| *stopped);
    tokio::time::timeout(std::time::Duration::from_secs(10), waiting)
        .await
        .expect("a relay has the token in hand")
        .unwrap();
    // Postgres starts anew, say.
    world
        .sql(
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database ON pg_database.oid = database
             WHERE locktype = 'advisory' AND granted AND datname = current_database()",
        )
        .await;
    let other = world.start().await;
    other.client.delete(&format!("{tokens}/{}", id(&made))).await;
    until("the other says that it is revoked", async || {
        is_revoked().await == Some(true)
    })
    .await;

    way.stops.store(false, Ordering::SeqCst);
    way.open.send_replace(true);
    let project = stalling.client.post("/v1/projects", json!({ "name": "later" })).await;
    let key = Key::Project(id(&project).parse().unwrap());
    until("it works again", async || bucket.get(&key).await.unwrap().is_some()).await;
    assert_eq!(is_revoked().await, Some(true));
    stalling.stop().await;
    other.stop().await;
}
