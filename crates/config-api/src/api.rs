//! What every handler works with.

use std::ops::DerefMut;
use std::sync::Arc;

use common::catalogue::Catalogues;
use common::clock::Clock;
use common::crypto::KeyRing;
use common::egress::Guard;
use common::http::rate_limit::RateLimits;
use common::http::{Code, Problem};
use common::profile::Profiles;
use common::template::Templates;
use ipnet::IpNet;
use jiff::Timestamp;
use proto_schemas::id::ProjectId;
use proto_schemas::stream::config_key::Key;
use rand::Rng;
use store::{Connection, Database, Transaction, outbox};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::relay::Publication;
use crate::streams::Streams;
use crate::uses::Uses;

/// What every handler works with.
#[derive(Debug)]
pub struct Api {
    /// Postgres.
    pub database: Database,
    /// Seals secrets.
    pub keys: KeyRing,
    /// What projects may name.
    pub profiles: Arc<Profiles>,
    /// The event types that profiles name.
    pub catalogues: Arc<Catalogues>,
    /// What webhooks may be made from.
    pub templates: Templates,
    /// Where webhooks may go.
    pub guard: Guard,
    /// Time of what is written, and of tokens' expiry.
    pub clock: Clock,
    /// Who may ask how much.
    pub rate_limits: RateLimits,
    /// The addresses that requests to webhooks come from, as the operator says.
    pub source_addresses: Vec<IpNet>,
    /// Cancelled when long answers are to end.
    pub stop: CancellationToken,
    /// Brings what was written to ingest and dispatcher.
    pub publication: Publication,
    /// Answers without end.
    pub streams: Streams,
    /// Which tokens are used.
    pub(crate) uses: Uses,
}

impl Api {
    /// The present instant, as Postgres will give it back.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    /// A connection for what is of one project.
    ///
    /// # Errors
    /// A [`Problem`] where none can be had in time.
    pub async fn connection_in(
        &self,
        project: ProjectId,
    ) -> Result<impl DerefMut<Target = Connection> + Send + use<>, Problem> {
        self.database.of_project(project).connection().await.map_err(failed)
    }

    /// Begins a transaction for what is of one project.
    ///
    /// # Errors
    /// A [`Problem`] where no connection can be had in time.
    pub async fn begin_in(&self, project: ProjectId) -> Result<Transaction, Problem> {
        self.database.of_project(project).begin().await.map_err(failed)
    }
}

/// A new id; ids sort by the time they were made (UUID version 7).
#[must_use]
pub fn new_id(now: Timestamp, rng: &mut impl Rng) -> Uuid {
    let mut random = [0; 10];
    rng.fill_bytes(&mut random);
    let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// Says, in the transaction that makes it so, that a definition has changed.
///
/// # Errors
/// A [`Problem`] where Postgres fails.
pub async fn note_changed(connection: &mut Connection, key: &Key) -> Result<(), Problem> {
    outbox::append(connection, &[key.to_text()]).await.map_err(failed)
}

/// What a failure of Postgres is to a client.
pub fn failed(error: store::Error) -> Problem {
    match error.is_transient() {
        true => Problem::from(Code::Unavailable).because(error),
        false => Problem::internal(error),
    }
}
