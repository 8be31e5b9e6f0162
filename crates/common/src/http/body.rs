//! A request's whole body.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::RequestExt as _;
use axum::body::{Body as AxumBody, Bytes, HttpBody as _};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::BytesMut;
use http_body_util::{BodyExt as _, LengthLimitError};

use super::problem::{Code, Problem};

/// A body may take this long to arrive; who sends slower holds a connection and memory for nothing.
const PATIENCE: Duration = Duration::from_secs(15);

/// Memory for the bodies of a server's requests, which they share. Bytes are counted when they come: a length that was only
/// announced takes nothing from others.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    taken: AtomicUsize,
}

/// What one request has taken of the room. It is given back with the last clone of it.
#[derive(Debug, Clone)]
pub(super) struct Share(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    room: Arc<Room>,
    bytes: AtomicUsize,
}

impl Room {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes,
            taken: AtomicUsize::new(0),
        })
    }

    pub(super) fn share(self: &Arc<Self>) -> Share {
        Share(Arc::new(Taken {
            room: Arc::clone(self),
            bytes: AtomicUsize::new(0),
        }))
    }
}

impl Share {
    fn take(&self, bytes: usize) -> Result<(), Problem> {
        let Taken { room, bytes: own } = &*self.0;
        own.fetch_add(bytes, Ordering::Relaxed);
        match room.taken.fetch_add(bytes, Ordering::Relaxed) + bytes > room.bytes {
            true => Err(Problem::new(
                Code::Unavailable,
                "the bodies of other requests take all the room",
            )),
            false => Ok(()),
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

/// The bytes of a request as they came: identity-encoded, in time, within the limit of
/// [`axum::extract::DefaultBodyLimit`] (2 MiB where a router sets no other), and within what all bodies may take of a
/// server's memory together.
#[derive(Debug, Clone)]
pub struct Body(pub Bytes);

impl<S: Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        refuse_encoded(request.headers())?;
        let announced = request.body().size_hint().lower();
        let share = request.extensions().get::<Share>().cloned();
        let body = request.into_limited_body();
        // Said in advance, it need not be sent.
        if body.size_hint().upper().is_some_and(|limit| announced > limit) {
            return Err(too_large());
        }
        match tokio::time::timeout(PATIENCE, read(body, share)).await {
            Ok(read) => read.map(Self),
            Err(_) => Err(Problem::new(
                Code::BodyTimeout,
                format!("no whole body within {} s", PATIENCE.as_secs()),
            )),
        }
    }
}

async fn read(mut body: AxumBody, share: Option<Share>) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match is_over_limit(&error) {
            true => too_large(),
            false => Problem::new(Code::MalformedBody, "the body ended early").because(error),
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if let Some(share) = &share {
            share.take(data.len())?;
        }
        // Most bodies come in one piece, which is not copied.
        if bytes.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// A compressed body could be a thousand times what its limit allows.
fn refuse_encoded(headers: &HeaderMap) -> Result<(), Problem> {
    let encoded = |value: &axum::http::HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().any(encoded) {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "send the body without Content-Encoding",
        ));
    }
    Ok(())
}

fn is_over_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(this) = error {
        if this.is::<LengthLimitError>() {
            return true;
        }
        error = this.source();
    }
    false
}

fn too_large() -> Problem {
    Problem::new(Code::BodyTooLarge, "the body is longer than what is taken here")
}
