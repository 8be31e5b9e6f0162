//! The benchmark behind `make bench`: real processes, a private nats-server and Postgres, an open-loop generator and a
//! sink of our own, all on this machine.
//!
//! Open loop: an event's latency counts from the moment it was **meant** to be published, so a stall of the system under
//! test shows in the figures instead of slowing the generator down.

mod account;
mod backlog;
mod load;
mod replay;
mod report;
mod sink;

use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use posthaste_tests::{Cluster, Setup};
use serde_json::json;

use self::account::Accounts;
use self::load::Load;
use self::report::Table;
use self::sink::Sink;

/// Measures what Posthaste costs on this machine.
#[derive(Debug, Parser)]
#[command(name = "posthaste-bench")]
struct Args {
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Webhooks the saturating load is spread over.
    #[arg(long, default_value_t = 20)]
    webhooks: usize,
    /// Bytes of each event's data.
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
    /// Events that one project has waiting in the measurement `fairness`.
    #[arg(long, default_value_t = 200_000)]
    waiting: u64,
    /// Deliveries that are made again in the measurement `replay`.
    #[arg(long, default_value_t = 100_000)]
    replayed: u64,
    /// Only these measurements: bare, saturation, light, isolation, backlog, fairness; replay, which takes minutes and is
    /// measured only where it is named.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Deliveries parked for a dead receiver in the measurement `backlog`.
    #[arg(long, default_value_t = 100_000)]
    parked: u64,
}

impl Args {
    fn wants(&self, measurement: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == measurement)
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let window = Duration::from_secs(args.seconds);
    println!("{}", report::machine());
    println!("starting nats-server, Postgres and the four services …");
    let sink = Sink::start().await?;
    let env = vec![
        ("POSTHASTE_LOG", "warn".to_owned()),
        ("POSTHASTE_BREAKER_FAILURES", "5".to_owned()),
    ];
    let cluster = Cluster::start_with(Setup {
        env,
        durable: true,
        ..Setup::default()
    })
    .await?;
    let load = Load::connect(&cluster.nats.url(), "bench", args.bytes).await?;
    let api = &cluster.admin;
    api.create_project("bench").await?;

    let mut bare = None;
    if args.wants("bare") {
        println!("\nthe bare HTTP client, the same payloads straight to the sink, {window:?}");
        let rate = load::bare(&sink, args.bytes, window).await?;
        println!("  {rate:.0} requests/s");
        bare = Some(rate);
    }

    let mut quick = Vec::new();
    for i in 0..args.webhooks {
        let hook = cluster
            .admin
            .create_webhook(
                "bench",
                &format!("quick-{i}"),
                &sink.url("quick"),
                json!({ "events": [format!("quick.{i}")] }),
            )
            .await?;
        quick.push(hook["id"].as_str().context("no id")?.to_owned());
    }

    cluster.definitions_in_force().await?;
    if args.wants("saturation") {
        for with_ids in [true, false] {
            println!(
                "\nsaturation: {} webhooks, {} B events {} ids of their producer's, {window:?}",
                args.webhooks,
                args.bytes,
                if with_ids { "with" } else { "without" },
            );
            saturation(&args, &cluster, &load, &sink, window, with_ids, bare).await?;
        }
    }
    if args.wants("light") {
        for rate in [50, 200] {
            let latency = load
                .open_loop(&sink, rate, window, |n| format!("quick.{}", n as usize % args.webhooks))
                .await?;
            println!("\nend to end at {rate} events/s: {}", report::latency(&latency));
        }
    }
    if args.wants("isolation") {
        isolation(&cluster, &load, &sink, window).await?;
    }
    if args.wants("backlog") {
        backlog::measure(&args, &cluster, &load, &sink, window).await?;
    }
    if args.wants("fairness") {
        fairness(&args, &cluster, &sink, window).await?;
    }
    if args.only.iter().any(|only| only == "replay") {
        replay::measure(&cluster, &load, &sink, window, args.replayed).await?;
    }
    println!("\nresident memory:");
    let mut table = Table::new(&["process", "MiB"]);
    for (name, bytes) in Accounts::of(&cluster)?.resident()? {
        table.row(&[name, format!("{:.0}", bytes as f64 / 1048576.0)]);
    }
    table.print();
    Ok(())
}

async fn saturation(
    args: &Args,
    cluster: &Cluster,
    load: &Load,
    sink: &Sink,
    window: Duration,
    with_ids: bool,
    bare: Option<f64>,
) -> anyhow::Result<()> {
    let accounts = Accounts::of(cluster)?;
    let measured = load
        .saturate(sink, window, &accounts, with_ids, |n| {
            format!("quick.{}", n as usize % args.webhooks)
        })
        .await?;
    let rate = measured.delivered as f64 / measured.elapsed.as_secs_f64();
    print!("  {rate:.0} deliveries/s");
    match bare {
        Some(bare) => println!(", {:.0} % of the bare client", 100.0 * rate / bare),
        None => println!(),
    }
    let mut table = Table::new(&["process", "CPU µs per delivered event"]);
    let mut total = 0.0;
    for (name, cpu) in &measured.cpu {
        let each = cpu.as_secs_f64() * 1e6 / measured.delivered as f64;
        if name != account::GENERATOR {
            total += each;
        }
        table.row(&[name.clone(), format!("{each:.1}")]);
    }
    table.row(&["all but generator and sink".to_owned(), format!("{total:.1}")]);
    table.print();
    let recorded = measured.recorded_after;
    println!("  the log was complete {recorded:.1?} after the last delivery");
    Ok(())
}

/// Ten of 200 webhooks answer after 5 s; the others must not notice.
async fn isolation(cluster: &Cluster, load: &Load, sink: &Sink, window: Duration) -> anyhow::Result<()> {
    const WEBHOOKS: u64 = 200;
    const SLOW: u64 = 10;
    const RATE: u64 = 1000;
    println!("\nisolation: {RATE} events/s over {WEBHOOKS} webhooks, of which {SLOW} answer after 5 s, {window:?}");
    for i in 0..WEBHOOKS {
        let to = if i < SLOW { "slow" } else { "other" };
        cluster
            .admin
            .create_webhook(
                "bench",
                &format!("isolated-{i}"),
                &sink.url(to),
                json!({ "events": [format!("isolated.{i}")] }),
            )
            .await?;
    }
    let latency = load
        .open_loop(sink, RATE, window, |n| format!("isolated.{}", n % WEBHOOKS))
        .await?;
    println!("  the quick ones, end to end: {}", report::latency(&latency));
    Ok(())
}

/// One project has a backlog; another publishes now and then, and must not notice.
async fn fairness(args: &Args, cluster: &Cluster, sink: &Sink, window: Duration) -> anyhow::Result<()> {
    const RATE: u64 = 50;
    println!(
        "\nfairness: {RATE} events/s of one project, alone and while another has a backlog of {} events, {window:?} each",
        args.waiting
    );
    for (project, to) in [("crowded", "other"), ("single", "quick")] {
        cluster.admin.create_project(project).await?;
        cluster.create_webhook(project, "all", &sink.url(to), json!({})).await?;
    }
    let single = Load::connect(&cluster.nats.url(), "single", args.bytes).await?;
    let alone = single.open_loop(sink, RATE, window, |_| "tick".to_owned()).await?;
    println!("  alone: {}", report::latency(&alone));
    let crowded = Load::connect(&cluster.nats.url(), "crowded", 100).await?;
    crowded.pile_up(args.waiting, "tick").await?;
    let before = crowded.waiting().await?;
    let beside = single.open_loop(sink, RATE, window, |_| "tick".to_owned()).await?;
    let after = crowded.waiting().await?;
    println!("  beside the backlog: {}", report::latency(&beside));
    println!("  the backlog in the pipe was {before} messages before and {after} after");
    Ok(())
}
