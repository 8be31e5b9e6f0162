//! A producer that publishes on NATS and knows which of its events were accepted.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use futures::{StreamExt as _, stream};

use crate::{eventually_within, nats_options};

/// A plain JetStream producer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Producer {
    jetstream: jetstream::Context,
}

/// How many publishes are under way at once.
const AT_ONCE: usize = 128;

impl Producer {
    /// Connects.
    ///
    /// # Errors
    /// Where there is no NATS.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let client = nats_options(url)?.max_reconnects(None).connect(url).await?;
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(Duration::from_secs(2))
            .build(client);
        Ok(Self { jetstream })
    }

    /// Publishes one message and waits until JetStream has stored it.
    ///
    /// # Errors
    /// Where it is not stored.
    pub async fn publish(&self, subject: &str, headers: &[(&str, &str)], body: &str) -> anyhow::Result<()> {
        self.publish_acked(subject, headers, body).await.map(drop)
    }

    /// [`Producer::publish`], with what JetStream says of it.
    ///
    /// # Errors
    /// Where it is not stored.
    pub async fn publish_acked(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> anyhow::Result<jetstream::publish::PublishAck> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        let ack = self
            .jetstream
            .publish_with_headers(subject.to_owned(), map, body.to_owned().into())
            .await?;
        Ok(ack.await?)
    }

    /// Publishes `count` events of `event_type`, ids `e0`, `e1`, …, as fast as they are taken; each again, with the same
    /// id, until it is acked. Returns once all are accepted.
    pub async fn publish_many(&self, project: &str, event_type: &str, count: usize) {
        let subject = format!("events.{project}.{event_type}");
        stream::iter(0..count)
            .for_each_concurrent(AT_ONCE, |n| {
                let subject = &subject;
                async move {
                    let (id, body) = (format!("{project}:e{n}"), format!(r#"{{"n":{n}}}"#));
                    eventually_within(Duration::from_secs(120), "an ack of JetStream", || async {
                        self.publish(subject, &[("Nats-Msg-Id", &id)], &body).await.ok()
                    })
                    .await;
                }
            })
            .await;
    }
}
