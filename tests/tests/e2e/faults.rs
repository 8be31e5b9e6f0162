//! The fault matrix: a process dies at every boundary between two steps, and nothing comes of it.
//!
//! Events flow; a service is started with a [`Point`] armed, ends there by SIGKILL, and is started again as it was. When
//! everything is at rest, [`at_rest`] says whether anything was lost, made twice, or forgotten. `make test` has several
//! services die in each round, and looks at the end; `make faults` looks after each single death, and after two in a row.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use common::failpoint::Point;
use posthaste_tests::{Answer, Cluster, Done, Producer, Received, Receiver, Role, Setup, at_rest};
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

/// Events published at once while a death is waited for.
const BURST: usize = 6;

/// How long a process may take to come to its point: a look for missing deliveries comes every five seconds, and thirty
/// after one that was never finished.
const REACHED_WITHIN: Duration = Duration::from_secs(60);

/// Requests that one death of dispatcher may repeat: one lane's for each webhook, and as many again that were over and
/// not acked yet.
const REPEATED: usize = 4 * 2 * 10;

/// The service that comes to a point.
fn role(point: Point) -> Role {
    match point.name().split("::").next().unwrap_or_default() {
        "ingest" => Role::Ingest,
        "dispatcher" => Role::Dispatcher,
        "relay" => Role::ConfigApi,
        "recorder" | "release" | "rescue" | "replay" | "reconcile" | "announce" => Role::RetryScheduler,
        other => panic!("whose point is {other}?"),
    }
}

/// A project whose webhooks give every step something to do.
struct World {
    project: String,
    /// Takes everything.
    steady: Receiver,
    /// Fails each event's first request, and takes its time over the second: longer than rescue waits.
    flaky: Receiver,
    /// Asks for a pause every now and then, so that deliveries are parked.
    busy: Receiver,
    /// Takes everything, one event after the other.
    orderly: Receiver,
    producer: Producer,
    accepted: BTreeSet<String>,
    /// Events posted to a service that died before it answered, to be posted again.
    unanswered: Vec<String>,
    published: usize,
    deaths_of_dispatcher: usize,
}

/// How many requests of an event came before this one.
fn counted() -> impl Fn(&Received) -> usize + Send + Sync {
    let seen: Mutex<HashMap<String, usize>> = Mutex::default();
    move |request| {
        let mut seen = seen.lock().unwrap();
        let count = seen.entry(request.event_id()).or_default();
        *count += 1;
        *count - 1
    }
}

impl World {
    async fn start(cluster: &Cluster, project: &str) -> Self {
        let (steady, orderly) = (Receiver::start().await, Receiver::start().await);
        let before = counted();
        let flaky = Receiver::scripted(move |request, _| match before(request) {
            0 => Answer::status(500),
            _ => Answer {
                after: Duration::from_millis(1200),
                ..Answer::status(200)
            },
        })
        .await;
        let before = counted();
        let busy = Receiver::scripted(move |request, all| match before(request) {
            0 if all % 5 == 0 => Answer {
                headers: vec![("retry-after", "1".to_owned())],
                ..Answer::status(429)
            },
            _ => Answer::status(200),
        })
        .await;
        cluster.admin.create_project(project).await.unwrap();
        let webhooks = [
            ("steady", &steady, json!(null)),
            ("flaky", &flaky, json!(null)),
            ("busy", &busy, json!(null)),
            ("orderly", &orderly, json!({ "by": "webhook" })),
        ];
        for (name, receiver, ordering) in webhooks {
            let more = json!({
                "events": ["order.*"],
                "ordering": ordering,
                "retry": { "delays": ["0s", "1s", "1s", "1s", "1s", "1s"] },
                "fail_after": 0,
            });
            cluster
                .create_webhook(project, name, &receiver.url, more)
                .await
                .unwrap();
        }
        Self {
            project: project.to_owned(),
            steady,
            flaky,
            busy,
            orderly,
            producer: Producer::connect(&cluster.nats.url()).await.unwrap(),
            accepted: BTreeSet::new(),
            unanswered: Vec::new(),
            published: 0,
            deaths_of_dispatcher: 0,
        }
    }

    /// A burst of events over NATS, one over HTTP, one that is none, an earlier one again, a change of a webhook and a test
    /// of it. What the API does not answer because it dies is no failure.
    async fn traffic(&mut self, cluster: &Cluster) {
        let project = self.project.clone();
        if let Some(earlier) = self.accepted.first() {
            let path = format!("/v1/projects/{project}/replays");
            let again = json!({ "events": [earlier], "webhooks": ["steady"], "states": ["delivered"] });
            let _ = cluster.admin.call(Method::POST, &path, Some(&again)).await;
        }
        for _ in 0..BURST {
            self.published += 1;
            let id = format!("{project}-{}", self.published);
            let message_id = format!("{project}:{id}");
            self.producer
                .publish(
                    &format!("events.{project}.order.paid"),
                    &[("Nats-Msg-Id", &message_id)],
                    "1",
                )
                .await
                .unwrap();
            self.accepted.insert(id);
        }
        let bad = format!("{project}:bad-{}", self.published);
        self.producer
            .publish(
                &format!("events.{project}.order.paid"),
                &[("Nats-Msg-Id", &bad)],
                "no JSON",
            )
            .await
            .unwrap();
        self.unanswered.push(format!("{project}-posted-{}", self.published));
        self.post(cluster).await;
        let path = format!("/v1/projects/{project}/webhooks/steady");
        let change = json!({ "description": format!("{}", self.published) });
        let _ = cluster.admin.call(Method::PATCH, &path, Some(&change)).await;
        let _ = cluster.admin.call(Method::POST, &format!("{path}:test"), None).await;
    }

    /// Posts what has not been accepted yet.
    async fn post(&mut self, cluster: &Cluster) {
        let path = format!("/v1/projects/{}/events", self.project);
        for id in std::mem::take(&mut self.unanswered) {
            let event = json!({ "type": "order.paid", "id": id, "data": 1 });
            match cluster.admin.intake(&path, &event).await {
                Ok((status, _)) if status.as_u16() == 202 => drop(self.accepted.insert(id)),
                _ => self.unanswered.push(id),
            }
        }
    }

    /// Has these points armed, each in a service of its own, until every one of the services has died there.
    async fn die_at(&mut self, cluster: &mut Cluster, points: &[Point], times: usize) {
        for &point in points {
            self.arm(cluster, point).await;
        }
        let mut left: Vec<(Point, usize)> = points.iter().map(|point| (*point, times)).collect();
        let deadline = Instant::now() + REACHED_WITHIN * u32::try_from(times).unwrap();
        let mut pause = Duration::from_millis(400);
        while !left.is_empty() {
            self.traffic(cluster).await;
            // Until the next burst, whoever has died is started again.
            let next = Instant::now() + pause;
            pause = (pause * 3 / 2).min(Duration::from_secs(3));
            while Instant::now() < next && !left.is_empty() {
                let mut alive = Vec::new();
                for (point, times) in left {
                    let Some(status) = cluster.ended(role(point)).unwrap() else {
                        alive.push((point, times));
                        continue;
                    };
                    assert_eq!(
                        status.signal(),
                        Some(9),
                        "{}: {status}\n{}",
                        point.name(),
                        cluster.log(role(point))
                    );
                    self.deaths_of_dispatcher += usize::from(role(point) == Role::Dispatcher);
                    match times {
                        1 => cluster.restart(role(point)).await.unwrap(),
                        _ => {
                            self.arm(cluster, point).await;
                            alive.push((point, times - 1));
                        }
                    }
                }
                left = alive;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let names: Vec<&str> = left.iter().map(|(point, _)| point.name()).collect();
            assert!(Instant::now() < deadline, "nobody came to {names:?}");
        }
    }

    async fn arm(&self, cluster: &mut Cluster, point: Point) {
        if cluster.ended(role(point)).unwrap().is_none() {
            cluster.terminate(role(point)).await.unwrap();
        }
        cluster
            .restart_doomed(role(point), &[("POSTHASTE_FAILPOINT", point.name())])
            .await
            .unwrap();
    }

    async fn check(&mut self, cluster: &Cluster) {
        while !self.unanswered.is_empty() {
            self.post(cluster).await;
        }
        // What was changed last is in force, whoever died on the way there.
        let path = format!("/v1/projects/{}/webhooks/steady", self.project);
        let seen = json!({ "headers": [{ "key": "x-last", "value": "change" }] });
        cluster.admin.ok(Method::PATCH, &path, Some(&seen)).await.unwrap();
        cluster.definitions_in_force().await.unwrap();
        self.traffic(cluster).await;
        assert!(self.unanswered.is_empty());
        let webhooks = [
            ("steady", &self.steady),
            ("flaky", &self.flaky),
            ("busy", &self.busy),
            ("orderly", &self.orderly),
        ];
        let done = Done {
            project: &self.project,
            accepted: &self.accepted,
            webhooks: &webhooks,
            duplicates: self.deaths_of_dispatcher * REPEATED,
        };
        at_rest(cluster, &done).await;
        let received = self.steady.received();
        assert!(received.last().unwrap().headers.contains_key("x-last"));
        self.is_orderly(cluster).await;
    }

    /// Whether each event came to the webhook that wants them in order after all that were accepted before it.
    async fn is_orderly(&self, cluster: &Cluster) {
        let path = format!("/v1/projects/{}/events", self.project);
        let events = cluster.admin.list(&path).await.unwrap();
        let accepted = events
            .iter()
            .rev()
            .map(|event| event["id"].as_str().unwrap().to_owned());
        let accepted: Vec<String> = accepted.filter(|id| self.accepted.contains(id)).collect();
        let mut came: Vec<String> = Vec::new();
        for request in self.orderly.received() {
            let id = request.event_id();
            // What comes again may be the one that came last, and no other.
            if came.last() != Some(&id) {
                came.push(id);
            }
        }
        assert_eq!(came, accepted);
    }
}

/// A cluster that rescues soon and leaves a trace of every point it comes to.
async fn cluster(traces: &Path) -> Cluster {
    let env = vec![
        ("POSTHASTE_RESCUE_AFTER", "1s".to_owned()),
        ("POSTHASTE_FAILPOINTS_REACHED", traces.display().to_string()),
    ];
    Cluster::start_with(Setup {
        env,
        ..Setup::default()
    })
    .await
    .unwrap()
}

fn reached(traces: &Path) -> HashSet<String> {
    let names = std::fs::read_dir(traces).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The points in rounds: in each, at most one of every service.
fn rounds(points: impl Iterator<Item = Point>) -> Vec<Vec<Point>> {
    let mut rounds: Vec<Vec<Point>> = Vec::new();
    for point in points {
        match rounds
            .iter_mut()
            .find(|round| round.iter().all(|other| role(*other) != role(point)))
        {
            Some(round) => round.push(point),
            None => rounds.push(vec![point]),
        }
    }
    rounds
}

#[tokio::test]
async fn whichever_step_processes_die_after_nothing_is_lost_and_every_point_is_reached() {
    let traces = tempfile::tempdir().unwrap();
    let mut cluster = cluster(traces.path()).await;
    let mut world = World::start(&cluster, "acme").await;
    // `make faults` has them die everywhere. Here, one death in the midst of the recorder's transaction stands for all,
    // and none leaves the lease behind that another waits thirty seconds for.
    let quick = |point: &Point| {
        !matches!(
            point,
            Point::RecordEvents
                | Point::RecordRejected
                | Point::RecordSettled
                | Point::RecordStepped
                | Point::RecordSuperseded
                | Point::RecordParked
                | Point::RecordKept
                | Point::RecordHealth
                | Point::ReconcileClaimed
                | Point::ReconcileNoted
        )
    };
    for round in rounds(Point::ALL.iter().copied().filter(quick)) {
        world.die_at(&mut cluster, &round, 1).await;
    }
    world.check(&cluster).await;
    let reached = reached(traces.path());
    let never: Vec<&str> = Point::ALL
        .iter()
        .map(|point| point.name())
        .filter(|name| !reached.contains(*name))
        .collect();
    assert_eq!(never, Vec::<&str>::new(), "no run comes to these");
}

/// Everything: each point by itself, and twice in a row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes its time: `make faults`"]
async fn the_whole_matrix() {
    /// Clusters side by side: most of the time, each waits for something.
    const CLUSTERS: usize = 3;
    let shares = (0..CLUSTERS).map(|share| {
        let points: Vec<Point> = Point::ALL.iter().copied().skip(share).step_by(CLUSTERS).collect();
        tokio::spawn(async move {
            let traces = tempfile::tempdir().unwrap();
            let mut cluster = cluster(traces.path()).await;
            for point in points {
                for times in [1, 2] {
                    let begun = Instant::now();
                    let project = format!("{}-{times}", point.name().replace("::", "-").replace('_', "-"));
                    let mut world = World::start(&cluster, &project).await;
                    world.die_at(&mut cluster, &[point], times).await;
                    world.check(&cluster).await;
                    println!("{} × {times}: {:.1?}", point.name(), begun.elapsed());
                }
            }
        })
    });
    for share in futures::future::join_all(shares).await {
        share.unwrap();
    }
}
