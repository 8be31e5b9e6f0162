use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record};
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::egress::Config;
use crate::egress::counted::Counted;

const PUBLIC_V4: &str = "93.184.216.34";
const PUBLIC_V6: &str = "2606:4700::1111";

/// A name server on loopback that knows names below `example`, and a resolver that asks it.
struct Dns {
    resolver: Resolver,
    questions: Arc<AtomicUsize>,
    _server: AbortOnDropHandle<()>,
}

impl Dns {
    async fn start(zone: impl Fn(&str, usize) -> Option<Vec<&'static str>> + Send + 'static) -> Self {
        Self::start_with(&Config::default(), zone).await
    }

    /// `zone` is asked with a name and how many questions came before; `None` is "no such name".
    async fn start_with(
        config: &Config,
        zone: impl Fn(&str, usize) -> Option<Vec<&'static str>> + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut connection = ConnectionConfig::udp();
        connection.port = socket.local_addr().unwrap().port();
        let server = NameServerConfig::new([127, 0, 0, 1].into(), true, vec![connection]);
        let search = "svc.example.".parse().unwrap();
        let system = ResolverConfig::from_parts(None, vec![search], vec![server]);
        let questions = Arc::new(AtomicUsize::new(0));
        let counted = questions.clone();
        let serving = tokio::spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let asked = counted.fetch_add(1, Ordering::SeqCst);
                let answer = answer(&Message::from_vec(&buffer[..length]).unwrap(), &|name| {
                    zone(name, asked)
                });
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        let builder = TokioResolver::builder_with_config(system, TokioRuntimeProvider::default());
        let addresses = Arc::new(AddressPolicy::new(config, Vec::new()));
        let refusals = opentelemetry::global::meter("test").u64_counter("refusals").build();
        Self {
            resolver: Resolver::from_builder(builder, addresses, refusals).unwrap(),
            questions,
            _server: AbortOnDropHandle::new(serving),
        }
    }

    async fn resolve(&self, host: &str) -> Result<Vec<String>, String> {
        let resolved = self.resolver.resolve(host).await;
        resolved
            .map(|found| found.iter().map(ToString::to_string).collect())
            .map_err(|error| error.to_string())
    }
}

fn answer(question: &Message, zone: &dyn Fn(&str) -> Option<Vec<&'static str>>) -> Message {
    let query = &question.queries[0];
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    message.add_query(query.clone());
    match zone(&query.name().to_ascii()) {
        None => message.metadata.response_code = ResponseCode::NXDomain,
        Some(addresses) => {
            for address in addresses {
                let address = RData::from(address.parse::<IpAddr>().unwrap());
                if address.record_type() == query.query_type() {
                    message.add_answer(Record::from_rdata(query.name().clone(), 0, address));
                }
            }
        }
    }
    message
}

fn refused<T>() -> Result<T, String> {
    Err("target address not allowed".to_owned())
}

#[tokio::test]
async fn both_families_are_given_out_ipv4_first() {
    let dns = Dns::start(|_, _| Some(vec![PUBLIC_V6, PUBLIC_V4])).await;
    assert_eq!(
        dns.resolve("good.example").await,
        Ok(vec![PUBLIC_V4.to_owned(), PUBLIC_V6.to_owned()])
    );
}

#[tokio::test]
async fn one_bad_address_refuses_the_name() {
    let dns = Dns::start(|name, _| {
        Some(match name {
            "private.example." => vec!["10.0.0.1"],
            "mixed.example." => vec![PUBLIC_V4, "10.0.0.1"],
            "metadata.example." => vec![PUBLIC_V4, "169.254.169.254"],
            "aaaa.example." => vec![PUBLIC_V4, "fd00::1"],
            "mapped.example." => vec!["::ffff:127.0.0.1"],
            _ => vec![PUBLIC_V4],
        })
    })
    .await;
    for name in ["private", "mixed", "metadata", "aaaa", "mapped"] {
        assert_eq!(dns.resolve(&format!("{name}.example")).await, refused(), "{name}");
    }
    assert!(dns.resolve("good.example").await.is_ok());
}

#[tokio::test]
async fn a_bad_address_beyond_those_that_would_be_dialled_refuses_the_name() {
    let dns = Dns::start(|name, _| {
        let mut addresses = vec![PUBLIC_V4; 30];
        if name == "bad.example." {
            addresses.push("127.0.0.1");
        }
        Some(addresses)
    })
    .await;
    assert_eq!(dns.resolve("bad.example").await, refused());
    assert!(dns.resolve("many.example").await.unwrap().len() <= DIALLED_MAX);
}

#[tokio::test]
async fn a_name_that_turns_bad_is_refused_when_it_does() {
    // The first two questions, for A and AAAA, are answered well.
    let dns = Dns::start(|_, asked| Some(if asked < 2 { vec![PUBLIC_V4] } else { vec!["127.0.0.1"] })).await;
    assert!(dns.resolve("rebind.example").await.is_ok());
    assert_eq!(dns.resolve("rebind.example").await, refused());
}

#[tokio::test]
async fn names_are_absolute() {
    let dns = Dns::start(|name, _| name.ends_with(".svc.example.").then(|| vec![PUBLIC_V4])).await;
    assert_eq!(
        dns.resolve("postgres").await,
        Err("the host name does not exist or has no address".to_owned())
    );
}

#[tokio::test]
async fn no_name_and_no_address_are_told_apart_from_no_answer() {
    let dns = Dns::start(|name, _| (name != "gone.example.").then(Vec::new)).await;
    for name in ["gone.example", "empty.example"] {
        assert_eq!(
            dns.resolve(name).await,
            Err("the host name does not exist or has no address".to_owned())
        );
    }
    assert!(dns.questions.load(Ordering::SeqCst) >= 2);

    let nowhere = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
    let builder = TokioResolver::builder_with_config(nowhere, TokioRuntimeProvider::default());
    let resolver = Resolver::from_builder(builder, dns.resolver.addresses.clone(), dns.resolver.refusals.clone());
    let error = resolver.unwrap().resolve("any.example").await.unwrap_err();
    assert_eq!(error.to_string(), "the host name could not be resolved");
}

#[tokio::test]
async fn allowed_ranges_apply_to_names_too() {
    let config = Config {
        allow_cidrs: "10.0.0.0/8".parse().unwrap(),
        ..Config::default()
    };
    let dns = Dns::start_with(&config, |name, _| match name {
        "inside.example." => Some(vec!["10.0.0.1"]),
        _ => Some(vec!["10.0.0.1", "192.168.0.1"]),
    })
    .await;
    assert_eq!(dns.resolve("inside.example").await, Ok(vec!["10.0.0.1".to_owned()]));
    assert_eq!(dns.resolve("half.example").await, refused());
}

#[tokio::test]
async fn what_is_refused_for_its_ipv6_addresses_alone_is_counted_by_itself() {
    let counted = Counted::new();
    let mut dns = Dns::start(|name, _| {
        Some(match name {
            "stray.example." => vec![PUBLIC_V4, "fd00::1"],
            "tunnel.example." => vec![PUBLIC_V4, PUBLIC_V6, "2002:a00:1::"],
            "both.example." => vec![PUBLIC_V4, "10.0.0.1", "fd00::1"],
            "only.example." => vec!["fd00::1"],
            "v4.example." => vec!["10.0.0.1", PUBLIC_V6],
            _ => vec![PUBLIC_V4, PUBLIC_V6],
        })
    })
    .await;
    dns.resolver.refusals = counted.counter("ssrf_refused");
    for name in ["stray", "tunnel", "both", "only", "v4"] {
        assert_eq!(dns.resolve(&format!("{name}.example")).await, refused(), "{name}");
    }
    assert!(dns.resolve("good.example").await.is_ok());

    for (only_because_of_aaaa, count) in [(true, 2), (false, 3)] {
        let label = format!(r#"only_because_of_aaaa="{only_because_of_aaaa}""#);
        assert_eq!(
            counted.of("ssrf_refused", &[r#"rule="name""#, &label]),
            count,
            "{label}"
        );
    }
}

#[test]
fn no_answer_is_kept_for_more_than_five_minutes_and_no_missing_name_for_more_than_ten_seconds() {
    // The resolver's own clock cannot be moved.
    let mut options = ResolverOpts::default();
    configure(&mut options);
    assert_eq!(options.positive_max_ttl, Some(Duration::from_secs(300)));
    assert_eq!(options.negative_max_ttl, Some(Duration::from_secs(10)));
}
