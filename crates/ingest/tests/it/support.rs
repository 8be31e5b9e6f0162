//! What these tests begin with.

use std::time::Duration;

use clap::Parser as _;
use common::bus::{self, Bus};
use posthaste::local::{Folder, Nats, nats};
use proto_schemas::id::ProjectId;
use uuid::Uuid;

pub(crate) const PROJECT: ProjectId = ProjectId::from_uuid(Uuid::from_u128(1));

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    nats: bus::Config,
}

/// A NATS of the test's own, in a folder that is gone with it, and the bus of an ingest to it.
pub(crate) async fn own_nats() -> (Folder, Nats, Bus) {
    let folder = Folder::temporary().unwrap();
    let nats = Nats::start(&folder.path().join("nats"), &nats::Options::default())
        .await
        .unwrap();
    let arguments = Arguments::parse_from(["test", "--nats-url", &nats.url()]);
    let bus = Bus::connect(&arguments.nats, "ingest", Duration::from_secs(30))
        .await
        .unwrap();
    (folder, nats, bus)
}
