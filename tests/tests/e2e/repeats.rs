//! Of one id in one project there is one event in a day: over HTTP, over NATS, and whichever comes first.

use futures::future::join_all;
use posthaste_tests::{Cluster, Producer, Receiver, Role, eventually};
use reqwest::Method;
use serde_json::{Value, json};

struct Run {
    cluster: Cluster,
    receiver: Receiver,
}

const EVENTS: &str = "/v1/projects/acme/events";

impl Run {
    async fn start() -> Self {
        let cluster = Cluster::start().await.unwrap();
        let receiver = Receiver::start().await;
        cluster.admin.create_project("acme").await.unwrap();
        cluster
            .create_webhook("acme", "all", &receiver.url, json!({}))
            .await
            .unwrap();
        Self { cluster, receiver }
    }

    async fn post(&self, event: &Value) -> (u16, Value) {
        let (status, answer) = self.cluster.admin.intake(EVENTS, event).await.unwrap();
        (status.as_u16(), answer)
    }

    /// Waits until this many events are on record and delivered, and until an event that was published after all others
    /// is, too: then no further one can come.
    async fn events(&self, count: usize) -> Vec<Value> {
        let last = json!({ "type": "last", "data": 0 });
        let (status, answer) = self.post(&last).await;
        assert_eq!(status, 202, "{answer}");
        let last = answer["id"].as_str().unwrap().to_owned();
        eventually("the last event", || async {
            self.receiver
                .received()
                .iter()
                .any(|received| received.event_id() == last)
                .then_some(())
        })
        .await;
        // What Posthaste itself tells of a rejection comes when it comes, and counts for nothing here.
        let events = eventually("every event on record", || async {
            let mut events = self.cluster.admin.list(EVENTS).await.unwrap();
            events.retain(|event| !event["type"].as_str().unwrap().starts_with("posthaste."));
            (events.len() > count).then_some(events)
        })
        .await;
        assert_eq!(
            (events.len(), self.receiver.count()),
            (count + 1, count + 1),
            "{events:?}"
        );
        events
    }

    async fn conflicts(&self, count: usize) {
        eventually("the conflicts on record", || async {
            let path = "/v1/projects/acme/rejected-events";
            let rejected = self.cluster.admin.list(path).await.unwrap();
            let conflicts = rejected.iter().filter(|item| item["reason"] == "conflict").count();
            (conflicts == count).then_some(())
        })
        .await;
    }

    async fn stored(&self, stream: &str) -> u64 {
        let client = async_nats::connect(self.cluster.nats.url()).await.unwrap();
        let mut stream = async_nats::jetstream::new(client).get_stream(stream).await.unwrap();
        stream.info().await.unwrap().state.messages
    }
}

fn event(id: &str, data: u32) -> Value {
    json!({ "type": "order.paid", "data": { "n": data }, "id": id, "attributes": { "region": "eu" } })
}

#[tokio::test]
async fn the_same_is_answered_the_same_and_another_under_its_id_is_refused() {
    let run = Run::start().await;
    let (status, first) = run.post(&event("o1", 1)).await;
    assert_eq!((status, &first["id"]), (202, &json!("o1")));
    for _ in 0..3 {
        let (status, again) = run.post(&event("o1", 1)).await;
        assert_eq!(
            (status, &again["id"], &again["duplicate"]),
            (202, &json!("o1"), &json!(true))
        );
    }
    let other_type = json!({ "type": "order.sent", "data": { "n": 1 }, "id": "o1", "attributes": { "region": "eu" } });
    let other_attributes = json!({ "type": "order.paid", "data": { "n": 1 }, "id": "o1" });
    for other in [event("o1", 2), other_type, other_attributes] {
        let (status, answer) = run.post(&other).await;
        assert_eq!(
            (status, &answer["type"]),
            (409, &json!("urn:posthaste:problem:conflict")),
            "{answer}"
        );
    }
    // In a batch each is judged for itself.
    let batch = json!([
        event("o1", 1),
        event("o1", 2),
        event("o2", 1),
        event("o2", 1),
        event("o2", 9)
    ]);
    let (status, answer) = run
        .cluster
        .admin
        .intake("/v1/projects/acme/events/batch", &batch)
        .await
        .unwrap();
    let items = answer["items"].as_array().unwrap();
    let statuses: Vec<u64> = items.iter().map(|item| item["status"].as_u64().unwrap()).collect();
    assert_eq!((status.as_u16(), statuses), (207, vec![202, 409, 202, 202, 409]));

    // Another project has ids of its own.
    run.cluster.admin.create_project("other").await.unwrap();
    run.cluster.definitions_in_force().await.unwrap();
    let (status, _) = run
        .cluster
        .admin
        .intake("/v1/projects/other/events", &event("o1", 7))
        .await
        .unwrap();
    assert_eq!(status.as_u16(), 202);
    run.events(2).await;
    // Events without an id of their producer's are not remembered: o1 of two projects, and o2.
    assert_eq!(run.stored("SEEN").await, 3);
}

#[tokio::test]
async fn a_hundred_at_once_are_one_event() {
    let run = Run::start().await;
    let same = event("o1", 1);
    let answers = join_all((0..100).map(|_| run.post(&same))).await;
    assert!(answers.iter().all(|(status, _)| *status == 202), "{answers:?}");
    let fresh = answers.iter().filter(|(_, answer)| answer["duplicate"] != true).count();
    assert_eq!(fresh, 1, "one was the first");

    // A hundred different ones: one has the id.
    let different: Vec<Value> = (0..100).map(|n| event("o2", n)).collect();
    let answers = join_all(different.iter().map(|event| run.post(event))).await;
    let count = |wanted| answers.iter().filter(|(status, _)| *status == wanted).count();
    assert_eq!((count(202), count(409)), (1, 99), "{answers:?}");
    run.events(2).await;
    run.conflicts(0).await;
}

#[tokio::test]
async fn on_nats_a_repetition_is_dropped_and_another_event_under_its_id_is_rejected() {
    let run = Run::start().await;
    let producer = Producer::connect(&run.cluster.nats.url()).await.unwrap();
    let subject = "events.acme.order.paid";
    // What comes within a tenth of a second under one Nats-Msg-Id, JetStream drops itself.
    let publish = async |id: &str, body: &str| {
        let headers = [("Nats-Msg-Id", id), ("Posthaste-Attributes", r#"{"region":"eu"}"#)];
        eventually("a publish that JetStream takes", || async {
            let ack = producer.publish_acked(subject, &headers, body).await.ok()?;
            (!ack.duplicate).then_some(())
        })
        .await;
    };
    publish("acme:o1", r#"{"n":1}"#).await;
    publish("acme:o1", r#"{"n":1}"#).await;
    publish("o1", r#"{"n":1}"#).await;
    publish("acme:o1", r#"{"n":2}"#).await;
    run.conflicts(1).await;
    // Over HTTP the same is the same.
    let (status, answer) = run.post(&event("o1", 1)).await;
    assert_eq!((status, &answer["duplicate"]), (202, &json!(true)));
    assert_eq!(run.post(&event("o1", 3)).await.0, 409);
    // And the other way round.
    assert_eq!(run.post(&event("o2", 1)).await.0, 202);
    publish("acme:o2", r#"{"n":1}"#).await;
    publish("acme:o2", r#"{"n":4}"#).await;
    run.conflicts(2).await;
    run.events(2).await;
    let (_, metrics) = run.cluster.text(Role::Ingest, "/metrics").await.unwrap();
    let repeated = metrics
        .lines()
        .find(|line| line.starts_with("posthaste_events_repeated"))
        .and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    assert!(repeated >= Some(3), "{repeated:?}");
}

#[tokio::test]
async fn an_id_that_was_claimed_and_not_published_is_published_by_the_repetition() {
    let mut run = Run::start().await;
    // What a kill between the two writes leaves behind: a claim without a message.
    let (status, _) = run.post(&event("o1", 1)).await;
    assert_eq!(status, 202);
    run.events(1).await;
    let client = async_nats::connect(run.cluster.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let stream = jetstream.get_stream("SEEN").await.unwrap();
    let sequence = stream.cached_info().state.last_sequence;
    let taken = stream.get_raw_message(sequence).await.unwrap();
    let project = taken.subject.split('.').nth(1).unwrap().to_owned();
    let known = proto_schemas::seen::SeenEvent::decode(taken.payload.clone()).unwrap();
    assert!(known.event.is_some());
    let claimed = proto_schemas::seen::SeenEvent { event: None, ..known };
    jetstream
        .publish(format!("seen.{project}.o9"), claimed.encode().into())
        .await
        .unwrap()
        .await
        .unwrap();

    assert_eq!(
        run.post(&event("o9", 2)).await.0,
        409,
        "the id is claimed for what it was claimed for"
    );
    let (status, _) = run.post(&event("o9", 1)).await;
    assert_eq!(status, 202);
    let arrived = |id: &'static str| {
        let receiver = &run.receiver;
        move || async move {
            receiver
                .received()
                .iter()
                .any(|received| received.event_id() == id)
                .then_some(())
        }
    };
    eventually("the event", arrived("o9")).await;

    // Killed in the midst of it, and again: each event once, whoever repeats it.
    let ids: Vec<String> = (0..300).map(|n| format!("k{n}")).collect();
    for round in 1..=3 {
        let before = run.stored("SEEN").await;
        let api = run.cluster.admin.clone();
        let wanted = ids.clone();
        let posting = tokio::spawn(async move {
            let posts = wanted.iter().map(|id| {
                let api = api.clone();
                async move {
                    let _ = api.intake(EVENTS, &event(id, 1)).await;
                }
            });
            join_all(posts).await;
        });
        // Later rounds find every id claimed, and only repeat.
        eventually("some claims", || async {
            let claimed = run.stored("SEEN").await;
            (claimed >= before + 20 * round || claimed >= 300).then_some(())
        })
        .await;
        run.cluster.kill(Role::Ingest).unwrap();
        posting.await.unwrap();
        run.cluster.restart(Role::Ingest).await.unwrap();
    }
    for id in &ids {
        let (status, answer) = run.post(&event(id, 1)).await;
        assert_eq!(status, 202, "{answer}");
        assert_eq!(run.post(&event(id, 2)).await.0, 409);
    }
    // o1, o9, the event that waited for it, and these.
    run.events(3 + ids.len()).await;
}

#[tokio::test]
async fn what_another_producer_gives_nats_to_compare_swallows_no_event_that_is_posted() {
    const EVENTS: u32 = 20;
    let run = Run::start().await;
    run.cluster.admin.create_project("other").await.unwrap();
    let project = run
        .cluster
        .admin
        .ok(Method::GET, "/v1/projects/acme", None)
        .await
        .unwrap();
    let id = project["id"].as_str().unwrap();
    let producer = Producer::connect(&run.cluster.nats.url()).await.unwrap();
    for n in 0..EVENTS {
        // Ids that can be guessed; JetStream would drop what comes with the same within a tenth of a second.
        for id in [
            format!("{id}:order-{n}"),
            format!("acme:order-{n}"),
            format!("order-{n}"),
        ] {
            producer
                .publish("events.other.in.the.way", &[("Nats-Msg-Id", &id)], "1")
                .await
                .unwrap();
        }
        let (status, answer) = run.post(&event(&format!("order-{n}"), n)).await;
        assert_eq!((status, &answer["duplicate"]), (202, &Value::Null), "{answer}");
    }
    run.events(EVENTS as usize).await;
}
