//! Clocks that differ.

use std::time::Duration;

use clap::Parser as _;
use common::bus::{self, Bus};
use common::clock::{Clock, Manual};
use common::health::Health;
use jiff::SignedDuration;
use posthaste_tests::{Cluster, Role, eventually_within};
use tokio_util::sync::CancellationToken;

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    nats: bus::Config,
}

/// Looks every ten seconds.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_clock_that_receivers_would_not_believe_is_said() {
    let cluster = Cluster::start().await.unwrap();
    for role in Role::ALL {
        let offset = eventually_within(PATIENCE, role.name(), || async {
            let (_, metrics) = cluster.text(role, "/metrics").await.ok()?;
            let line = metrics
                .lines()
                .find(|line| line.starts_with("posthaste_clock_offset_seconds"))?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        })
        .await;
        assert!(offset.abs() < 2.0, "{}: {offset}, on one machine", role.name());
    }
    // Who signs, and who says when: the others serve whoever asks, whatever time it is.
    for (role, is_held_to_it) in [
        (Role::Dispatcher, true),
        (Role::RetryScheduler, true),
        (Role::Ingest, false),
        (Role::ConfigApi, false),
    ] {
        let (status, said) = cluster.text(role, "/readyz").await.unwrap();
        assert_eq!((status, said.contains("\"clock\"")), (200, is_held_to_it), "{said}");
    }

    // As dispatcher does, with a clock that can be set.
    let arguments = Arguments::parse_from(["test", "--nats-url", &cluster.nats.url()]);
    let bus = Bus::connect(&arguments.nats, "test", PATIENCE).await.unwrap();
    let clock = Manual::at(Clock::System.now() - SignedDuration::from_mins(5));
    let (health, stop) = (Health::new(), CancellationToken::new());
    let _end = stop.clone().drop_guard();
    bus.survey(clock.clone().into(), Some(health.clone()), stop);
    eventually_within(PATIENCE, "it is said", || async { (!health.is_ready()).then_some(()) }).await;
    clock.set(Clock::System.now());
    eventually_within(PATIENCE, "it is right", || async { health.is_ready().then_some(()) }).await;
}
