//! A receiver on loopback that does with a connection what a test wants it to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::egress::Config;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub(super) struct Receiver {
    pub(super) port: u16,
    connections: Arc<AtomicUsize>,
    serving: TaskTracker,
    _accepting: AbortOnDropHandle<()>,
}

impl Receiver {
    /// Hands each connection to `serve`.
    pub(super) async fn start<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, serving) = (Arc::new(AtomicUsize::new(0)), TaskTracker::new());
        let (counted, tracked) = (connections.clone(), serving.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tracked.spawn(serve(stream));
            }
        });
        Self {
            port,
            connections,
            serving,
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.serving.len()
    }

    /// Comes back when every connection that was made is closed.
    pub(super) async fn is_left(&self) {
        self.serving.close();
        self.serving.wait().await;
    }
}

/// Reads up to the end of a request's head; what follows of its body may have been read with it.
pub(super) async fn read_head(stream: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.windows(4).any(|four| four == b"\r\n\r\n") {
        if !stream.read_buf(&mut read).await.is_ok_and(|length| length > 0) {
            break;
        }
    }
}

/// Reads until the other side closes or resets the connection.
pub(super) async fn read_to_the_end(stream: &mut TcpStream) {
    let mut read = [0; 4096];
    while stream.read(&mut read).await.is_ok_and(|length| length > 0) {}
}

/// Lets webhooks go to such receivers.
pub(super) fn development() -> Config {
    Config {
        allow_http: true,
        allow_cidrs: "127.0.0.1".parse().unwrap(),
        ..Config::default()
    }
}
