//! Who listens on every address of this machine at once, and notes which of them were dialled.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// Answers whatever comes with 200 and closes the connection, so that each request is dialled anew.
pub(super) struct Sink {
    pub(super) port: u16,
    dialled: Arc<Mutex<Vec<IpAddr>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Sink {
    pub(super) async fn start() -> Self {
        // Both families, where the machine has both: an IPv4 address arrives as a v4-mapped one.
        let listener = match TcpListener::bind("[::]:0").await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind("0.0.0.0:0").await.unwrap(),
        };
        let port = listener.local_addr().unwrap().port();
        let dialled = Arc::new(Mutex::new(Vec::new()));
        let noted = dialled.clone();
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                noted
                    .lock()
                    .unwrap()
                    .push(stream.local_addr().unwrap().ip().to_canonical());
                tokio::spawn(async move {
                    let mut read = [0; 4096];
                    let _ = stream.read(&mut read).await;
                    let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
                    let _ = stream.write_all(answer).await;
                    // To the end, so that what was not read yet does not reset the connection.
                    while stream.read(&mut read).await.is_ok_and(|length| length > 0) {}
                });
            }
        });
        Self {
            port,
            dialled,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// The addresses that were dialled since this was asked last, in order.
    pub(super) fn dialled(&self) -> Vec<IpAddr> {
        std::mem::take(&mut *self.dialled.lock().unwrap())
    }
}
