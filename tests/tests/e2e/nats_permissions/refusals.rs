//! Who may do what: one table, and whatever is not in it, asked for with real credentials, is refused.

use std::collections::BTreeSet;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;

use super::*;

/// What a user may do. All else that there is to do is made of [`STREAMS`], [`VERBS`], [`SUBJECTS`] and [`HEARD`].
struct Allowed {
    user: &'static str,
    /// Subjects that it publishes on.
    publishes: &'static [&'static str],
    /// What it asks JetStream for: verbs, for each stream.
    asks: &'static [(&'static str, &'static [&'static str])],
    /// What it listens to.
    hears: &'static [&'static str],
}

/// Every service makes what is absent, and looks at its settings.
const MAKES: &[&str] = &["$JS.API.STREAM.INFO.S", "$JS.API.STREAM.CREATE.S"];
/// Hears of every definition.
const WATCHES: &[&str] = &[
    "$JS.API.CONSUMER.CREATE.S",
    "$JS.API.CONSUMER.CREATE.S.spy",
    "$JS.API.CONSUMER.CREATE.S.spy.a",
    "$JS.API.CONSUMER.DELETE.S.spy",
    "$JS.FC.S.spy.x",
];
/// Makes consumers of its own, gets messages and acks them.
const WORKS_OFF: &[&str] = &[
    "$JS.API.CONSUMER.NAMES.S",
    "$JS.API.CONSUMER.INFO.S.spy",
    "$JS.API.CONSUMER.CREATE.S.spy",
    "$JS.API.CONSUMER.CREATE.S.spy.a",
    "$JS.API.CONSUMER.MSG.NEXT.S.spy",
    "$JS.ACK.S.spy.1.1.1.1.0",
];

/// The table.
const ALLOWED: [Allowed; 7] = [
    Allowed {
        user: "ingest",
        publishes: &[
            "events.acme.a",
            "events.other.a",
            "deliveries.1.a.b",
            "ledger.facts",
            "seen.a.b",
            "$JS.API.INFO",
        ],
        asks: &[
            ("KV_CONFIG", WATCHES),
            ("EVENTS", WORKS_OFF),
            // What no consumer gets is taken out.
            ("EVENTS", &["$JS.API.STREAM.MSG.GET.S", "$JS.API.STREAM.MSG.DELETE.S"]),
            ("SEEN", &["$JS.API.STREAM.MSG.GET.S"]),
        ],
        hears: &["_POSTHASTE.ingest.>"],
    },
    Allowed {
        user: "dispatcher",
        publishes: &["ledger.facts", "$JS.API.INFO"],
        asks: &[("KV_CONFIG", WATCHES), ("DELIVERIES", WORKS_OFF)],
        hears: &["_POSTHASTE.dispatcher.>"],
    },
    Allowed {
        user: "retry-scheduler",
        publishes: &[
            "deliveries.1.a.b",
            "events._posthaste.x.posthaste.delivery.dead",
            "$JS.API.INFO",
        ],
        asks: &[
            ("KV_CONFIG", WATCHES),
            ("LEDGER", WORKS_OFF),
            // Looks for the oldest message of a webhook.
            ("DELIVERIES", &["$JS.API.STREAM.MSG.GET.S"]),
        ],
        hears: &["_POSTHASTE.retry-scheduler.>"],
    },
    Allowed {
        user: "config-api",
        publishes: &["deliveries.1.a.b", "$KV.CONFIG.project.a", "$JS.API.INFO"],
        asks: &[
            ("KV_CONFIG", WATCHES),
            // Compares what is there.
            (
                "KV_CONFIG",
                &["$JS.API.DIRECT.GET.S.a.b", "$JS.API.CONSUMER.INFO.S.spy"],
            ),
        ],
        hears: &["_POSTHASTE.config-api.>"],
    },
    // A producer, in an account of its own: of its inboxes nobody else hears.
    Allowed {
        user: "acme",
        publishes: &["events.acme.a"],
        asks: &[],
        hears: &["_INBOX.>", "_INBOX.x.*"],
    },
    // Users that somebody has added to the file, and said nothing of.
    Allowed {
        user: "stranger",
        publishes: &[],
        asks: &[],
        hears: &[],
    },
    Allowed {
        user: "acmes-stranger",
        publishes: &[],
        asks: &[],
        hears: &[],
    },
];

const STREAMS: [&str; 6] = ["EVENTS", "DELIVERIES", "LEDGER", "SEEN", "KV_CONFIG", "OTHER"];

/// Everything that can be asked of a stream, `S`, or its consumers.
const VERBS: [&str; 29] = [
    "$JS.API.STREAM.CREATE.S",
    "$JS.API.STREAM.UPDATE.S",
    "$JS.API.STREAM.DELETE.S",
    "$JS.API.STREAM.PURGE.S",
    "$JS.API.STREAM.INFO.S",
    "$JS.API.STREAM.SNAPSHOT.S",
    "$JS.API.STREAM.RESTORE.S",
    "$JS.API.STREAM.MSG.GET.S",
    "$JS.API.STREAM.MSG.DELETE.S",
    "$JS.API.STREAM.PEER.REMOVE.S",
    "$JS.API.STREAM.LEADER.STEPDOWN.S",
    "$JS.API.DIRECT.GET.S",
    "$JS.API.DIRECT.GET.S.a.b",
    "$JS.API.CONSUMER.CREATE.S",
    "$JS.API.CONSUMER.CREATE.S.spy",
    "$JS.API.CONSUMER.CREATE.S.spy.a",
    "$JS.API.CONSUMER.DURABLE.CREATE.S.spy",
    "$JS.API.CONSUMER.INFO.S.spy",
    "$JS.API.CONSUMER.NAMES.S",
    "$JS.API.CONSUMER.LIST.S",
    "$JS.API.CONSUMER.DELETE.S.spy",
    "$JS.API.CONSUMER.PAUSE.S.spy",
    "$JS.API.CONSUMER.RESET.S.spy",
    "$JS.API.CONSUMER.UNPIN.S.spy",
    "$JS.API.CONSUMER.LEADER.STEPDOWN.S.spy",
    "$JS.API.CONSUMER.MSG.NEXT.S.spy",
    "$JS.ACK.S.spy.1.1.1.1.0",
    "$JS.FC.S.spy.x",
    "$JSC.R.S.x",
];

/// What else there is to publish on.
const SUBJECTS: [&str; 26] = [
    "events.acme",
    "events.acme.a",
    "events.other.a",
    "events._posthaste.x.posthaste.delivery.dead",
    "deliveries.1.a.b",
    "ledger.facts",
    "ledger.other",
    "seen.a.b",
    "$KV.CONFIG.project.a",
    "$KV.OTHER.a",
    "$O.OTHER.a",
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.META.LEADER.STEPDOWN",
    "$JS.API.SERVER.REMOVE",
    "$JS.API.ACCOUNT.PURGE.POSTHASTE",
    "$JS.EVENT.ADVISORY.x",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.USER.INFO",
    "_POSTHASTE.ingest.x",
    "_POSTHASTE.dispatcher.x",
    "_POSTHASTE.retry-scheduler.x",
    "_POSTHASTE.config-api.x",
    "_INBOX.somebody",
    "anything",
];

/// What there is to listen to.
const HEARD: [&str; 27] = [
    ">",
    "*",
    "*.>",
    "events.>",
    "events.acme.>",
    "events.*.a",
    "deliveries.>",
    "ledger.>",
    "ledger.facts",
    "seen.>",
    "$KV.>",
    "$KV.CONFIG.>",
    "$JS.>",
    "$JS.API.>",
    "$JS.API.STREAM.*.*",
    "$JS.EVENT.>",
    "$SYS.>",
    "_POSTHASTE.>",
    "_POSTHASTE.*.>",
    "_POSTHASTE.*.x",
    "_POSTHASTE.ingest.>",
    "_POSTHASTE.dispatcher.>",
    "_POSTHASTE.retry-scheduler.>",
    "_POSTHASTE.config-api.>",
    "_INBOX.>",
    "_INBOX.x.*",
    "anything",
];

/// A user's connection, in the protocol's own words: a client library may keep something back.
struct Line {
    stream: BufReader<TcpStream>,
}

impl Line {
    async fn connect(nats: &Nats, user: &str, password: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", nats.port())).await.unwrap();
        let mut line = Self {
            stream: BufReader::new(stream),
        };
        let hello = json!({ "user": user, "pass": password, "verbose": false, "pedantic": false, "lang": "test",
                            "version": "1", "protocol": 1, "headers": true, "echo": false });
        let refused = line.say(&format!("CONNECT {hello}\r\n")).await;
        assert_eq!(refused, BTreeSet::new(), "{user} is let in");
        line
    }

    /// Says it, and hears which subjects the server complains of.
    async fn say(&mut self, commands: &str) -> BTreeSet<String> {
        let said = format!("{commands}PING\r\n");
        self.stream.get_mut().write_all(said.as_bytes()).await.unwrap();
        let mut refused = BTreeSet::new();
        loop {
            let mut line = String::new();
            let read = self.stream.read_line(&mut line);
            let read = tokio::time::timeout(Duration::from_secs(10), read).await;
            assert_ne!(read.unwrap().unwrap(), 0, "the server has hung up");
            match line.trim_end() {
                // It answers in order: what is to be complained of has been by now.
                "PONG" => return refused,
                "PING" => self.stream.get_mut().write_all(b"PONG\r\n").await.unwrap(),
                complaint if complaint.starts_with("-ERR") => {
                    assert!(complaint.contains("Permissions Violation"), "{complaint}");
                    refused.insert(complaint.split('"').nth(1).unwrap().to_owned());
                }
                _ => {}
            }
        }
    }
}

/// What is shipped, and users that it says nothing of.
fn with_strangers() -> String {
    let with = |text: &str, first: &str, user: &str| {
        let begin = format!("users: [\n      {{\n        user: {first}\n");
        assert!(text.contains(&begin), "{first}");
        text.replacen(
            &begin,
            &format!("users: [\n      {{ user: {user}, password: p-{user} }}\n      {{\n        user: {first}\n"),
            1,
        )
    };
    with(&with(SHIPPED, "ingest", "stranger"), "acme", "acmes-stranger")
}

#[tokio::test]
async fn what_is_not_needed_is_refused() {
    let folder = Folder::temporary().unwrap();
    let nats = Nats::start(folder.path(), &options(&with_strangers())).await.unwrap();
    // Whichever service comes first, all streams are there.
    bus(&nats, "dispatcher").await.unwrap();
    for Allowed {
        user,
        publishes,
        asks,
        hears,
    } in ALLOWED
    {
        let known = USERS.iter().find(|(name, ..)| *name == user);
        let password = known.map_or_else(|| format!("p-{user}"), |(_, password, _)| (*password).to_owned());
        let is_service = Role::ALL.iter().any(|role| role.name() == user);
        let mut allowed: BTreeSet<String> = publishes.iter().map(|it| (*it).to_owned()).collect();
        let everywhere = STREAMS
            .iter()
            .filter(|it| is_service && **it != "OTHER")
            .map(|it| (*it, MAKES));
        for (stream, verbs) in asks.iter().copied().chain(everywhere) {
            allowed.extend(verbs.iter().map(|verb| of_stream(verb, stream)));
        }
        let verbs = STREAMS
            .iter()
            .flat_map(|stream| VERBS.iter().map(|verb| of_stream(verb, stream)));
        let subjects: BTreeSet<String> = verbs.chain(SUBJECTS.iter().map(|it| (*it).to_owned())).collect();
        assert!(allowed.is_subset(&subjects), "{user}: each of these is asked for");
        let publish: String = subjects.iter().map(|it| format!("PUB {it} 0\r\n\r\n")).collect();
        let refused = Line::connect(&nats, user, &password).await.say(&publish).await;
        let taken: BTreeSet<String> = subjects.difference(&refused).cloned().collect();
        assert_eq!(taken, allowed, "what {user} may publish on");

        let subscribe = |queue: &str| -> String {
            let lines = HEARD.iter().enumerate();
            lines.map(|(n, it)| format!("SUB {it} {queue}{n}\r\n")).collect()
        };
        for queue in ["", "q "] {
            // A connection of its own: nobody hears here what comes of the above.
            let refused = Line::connect(&nats, user, &password).await.say(&subscribe(queue)).await;
            let taken: Vec<&str> = HEARD.into_iter().filter(|it| !refused.contains(*it)).collect();
            assert_eq!(taken, hears, "what {user} may listen to");
        }
    }
    let nobody = async_nats::connect(format!("nats://127.0.0.1:{}", nats.port())).await;
    assert!(nobody.is_err(), "who has no password is not let in");
}

/// A verb's subject for a stream.
fn of_stream(verb: &str, stream: &str) -> String {
    let tokens = verb.split('.').map(|token| if token == "S" { stream } else { token });
    tokens.collect::<Vec<_>>().join(".")
}

#[tokio::test]
async fn no_account_but_its_own_gets_at_a_projects_subjects() {
    let folder = Folder::temporary().unwrap();
    let spy = "  SPY {
    imports: [ { service: { account: POSTHASTE, subject: \"events.acme.>\" } } ]
    users: [ { user: spy, password: p-spy } ]
  }
  PRODUCER_ACME {\n";
    let with_spy = SHIPPED.replacen("  PRODUCER_ACME {\n", spy, 1);
    assert_ne!(with_spy, SHIPPED);
    let refused = Nats::start(folder.path(), &options(&with_spy))
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("service import not authorized"), "{refused}");
}

#[test]
fn each_message_is_on_the_disk_before_it_is_acked() {
    // Tests have it otherwise, because it takes time: it is read, not run.
    let jetstream = SHIPPED
        .split_once("\njetstream {")
        .unwrap()
        .1
        .split_once("\n}")
        .unwrap()
        .0;
    let settings: Vec<&str> = jetstream
        .lines()
        .map(str::trim)
        .filter(|it| !it.starts_with('#'))
        .collect();
    assert!(settings.contains(&"sync_interval: always"), "{settings:?}");
}

#[tokio::test]
async fn a_producers_acknowledgement_is_stored_nowhere() {
    let folder = Folder::temporary().unwrap();
    let nats = Nats::start(folder.path(), &options(SHIPPED)).await.unwrap();
    let scheduler = bus(&nats, "retry-scheduler").await.unwrap();
    let acme = nats_client(&nats.url_of("acme", password("acme"))).await.unwrap();
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
        let sent = acme.publish_with_reply("events.acme.order.paid", subject, "1".into());
        sent.await.unwrap();
    }
    acme.flush().await.unwrap();
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
