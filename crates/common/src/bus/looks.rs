//! Looks at a stream from outside, without taking anything from it.

use async_nats::jetstream::stream::RawMessageErrorKind;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use proto_schemas::id::EventKey;
use proto_schemas::stream::Stream;

use super::{Bus, Error, instant};

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The sequence of the oldest message it holds, handed out or not; where it holds none, of the next one.
    pub oldest: u64,
    /// When that one was stored; where it holds none, an instant before which none will be.
    pub oldest_at: Timestamp,
    /// The last sequence stored.
    pub last: u64,
    /// Everything up to this sequence is acked.
    pub acked: u64,
    /// Messages not acked, handed out ones included.
    pub held: u64,
}

impl Position {
    /// What the message that is the oldest would be as an event: every event before it is worked off.
    ///
    /// This holds as long as the server's clock is not put back: an event that is then stored "before" others comes
    /// after them in the stream.
    #[must_use]
    pub fn worked_off_to(&self) -> EventKey {
        EventKey::of_message(self.oldest_at, self.oldest)
    }
}

impl Bus {
    /// How many messages `stream` holds on `subject`, handed out ones included.
    ///
    /// # Errors
    /// [`Error`] where JetStream does not say.
    pub async fn count(&self, stream: Stream, subject: &str) -> Result<usize, Error> {
        let counting = async {
            let handle = self.jetstream.get_stream(stream.name).await?;
            let mut info = std::pin::pin!(handle.info_builder().subjects(subject).fetch().await?);
            let mut messages = 0;
            while let Some((_, count)) = info.try_next().await? {
                messages += count;
            }
            Ok(messages)
        };
        self.look(|| format!("the count of {subject} in stream {}", stream.name), counting)
            .await
    }

    /// Where `stream` stands.
    ///
    /// # Errors
    /// [`Error`] where JetStream does not say.
    pub async fn position(&self, stream: Stream) -> Result<Position, Error> {
        let looking = async { Ok(self.jetstream.get_stream(stream.name).await?) };
        let handle = (self.look(|| format!("the position of {}", stream.name), looking)).await?;
        let state = &handle.cached_info().state;
        let (oldest_at, oldest) = match (state.messages, state.last_sequence) {
            // Nothing was ever stored in it; all there is was stored in another, before.
            (0, 0) => (handle.cached_info().created, 0),
            (0, last) => (state.last_timestamp, last + 1),
            _ => (state.first_timestamp, state.first_sequence),
        };
        let acked = match state.messages {
            // In a work queue, what is acked is gone.
            0 => state.last_sequence,
            _ => state.first_sequence.saturating_sub(1),
        };
        Ok(Position {
            oldest,
            oldest_at: instant(oldest_at.unix_timestamp_nanos()),
            last: state.last_sequence,
            acked,
            held: state.messages,
        })
    }

    /// The sequence of the oldest message that `stream` holds on `subject`, handed out ones included.
    ///
    /// # Errors
    /// [`Error`] where JetStream does not say.
    pub async fn oldest(&self, stream: Stream, subject: &str) -> Result<Option<u64>, Error> {
        let looking = async {
            let handle = self.jetstream.get_stream_no_info(stream.name).await?;
            match handle.get_first_raw_message_by_subject(subject, 1).await {
                Ok(message) => Ok(Some(message.sequence)),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        self.look(
            || format!("the oldest message on {subject} in stream {}", stream.name),
            looking,
        )
        .await
    }

    /// What a look comes to; `what` it was for, where it comes to nothing.
    pub(super) async fn look<T>(
        &self,
        what: impl FnOnce() -> String,
        looking: impl Future<Output = Result<T, async_nats::Error>>,
    ) -> Result<T, Error> {
        let looking = async { looking.await.map_err(|source| Error::SetUp { what: what(), source }) };
        self.refusals.explain(looking).await
    }
}
