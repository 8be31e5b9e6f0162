//! What nobody may, or one user may not: each asked for with real credentials, and refused.

use super::*;

/// A client of a user, and what the server complains of.
struct Client {
    client: async_nats::Client,
    complaints: mpsc::UnboundedReceiver<String>,
}

impl Client {
    async fn connect(nats: &Nats, user: &str) -> Self {
        let (complain, complaints) = mpsc::unbounded_channel();
        let url = nats.url_of(user, password(user));
        let client = nats_options(&url)
            .unwrap()
            .event_callback(move |event| {
                let complain = complain.clone();
                async move {
                    if let async_nats::Event::ServerError(error) = event {
                        let _ = complain.send(error.to_string());
                    }
                }
            })
            .connect(url)
            .await
            .unwrap();
        Self { client, complaints }
    }

    /// The next complaint; `None` where the server has answered a ping sent later and not complained.
    async fn complaint(&mut self) -> Option<String> {
        // Answered in order: what is to be complained of has been by then.
        self.client.flush().await.unwrap();
        let probe = "_POSTHASTE.nobody.probe";
        self.client.publish(probe, "".into()).await.unwrap();
        self.client.flush().await.unwrap();
        let said = tokio::time::timeout(Duration::from_secs(10), self.complaints.recv());
        let said = said.await.unwrap().unwrap();
        if said.contains(probe) {
            return None;
        }
        let probed = tokio::time::timeout(Duration::from_secs(10), self.complaints.recv());
        let probed = probed.await.unwrap().unwrap();
        assert!(probed.contains(probe), "{probed}");
        Some(said)
    }
}

/// What nobody but the operator may: change, empty or delete what is there.
const NOBODYS: [&str; 9] = [
    "$JS.API.STREAM.DELETE.EVENTS",
    "$JS.API.STREAM.PURGE.DELIVERIES",
    "$JS.API.STREAM.UPDATE.LEDGER",
    "$JS.API.STREAM.MSG.DELETE.KV_CONFIG",
    "$JS.API.STREAM.CREATE.OTHER",
    "$JS.API.STREAM.NAMES",
    "$SYS.REQ.SERVER.PING",
    "_POSTHASTE.ingest.x.y",
    "_INBOX.somebody",
];

/// What a user may not publish to.
const NOT_PUBLISHED: [(&str, &[&str]); 5] = [
    (
        "acme",
        &[
            "events.other.order.paid",
            "events._posthaste.x.posthaste.delivery.dead",
            "events.acme",
            "deliveries.1.a.b",
            "ledger.facts",
            "seen.a.b",
            "$KV.CONFIG.project.a",
            "$JS.API.INFO",
            "$JS.API.STREAM.INFO.EVENTS",
            "$JS.API.STREAM.MSG.GET.EVENTS",
            "$JS.API.CONSUMER.CREATE.EVENTS.spy",
            "$JS.API.CONSUMER.MSG.NEXT.EVENTS.ingest-0",
            "$JS.ACK.EVENTS.ingest-0.1.1.1.1.0",
        ],
    ),
    (
        "ingest",
        &[
            "events._posthaste.x.posthaste.delivery.dead",
            "$KV.CONFIG.project.a",
            "$JS.API.DIRECT.GET.KV_CONFIG.x",
            "$JS.API.CONSUMER.CREATE.DELIVERIES.spy",
            "$JS.API.CONSUMER.MSG.NEXT.DELIVERIES.dispatcher-0",
            "$JS.API.CONSUMER.MSG.NEXT.LEDGER.recorder",
            "$JS.ACK.DELIVERIES.dispatcher-0.1.1.1.1.0",
            "$JS.API.STREAM.MSG.GET.LEDGER",
            "$JS.API.CONSUMER.DELETE.EVENTS.ingest-0",
        ],
    ),
    (
        "dispatcher",
        &[
            "events.acme.order.paid",
            "deliveries.1.a.b",
            "seen.a.b",
            "$KV.CONFIG.webhook.a.b",
            "$JS.API.CONSUMER.CREATE.EVENTS.spy",
            "$JS.API.CONSUMER.MSG.NEXT.EVENTS.ingest-0",
            "$JS.API.STREAM.MSG.GET.EVENTS",
            "$JS.API.STREAM.MSG.GET.DELIVERIES",
            "$JS.ACK.EVENTS.ingest-0.1.1.1.1.0",
            "$JS.API.CONSUMER.CREATE.LEDGER.spy",
        ],
    ),
    (
        "retry-scheduler",
        &[
            "events.acme.order.paid",
            "ledger.facts",
            "seen.a.b",
            "$KV.CONFIG.webhook.a.b",
            "$JS.API.CONSUMER.CREATE.EVENTS.spy",
            "$JS.API.CONSUMER.CREATE.DELIVERIES.spy",
            "$JS.API.CONSUMER.MSG.NEXT.DELIVERIES.dispatcher-0",
            "$JS.API.STREAM.MSG.GET.EVENTS",
            "$JS.ACK.DELIVERIES.dispatcher-0.1.1.1.1.0",
        ],
    ),
    (
        "config-api",
        &[
            "events.acme.order.paid",
            "events._posthaste.x.posthaste.delivery.dead",
            "ledger.facts",
            "seen.a.b",
            "$JS.API.CONSUMER.CREATE.EVENTS.spy",
            "$JS.API.CONSUMER.CREATE.LEDGER.spy",
            "$JS.API.STREAM.MSG.GET.EVENTS",
            "$JS.ACK.LEDGER.recorder.1.1.1.1.0",
        ],
    ),
];

/// What no user but the operator may listen to; of the last ones each service may its own.
const NOT_HEARD: [&str; 12] = [
    ">",
    "*.>",
    "events.>",
    "events.acme.>",
    "deliveries.>",
    "ledger.>",
    "$KV.CONFIG.>",
    "$JS.>",
    "_POSTHASTE.>",
    "_POSTHASTE.ingest.>",
    "_POSTHASTE.dispatcher.>",
    "_POSTHASTE.config-api.>",
];

#[tokio::test]
async fn what_is_not_needed_is_refused() {
    let folder = Folder::temporary().unwrap();
    let nats = Nats::start(folder.path(), &options(SHIPPED)).await.unwrap();
    // Whichever service comes first, all streams are there.
    bus(&nats, "dispatcher").await.unwrap();
    for (user, subjects) in NOT_PUBLISHED {
        let mut client = Client::connect(&nats, user).await;
        // A service may publish to its own inbox no more than to another's.
        for subject in subjects.iter().chain(&NOBODYS) {
            client.client.publish(*subject, "".into()).await.unwrap();
            let said = client.complaint().await;
            let said = said.unwrap_or_else(|| panic!("{user} may publish to {subject}"));
            assert!(
                said.contains("Permissions Violation for Publish") && said.contains(subject),
                "{said}"
            );
        }
        let own = format!("_POSTHASTE.{user}.>");
        for subject in NOT_HEARD.iter().filter(|subject| **subject != own) {
            let subscription = client.client.subscribe(*subject).await.unwrap();
            let said = client.complaint().await;
            let said = said.unwrap_or_else(|| panic!("{user} may listen to {subject}"));
            assert!(
                said.contains("Permissions Violation for Subscription") && said.contains(subject),
                "{said}"
            );
            drop(subscription);
        }
        let mut inbox = (user == "acme").then_some("_INBOX.x.*").into_iter();
        let inbox = inbox.next().map_or(own.clone(), str::to_owned);
        let listening = client.client.subscribe(inbox.clone()).await.unwrap();
        assert_eq!(client.complaint().await, None, "{user} may listen to {inbox}");
        drop(listening);
    }
    let nobody = async_nats::connect(format!("nats://127.0.0.1:{}", nats.port())).await;
    assert!(nobody.is_err(), "who has no password is not let in");
}

#[tokio::test]
async fn a_producers_acknowledgement_is_stored_nowhere() {
    let folder = Folder::temporary().unwrap();
    let nats = Nats::start(folder.path(), &options(SHIPPED)).await.unwrap();
    let scheduler = bus(&nats, "retry-scheduler").await.unwrap();
    let acme = Client::connect(&nats, "acme").await;
    // The server lets a publisher name any subject for the acknowledgement, and sends it there itself.
    let elsewhere = [
        "events.other.order.paid",
        "deliveries.1.a.b",
        "ledger.facts",
        "seen.a.b",
        "$KV.CONFIG.project.a",
        "$JS.API.STREAM.DELETE.LEDGER",
        "_POSTHASTE.ingest.x",
    ];
    let operator = nats_client(&nats.url()).await.unwrap();
    let mut heard = Vec::new();
    for subject in elsewhere {
        heard.push(operator.subscribe(subject).await.unwrap());
    }
    operator.flush().await.unwrap();
    for subject in elsewhere {
        let sent = acme
            .client
            .publish_with_reply("events.acme.order.paid", subject, "1".into());
        sent.await.unwrap();
    }
    acme.client.flush().await.unwrap();
    eventually("the events", || async {
        let position = scheduler.position(EVENTS).await.unwrap();
        (position.last >= elsewhere.len() as u64).then_some(())
    })
    .await;
    // One more, acknowledged: what the server did for those before is done.
    let producer = Producer::connect(&nats.url_of("acme", password("acme"))).await.unwrap();
    let ack = producer
        .publish_acked("events.acme.order.paid", &[], "1")
        .await
        .unwrap();
    assert_eq!(
        ack.sequence,
        elsewhere.len() as u64 + 1,
        "nothing else was stored in EVENTS"
    );
    operator.flush().await.unwrap();
    for (mut subscription, subject) in heard.into_iter().zip(elsewhere) {
        let heard = futures::FutureExt::now_or_never(futures::StreamExt::next(&mut subscription));
        assert!(heard.is_none(), "{subject}: {heard:?}");
    }
    for stream in [DELIVERIES, LEDGER] {
        assert_eq!(scheduler.position(stream).await.unwrap().last, 0, "{}", stream.name);
    }
}
