//! What a receiver's name server may say, and that it never leads a request astray.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use common::egress::{Client, Config, Guard};
use proto_schemas::ledger::ErrorClass;

use super::name_server::{Answer, NameServer, Question};
use super::sink::Sink;
use super::{PLENTY, asking, exchange, post};

const GOOD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const ALSO_GOOD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 4));
const BAD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 3));
const GOOD_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
const BAD_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));

/// A name server, who listens everywhere, and a client between them.
struct World {
    server: NameServer,
    sink: Sink,
    client: Client,
}

impl World {
    async fn of(zone: impl Fn(&Question) -> Answer + Send + Sync + 'static) -> Self {
        let server = NameServer::start(zone).await;
        let client = Client::new(&asking(&server)).unwrap();
        Self {
            server,
            sink: Sink::start().await,
            client,
        }
    }

    /// The status that a request to `host` got, or why there is none.
    async fn outcome(&self, host: &str) -> Result<u16, ErrorClass> {
        let response = post(&self.client, &format!("http://{host}:{}/", self.sink.port)).await;
        response.map(|response| response.status.as_u16()).map_err(|error| {
            if error.class == ErrorClass::RefusedAddress {
                assert_eq!(error.to_string(), "target address not allowed", "it tells nothing");
            }
            error.class
        })
    }
}

const REFUSED: Result<u16, ErrorClass> = Err(ErrorClass::RefusedAddress);
const NOBODY: [IpAddr; 0] = [];

#[tokio::test]
async fn a_name_that_is_good_when_vetted_and_bad_when_sent_to_is_not_dialled() {
    let world = World::of(|asked| asked.addresses(&[if asked.before == 0 { GOOD } else { BAD }])).await;
    let url = format!("http://rebinding.example:{}/", world.sink.port);
    let target = world.client.guard().check(&url).unwrap();
    assert_eq!(world.client.guard().vet(&target).await, Ok(()));
    assert_eq!(world.outcome("rebinding.example").await, REFUSED);
    assert_eq!(world.sink.dialled(), NOBODY);
}

#[tokio::test]
async fn what_is_dialled_is_what_was_vetted_and_no_name_is_asked_for_twice() {
    let world = World::of(|asked| asked.addresses(&[if asked.before % 2 == 0 { GOOD } else { BAD }])).await;
    for sent in 0..10 {
        let expected = if sent % 2 == 0 { Ok(200) } else { REFUSED };
        assert_eq!(world.outcome("rebinding.example").await, expected, "{sent}");
        assert_eq!(world.server.asked_for("rebinding.example."), [sent + 1; 2]);
    }
    assert_eq!(world.sink.dialled(), [GOOD; 5]);
}

#[tokio::test]
async fn of_an_answer_with_one_bad_address_no_address_is_dialled() {
    let world = World::of(|asked| {
        asked.addresses(match asked.name.as_str() {
            "last.example." => &[GOOD, ALSO_GOOD, BAD],
            "first.example." => &[BAD, GOOD],
            "other-family.example." => &[GOOD, BAD_V6],
            "only-bad.example." => &[BAD, BAD_V6],
            _ => &[GOOD, ALSO_GOOD, GOOD_V6],
        })
    })
    .await;
    for name in ["last", "first", "other-family", "only-bad"] {
        assert_eq!(world.outcome(&format!("{name}.example")).await, REFUSED, "{name}");
    }
    assert_eq!(world.sink.dialled(), NOBODY);
    assert_eq!(world.outcome("good.example").await, Ok(200));
    let dialled = world.sink.dialled();
    assert!(matches!(dialled[..], [GOOD | ALSO_GOOD]), "{dialled:?}");
}

#[tokio::test]
async fn an_alias_is_as_good_as_the_addresses_it_leads_to() {
    let world = World::of(|asked| match asked.name.as_str() {
        "to-public.example." => asked.alias("good.example.", &[GOOD]),
        "to-inside.example." => asked.alias("db.prod.svc.cluster.local.", &[BAD]),
        "chased.example." => asked.alias("bad.example.", &[]),
        "bad.example." => asked.addresses(&[BAD]),
        "to-localhost.example." => asked.alias("localhost.", &[]),
        "to-literal.example." => asked.alias("127.0.0.3.", &[]),
        "mixed.example." => asked.alias("good.example.", &[GOOD, BAD]),
        "loop.example." => asked.alias("loop.example.", &[]),
        _ => Answer::NoName,
    })
    .await;
    assert_eq!(world.outcome("to-public.example").await, Ok(200));
    assert_eq!(world.sink.dialled(), [GOOD]);
    for name in ["to-inside", "chased", "mixed"] {
        assert_eq!(world.outcome(&format!("{name}.example")).await, REFUSED, "{name}");
    }
    // That is no address to any resolver; and this one either knows who it is itself or asks and hears nothing of it.
    assert_eq!(world.outcome("to-literal.example").await, Err(ErrorClass::Dns));
    for name in ["to-localhost", "loop"] {
        assert!(world.outcome(&format!("{name}.example")).await.is_err(), "{name}");
    }
    assert_eq!(world.sink.dialled(), NOBODY);
}

#[tokio::test]
async fn addresses_of_another_name_are_no_answer() {
    let world = World::of(|asked| asked.of_another("victim.example.", &[GOOD])).await;
    assert_eq!(world.outcome("asked.example").await, Err(ErrorClass::Dns));
    assert_eq!(world.sink.dialled(), NOBODY);
}

#[tokio::test]
async fn no_name_no_address_and_a_failing_server_are_told() {
    let world = World::of(|asked| match asked.name.as_str() {
        "gone.example." => Answer::NoName,
        "failing.example." => Answer::Failure,
        _ => asked.addresses(&[]),
    })
    .await;
    let none = "the host name does not exist or has no address";
    for (name, text) in [
        ("gone", none),
        ("empty", none),
        ("failing", "the host name could not be resolved"),
    ] {
        let error = post(&world.client, &format!("http://{name}.example/"))
            .await
            .unwrap_err();
        assert_eq!(
            (error.class, error.to_string().as_str()),
            (ErrorClass::Dns, text),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_name_server_that_does_not_answer_is_waited_for_no_longer_than_there_is_time() {
    let world = World::of(|_| Answer::Silence).await;
    let target = world.client.guard().check("http://slow.example/").unwrap();
    for (timeout, at_most, class) in [
        (PLENTY, Duration::from_secs(5), ErrorClass::Dns),
        (
            Duration::from_millis(300),
            Duration::from_millis(1300),
            ErrorClass::Timeout,
        ),
    ] {
        let begun = Instant::now();
        let outcome = exchange(&world.client, &target, timeout).await.outcome;
        assert_eq!(outcome.unwrap_err().class, class);
        assert!(begun.elapsed() < at_most, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn what_does_not_fit_a_datagram_is_asked_for_over_tcp_and_vetted_as_a_whole() {
    let world = World::of(|asked| match (asked.over_tcp, asked.name.as_str()) {
        (false, _) | (true, "never.example.") => Answer::Truncated,
        (true, "bad.example.") => {
            let mut addresses = vec![GOOD; 300];
            addresses.push(BAD);
            asked.addresses(&addresses)
        }
        (true, _) => asked.addresses(&[GOOD; 300]),
    })
    .await;
    assert_eq!(world.outcome("good.example").await, Ok(200));
    assert_eq!(world.sink.dialled(), [GOOD]);
    assert_eq!(world.outcome("bad.example").await, REFUSED);
    assert_eq!(world.outcome("never.example").await, Err(ErrorClass::Dns));
    assert_eq!(world.sink.dialled(), NOBODY);
}

#[tokio::test]
async fn of_name_servers_that_do_not_answer_not_each_is_waited_for() {
    let silent = futures::future::join_all((0..4).map(|_| NameServer::start(|_| Answer::Silence))).await;
    let servers = silent.iter().map(|server| server.address.to_string());
    let config = Config {
        name_servers: servers.collect::<Vec<_>>().join(",").parse().unwrap(),
        ..Config::default()
    };
    let guard = Guard::new(&config).unwrap();
    let target = guard.check("https://slow.example/").unwrap();
    let begun = Instant::now();
    assert_eq!(guard.vet(&target).await, Ok(()));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
