//! The ids that producers chose for their events, remembered for a day: stream SEEN, one message for each id.
//!
//! Who writes says which message it replaces, so of any number that claim an id at once one has it, in whichever process.

use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::{HeaderMap, HeaderValue};
use proto_schemas::id::ProjectId;
use proto_schemas::seen::SeenEvent;
use proto_schemas::stream::SEEN;
use proto_schemas::subject;

use super::{Bus, Error};

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The id is had, with this revision.
    Made(u64),
    /// Somebody else has it, or had: what is known, and its revision.
    Known(SeenEvent, u64),
}

/// The ids. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Seen {
    bus: Bus,
}

impl Seen {
    /// The ids, over `bus`.
    #[must_use]
    pub const fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Writes `wanted` as what is known of an id, if what is known of it now has this revision; 0 for nothing.
    ///
    /// # Errors
    /// [`Error`] where NATS does not answer; it may be written all the same.
    pub async fn claim(&self, project: ProjectId, id: &str, wanted: &SeenEvent, revision: u64) -> Result<Claim, Error> {
        let subject = subject::seen(project, id);
        let mut revision = revision;
        loop {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(revision));
            let storing = self.bus.publish(subject.clone(), headers, wanted.encode()).await?;
            match storing.stored().await {
                Ok(stored) => return Ok(Claim::Made(stored.sequence)),
                Err(Error::Superseded) => {}
                Err(error) => return Err(error),
            }
            match self.bus.refusals.explain(self.read(&subject)).await? {
                Some((known, revision)) => return Ok(Claim::Known(known, revision)),
                // What there was has just been forgotten.
                None => revision = 0,
            }
        }
    }

    /// From the stream's leader: another server may not have heard of it yet.
    async fn read(&self, subject: &str) -> Result<Option<(SeenEvent, u64)>, Error> {
        let fail = |source: async_nats::Error| Error::SetUp {
            what: format!("what is known on {subject}"),
            source,
        };
        let stream = self
            .bus
            .jetstream
            .get_stream_no_info(SEEN.name)
            .await
            .map_err(|error| fail(error.into()))?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => {
                let known = SeenEvent::decode(message.payload).map_err(|error| fail(error.into()))?;
                Ok(Some((known, message.sequence)))
            }
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(fail(error.into())),
        }
    }
}
