//! What holds of a project once everything has come to rest, whatever happened on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use crate::{Cluster, Receiver, eventually_within, nats_client};

/// What was done, by which the rest is judged.
pub struct Done<'a> {
    /// The project.
    pub project: &'a str,
    /// Ids of the events that were accepted.
    pub accepted: &'a BTreeSet<String>,
    /// The webhooks that want all of them, by name, and who they lead to. Each must get every event by its last attempt.
    pub webhooks: &'a [(&'a str, &'a Receiver)],
    /// Requests that may have been made twice, in all.
    pub duplicates: usize,
}

/// How long everything may take to come to rest: the ten seconds until what a dead process held is handed out again,
/// thirty until another takes its lease, and what was to be done.
const PATIENCE: Duration = Duration::from_secs(150);

/// The states that a delivery does not leave by itself.
const FINAL: [&str; 4] = ["delivered", "dead", "skipped", "cancelled"];

/// Waits until a project is at rest, and checks what must hold then:
/// - nothing is lost: every accepted event has come to every webhook, and every replay to its end;
/// - duplicates have the id of their event, are bounded, and the log owns up to each by `handed_out`;
/// - every request has its one attempt on record, and each delivery its attempts from the first to the last;
/// - every delivery is in a state that is its last, with a reason where it needs one;
/// - the pipe is empty, what was accepted adds up, and nothing is missing.
///
/// # Panics
/// Where one of these does not hold.
#[expect(clippy::panic, clippy::unwrap_used, reason = "what does not hold is a failed test")]
pub async fn at_rest(cluster: &Cluster, done: &Done<'_>) {
    let project = done.project;
    let sums = || async {
        let path = format!("/v1/projects/{project}/reconciliation");
        cluster.admin.ok(Method::GET, &path, None).await.ok()
    };
    let mut seen = String::new();
    let deadline = Instant::now() + PATIENCE;
    while !is_at_rest(cluster, done, &mut seen).await.unwrap_or(false) {
        assert!(Instant::now() < deadline, "not at rest within {PATIENCE:?}: {seen}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let attempts = cluster
        .admin
        .list(&format!("/v1/projects/{project}/attempts"))
        .await
        .unwrap();
    let deliveries = cluster
        .admin
        .list(&format!("/v1/projects/{project}/deliveries"))
        .await
        .unwrap();
    let mut duplicates = 0;
    for (webhook, receiver) in done.webhooks {
        let made = made(&attempts, webhook);
        let asked = asked(receiver);
        let states = states(&deliveries, webhook);
        for event in done.accepted {
            let made = made.get(event.as_str()).map(Vec::as_slice).unwrap_or_default();
            let asked = asked.get(event).copied().unwrap_or_default();
            let state = states
                .get(event.as_str())
                .unwrap_or_else(|| panic!("{event} → {webhook} is in no state"));
            duplicates += check(event, webhook, made, asked, state);
        }
        assert_eq!(
            states.len(),
            done.accepted.len(),
            "{webhook} has deliveries of no accepted event"
        );
    }
    assert!(
        duplicates <= done.duplicates,
        "{duplicates} requests were made twice, at most {} may have been",
        done.duplicates
    );

    // Looked at anew since everything is at rest.
    let rested = sums().await.unwrap();
    let sums = eventually_within(PATIENCE, "a look for missing deliveries", || async {
        let sums = sums().await?;
        let later = |field: &str| sums[field].as_str() > rested["until"].as_str();
        later("checked_at").then_some(sums)
    })
    .await;
    assert_eq!(sums["difference"], 0, "{sums}");
    assert_eq!(sums["missing"]["items"], Value::Array(Vec::new()), "{sums}");
    let owed = done.accepted.len() * done.webhooks.len();
    assert_eq!(sums["deliveries"], owed, "{sums}");
}

/// Whether everything has come to its end; `seen` is what was found, for whom it may concern.
async fn is_at_rest(cluster: &Cluster, done: &Done<'_>, seen: &mut String) -> anyhow::Result<bool> {
    let project = done.project;
    let path = format!("/v1/projects/{project}/reconciliation");
    let sums = cluster.admin.ok(Method::GET, &path, None).await?;
    let settled = sums["states"].as_object().is_some_and(|states| {
        states
            .iter()
            .filter(|(state, _)| !FINAL.contains(&state.as_str()))
            .all(|(_, count)| *count == 0)
    });
    let replays = cluster.admin.list(&format!("/v1/projects/{project}/replays")).await?;
    let replayed = replays
        .iter()
        .all(|replay| replay["state"] == "finished" || replay["state"] == "cancelled");
    let accepted = done.accepted.len();
    let pipe = in_the_pipe(cluster).await?;
    *seen = format!("{accepted} events accepted, {sums}, all replayed: {replayed}, in the pipe: {pipe:?}");
    // There may be more: what the platform has to say of its webhooks is an event, too.
    let known = sums["events"].as_u64().unwrap_or_default() >= accepted as u64;
    Ok(settled && replayed && known && pipe.values().all(|messages| *messages == 0))
}

/// Checks one delivery; gives back how many of its requests were made twice.
fn check(event: &str, webhook: &str, made: &[&Value], asked: usize, state: &Value) -> usize {
    let told = format!("{event} → {webhook}: {asked} requests, {made:?}, {state}");
    assert_eq!(state["state"], "delivered", "{told}");
    assert!(made.first().is_some_and(|first| first["run"] == 0), "{told}");
    for run in made.chunk_by(|one, other| one["run"] == other["run"]) {
        let numbers: Vec<u64> = run.iter().filter_map(|attempt| attempt["attempt"].as_u64()).collect();
        assert_eq!(
            numbers,
            (1..=run.len() as u64).collect::<Vec<_>>(),
            "each attempt once: {told}"
        );
        for attempt in run {
            let last = attempt["attempt"] == run.len();
            let outcome = if last { "delivered" } else { "failed" };
            assert_eq!(attempt["outcome"], outcome, "{told}");
        }
    }
    let repeated: u64 = made
        .iter()
        .filter_map(|attempt| Some(attempt["handed_out"].as_u64()? - 1))
        .sum();
    assert!(asked >= made.len(), "an attempt on record that was never made: {told}");
    let twice = asked - made.len();
    assert!(
        twice as u64 <= repeated,
        "a duplicate that the log does not own up to: {told}"
    );
    twice
}

/// The attempts of a webhook's deliveries, by event, the first first.
fn made<'a>(attempts: &'a [Value], webhook: &str) -> BTreeMap<&'a str, Vec<&'a Value>> {
    let mut made: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for attempt in attempts {
        if attempt["webhook_name"] == webhook && attempt["trial"].is_null() {
            made.entry(attempt["event_id"].as_str().unwrap_or_default())
                .or_default()
                .push(attempt);
        }
    }
    for attempts in made.values_mut() {
        attempts.sort_by_key(|attempt| (attempt["run"].as_u64(), attempt["attempt"].as_u64()));
    }
    made
}

/// How many requests came, by event.
fn asked(receiver: &Receiver) -> BTreeMap<String, usize> {
    let mut asked = BTreeMap::new();
    for request in receiver.received() {
        *asked.entry(request.event_id()).or_default() += 1;
    }
    asked
}

/// What became of a webhook's deliveries, by event.
fn states<'a>(deliveries: &'a [Value], webhook: &str) -> BTreeMap<&'a str, &'a Value> {
    let mut states = BTreeMap::new();
    for delivery in deliveries.iter().filter(|delivery| delivery["webhook_name"] == webhook) {
        let event = delivery["event_id"].as_str().unwrap_or_default();
        assert!(
            states.insert(event, delivery).is_none(),
            "{event} → {webhook} is in two states"
        );
    }
    states
}

/// How many messages each stream holds.
async fn in_the_pipe(cluster: &Cluster) -> anyhow::Result<BTreeMap<&'static str, u64>> {
    let jetstream = async_nats::jetstream::new(nats_client(&cluster.nats.url()).await?);
    let mut held = BTreeMap::new();
    for name in ["EVENTS", "DELIVERIES", "LEDGER"] {
        let stream = jetstream.get_stream(name).await?;
        held.insert(name, stream.cached_info().state.messages);
    }
    Ok(held)
}
