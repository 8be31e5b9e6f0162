//! How long a connection may keep us waiting.
//!
//! A client that sends its head byte by byte holds a connection at no cost to itself. hyper knows one timeout for both
//! that and for a connection that is idle between requests, where a short one cuts off well-behaved clients and load
//! balancers, and while it waits to see which version of HTTP it will be it knows none. So the stream itself keeps the
//! time, lazily: a request that arrives at once costs no timer.
//!
//! ```text
//! Head ── the head is complete ──▶ Busy ── the answer is out ──▶ Idle ── a byte ──▶ Head
//!   │                               └ no limit here: a handler has its own              │ longer than `idle`
//!   └ longer than `head`: closed                                                        └ closed
//! ```
//!
//! HTTP/2 shares one connection among requests. From its preface on, hyper's pings find out who is gone; who is there and
//! asks for nothing is found by [`Activity::unused`], and who does not take what it asked for, by [`Activity::stalled`].

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What an HTTP/2 client begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What happens on a connection, as its stream, its requests and their answers tell each other.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Heads received so far.
    heads: AtomicU64,
    /// Requests whose answer is not out yet.
    open: AtomicUsize,
    /// Whether requests share the connection.
    is_shared: AtomicBool,
    /// Counts the stretches of time of [`Activity::stalled`].
    stretch: AtomicUsize,
    /// Pieces of answers that are not taken yet: those of the present stretch, and older ones. The places change at each.
    untaken: [AtomicUsize; 2],
}

impl Activity {
    /// A head is complete. The request is open until what is returned is dropped.
    pub(super) fn request(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.heads.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    /// A piece of an answer is handed over. It is untaken until what is returned is dropped.
    pub(super) fn hand_over(self: &Arc<Self>) -> Untaken {
        let place = self.stretch.load(Ordering::Relaxed) % 2;
        self.untaken[place].fetch_add(1, Ordering::Relaxed);
        Untaken {
            activity: Arc::clone(self),
            place,
        }
    }

    /// Ready once a piece of an answer was not taken for `unread`, or for twice that at most: pieces are counted, not
    /// timed, so that they cost next to nothing.
    pub(super) async fn stalled(&self, unread: Duration) {
        loop {
            let older = self.stretch.fetch_add(1, Ordering::Relaxed) % 2;
            tokio::time::sleep(unread).await;
            if self.untaken[older].load(Ordering::Relaxed) > 0 {
                return;
            }
        }
    }

    /// Ready once a connection that requests share had none for `idle`, or for twice that at most.
    pub(super) async fn unused(&self, idle: Duration) {
        let mut before = None;
        loop {
            let (heads, open) = (self.heads.load(Ordering::Relaxed), self.open.load(Ordering::Relaxed));
            if open == 0 && before == Some((heads, open)) && self.is_shared.load(Ordering::Relaxed) {
                return;
            }
            before = Some((heads, open));
            tokio::time::sleep(idle).await;
        }
    }
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct Open(Arc<Activity>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A piece of an answer that its client has not taken yet.
#[derive(Debug)]
pub(super) struct Untaken {
    activity: Arc<Activity>,
    place: usize,
}

impl Drop for Untaken {
    fn drop(&mut self) {
        self.activity.untaken[self.place].fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that fails with [`io::ErrorKind::TimedOut`] when its client keeps it waiting too long.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    activity: Arc<Activity>,
    /// [`Activity::heads`] when it was last looked at.
    heads: u64,
    phase: Phase,
    /// How much of the preface has been read; `None` once it is clear that it is not one.
    preface: Option<usize>,
    timer: Option<Pin<Box<Sleep>>>,
    head: Duration,
    idle: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Head(Instant),
    Busy,
    Idle(Instant),
    Multiplexed,
}

impl<S> Patient<S> {
    /// `head` is the longest a head may take, `idle` the longest there may be none.
    pub(super) fn new(stream: S, activity: Arc<Activity>, head: Duration, idle: Duration) -> Self {
        let phase = Phase::Head(Instant::now());
        Self {
            stream,
            activity,
            heads: 0,
            phase,
            preface: Some(0),
            timer: None,
            head,
            idle,
        }
    }

    /// Learns what has become of what was read so far.
    fn catch_up(&mut self) {
        if matches!(self.phase, Phase::Multiplexed) {
            return;
        }
        let heads = self.activity.heads.load(Ordering::Relaxed);
        if heads != self.heads {
            self.heads = heads;
            self.phase = Phase::Busy;
        }
        if matches!(self.phase, Phase::Busy) && self.activity.open.load(Ordering::Relaxed) == 0 {
            self.phase = Phase::Idle(Instant::now());
        }
    }

    fn heard(&mut self, bytes: &[u8]) {
        if let Some(read) = self.preface {
            let expected = &PREFACE[read..];
            let compared = expected.len().min(bytes.len());
            self.preface = (expected[..compared] == bytes[..compared]).then_some(read + compared);
            if self.preface == Some(PREFACE.len()) {
                self.preface = None;
                self.phase = Phase::Multiplexed;
                self.activity.is_shared.store(true, Ordering::Relaxed);
            }
        }
        if matches!(self.phase, Phase::Idle(_)) {
            self.phase = Phase::Head(Instant::now());
        }
    }

    /// Ready once the client has kept us waiting for too long.
    fn poll_run_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = match self.phase {
            Phase::Head(since) => since + self.head,
            Phase::Idle(since) => since + self.idle,
            Phase::Busy | Phase::Multiplexed => return Poll::Pending,
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // A timer that goes off too early is set again when it does, which is seldom: not at each request.
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.catch_up();
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let bytes = &buf.filled()[before..];
                if !bytes.is_empty() {
                    this.heard(bytes);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(this.poll_run_out(cx));
                Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client kept us waiting for too long",
                )))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
