//! Every range that no request may go to, in every way of writing an address: one table, refused wherever one may come in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::egress::{Client, Config, Guard, Refused};
use ipnet::{Ipv4Net, Ipv6Net};
use proto_schemas::ledger::ErrorClass;

use super::name_server::{Answer, NameServer};
use super::{PLENTY, exchange};

/// The IANA special-purpose registry, multicast, the reserved rest, and Azure's host.
const V4: [&str; 16] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// All but 2000::/3, and of that what is special.
const V6: [&str; 24] = [
    "::/128",
    "::1/128",
    "::/96",
    "::ffff:0:0/96",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "1000::/4",
    "2001::/32",
    "2001:2::/48",
    "2001:10::/28",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "4000::/2",
    "5f00::/16",
    "8000::/1",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// Where clouds keep credentials, and loopback.
const SINGLE: [&str; 9] = [
    "127.0.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "100.100.100.200",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
];

/// The first, the last and a middle address of every range.
fn refused() -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = SINGLE.map(|address| address.parse().unwrap()).to_vec();
    for net in V4.map(|net| net.parse::<Ipv4Net>().unwrap()) {
        let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
        addresses.extend([first, first + (last - first) / 2, last].map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits))));
    }
    for net in V6.map(|net| net.parse::<Ipv6Net>().unwrap()) {
        let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
        addresses.extend([first, first + (last - first) / 2, last].map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))));
    }
    addresses
}

/// An IPv4 address in every way in which some program reads it as a host.
fn spellings(address: Ipv4Addr) -> Vec<String> {
    let n = address.to_bits();
    let [a, b, c, d] = address.octets();
    let dotted = address.to_string();
    let digits = |of: fn(char) -> char| dotted.chars().map(of).collect::<String>();
    vec![
        dotted.clone(),
        format!("{dotted}."),
        format!("{n}"),
        format!("{n}."),
        format!("0x{n:x}"),
        format!("0X{n:08X}"),
        format!("0{n:o}"),
        format!("000{n:o}"),
        format!("0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("0{a:o}.{b}.0x{c:x}.{d}"),
        format!("{a}.{}", n & 0x00ff_ffff),
        format!("{a}.{b}.{}", n & 0xffff),
        format!("0x{a:x}.{:#x}", n & 0x00ff_ffff),
        digits(|c| c.to_digit(10).map_or(c, |n| char::from_u32(0xff10 + n).unwrap())),
        digits(|c| match c.to_digit(10) {
            Some(0) => '⓪',
            Some(n) => char::from_u32(0x245f + n).unwrap(),
            None => c,
        }),
        dotted.replace('.', "。"),
        dotted.replace('.', "．"),
        dotted.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        dotted.replace('.', "%2e"),
    ]
}

/// An IPv4 address within an IPv6 address, in every way in which some router or translator takes it out again.
fn wrapped(address: Ipv4Addr) -> Vec<Ipv6Addr> {
    let low = u128::from(address.to_bits());
    vec![
        address.to_ipv6_mapped(),
        Ipv6Addr::from_bits(low),
        Ipv6Addr::from_bits(0xffff_0000 << 32 | low),
        Ipv6Addr::from_bits(0x5efe << 32 | low),
        Ipv6Addr::from_bits(0xfe80 << 112 | 0x5efe << 32 | low),
        Ipv6Addr::from_bits(0x0064_ff9b << 96 | low),
        Ipv6Addr::from_bits(0x0064_ff9b_0001 << 80 | low >> 16 << 64 | (low & 0xffff) << 40),
        Ipv6Addr::from_bits(0x2002 << 112 | low << 80),
        Ipv6Addr::from_bits(0x2001 << 112 | (!low & 0xffff_ffff)),
    ]
}

fn v6_spellings(address: Ipv6Addr) -> Vec<String> {
    let full = address.segments().map(|segment| format!("{segment:04x}")).join(":");
    let [.., a, b, c, d] = address.octets();
    let dotted = format!("{}:{a}.{b}.{c}.{d}", &full[..29]);
    vec![
        format!("[{address}]"),
        format!("[{}]", address.to_string().to_uppercase()),
        format!("[{full}]"),
        format!("[{dotted}]"),
    ]
}

fn hosts(address: IpAddr) -> Vec<String> {
    match address {
        IpAddr::V4(v4) => {
            let mut hosts = spellings(v4);
            hosts.extend(wrapped(v4).into_iter().flat_map(v6_spellings));
            hosts
        }
        IpAddr::V6(v6) => v6_spellings(v6),
    }
}

fn http(allow_cidrs: &str) -> Config {
    Config {
        allow_http: true,
        allow_cidrs: allow_cidrs.parse().unwrap(),
        ..Config::default()
    }
}

#[test]
fn no_spelling_of_a_refused_address_can_be_saved() {
    let guard = Guard::new(&http("")).unwrap();
    for address in refused() {
        for host in hosts(address) {
            for url in [
                format!("https://{host}/"),
                format!("https://{host}:8443/in?x=1"),
                format!("http://{host}:8080/"),
                format!("HTTP://{host}"),
            ] {
                assert_eq!(guard.check(&url), Err(Refused::Address), "{url}, which is {address}");
            }
        }
    }
}

#[test]
fn no_url_that_programs_read_differently_can_be_saved() {
    let guard = Guard::new(&http("")).unwrap();
    for host in refused().into_iter().map(|address| hosts(address)[0].clone()) {
        for url in [
            // What is before the @ is a user's name to one and a host to another.
            format!("https://{host}@good.example/"),
            format!("https://good.example@{host}/"),
            format!("https://good.example%23@{host}/"),
            format!("https://good.example:443@{host}:8443/"),
            format!("https://:@{host}/"),
            format!("https://good.example:pass@{host}/"),
            // A backslash is a slash to browsers and a letter to others.
            format!("https://{host}\\@good.example/"),
            format!("https://good.example\\@{host}/"),
            format!("https:\\\\{host}/"),
            format!("https:/\\{host}/"),
            // What some mend and some do not.
            format!("https:{host}/"),
            format!("https:/{host}/"),
            format!("https:///{host}/"),
            format!("//{host}/"),
            format!(" https://{host}/"),
            format!("https://{host}/ "),
            format!("https://{host}\t/"),
            format!("https://\n{host}/"),
            format!("https://{host}\r\nhost: good.example/"),
            format!("https://good.example#@{host}/"),
            format!("https://good.example?@{host}/#"),
            format!("https://{host}../"),
            format!("https://{host}:0/"),
            format!("https://{host}:22/"),
            // Other schemes.
            format!("gopher://{host}:6379/"),
            format!("dict://{host}:11211/"),
            format!("file://{host}/etc/passwd"),
            format!("ftp://{host}/"),
            format!("http+unix://{host}/"),
            format!("unix:{host}"),
        ] {
            assert!(guard.check(&url).is_err(), "{url}");
        }
    }
    for zone in ["eth0", "25eth0", "251", "1"] {
        for host in [
            format!("[fe80::1%{zone}]"),
            format!("[::1%{zone}]"),
            format!("fe80::1%{zone}"),
        ] {
            assert!(guard.check(&format!("https://{host}/")).is_err(), "{host}");
        }
    }
}

/// A definition may be older than a rule, so the rules hold once more when it is sent to.
#[tokio::test]
async fn no_refused_address_is_sent_to_even_where_the_url_was_saved() {
    let open = Guard::new(&http("0.0.0.0/0,::/0")).unwrap();
    let client = Client::new(&http("")).unwrap();
    let mut sent = 0;
    for address in refused() {
        for host in hosts(address) {
            // Cloud metadata is refused even where all is open.
            let Ok(target) = open.check(&format!("http://{host}:8080/")) else {
                continue;
            };
            let exchange = exchange(&client, &target, PLENTY).await;
            let error = exchange.outcome.unwrap_err();
            assert_eq!(error.class, ErrorClass::RefusedAddress, "{host}, which is {address}");
            assert_eq!(error.to_string(), "target address not allowed");
            assert_eq!(exchange.peer, None, "nobody was dialled");
            sent += 1;
        }
    }
    assert!(sent > 1000, "only {sent} could be tried");
}

#[tokio::test]
async fn no_name_leads_to_a_refused_address() {
    let server = NameServer::start(|asked| {
        let label = asked.name.split('.').next().unwrap_or_default();
        match u128::from_str_radix(&label[1..], 16) {
            Ok(bits) if label.starts_with('b') => asked.addresses(&[Ipv6Addr::from_bits(bits).into()]),
            Ok(bits) => asked.addresses(&[Ipv4Addr::from_bits(u32::try_from(bits).unwrap()).into()]),
            Err(_) => Answer::NoName,
        }
    })
    .await;
    let config = Config {
        name_servers: server.address.to_string().parse().unwrap(),
        ..http("")
    };
    let client = Client::new(&config).unwrap();
    for address in refused() {
        let mut addresses = vec![address];
        if let IpAddr::V4(v4) = address {
            addresses.extend(wrapped(v4).into_iter().map(IpAddr::from));
        }
        for address in addresses {
            let name = match address {
                IpAddr::V4(v4) => format!("a{:x}.example", v4.to_bits()),
                IpAddr::V6(v6) => format!("b{:x}.example", v6.to_bits()),
            };
            let target = client.guard().check(&format!("http://{name}:8080/")).unwrap();
            assert_eq!(client.guard().vet(&target).await, Err(Refused::Address), "{address}");
            let exchange = exchange(&client, &target, PLENTY).await;
            assert_eq!(
                exchange.outcome.unwrap_err().class,
                ErrorClass::RefusedAddress,
                "{address}"
            );
            assert_eq!(exchange.peer, None, "nobody was dialled");
        }
    }
}
