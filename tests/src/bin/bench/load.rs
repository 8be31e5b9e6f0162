//! The generator: publishes on NATS as any producer would.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::HeaderMap;
use async_nats::jetstream::{self, context::PublishAckFuture};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::account::{Accounts, GENERATOR};
use crate::sink::Sink;

/// A producer.
pub(crate) struct Load {
    jetstream: jetstream::Context,
    project: String,
    payload: Bytes,
    /// The number of the next event that is measured. Those of one measurement follow each other.
    next: AtomicU64,
    /// How many events were published that are not measured.
    unmeasured: AtomicU64,
}

/// What a saturating run came to.
pub(crate) struct Saturated {
    pub(crate) delivered: u64,
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Vec<(String, Duration)>,
    pub(crate) recorded_after: Duration,
}

/// Publishes whose ack is awaited at once.
const WINDOW: usize = 512;
/// Most events published and not delivered: enough to keep every stage busy.
const BACKLOG: u64 = 4_000;

impl Load {
    pub(crate) async fn connect(nats: &str, project: &str, bytes: usize) -> anyhow::Result<Self> {
        let client = async_nats::connect(nats).await?;
        let around = r#"{"pad":""}"#.len();
        let payload = format!(r#"{{"pad":"{}"}}"#, "x".repeat(bytes.saturating_sub(around)));
        Ok(Self {
            jetstream: jetstream::new(client),
            project: project.to_owned(),
            payload: payload.into(),
            next: AtomicU64::new(1),
            unmeasured: AtomicU64::new(0),
        })
    }

    /// A number that no measured event has.
    fn unmeasured(&self) -> u64 {
        u64::MAX - self.unmeasured.fetch_add(1, Ordering::Relaxed)
    }

    async fn publish(&self, n: u64, event_type: &str) -> anyhow::Result<PublishAckFuture> {
        let id = format!("{}:e{n}", self.project);
        self.publish_as(Some(id), event_type).await
    }

    async fn publish_as(&self, id: Option<String>, event_type: &str) -> anyhow::Result<PublishAckFuture> {
        let mut headers = HeaderMap::new();
        if let Some(id) = id {
            headers.insert("Nats-Msg-Id", id);
        }
        let subject = format!("events.{}.{event_type}", self.project);
        Ok(self
            .jetstream
            .publish_with_headers(subject, headers, self.payload.clone())
            .await?)
    }

    /// Publishes `count` events as fast as JetStream stores them, whatever becomes of them.
    pub(crate) async fn pile_up(&self, count: u64, event_type: &str) -> anyhow::Result<()> {
        let mut acks: VecDeque<PublishAckFuture> = VecDeque::with_capacity(WINDOW);
        for _ in 0..count {
            let n = self.unmeasured();
            acks.push_back(self.publish(n, event_type).await?);
            if acks.len() >= WINDOW
                && let Some(ack) = acks.pop_front()
            {
                ack.await?;
            }
        }
        for ack in acks {
            ack.await?;
        }
        Ok(())
    }

    /// Messages that wait in the pipe: events to be fanned out, and deliveries to be made.
    pub(crate) async fn waiting(&self) -> anyhow::Result<u64> {
        let mut messages = 0;
        for stream in ["EVENTS", "DELIVERIES"] {
            messages += self.jetstream.get_stream(stream).await?.cached_info().state.messages;
        }
        Ok(messages)
    }

    /// As fast as the system takes it, for `window`; measured after a fifth of it. The events have ids of their
    /// producer's, or none.
    pub(crate) async fn saturate(
        &self,
        sink: &Sink,
        window: Duration,
        accounts: &Accounts,
        with_ids: bool,
        event_type: impl Fn(u64) -> String,
    ) -> anyhow::Result<Saturated> {
        let before = sink.delivered();
        let begun = Instant::now();
        let warm = begun + window / 5;
        let mut published = 0;
        let mut acks: VecDeque<PublishAckFuture> = VecDeque::with_capacity(WINDOW);
        let mut start = None;
        while begun.elapsed() < window + window / 5 {
            if start.is_none() && Instant::now() >= warm {
                start = Some((Instant::now(), sink.delivered(), accounts.cpu()?));
            }
            if published - (sink.delivered() - before) >= BACKLOG {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let id = with_ids.then(|| format!("{}:e{n}", self.project));
            acks.push_back(self.publish_as(id, &event_type(n)).await?);
            published += 1;
            if acks.len() >= WINDOW
                && let Some(ack) = acks.pop_front()
            {
                ack.await?;
            }
        }
        let (start, delivered_before, cpu_before) = start.context("the window is too short")?;
        let (elapsed, delivered, cpu) = (start.elapsed(), sink.delivered() - delivered_before, accounts.cpu()?);
        for ack in acks {
            ack.await?;
        }
        let last = Instant::now() + Duration::from_secs(60);
        while sink.delivered() - before < published {
            ensure!(
                Instant::now() < last,
                "{} of {published} events arrived",
                sink.delivered() - before
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let settled = Instant::now();
        let mut ledger = self.jetstream.get_stream("LEDGER").await?;
        while ledger.info().await?.state.messages > 0 {
            ensure!(
                settled.elapsed() < Duration::from_secs(120),
                "the ledger does not drain"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // What the backlog still costs when it is recorded belongs to what was delivered.
        let late = accounts.cpu()?;
        let share = delivered as f64 / published as f64;
        let cpu = cpu_before
            .into_iter()
            .zip(cpu.into_iter().zip(late))
            .map(|((name, before), ((_, at_end), (_, late)))| {
                let tail = if name == GENERATOR {
                    Duration::ZERO
                } else {
                    (late - at_end).mul_f64(share)
                };
                (name, at_end - before + tail)
            })
            .collect();
        Ok(Saturated {
            delivered,
            elapsed,
            cpu,
            recorded_after: settled.elapsed(),
        })
    }

    /// Publishes `count` events of one type, `rate` a second.
    pub(crate) async fn pour(&self, count: u64, rate: u64, event_type: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut acks: VecDeque<PublishAckFuture> = VecDeque::with_capacity(WINDOW);
        for i in 0..count {
            tokio::time::sleep_until(began + Duration::from_secs(i) / u32::try_from(rate)?).await;
            let n = self.unmeasured();
            acks.push_back(self.publish(n, event_type).await?);
            if acks.len() >= WINDOW
                && let Some(ack) = acks.pop_front()
            {
                ack.await?;
            }
        }
        for ack in acks {
            ack.await?;
        }
        Ok(())
    }

    /// Publishes `count` events as fast as they are delivered, and waits until all are, and are on record.
    pub(crate) async fn fill(&self, sink: &Sink, count: u64, event_type: impl Fn(u64) -> String) -> anyhow::Result<()> {
        let before = sink.delivered();
        let mut acks: VecDeque<PublishAckFuture> = VecDeque::with_capacity(WINDOW);
        let mut published = 0;
        while published < count {
            if published - (sink.delivered() - before) >= BACKLOG {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            acks.push_back(self.publish(n, &event_type(n)).await?);
            published += 1;
            if acks.len() >= WINDOW
                && let Some(ack) = acks.pop_front()
            {
                ack.await?;
            }
        }
        for ack in acks {
            ack.await?;
        }
        let last = Instant::now() + Duration::from_secs(120);
        let mut ledger = self.jetstream.get_stream("LEDGER").await?;
        while sink.delivered() - before < count || ledger.info().await?.state.messages > 0 {
            ensure!(Instant::now() < last, "not everything is delivered and on record");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// `rate` events a second, each at its time whatever became of the earlier ones; latencies in microseconds, from
    /// when an event was due to when the sink had it. Events that never come to a quick webhook are left out.
    pub(crate) async fn open_loop(
        &self,
        sink: &Sink,
        rate: u64,
        window: Duration,
        event_type: impl Fn(u64) -> String,
    ) -> anyhow::Result<Histogram<u64>> {
        let step = Duration::from_nanos(1_000_000_000 / rate);
        let first = self.next.load(Ordering::Relaxed);
        let count = rate * window.as_secs();
        let (origin, began) = (sink.now(), Instant::now());
        let mut acks = Vec::with_capacity(usize::try_from(count)?);
        for i in 0..count {
            tokio::time::sleep_until(began + step * u32::try_from(i)?).await;
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            // Each in a task of its own: the client lets only so many acks go unclaimed.
            let ack = self.publish(n, &event_type(n)).await?;
            acks.push(tokio::spawn(ack.into_future()));
        }
        for ack in acks {
            ack.await??;
        }
        // The slow ones take 5 s and may be parked; the quick ones are long there.
        let quick = |n: u64| !SLOW.contains(&event_type(n).as_str());
        let deadline = Instant::now() + Duration::from_secs(20);
        while (first..first + count).any(|n| quick(n) && sink.arrival(n).is_none()) {
            ensure!(Instant::now() < deadline, "not every event arrived");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut histogram = Histogram::new(3)?;
        for i in 0..count {
            let n = first + i;
            if let Some(arrival) = sink.arrival(n).filter(|_| quick(n)) {
                let due = origin + u64::try_from(step.as_nanos())? * i;
                histogram.record(arrival.saturating_sub(due) / 1000)?;
            }
        }
        Ok(histogram)
    }
}

/// The types that go to webhooks which answer after 5 s.
const SLOW: [&str; 10] = [
    "isolated.0",
    "isolated.1",
    "isolated.2",
    "isolated.3",
    "isolated.4",
    "isolated.5",
    "isolated.6",
    "isolated.7",
    "isolated.8",
    "isolated.9",
];

/// The bare client's rate: the same payloads, 64 at once, nothing between.
pub(crate) async fn bare(sink: &Sink, bytes: usize, window: Duration) -> anyhow::Result<f64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the limit that Posthaste is compared with, which must have no guard"
    )]
    let client = reqwest::Client::builder().no_proxy().build()?;
    let payload = Bytes::from(vec![b'x'; bytes]);
    let (before, begun) = (sink.delivered(), Instant::now());
    let posting = (0..64).map(|_| async {
        while begun.elapsed() < window {
            let answer = client
                .post(sink.url("quick"))
                .header("content-type", "application/json")
                .body(payload.clone())
                .send()
                .await?;
            answer.bytes().await?;
        }
        anyhow::Ok(())
    });
    futures::future::try_join_all(posting.map(Box::pin)).await?;
    Ok((sink.delivered() - before) as f64 / begun.elapsed().as_secs_f64())
}
