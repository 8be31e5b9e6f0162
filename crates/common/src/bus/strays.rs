//! Messages that no consumer of their stream gets.
//!
//! nats-server stores a message that was published on a subject with `*` or `>` in it, does not put the share into that,
//! and so hands it to nobody. There it would stay for ever, and be taken for the oldest event that is not worked off. So
//! who works the stream off looks at its oldest message from time to time; one that is astray is handled like any other,
//! and then deleted. A crash in between has it handled again; several processes may handle it at once.

use std::future::Future;
use std::time::Duration;

use proto_schemas::stream::Stream;
use proto_schemas::subject;
use tokio_util::sync::CancellationToken;

use super::{Bus, Error, Message, Verdict, instant};

/// How often the oldest message is looked at. It counts as astray only if it is what it was at the look before.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl Bus {
    /// Hands what is astray in `stream` to `handler`, until `stop`.
    pub(super) async fn work_off_strays<F, R>(&self, stream: Stream, stop: CancellationToken, handler: F)
    where
        F: Fn(Message) -> R,
        R: Future<Output = Verdict>,
    {
        let mut oldest = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let Ok(position) = self.position(stream).await else {
                continue;
            };
            if position.held == 0 || std::mem::replace(&mut oldest, position.oldest) != position.oldest {
                continue;
            }
            if let Err(error) = self.take_out(stream, &handler).await {
                // Another process was faster, or whatever else needs NATS says more of it.
                tracing::debug!(%error, stream = stream.name, "could not take out what no consumer gets");
            }
        }
    }

    /// Works off what is astray at the beginning of the stream.
    async fn take_out<F, R>(&self, stream: Stream, handler: &F) -> Result<(), Error>
    where
        F: Fn(Message) -> R,
        R: Future<Output = Verdict>,
    {
        while let Some(message) = self.stray(stream).await? {
            let sequence = message.sequence;
            if handler(message).await != Verdict::Done {
                return Ok(());
            }
            let deleting = async {
                let handle = self.jetstream.get_stream_no_info(stream.name).await?;
                handle.delete_message(sequence).await?;
                Ok(())
            };
            (self.look(|| format!("message {sequence} of stream {}", stream.name), deleting)).await?;
        }
        Ok(())
    }

    /// The oldest message, where it is astray.
    async fn stray(&self, stream: Stream) -> Result<Option<Message>, Error> {
        let position = self.position(stream).await?;
        if position.held == 0 {
            return Ok(None);
        }
        let reading = async {
            let handle = self.jetstream.get_stream_no_info(stream.name).await?;
            Ok(handle.get_raw_message(position.oldest).await?)
        };
        let what = || format!("message {} of stream {}", position.oldest, stream.name);
        let raw = self.look(what, reading).await?;
        let stored_at = instant(raw.time.unix_timestamp_nanos());
        Ok(subject::is_stray(stream, &raw.subject).then(|| Message {
            subject: raw.subject,
            headers: Some(raw.headers),
            payload: raw.payload,
            sequence: raw.sequence,
            stored_at,
            handed_out: 1,
        }))
    }
}
