//! An answer on its way out.
//!
//! hyper takes an answer's body from us long before the client does: into its buffers, and under HTTP/2 into those of
//! streams whose client may have closed their window. So an answer is handed over in pieces that say when they are gone:
//! each is dropped when its last byte has been written to the connection, and until then counts as untaken.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use bytes::Buf;
use hyper::body::{Frame, SizeHint};

use crate::http::patience::{Activity, Open, Untaken};

/// Longest piece: one that is taken within [`super::Limits::unread`] has a client that is slow, and not gone.
const PIECE: usize = 16 * 1024;

/// An answer's body, which keeps its request open.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    /// What did not fit into the last piece.
    rest: Bytes,
    activity: Arc<Activity>,
    _open: Open,
}

impl Answer {
    pub(super) fn new(body: Body, activity: Arc<Activity>, open: Open) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            activity,
            _open: open,
        }
    }

    fn piece(&mut self) -> Piece {
        Piece {
            bytes: self.rest.split_to(self.rest.len().min(PIECE)),
            _untaken: self.activity.hand_over(),
        }
    }
}

impl HttpBody for Answer {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, axum::Error>>> {
        let this = self.get_mut();
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(this.piece()))));
        }
        let next = ready!(Pin::new(&mut this.body).poll_frame(cx));
        Poll::Ready(next.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|data| {
                    this.rest = data;
                    this.piece()
                })
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, of_body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower() + rest);
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// A piece of an answer.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    _untaken: Untaken,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}
