//! Which URLs a webhook may have. Decides; does no I/O.

use std::fmt;
use std::sync::Arc;

use url::{Host, Url};

use super::address_policy::AddressPolicy;
use super::{Config, redact_url};

/// Longest URL, in bytes.
pub const URL_MAX: usize = 2048;

/// Names that never lead to the public internet, with all names below them. `localhost` is not among them: it is another
/// spelling of the loopback address, and stands and falls with it.
const LOCAL_NAMES: [&str; 9] = [
    "local",
    "localdomain",
    "internal",
    "intranet",
    "lan",
    "home.arpa",
    "svc",
    "onion",
    "arpa",
];

/// A URL that requests may go to: only [`Guard::check`](super::Guard::check) makes one, so whoever holds it need not check again. Where
/// the host is a name, its addresses are checked when it is resolved.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Target(Url);

impl Target {
    /// The URL in its normal form: what is stored, shown and sent to.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The URL.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.0
    }

    /// For logs.
    #[must_use]
    pub fn redacted(&self) -> String {
        redact_url(&self.0)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.redacted())
    }
}

/// Why a URL cannot be a webhook's, in words for whoever typed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Over [`URL_MAX`].
    #[error("the URL is longer than {URL_MAX} bytes")]
    TooLong,
    /// Parsers differ on what these mean, so nobody's guess is taken.
    #[error("the URL holds a space, a control character or a backslash; write them percent-encoded")]
    Character,
    /// Not a URL.
    #[error("not a URL: {0}")]
    Malformed(String),
    /// Another scheme.
    #[error("the URL must start with {}", match http { true => "https:// or http://", false => "https://" })]
    Scheme {
        /// Whether http would do.
        http: bool,
    },
    /// `user:password@`
    #[error("the URL holds a user name or password; use a header instead")]
    Credentials,
    /// `#…`
    #[error("the URL has a fragment (`#…`), which is never sent")]
    Fragment,
    /// A host that cannot be in the public DNS.
    #[error("the host {0}")]
    Host(&'static str),
    /// A port of the system's.
    #[error("port {0} is not allowed; use 443 or a port from 1024 up")]
    Port(u16),
    /// An address, or a name that leads to one, where no webhook may go. One text for all of them: it must not tell what
    /// is there.
    #[error("target address not allowed")]
    Address,
    /// A name of the platform's own: what is sent there would come back in. The text is the same.
    #[error("target address not allowed")]
    OwnHost,
}

/// The shape a URL must have. Applies when a webhook is saved and again when its definition is loaded for sending, since
/// a definition may be older than a rule.
#[derive(Debug, Clone)]
pub(super) struct UrlPolicy {
    allow_http: bool,
    allow_hosts: Vec<String>,
    own_hosts: Vec<String>,
    addresses: Arc<AddressPolicy>,
}

impl UrlPolicy {
    pub(super) fn new(config: &Config, addresses: Arc<AddressPolicy>) -> Self {
        Self {
            allow_http: config.allow_http,
            allow_hosts: config.allow_hosts.to_vec(),
            own_hosts: config.own_hosts.to_vec(),
            addresses,
        }
    }

    /// See [`Guard::check`](super::Guard::check).
    pub(super) fn check(&self, text: &str) -> Result<Target, Refused> {
        if text.len() > URL_MAX {
            return Err(Refused::TooLong);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err(Refused::Character);
        }
        let scheme = Refused::Scheme { http: self.allow_http };
        // Before parsing: of other schemes the parser leaves even a literal address a name, and it would also repair
        // `https:host` and `https:///host`.
        match text.split_once("://") {
            Some((name, rest)) if self.is_scheme(name) && !rest.starts_with('/') => {}
            _ => return Err(scheme),
        }
        let mut url = Url::parse(text).map_err(|error| Refused::Malformed(error.to_string()))?;
        if !self.is_scheme(url.scheme()) {
            return Err(scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Credentials);
        }
        if url.fragment().is_some() {
            return Err(Refused::Fragment);
        }
        self.check_port(&url)?;
        self.check_host(&mut url)?;
        if url.as_str().len() > URL_MAX {
            return Err(Refused::TooLong);
        }
        Ok(Target(url))
    }

    fn is_scheme(&self, name: &str) -> bool {
        name.eq_ignore_ascii_case("https") || (self.allow_http && name.eq_ignore_ascii_case("http"))
    }

    fn check_port(&self, url: &Url) -> Result<(), Refused> {
        match url.port_or_known_default() {
            Some(443 | 1024..) => Ok(()),
            Some(80) if self.allow_http => Ok(()),
            port => Err(Refused::Port(port.unwrap_or(0))),
        }
    }

    fn check_host(&self, url: &mut Url) -> Result<(), Refused> {
        let name = match url.host() {
            None => return Err(Refused::Host("is missing")),
            // The connector dials a literal address without asking the resolver, so it is vetted here.
            Some(Host::Ipv4(v4)) => return self.addresses.check(v4.into()).map_err(|_| Refused::Address),
            Some(Host::Ipv6(v6)) => return self.addresses.check(v6.into()).map_err(|_| Refused::Address),
            Some(Host::Domain(name)) => name,
        };
        let absolute = name.strip_suffix('.').unwrap_or(name).to_owned();
        self.check_name(&absolute)?;
        if absolute.len() != name.len() {
            // `host.` and `host` are one host; certificates and Host headers know only the second.
            url.set_host(Some(&absolute))
                .map_err(|error| Refused::Malformed(error.to_string()))?;
        }
        Ok(())
    }

    /// `name` is lower-case ASCII: the parser has applied IDNA.
    fn check_name(&self, name: &str) -> Result<(), Refused> {
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(Refused::Host(
                "is not a host name: labels of a-z, 0-9 and -, joined by dots",
            ));
        }
        if self.own_hosts.iter().any(|own| is_within(name, own)) {
            return Err(Refused::OwnHost);
        }
        if self.allow_hosts.iter().any(|allowed| allowed == name) {
            return Ok(());
        }
        if is_within(name, "localhost") {
            return self
                .addresses
                .check(std::net::Ipv4Addr::LOCALHOST.into())
                .map_err(|_| Refused::Address);
        }
        let Some((_, last)) = name.rsplit_once('.') else {
            return Err(Refused::Host("is not a full name, such as hooks.example.com"));
        };
        if last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Refused::Host("ends in a number, as no host name does"));
        }
        if LOCAL_NAMES.iter().any(|local| is_within(name, local)) {
            return Err(Refused::Host("is a local name, which leads nowhere from here"));
        }
        Ok(())
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_within(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(config: &Config) -> UrlPolicy {
        UrlPolicy::new(config, Arc::new(AddressPolicy::new(config, Vec::new())))
    }

    fn strict() -> UrlPolicy {
        policy(&Config::default())
    }

    fn development() -> UrlPolicy {
        policy(&Config {
            allow_http: true,
            allow_cidrs: "127.0.0.0/8,::1".parse().unwrap(),
            ..Config::default()
        })
    }

    fn http() -> UrlPolicy {
        policy(&Config {
            allow_http: true,
            ..Config::default()
        })
    }

    #[test]
    fn good_urls_are_kept_in_their_normal_form() {
        for (given, kept) in [
            ("https://hooks.example.com/in?x=1", "https://hooks.example.com/in?x=1"),
            ("HTTPS://Hooks.Example.COM", "https://hooks.example.com/"),
            ("https://example.com:443/", "https://example.com/"),
            ("https://example.com:8443/a/../b", "https://example.com:8443/b"),
            ("https://example.com./x", "https://example.com/x"),
            ("https://b\u{fc}cher.example/", "https://xn--bcher-kva.example/"),
            ("https://ex\u{430}mple.com/", "https://xn--exmple-4nf.com/"),
            ("https://8.8.8.8/", "https://8.8.8.8/"),
            ("https://[2606:4700::1111]:8443/", "https://[2606:4700::1111]:8443/"),
            (
                "https://a-b.c--d.example/%20?q=a%0Ab",
                "https://a-b.c--d.example/%20?q=a%0Ab",
            ),
        ] {
            assert_eq!(strict().check(given).unwrap().as_str(), kept);
            assert_eq!(
                strict().check(kept).unwrap().as_str(),
                kept,
                "the normal form is stable"
            );
        }
    }

    #[test]
    fn every_spelling_of_a_refused_address_is_refused() {
        for host in [
            "127.0.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "127.1",
            "0X7F.0x0.0x0.0x1",
            "%31%32%37.0.0.1",
            "①②⑦.⓪.⓪.①",
            "１２７.０.０.１",
            "127。0。0。1",
            "127.0.0.1.",
            "0",
            "0x",
            "10.1.2.3",
            "192.168.0.1",
            "169.254.169.254",
            "100.100.100.200",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "localhost",
            "LOCALHOST",
            "localhost.",
            "x.localhost",
            "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
        ] {
            for url in [format!("https://{host}/"), format!("http://{host}:8080/x")] {
                assert_eq!(http().check(&url), Err(Refused::Address), "{url}");
            }
        }
    }

    #[test]
    fn hosts_that_are_no_public_names_are_refused() {
        for host in [
            "127.0.0.1..",
            "a..b",
            ".a",
            "*.com",
            "-a.com",
            "a-.com",
            "a_b.com",
            "postgres",
            "com",
            "com.",
            "printer.local",
            "metadata.google.internal",
            "db.prod.svc",
            "db.prod.svc.cluster.local",
            "x.home.arpa",
            "1.0.0.127.in-addr.arpa",
            "example.1",
            "example.0x7f",
            "x.onion",
            "example..",
            "a.b,c.com",
            "a%2Fb.com",
        ] {
            let refused = http().check(&format!("http://{host}/")).unwrap_err();
            assert!(
                matches!(refused, Refused::Host(_) | Refused::Malformed(_)),
                "{host}: {refused}"
            );
        }
        let long = format!("https://{}.com/", "a".repeat(64));
        assert!(strict().check(&long).is_err());
        let label = format!("https://{}.com/", "a".repeat(63));
        assert!(strict().check(&label).is_ok());
        // Of 253 characters, and of 254.
        for (last, good) in [("e.example", true), ("ee.example", false)] {
            let deep = format!("https://{}{last}/", "abc.".repeat(61));
            assert_eq!(strict().check(&deep).is_ok(), good, "{last}");
        }
    }

    #[test]
    fn each_rule_says_what_is_wrong() {
        for (url, reason) in [
            ("http://example.com/", "the URL must start with https://"),
            ("ftp://example.com/", "the URL must start with https://"),
            ("gopher://127.0.0.1:6379/", "the URL must start with https://"),
            ("javascript:alert(1)", "the URL must start with https://"),
            ("file:///etc/passwd", "the URL must start with https://"),
            ("http+unix://%2Frun%2Fx.sock/", "the URL must start with https://"),
            ("example.com", "the URL must start with https://"),
            ("", "the URL must start with https://"),
            ("https:example.com", "the URL must start with https://"),
            ("https:/example.com", "the URL must start with https://"),
            ("https:///example.com", "the URL must start with https://"),
            ("//example.com/", "the URL must start with https://"),
            ("https://", "not a URL: empty host"),
            ("https://256.0.0.1/", "not a URL: invalid IPv4 address"),
            ("https://[fe80::1%25eth0]/", "not a URL: invalid IPv6 address"),
            (
                "https://user@example.com/",
                "the URL holds a user name or password; use a header instead",
            ),
            (
                "https://:pw@example.com/",
                "the URL holds a user name or password; use a header instead",
            ),
            (
                "https://127.0.0.1@example.com/",
                "the URL holds a user name or password; use a header instead",
            ),
            (
                "https://example.com/#top",
                "the URL has a fragment (`#…`), which is never sent",
            ),
            (
                "https://example.com/#",
                "the URL has a fragment (`#…`), which is never sent",
            ),
            (
                "https://example.com:22/",
                "port 22 is not allowed; use 443 or a port from 1024 up",
            ),
            (
                "https://example.com:80/",
                "port 80 is not allowed; use 443 or a port from 1024 up",
            ),
            (
                "https://example.com:0/",
                "port 0 is not allowed; use 443 or a port from 1024 up",
            ),
            (
                "https://example.com:1023/",
                "port 1023 is not allowed; use 443 or a port from 1024 up",
            ),
            ("https://example.com:65536/", "not a URL: invalid port number"),
            (
                "https://postgres/",
                "the host is not a full name, such as hooks.example.com",
            ),
            (
                "https://a.local/",
                "the host is a local name, which leads nowhere from here",
            ),
            ("https://10.0.0.1/", "target address not allowed"),
        ] {
            assert_eq!(strict().check(url).unwrap_err().to_string(), reason, "{url}");
        }
        for url in [
            " https://example.com/",
            "https://example.com/ ",
            "https://exa\tmple.com/",
            "https://exa\nmple.com/",
            "https://example.com\\@evil.example/",
            "https://example.com/a b",
            "https://example.com/\u{0}",
            "https://example.com/\u{a0}",
        ] {
            assert_eq!(strict().check(url), Err(Refused::Character), "{url:?}");
        }
    }

    #[test]
    fn a_url_has_at_most_2048_bytes_as_it_is_written_and_as_it_is_sent_to() {
        let of = |length: usize| format!("https://example.com/{}", "a".repeat(length - 20));
        // One character of two bytes, which are six when they are sent.
        let grows = |length: usize| format!("{}\u{fc}", of(length - 6));
        assert!(strict().check(&of(2048)).is_ok());
        assert_eq!(strict().check(&grows(2048)).unwrap().as_str().len(), 2048);
        // Even if it were shorter in its normal form.
        let shrinks = of(2049).replacen("/aa", "/./", 1);
        for long in [of(2049), of(4096), grows(2049), shrinks] {
            assert_eq!(strict().check(&long), Err(Refused::TooLong), "{}", long.len());
        }
    }

    #[test]
    fn development_opens_http_and_loopback_and_nothing_else() {
        for url in [
            "http://127.0.0.1:9000/",
            "http://localhost:9000/in",
            "https://[::1]:8443/",
            "http://example.com/",
            "http://2130706433:9000/",
        ] {
            assert!(development().check(url).is_ok(), "{url}");
        }
        for url in [
            "http://10.0.0.1/",
            "http://169.254.169.254/",
            "http://postgres:5432/",
            "http://127.0.0.1:22/",
            "http://[::ffff:127.0.0.1]:9000/",
            "ftp://127.0.0.1/",
        ] {
            assert!(development().check(url).is_err(), "{url}");
        }
    }

    #[test]
    fn an_allowed_host_may_be_local_and_is_matched_whole() {
        let policy = policy(&Config {
            allow_hosts: "receiver, db.prod.svc".parse().unwrap(),
            ..Config::default()
        });
        assert!(policy.check("https://receiver:8443/").is_ok());
        assert!(policy.check("https://DB.prod.svc./").is_ok());
        for other in ["other.receiver.svc", "receiver2", "x.db.prod.svc", "prod.svc", "svc"] {
            assert!(policy.check(&format!("https://{other}/")).is_err(), "{other}");
        }
    }

    #[test]
    fn a_name_of_the_platforms_own_is_refused_however_it_is_written() {
        let policy = policy(&Config {
            own_hosts: "Hooks.example.com., b\u{fc}cher.example".parse().unwrap(),
            // What is allowed otherwise does not open it.
            allow_hosts: "hooks.example.com".parse().unwrap(),
            allow_http: true,
            ..Config::default()
        });
        for url in [
            "https://hooks.example.com/",
            "https://HOOKS.Example.COM/in",
            "http://hooks.example.com.:8443/",
            "https://a.b.hooks.example.com/",
            "https://hooks%2Eexample.com/",
            "https://ｈooks.example。com/",
            "https://xn--bcher-kva.example/",
            "https://x.B\u{dc}CHER.example/",
        ] {
            let refused = policy.check(url).unwrap_err();
            assert_eq!(refused, Refused::OwnHost, "{url}");
            assert_eq!(refused.to_string(), Refused::Address.to_string());
        }
        for url in [
            "https://example.com/",
            "https://myhooks.example.com/",
            "https://hooks.example.com.evil.example/",
            "https://hooks.example.co/",
        ] {
            assert!(policy.check(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn a_target_is_logged_without_its_query() {
        let target = strict().check("https://example.com/in?token=hush").unwrap();
        assert_eq!(format!("{target:?}"), "Target(https://example.com/in)");
    }

    proptest! {
        #[test]
        fn any_text_may_be_tried(text in ".{0,80}", rest in "[ -~]{0,60}") {
            for text in [text, format!("https://{rest}"), format!("http://{rest}")] {
                for policy in [strict(), development()] {
                    if let Ok(target) = policy.check(&text) {
                        // What was let through says the same when read again: nothing is left to interpretation.
                        prop_assert_eq!(policy.check(target.as_str()).unwrap(), target);
                    }
                }
            }
        }

        #[test]
        fn no_spelling_of_a_private_address_passes(low: u32, form in 0..6) {
            let n = 10 << 24 | (low & 0x00ff_ffff);
            let [a, b, c, d] = u32::to_be_bytes(n);
            let host = match form {
                0 => format!("{n}"),
                1 => format!("0x{n:x}"),
                2 => format!("0{n:o}"),
                3 => format!("0{a:o}.{b}.0x{c:x}.{d}"),
                4 => format!("{a}.{}", n & 0x00ff_ffff),
                _ => format!("[::ffff:{a}.{b}.{c}.{d}]"),
            };
            prop_assert_eq!(strict().check(&format!("https://{host}/")), Err(Refused::Address));
        }
    }
}
