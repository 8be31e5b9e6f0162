//! Which addresses a request may go to. Decides; does no I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Config;

/// IPv4 ranges that are not the public internet: IANA's special-purpose registry, and at the end Azure's host and where
/// GKE puts the services of a cluster unless told otherwise, which is public by registry and a cluster's own by use.
const SPECIAL_V4: [(Ipv4Net, &str); 17] = [
    (v4([0, 0, 0, 0], 8), "this network"),
    (v4([10, 0, 0, 0], 8), "private"),
    (v4([100, 64, 0, 0], 10), "shared address space"),
    (v4([127, 0, 0, 0], 8), "loopback"),
    (v4([169, 254, 0, 0], 16), "link-local"),
    (v4([172, 16, 0, 0], 12), "private"),
    (v4([192, 0, 0, 0], 24), "protocol assignments"),
    (v4([192, 0, 2, 0], 24), "documentation"),
    (v4([192, 88, 99, 0], 24), "6to4 relay"),
    (v4([192, 168, 0, 0], 16), "private"),
    (v4([198, 18, 0, 0], 15), "benchmarking"),
    (v4([198, 51, 100, 0], 24), "documentation"),
    (v4([203, 0, 113, 0], 24), "documentation"),
    (v4([224, 0, 0, 0], 4), "multicast"),
    (v4([240, 0, 0, 0], 4), "reserved"),
    (v4([168, 63, 129, 16], 32), "cloud metadata"),
    (v4([34, 118, 224, 0], 20), "services of a GKE cluster"),
];

/// The only IPv6 range that is the public internet. It leaves out, without naming them, loopback, link-local, unique
/// local, multicast, and every form in which an IPv4 address hides.
const PUBLIC_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// What is special within [`PUBLIC_V6`].
const SPECIAL_V6: [(Ipv6Net, &str); 4] = [
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "protocol assignments"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "documentation"),
    (SIX_TO_FOUR, "6to4"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "documentation"),
];

const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);
const TEREDO: Ipv6Net = v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32);
/// Local-use NAT64 (RFC 8215), with the IPv4 address placed as RFC 6052 §2.2 does for a prefix of 48.
const LOCAL_NAT64: Ipv6Net = v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48);

/// Where clouds answer for a machine's credentials. Nothing makes these reachable: link-local as a whole (AWS, Azure,
/// Google, ECS, EKS), Azure's host, Alibaba, Oracle.
const METADATA_V4: [Ipv4Net; 4] = [
    v4([169, 254, 0, 0], 16),
    v4([168, 63, 129, 16], 32),
    v4([100, 100, 100, 200], 32),
    v4([192, 0, 0, 192], 32),
];
const METADATA_V6: [Ipv6Net; 5] = [
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128),
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
    v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128),
];

/// The public internet, less what the operator denies and the machine's own addresses, plus what the operator allows;
/// never cloud metadata.
#[derive(Debug, Clone)]
pub(super) struct AddressPolicy {
    allowed: Vec<IpNet>,
    denied: Vec<IpNet>,
    nat64: Vec<Ipv6Net>,
    own: Vec<IpAddr>,
}

impl AddressPolicy {
    /// `own` are this machine's addresses: a webhook must not reach our own ports around a load balancer.
    pub(super) fn new(config: &Config, own: Vec<IpAddr>) -> Self {
        Self {
            allowed: config.allow_cidrs.to_vec(),
            denied: config.deny_cidrs.to_vec(),
            nat64: config.nat64_prefixes.iter().filter_map(nat64_prefix).collect(),
            own,
        }
    }

    /// Whether a request may go to `address`.
    ///
    /// # Errors
    /// In a few words, why not. For operators: whoever owns the webhook is told nothing of addresses.
    pub(super) fn check(&self, address: IpAddr) -> Result<(), &'static str> {
        if is_metadata(address) {
            return Err("cloud metadata");
        }
        if let IpAddr::V6(v6) = address
            && self.nat64.iter().any(|prefix| prefix.contains(&v6))
        {
            return self.check(low_v4(v6).into());
        }
        if self.denied.iter().any(|net| net.contains(&address)) {
            return Err("denied by configuration");
        }
        if self.allowed.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        if self.own.contains(&address) {
            return Err("this machine's own");
        }
        special(address).map_or(Ok(()), Err)
    }
}

/// Only prefixes of 96 bits: they leave the last 32 for the IPv4 address (RFC 6052 §2.2).
pub(super) fn nat64_prefix(net: &IpNet) -> Option<Ipv6Net> {
    match net {
        IpNet::V6(net) if net.prefix_len() == 96 => Some(*net),
        _ => None,
    }
}

fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => SPECIAL_V4
            .iter()
            .find(|(net, _)| net.contains(&v4))
            .map(|(_, name)| *name),
        IpAddr::V6(v6) if !PUBLIC_V6.contains(&v6) => Some("not a public IPv6 address"),
        IpAddr::V6(v6) => SPECIAL_V6
            .iter()
            .find(|(net, _)| net.contains(&v6))
            .map(|(_, name)| *name),
    }
}

fn is_metadata(address: IpAddr) -> bool {
    let v4 = |v4: Ipv4Addr| METADATA_V4.iter().any(|net| net.contains(&v4));
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => {
            METADATA_V6.iter().any(|net| net.contains(&address)) || embedded_v4(address).is_some_and(v4)
        }
    }
}

/// The IPv4 address a tunnel or a translator would make of an IPv6 address. What is allowed by configuration may be such
/// a form, and must not be a way to [`METADATA_V4`].
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let at = |places: [usize; 4]| Some(Ipv4Addr::from(places.map(|place| octets[place])));
    if SIX_TO_FOUR.contains(&address) {
        at([2, 3, 4, 5])
    } else if TEREDO.contains(&address) {
        Some(Ipv4Addr::from(low_v4(address).octets().map(|octet| !octet)))
    } else if LOCAL_NAT64.contains(&address) {
        at([6, 7, 9, 10])
    } else if PUBLIC_V6.contains(&address) {
        None
    } else {
        // v4-mapped, v4-compatible, SIIT, ISATAP, NAT64
        Some(low_v4(address))
    }
}

fn low_v4(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

const fn v4(octets: [u8; 4], bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from_octets(octets), bits)
}

const fn v6(segments: [u16; 8], bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::from_segments(segments), bits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(allow: &str, deny: &str) -> AddressPolicy {
        let config = Config {
            allow_cidrs: allow.parse().unwrap(),
            deny_cidrs: deny.parse().unwrap(),
            ..Config::default()
        };
        AddressPolicy::new(&config, vec!["93.184.216.1".parse().unwrap()])
    }

    fn allowed(policy: &AddressPolicy, address: &str) -> bool {
        policy.check(address.parse().unwrap()).is_ok()
    }

    #[test]
    fn the_edges_of_every_special_ipv4_range_are_refused_and_their_neighbours_are_not() {
        let policy = policy("", "");
        for (first, last, before, after) in [
            ("0.0.0.0", "0.255.255.255", None, Some("1.0.0.0")),
            ("10.0.0.0", "10.255.255.255", Some("9.255.255.255"), Some("11.0.0.0")),
            (
                "100.64.0.0",
                "100.127.255.255",
                Some("100.63.255.255"),
                Some("100.128.0.0"),
            ),
            (
                "127.0.0.0",
                "127.255.255.255",
                Some("126.255.255.255"),
                Some("128.0.0.0"),
            ),
            (
                "169.254.0.0",
                "169.254.255.255",
                Some("169.253.255.255"),
                Some("169.255.0.0"),
            ),
            (
                "172.16.0.0",
                "172.31.255.255",
                Some("172.15.255.255"),
                Some("172.32.0.0"),
            ),
            ("192.0.0.0", "192.0.0.255", Some("191.255.255.255"), Some("192.0.1.0")),
            ("192.0.2.0", "192.0.2.255", Some("192.0.1.255"), Some("192.0.3.0")),
            (
                "192.88.99.0",
                "192.88.99.255",
                Some("192.88.98.255"),
                Some("192.88.100.0"),
            ),
            (
                "192.168.0.0",
                "192.168.255.255",
                Some("192.167.255.255"),
                Some("192.169.0.0"),
            ),
            (
                "198.18.0.0",
                "198.19.255.255",
                Some("198.17.255.255"),
                Some("198.20.0.0"),
            ),
            (
                "198.51.100.0",
                "198.51.100.255",
                Some("198.51.99.255"),
                Some("198.51.101.0"),
            ),
            (
                "203.0.113.0",
                "203.0.113.255",
                Some("203.0.112.255"),
                Some("203.0.114.0"),
            ),
            ("224.0.0.0", "255.255.255.255", Some("223.255.255.255"), None),
            (
                "168.63.129.16",
                "168.63.129.16",
                Some("168.63.129.15"),
                Some("168.63.129.17"),
            ),
            (
                "34.118.224.0",
                "34.118.239.255",
                Some("34.118.223.255"),
                Some("34.118.240.0"),
            ),
        ] {
            assert!(!allowed(&policy, first) && !allowed(&policy, last), "{first} to {last}");
            assert!(before.is_none_or(|address| allowed(&policy, address)), "{before:?}");
            assert!(after.is_none_or(|address| allowed(&policy, address)), "{after:?}");
        }
    }

    #[test]
    fn of_ipv6_only_the_public_internet_is_allowed() {
        let policy = policy("", "");
        for address in [
            "2606:4700::1111",
            "2a00:1450:4001:81b::200e",
            "2001:200::1",
            "2400::1",
            "3ffe::1",
        ] {
            assert!(allowed(&policy, address), "{address}");
        }
        for address in [
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "::ffff:0:8.8.8.8",
            "::5efe:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "64:ff9b:1::1",
            "100::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:10::1",
            "2001:1ff:ffff::1",
            "2001:db8::1",
            "2002:808:808::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "1fff::1",
        ] {
            assert!(!allowed(&policy, address), "{address}");
        }
    }

    #[test]
    fn the_operator_may_allow_and_deny_ranges_and_a_denial_wins() {
        let policy = policy("10.0.0.0/8, 127.0.0.1, ::1, 34.118.224.0/20", "10.9.0.0/16,8.8.8.8");
        for address in ["10.1.2.3", "127.0.0.1", "::1", "1.1.1.1", "34.118.224.1"] {
            assert!(allowed(&policy, address), "{address}");
        }
        for address in [
            "10.9.1.1",
            "8.8.8.8",
            "127.0.0.2",
            "192.168.1.1",
            "::2",
            "::ffff:127.0.0.1",
        ] {
            assert!(!allowed(&policy, address), "{address}");
        }
    }

    #[test]
    fn the_machines_own_addresses_are_refused_unless_allowed() {
        assert!(!allowed(&policy("", ""), "93.184.216.1"));
        assert!(allowed(&policy("93.184.216.0/24", ""), "93.184.216.1"));
    }

    #[test]
    fn nothing_allows_metadata_addresses() {
        let everything = policy("0.0.0.0/0,::/0", "");
        assert!(allowed(&everything, "127.0.0.1") && allowed(&everything, "fd00::1"));
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fe80::a9fe:a9fe",
            "fe80::1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "::5efe:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "2002:a9fe:a9fe::1",
            "2001::5601:5601",
            "64:ff9b::100.100.100.200",
        ] {
            assert!(!allowed(&everything, address), "{address}");
        }
    }

    #[test]
    fn behind_nat64_the_ipv4_address_decides() {
        let config = Config {
            nat64_prefixes: "64:ff9b::/96".parse().unwrap(),
            ..Config::default()
        };
        let policy = AddressPolicy::new(&config, Vec::new());
        assert!(allowed(&policy, "64:ff9b::8.8.8.8"));
        for address in [
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::808:808",
        ] {
            assert!(!allowed(&policy, address), "{address}");
        }
    }

    proptest! {
        #[test]
        fn no_form_of_a_refused_ipv4_address_is_allowed_as_ipv6(v4: [u8; 4]) {
            let [a, b, c, d] = v4;
            let low = u32::from_be_bytes(v4);
            for form in [
                Ipv4Addr::new(a, b, c, d).to_ipv6_mapped(),
                Ipv6Addr::from(u128::from(low)),
                Ipv6Addr::from((0x0064_ff9b_u128 << 96) | u128::from(low)),
                Ipv6Addr::from((0x2002_u128 << 112) | (u128::from(low) << 80) | 1),
                Ipv6Addr::from((0x2001_u128 << 112) | u128::from(!low)),
            ] {
                prop_assert!(policy("", "").check(form.into()).is_err());
                if is_metadata(IpAddr::from(v4)) {
                    prop_assert!(policy("::/0", "").check(form.into()).is_err());
                }
            }
        }

        #[test]
        fn whatever_is_allowed_is_what_the_standard_library_takes_for_public(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            if policy("", "").check(address.into()).is_ok() {
                prop_assert!(!(address.is_private() || address.is_loopback() || address.is_link_local()
                    || address.is_multicast() || address.is_broadcast() || address.is_documentation()
                    || address.is_unspecified()));
            }
        }

        #[test]
        fn an_allowed_ipv6_address_is_global_unicast(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            if policy("", "").check(address.into()).is_ok() {
                prop_assert_eq!(address.segments()[0] >> 13, 1);
                prop_assert!(!(address.is_loopback() || address.is_multicast() || address.is_unique_local()
                    || address.is_unicast_link_local() || address.to_ipv4().is_some()));
            }
        }
    }
}
