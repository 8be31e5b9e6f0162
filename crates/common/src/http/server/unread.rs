//! Whether a request's body was read to its end.
//!
//! An answer given before that (a body that is too large, a route that takes none) ends an HTTP/1 connection: the rest
//! of the body stands in it. A client that is not told takes the connection for its next request, which then fails.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Request, Version, header};
use axum::response::Response;
use hyper::body::{Frame, Incoming, SizeHint};

/// Watches one request's body.
#[derive(Debug)]
pub(super) struct Unread {
    /// `None` where there is nothing to watch: no body, or a protocol whose streams end by themselves.
    read: Option<Arc<AtomicBool>>,
}

struct Watched {
    body: Incoming,
    read: Arc<AtomicBool>,
}

/// The request with its body watched.
pub(super) fn watch(request: Request<Incoming>) -> (Request<Body>, Unread) {
    if request.body().is_end_stream() || request.version() >= Version::HTTP_2 {
        return (request.map(Body::new), Unread { read: None });
    }
    let read = Arc::new(AtomicBool::new(false));
    let unread = Unread {
        read: Some(Arc::clone(&read)),
    };
    (request.map(|body| Body::new(Watched { body, read })), unread)
}

impl Unread {
    /// Tells the client that the connection ends with this answer, if it does.
    pub(super) fn announce(&self, response: &mut Response) {
        if self.read.as_ref().is_some_and(|read| !read.load(Ordering::Relaxed)) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.read.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
