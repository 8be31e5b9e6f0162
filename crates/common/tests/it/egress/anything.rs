//! Whatever the URL, and whatever its name servers say: nobody is dialled but who may be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::egress::{Client, Config};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use proto_schemas::ledger::ErrorClass;
use tokio::runtime::Runtime;

use super::name_server::{Answer, NameServer};
use super::sink::Sink;
use super::{ALLOWED, asking, exchange};

/// Everything but loopback, so that no request of this test leaves the machine, whatever it finds.
const ELSEWHERE: &str = "0.0.0.0/2,64.0.0.0/3,96.0.0.0/4,112.0.0.0/5,120.0.0.0/6,124.0.0.0/7,126.0.0.0/8,128.0.0.0/1,\
                         2000::/3";

/// What a name's server says, the first time, the second time and so on.
type Says = Vec<Vec<IpAddr>>;

fn is_allowed(address: IpAddr) -> bool {
    ALLOWED
        .iter()
        .any(|allowed| address == allowed.parse::<IpAddr>().unwrap())
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => proptest::sample::select(&ALLOWED[..]).prop_map(|address| address.parse().unwrap()),
        4 => (0..8_u8).prop_map(|last| Ipv4Addr::new(127, 0, 0, last).into()),
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_ipv6_mapped().into()),
        1 => (0..8_u8).prop_map(|last| Ipv4Addr::new(127, 0, 0, last).to_ipv6_mapped().into()),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
    ]
}

fn says() -> impl Strategy<Value = Says> {
    let allowed = proptest::sample::select(&ALLOWED[..]).prop_map(|address| address.parse().unwrap());
    let answer = prop_oneof![
        1 => prop::collection::vec(allowed, 1..4),
        1 => prop::collection::vec(address(), 0..5),
    ];
    prop::collection::vec(answer, 1..4)
}

/// Hosts that may mean something, and some that mean nothing.
fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("any.example".to_owned()),
        2 => (0..8_u32, 0..7).prop_map(|(last, form)| {
            let n = 0x7f00_0000 + last;
            match form {
                0 => format!("127.0.0.{last}"),
                1 => format!("{n}"),
                2 => format!("0x{n:x}"),
                3 => format!("0{n:o}"),
                4 => format!("127.{last}"),
                5 => format!("[::ffff:127.0.0.{last}]"),
                _ => format!("１２７.0.0.{last}"),
            }
        }),
        1 => proptest::sample::select(vec!["localhost", "x.localhost", "[::1]", "[::]", "0", "any.example.", "ANY.example"])
            .prop_map(str::to_owned),
        1 => "[a-z0-9.:%@\\[\\]\\\\-]{1,24}",
    ]
}

fn url() -> impl Strategy<Value = String> {
    let scheme = proptest::sample::select(vec![
        "http://",
        "http://",
        "http://",
        "https://",
        "HTTP://",
        "http:",
        "http:/",
        "ftp://",
        "http:\\\\",
    ]);
    let before = proptest::sample::select(vec![
        "",
        "",
        "",
        "",
        "user@",
        "127.0.0.3@",
        "any.example@",
        "127.0.0.3\\@",
    ]);
    let after = proptest::sample::select(vec![
        "/",
        "",
        "/a?b=c",
        "#",
        "/@127.0.0.3/",
        "?@127.0.0.3",
        "\\@127.0.0.3/",
    ]);
    // A stray character somewhere, now and then.
    let stray = prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<char>()));
    (scheme, before, host(), after, stray).prop_map(|(scheme, before, host, after, stray)| {
        let mut url: Vec<char> = format!("{scheme}{before}{host}:PORT{after}").chars().collect();
        if let Some((at, stray)) = stray {
            url.insert(at.index(url.len()), stray);
        }
        url.into_iter().collect()
    })
}

#[test]
fn no_url_and_no_answer_of_a_name_server_makes_a_request_reach_a_refused_address() {
    let runtime = Runtime::new().unwrap();
    let says = Arc::new(Mutex::new(Says::new()));
    let (server, sink) = runtime.block_on(async {
        let says = says.clone();
        let server = NameServer::start(move |asked| match says.lock().unwrap().get(asked.before) {
            Some(addresses) => asked.addresses(addresses),
            None => Answer::NoName,
        });
        (server.await, Sink::start().await)
    });
    let config = Config {
        deny_cidrs: ELSEWHERE.parse().unwrap(),
        ..asking(&server)
    };
    let client = runtime.block_on(async { Client::new(&config).unwrap() });
    let reached = Mutex::new(0);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let tried = runner.run(&(url(), self::says()), |(url, answers)| {
        says.lock().unwrap().clone_from(&answers);
        server.forget();
        runtime.block_on(async {
            let Ok(target) = client.guard().check(&url.replace("PORT", &sink.port.to_string())) else {
                return Ok(());
            };
            for answer in &answers {
                let exchange = exchange(&client, &target, Duration::from_secs(5)).await;
                for address in sink.dialled() {
                    prop_assert!(is_allowed(address), "{url} reached {address}");
                    *reached.lock().unwrap() += 1;
                }
                prop_assert!(exchange.peer.is_none_or(|peer| is_allowed(peer.ip())), "{exchange:?}");
                let is_named = target.url().host_str() == Some("any.example");
                if is_named && answer.iter().any(|address| !is_allowed(*address)) {
                    let class = exchange.outcome.as_ref().err().map(|error| error.class);
                    prop_assert_eq!(class, Some(ErrorClass::RefusedAddress), "{:?}", exchange);
                }
            }
            Ok(())
        })
    });
    tried.unwrap();
    let reached = *reached.lock().unwrap();
    eprintln!("{reached} requests reached somebody who may be reached");
    assert!(
        reached > 50,
        "the test would not notice: only {reached} requests reached anybody"
    );
}
