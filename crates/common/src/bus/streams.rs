//! Creates the streams, their consumers and the bucket where they are absent; where they exist with settings this
//! release cannot keep its promises on, refuses to start rather than change what somebody set.
//!
//! Streams and bucket are made by whoever comes first. Consumers are made by whoever works the stream off, so that nobody
//! else needs to be allowed to: who makes a consumer of a stream can read it.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{
    Config as StreamConfig, DiscardPolicy, RetentionPolicy, StorageType, SubjectTransform,
};
use async_nats::jetstream::{self, kv};
use futures::TryStreamExt as _;
use futures::future::try_join_all;
use proto_schemas::stream::{CONFIG_BUCKET, DELIVERIES, DUPLICATE_WINDOW, EVENTS, LEDGER, SEEN, Stream};

use super::{Config, Error};

/// How long JetStream waits for an ack or a sign of progress before it hands a message out again: what a dead process
/// held comes back after this.
pub(super) const ACK_WAIT: Duration = Duration::from_secs(10);

/// How often a message being worked on shows a sign of progress. Well under [`ACK_WAIT`], so that two may be lost.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_secs(3);

/// Messages handed out and not acked, over all processes of one service. The processes bound what they hold
/// themselves; this only has to be above their sum.
const MAX_ACK_PENDING: i64 = 200_000;

pub(super) async fn set_up(jetstream: &jetstream::Context, config: &Config) -> Result<(), Error> {
    jetstream.query_account().await.map_err(|error| Error::SetUp {
        what: "JetStream (start nats-server with --jetstream, and allow it for this account)".to_owned(),
        source: error.into(),
    })?;
    for (stream, max_bytes) in [
        (EVENTS, config.nats_events_bytes),
        (DELIVERIES, config.nats_deliveries_bytes),
        (LEDGER, config.nats_ledger_bytes),
    ] {
        set_up_stream(jetstream, stream, max_bytes, config.nats_replicas).await?;
    }
    set_up_seen(jetstream, config).await?;
    set_up_bucket(jetstream, config.nats_replicas).await.map(drop)
}

async fn set_up_stream(
    jetstream: &jetstream::Context,
    stream: Stream,
    max_bytes: u64,
    replicas: u8,
) -> Result<(), Error> {
    let fail = |source: async_nats::Error| Error::SetUp {
        what: format!("stream {}", stream.name),
        source,
    };
    let wanted = StreamConfig {
        name: stream.name.to_owned(),
        subjects: vec![stream.subjects.to_owned()],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        max_bytes: i64::try_from(max_bytes).unwrap_or(i64::MAX),
        duplicate_window: stream.duplicate_window,
        num_replicas: replicas.into(),
        allow_direct: true,
        subject_transform: stream
            .transform()
            .map(|(source, destination)| SubjectTransform { source, destination }),
        ..StreamConfig::default()
    };
    let handle = get_or_create(jetstream, &wanted).await.map_err(fail)?;
    verify(&wanted, &handle.cached_info().config)
}

/// Creates those consumers of `stream` that are absent.
pub(super) async fn set_up_consumers(jetstream: &jetstream::Context, stream: Stream) -> Result<(), Error> {
    let fail = |source: async_nats::Error| Error::SetUp {
        what: format!("consumers of stream {}", stream.name),
        source,
    };
    let handle = (jetstream.get_stream_no_info(stream.name).await).map_err(|error| fail(error.into()))?;
    // Asked for at once, because each of those that are there need not be asked for.
    let there: HashSet<String> = (handle.consumer_names().try_collect().await).map_err(|error| fail(error.into()))?;
    let missing = stream.consumers().into_iter().filter(|it| !there.contains(&it.name));
    let made = missing.map(async |consumer| {
        let name = consumer.name.clone();
        let config = pull::Config {
            durable_name: Some(consumer.name),
            filter_subject: consumer.filter.unwrap_or_default(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            // Without end on the server's side: the last step is ours (`Message::handed_out`), because a message the
            // server gives up on stays in a work queue for ever, seen by nobody.
            max_deliver: -1,
            max_ack_pending: MAX_ACK_PENDING,
            ..pull::Config::default()
        };
        handle.get_or_create_consumer(&name, config).await
    });
    try_join_all(made).await.map_err(|error| fail(error.into()))?;
    Ok(())
}

/// Services that start together all find the stream absent and create it. While one creation is under way, JetStream
/// counts its storage limit for each of the others too and may refuse them for lack of storage; the stream is there a
/// moment later.
async fn get_or_create(
    jetstream: &jetstream::Context,
    wanted: &StreamConfig,
) -> Result<jetstream::stream::Stream, async_nats::Error> {
    let mut tries = 0;
    loop {
        match jetstream.get_or_create_stream(wanted.clone()).await {
            Ok(stream) => return Ok(stream),
            Err(error) if tries >= CREATION_TRIES => return Err(error.into()),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(CREATION_PAUSE).await;
    }
}

const CREATION_TRIES: u32 = 10;
const CREATION_PAUSE: Duration = Duration::from_millis(100);

/// Compares what the promises rest on; sizes and replicas are the operator's to change.
fn verify(wanted: &StreamConfig, found: &StreamConfig) -> Result<(), Error> {
    let mut wrong = Vec::new();
    let mut check = |what: &str, wanted: String, found: String| {
        if wanted != found {
            wrong.push(format!("{what} is {found}, must be {wanted}"));
        }
    };
    check(
        "subjects",
        format!("{:?}", wanted.subjects),
        format!("{:?}", found.subjects),
    );
    check(
        "subject transform",
        format!("{:?}", wanted.subject_transform),
        format!("{:?}", found.subject_transform),
    );
    check(
        "retention",
        format!("{:?}", wanted.retention),
        format!("{:?}", found.retention),
    );
    check(
        "discard",
        format!("{:?}", wanted.discard),
        format!("{:?}", found.discard),
    );
    check(
        "storage",
        format!("{:?}", wanted.storage),
        format!("{:?}", found.storage),
    );
    check(
        "max age",
        format!("{:?}", wanted.max_age),
        format!("{:?}", found.max_age),
    );
    check(
        "max messages per subject",
        wanted.max_messages_per_subject.max(0).to_string(),
        found.max_messages_per_subject.max(0).to_string(),
    );
    check(
        "duplicate window",
        format!("{:?}", wanted.duplicate_window),
        format!("{:?}", found.duplicate_window),
    );
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::Mismatch(format!(
        "stream {} was made by something else: {}; edit it (`nats stream edit`) or let Posthaste have an account of its own",
        wanted.name,
        wrong.join("; ")
    )))
}

/// The ids of a day's events: the last message for each, the oldest given up first.
async fn set_up_seen(jetstream: &jetstream::Context, config: &Config) -> Result<(), Error> {
    let wanted = StreamConfig {
        name: SEEN.name.to_owned(),
        subjects: vec![SEEN.subjects.to_owned()],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        max_messages_per_subject: 1,
        max_age: SEEN.kept,
        max_bytes: i64::try_from(config.nats_seen_bytes).unwrap_or(i64::MAX),
        duplicate_window: DUPLICATE_WINDOW,
        num_replicas: config.nats_replicas.into(),
        ..StreamConfig::default()
    };
    let handle = get_or_create(jetstream, &wanted).await.map_err(|source| Error::SetUp {
        what: format!("stream {}", SEEN.name),
        source,
    })?;
    verify(&wanted, &handle.cached_info().config)
}

pub(super) async fn set_up_bucket(jetstream: &jetstream::Context, replicas: u8) -> Result<kv::Store, Error> {
    if let Ok(found) = jetstream.get_key_value(CONFIG_BUCKET).await {
        return Ok(found);
    }
    let created = jetstream
        .create_key_value(kv::Config {
            bucket: CONFIG_BUCKET.to_owned(),
            description: "Definitions that ingest and dispatcher work by; written by config-api".to_owned(),
            history: 1,
            storage: StorageType::File,
            num_replicas: replicas.into(),
            ..kv::Config::default()
        })
        .await;
    let error = match created {
        Ok(created) => return Ok(created),
        Err(error) => error,
    };
    // Another service may have been faster.
    jetstream.get_key_value(CONFIG_BUCKET).await.map_err(|_| Error::SetUp {
        what: format!("bucket {CONFIG_BUCKET}"),
        source: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_could_not_keep_what_is_promised_is_refused_by_name() {
        let wanted = StreamConfig {
            name: "EVENTS".into(),
            subjects: vec!["events.>".into()],
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            duplicate_window: DUPLICATE_WINDOW,
            ..Default::default()
        };
        type Change = fn(&mut StreamConfig);
        let others: [(&str, Change); 8] = [
            ("retention is Limits, must be WorkQueue", |it| {
                it.retention = RetentionPolicy::Limits
            }),
            ("discard is Old, must be New", |it| it.discard = DiscardPolicy::Old),
            ("storage is Memory, must be File", |it| it.storage = StorageType::Memory),
            ("subjects is", |it| it.subjects.push("deliveries.>".into())),
            ("subject transform is", |it| {
                it.subject_transform = Some(SubjectTransform {
                    source: "events.>".into(),
                    destination: "other.>".into(),
                });
            }),
            ("max age is", |it| it.max_age = Duration::from_secs(60)),
            ("max messages per subject is", |it| it.max_messages_per_subject = 1),
            ("duplicate window is", |it| it.duplicate_window = Duration::from_secs(1)),
        ];
        for (says, change) in others {
            let mut found = wanted.clone();
            change(&mut found);
            let error = verify(&wanted, &found).unwrap_err().to_string();
            assert!(
                error.contains("stream EVENTS") && error.contains(says),
                "{says}: {error}"
            );
        }
        // Sizes and copies are the operator's.
        let found = StreamConfig {
            max_bytes: 7,
            num_replicas: 3,
            ..wanted.clone()
        };
        assert!(verify(&wanted, &found).is_ok());
    }
}
