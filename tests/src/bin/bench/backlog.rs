//! What a dead receiver's backlog costs the others.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use posthaste_tests::Cluster;
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use crate::Args;
use crate::account::Accounts;
use crate::load::Load;
use crate::report::{self, Table};
use crate::sink::Sink;

/// Events a second to the others.
const RATE: u64 = 200;
/// Events a second to the dead receiver, until there are as many as asked for. Faster than they can be fanned out would
/// measure what a burst costs the project it belongs to.
const COMING: u64 = 2_000;

/// The others' latency and every process' memory without a backlog, while it comes, and beside it.
pub(crate) async fn measure(
    args: &Args,
    cluster: &Cluster,
    load: &Load,
    sink: &Sink,
    window: Duration,
) -> anyhow::Result<()> {
    let parked = args.parked;
    println!("\nbacklog: {RATE} events/s to the others, {parked} deliveries parked for a receiver that answers 500");
    let api = &cluster.admin;
    let more = json!({ "events": ["backlog"], "retry": false, "fail_after": 0 });
    api.create_webhook("bench", "dead", &sink.url("dead"), more).await?;
    cluster.definitions_in_force().await?;
    let others = || load.open_loop(sink, RATE, window, |n| format!("quick.{}", n as usize % args.webhooks));
    let accounts = Accounts::of(cluster)?;

    println!("  without: {}", report::latency(&others().await?));
    let before = accounts.resident()?;
    let begun = Instant::now();
    let coming = async {
        load.pour(parked, COMING, "backlog").await?;
        let deadline = Instant::now() + Duration::from_secs(600);
        loop {
            let path = "/v1/projects/bench/reconciliation";
            let sums = api.ok(Method::GET, path, None).await?;
            let waiting = sums["states"]["parked"].as_u64().context("no count")?;
            // A few were asked for, and are dead.
            if waiting + sink.refused() >= parked {
                return anyhow::Ok(waiting);
            }
            ensure!(Instant::now() < deadline, "{waiting} are parked");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let (latency, waiting) = tokio::try_join!(others(), coming)?;
    println!("  while it comes: {}", report::latency(&latency));
    println!("  {waiting} parked after {:.0?}", begun.elapsed());
    let asked = sink.refused();
    println!("  beside it: {}", report::latency(&others().await?));
    println!(
        "  requests to the dead receiver: {asked}, then {}",
        sink.refused() - asked
    );
    let mut table = Table::new(&["process", "MiB before", "MiB beside it"]);
    for ((name, before), (_, after)) in before.into_iter().zip(accounts.resident()?) {
        let mebibytes = |bytes: u64| format!("{:.0}", bytes as f64 / 1_048_576.0);
        table.row(&[name, mebibytes(before), mebibytes(after)]);
    }
    table.print();
    Ok(())
}
