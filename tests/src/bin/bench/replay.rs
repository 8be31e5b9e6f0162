//! What a replay costs those who are not part of it: live traffic's latency without and with one under way, in one run.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use common::clock::Clock;
use hdrhistogram::Histogram;
use posthaste_tests::Cluster;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::load::Load;
use crate::report;
use crate::sink::Sink;

/// Live events a second.
const RATE: u64 = 200;
/// Webhooks that get nothing else, and webhooks that get the replay, too.
const LIVE: u64 = 20;
const REPLAYED: u64 = 20;
/// How many times its latency live traffic may have at most.
const BOUND: f64 = 1.5;

/// Fills the record with `deliveries`, measures live traffic alone, then while they are made again.
pub(crate) async fn measure(
    cluster: &Cluster,
    load: &Load,
    sink: &Sink,
    window: Duration,
    deliveries: u64,
) -> anyhow::Result<()> {
    println!("\nreplay: {RATE} live events/s, without and with a replay of {deliveries} deliveries under way");
    for (count, kind) in [(LIVE, "live"), (REPLAYED, "replayed")] {
        for i in 0..count {
            let events = json!({ "events": [format!("{kind}.{i}")] });
            cluster
                .admin
                .create_webhook("bench", &format!("{kind}-{i}"), &sink.url("quick"), events)
                .await?;
        }
    }
    cluster.definitions_in_force().await?;
    load.fill(sink, deliveries, |n| format!("replayed.{}", n % REPLAYED))
        .await?;

    // What follows is not part of the replay.
    let filled_at = Clock::System.now();

    // Every second event goes to a webhook that the replay goes to as well.
    let live = |n: u64| match n % 2 {
        0 => format!("live.{}", n / 2 % LIVE),
        _ => format!("replayed.{}", n / 2 % REPLAYED),
    };
    // What is first used costs more.
    load.open_loop(sink, RATE, Duration::from_secs(3), live).await?;
    let alone = load.open_loop(sink, RATE, window, live).await?;
    println!("  alone:           {}", report::latency(&alone));

    let body = json!({ "states": ["delivered"], "types": ["replayed.*"], "until": filled_at });
    let path = "/v1/projects/bench/replays";
    let replay = cluster.admin.ok(Method::POST, path, Some(&body)).await?;
    let path = format!("{path}/{}", replay["id"].as_str().context("no id")?);
    let begun = Instant::now();
    let mut beside: Histogram<u64> = Histogram::new(3)?;
    let progress = loop {
        let part = load.open_loop(sink, RATE, window, live).await?;
        let progress = cluster.admin.ok(Method::GET, &path, None).await?["progress"].take();
        // The part in which the replay ended is one without it, in part.
        if progress["state"] != "running" {
            if beside.is_empty() {
                beside.add(part)?;
            }
            break progress;
        }
        beside.add(part)?;
        ensure!(begun.elapsed() < Duration::from_secs(3_600), "the replay does not end");
    };
    println!("  with the replay: {}", report::latency(&beside));
    summarize(&progress, deliveries)?;
    let ratio = |quantile: f64| beside.value_at_quantile(quantile) as f64 / alone.value_at_quantile(quantile) as f64;
    println!(
        "  p50 {:.2} times, p99 {:.2} times (at most {BOUND})",
        ratio(0.5),
        ratio(0.99)
    );
    if ratio(0.99) > BOUND {
        bail!("live traffic's p99 is {:.2} times what it is alone", ratio(0.99));
    }
    Ok(())
}

fn summarize(progress: &Value, deliveries: u64) -> anyhow::Result<()> {
    println!(
        "  {} deliveries made again at {} a second; {} failed",
        progress["done"], progress["rate"], progress["failed"]
    );
    ensure!(
        progress["done"] == deliveries,
        "{} of {deliveries} were made again",
        progress["done"]
    );
    Ok(())
}
