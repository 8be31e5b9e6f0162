//! The only way out to a receiver.
//!
//! A webhook's URL is chosen by a stranger, so a request made to it must not reach anything a stranger could not reach
//! himself. The guard stands in four places, each of which would do alone for what it sees:
//!
//! 1. [`Guard::check`] refuses a URL by its shape, literal addresses included, when it is saved and again before the first
//!    request by each version of its definition. Only it makes a [`Target`], and only a [`Target`] can be sent to.
//! 2. The connector vets a literal address, and has every address of a name's answer vetted; it dials those and asks
//!    nobody again.
//! 3. The client follows no redirect and uses no proxy but the operator's, so there is no second destination. Where there
//!    is one, it resolves names in place of 2, and what they lead to is its to look after ([`Proxy`]).
//! 4. After the response's head, the address that answered is checked once more. A violation is counted and must not occur.
//!
//! The address rules ([`Config`] adds to them) are in `address_policy`, from the IANA special-purpose registries. Network
//! policy around the dispatcher is the layer below and no part of this program.

mod address_policy;
mod client;
mod config;
mod connector;
#[cfg(test)]
mod counted;
mod error;
mod pools;
mod proxy;
mod resolver;
mod tls;
mod url_policy;

use std::fmt;
use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use url::{Host, Url};

use self::address_policy::{AddressPolicy, nat64_prefix};
use self::resolver::Resolver;
use self::url_policy::UrlPolicy;

pub use self::client::{
    BODY_KEPT_MAX, BODY_READ_MAX, Client, Exchange, HEADERS_KEPT_MAX, Request, Response, USER_AGENT, head_checksum,
};
pub use self::config::{Cidrs, Config, ConfigError, Hosts, NameServers, Zones};
pub use self::error::Error;
pub use self::proxy::Proxy;
pub use self::tls::{Tls, TlsError};
pub use self::url_policy::{Refused, Target, URL_MAX};

/// The rules, without the client: for whoever saves a URL.
#[derive(Clone)]
pub struct Guard {
    urls: UrlPolicy,
    addresses: Arc<AddressPolicy>,
    resolver: Resolver,
    refusals: Counter<u64>,
    /// Whether names are resolved by the operator's proxy.
    is_proxied: bool,
}

impl Guard {
    /// Builds the rules. Reads this machine's addresses and its DNS configuration once.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        if let Some(net) = config.nat64_prefixes.iter().find(|net| nat64_prefix(net).is_none()) {
            return Err(ConfigError::Nat64(*net));
        }
        let own = if_addrs::get_if_addrs().map_err(ConfigError::Interfaces)?;
        let own = own.into_iter().map(|interface| interface.ip()).collect();
        let addresses = Arc::new(AddressPolicy::new(config, own));
        let refusals = opentelemetry::global::meter("posthaste")
            .u64_counter("ssrf_refused")
            .with_description("Urls of webhooks refused because of where they lead, by the rule that did")
            .build();
        let resolver =
            Resolver::new(&config.name_servers, addresses.clone(), refusals.clone()).map_err(ConfigError::Resolver)?;
        Ok(Self {
            urls: UrlPolicy::new(config, addresses.clone()),
            addresses,
            resolver,
            refusals,
            is_proxied: config.proxy.is_some(),
        })
    }

    /// Reads a URL and applies every rule that needs no DNS: scheme, port, host, literal address. The target holds the URL
    /// in its normal form; checking that again gives the same target.
    ///
    /// # Errors
    /// The first rule that is broken, in words for whoever typed the URL.
    pub fn check(&self, url: &str) -> Result<Target, Refused> {
        self.urls.check(url).inspect_err(|refused| {
            let rule = match refused {
                Refused::Address => "address",
                Refused::OwnHost => "own_host",
                // They are about how it is written.
                _ => return,
            };
            self.refusals.add(1, &[KeyValue::new("rule", rule)]);
            let url = Url::parse(url).map_or_else(|_| String::new(), |url| redact_url(&url));
            tracing::warn!(url, rule, "a webhook's url is refused because of where it leads");
        })
    }

    /// A URL in its normal form, for who shows where a request went and sends nothing: one that is refused is not counted.
    /// `None` where it is refused.
    #[must_use]
    pub fn normal_form(&self, url: &str) -> Option<String> {
        let target = self.urls.check(url).ok()?;
        Some(target.as_str().to_owned())
    }

    /// Resolves the target's host now and refuses it where it leads to an address that is not allowed, so that whoever
    /// saves it hears of it at once. A name that does not resolve passes: it may come into being before it is used, and
    /// each request is checked anyway. Takes up to 4 s where name servers do not answer. Where the operator's proxy resolves
    /// names, what they lead to from here says nothing.
    ///
    /// # Errors
    /// [`Refused::Address`]
    pub async fn vet(&self, target: &Target) -> Result<(), Refused> {
        match target.url().host() {
            Some(Host::Domain(name)) if !self.is_proxied => match self.resolver.resolve(name).await {
                Err(resolver::Error::Refused) => Err(Refused::Address),
                _ => Ok(()),
            },
            // A literal address was vetted by `check`.
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("urls", &self.urls)
            .finish_non_exhaustive()
    }
}

/// A URL as logs may show it: without user name, password, query and fragment.
#[must_use]
pub fn redact_url(url: &Url) -> String {
    match url.host() {
        Some(host) => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{host}{port}{}", url.scheme(), url.path())
        }
        None => format!("{}:…", url.scheme()),
    }
}

/// Whether requests to both go to the same host and port in the same way (RFC 6454). What is no URL has no origin.
#[must_use]
pub fn is_same_origin(one: &str, other: &str) -> bool {
    match (Url::parse(one), Url::parse(other)) {
        (Ok(one), Ok(other)) => one.origin() == other.origin(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let url = "https://a.example.com/in";
        for same in ["https://a.example.com/", "https://A.example.com:443/b?c=d"] {
            assert!(is_same_origin(url, same), "{same}");
        }
        for other in [
            "http://a.example.com/in",
            "https://b.example.com/in",
            "https://example.com/in",
            "https://a.example.com:8443/in",
            "https://a.example.com.evil.example/in",
            "https://a.example.com@evil.example/in",
            "",
        ] {
            assert!(!is_same_origin(url, other), "{other}");
        }
        assert!(!is_same_origin("", ""));
    }

    #[test]
    fn a_nat64_prefix_leaves_room_for_an_ipv4_address() {
        let config = Config {
            nat64_prefixes: "64:ff9b::/64".parse().unwrap(),
            ..Config::default()
        };
        assert!(matches!(Guard::new(&config), Err(ConfigError::Nat64(_))));
    }

    #[test]
    fn the_addresses_of_this_machine_are_known_for_its_own() {
        let guard = Guard::new(&Config::default()).unwrap();
        let check = |address: &str| guard.addresses.check(address.parse().unwrap());
        assert_eq!(check("127.0.0.1"), Err("this machine's own"));
        assert_eq!(check("127.0.0.9"), Err("loopback"));
    }

    #[test]
    fn who_is_refused_for_where_a_url_leads_is_counted_and_who_mistyped_one_is_not() {
        let counted = counted::Counted::new();
        let config = Config {
            own_hosts: "hooks.example.com".parse().unwrap(),
            ..Config::default()
        };
        let guard = Guard {
            refusals: counted.counter("ssrf_refused"),
            ..Guard::new(&config).unwrap()
        };
        for url in [
            "https://10.0.0.1/",
            "https://[::1]/",
            "https://hooks.example.com/",
            "https://example.com:22/",
            "https://u:p@10.0.0.1/",
            "https://",
        ] {
            assert!(guard.check(url).is_err(), "{url}");
        }
        assert!(guard.check("https://example.com/").is_ok());
        // Whoever looks at what was sent sends nothing.
        assert_eq!(guard.normal_form("https://10.0.0.1/"), None);
        assert_eq!(
            guard.normal_form("https://EXAMPLE.com").as_deref(),
            Some("https://example.com/")
        );
        let of = |labels: &[&str]| counted.of("ssrf_refused", labels);
        assert_eq!(
            [&[r#"rule="address""#][..], &[r#"rule="own_host""#], &[]].map(of),
            [2, 1, 3]
        );
    }

    #[tokio::test]
    async fn where_a_proxy_resolves_names_what_they_lead_to_from_here_says_nothing() {
        for (proxy, vetted) in [
            (None, Err(Refused::Address)),
            (Some("http://proxy.example:3128"), Ok(())),
        ] {
            let config = Config {
                allow_hosts: "localhost".parse().unwrap(),
                proxy: proxy.map(|proxy| proxy.parse().unwrap()),
                ..Config::default()
            };
            let guard = Guard::new(&config).unwrap();
            let target = guard.check("https://localhost/").unwrap();
            assert_eq!(guard.vet(&target).await, vetted);
        }
    }

    #[test]
    fn logs_show_no_credentials_and_no_query() {
        for (url, shown) in [
            (
                "https://u:p@example.com:8443/a/b?token=x#y",
                "https://example.com:8443/a/b",
            ),
            ("https://[2606:4700::1111]/", "https://[2606:4700::1111]/"),
            ("data:text/plain,secret", "data:…"),
        ] {
            assert_eq!(redact_url(&url.parse().unwrap()), shown);
        }
    }
}
