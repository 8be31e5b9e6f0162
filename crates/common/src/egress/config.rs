//! What the operator opens, and the checks of it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use url::Host;

use super::Proxy;

/// What webhooks may reach beyond the public internet over https. The defaults are the safe ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Let webhooks have http:// URLs; for development
    #[arg(
        long = "egress-allow-http",
        env = "POSTHASTE_EGRESS_ALLOW_HTTP",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::Set
    )]
    pub allow_http: bool,

    /// Private or local addresses that webhooks may reach; cloud metadata stays refused
    #[arg(
        long = "egress-allow-cidrs",
        env = "POSTHASTE_EGRESS_ALLOW_CIDRS",
        value_name = "CIDR,…",
        default_value = ""
    )]
    pub allow_cidrs: Cidrs,

    /// Public addresses that webhooks may not reach, such as the cluster's own
    #[arg(
        long = "egress-deny-cidrs",
        env = "POSTHASTE_EGRESS_DENY_CIDRS",
        value_name = "CIDR,…",
        default_value = ""
    )]
    pub deny_cidrs: Cidrs,

    /// Host names webhooks may have although they are local or not full; their addresses must be allowed as well
    #[arg(
        long = "egress-allow-hosts",
        env = "POSTHASTE_EGRESS_ALLOW_HOSTS",
        value_name = "HOST,…",
        default_value = ""
    )]
    pub allow_hosts: Hosts,

    /// On an IPv6-only network, the NAT64 prefixes (/96) that reach IPv4 receivers, such as 64:ff9b::/96
    #[arg(
        long = "egress-nat64-prefixes",
        env = "POSTHASTE_EGRESS_NAT64_PREFIXES",
        value_name = "CIDR,…",
        default_value = ""
    )]
    pub nat64_prefixes: Cidrs,

    /// PEM file of certificate authorities that receivers' certificates may come from, besides the system's
    #[arg(long = "egress-ca-file", env = "POSTHASTE_EGRESS_CA_FILE", value_name = "PATH")]
    pub ca_file: Option<PathBuf>,

    /// Name servers to ask for webhooks' hosts, instead of those of /etc/resolv.conf
    #[arg(
        long = "egress-name-servers",
        env = "POSTHASTE_EGRESS_NAME_SERVERS",
        value_name = "ADDRESS[:PORT],…",
        default_value = ""
    )]
    pub name_servers: NameServers,
    /// Proxy (http://host:port) that every request to a webhook leaves by, in an HTTP tunnel. It resolves names, so which
    /// addresses they may lead to is then its to enforce. Proxies of the environment (HTTP_PROXY) are never used
    #[arg(long = "egress-proxy", env = "POSTHASTE_EGRESS_PROXY", value_name = "URL")]
    pub proxy: Option<Proxy>,

    /// Host names under which this platform is reached, and all below them: webhooks may not have them, or events would go
    /// round in circles
    #[arg(
        long = "egress-own-hosts",
        env = "POSTHASTE_EGRESS_OWN_HOSTS",
        value_name = "HOST,…",
        default_value = ""
    )]
    pub own_hosts: Zones,
}

/// Address ranges, written `10.0.0.0/8,::1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cidrs(Vec<IpNet>);

/// Host names, written `receiver,db.internal`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

/// Name servers, written `10.0.0.53,[2001:db8::53]:5353`. The port is 53 where none is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameServers(Vec<SocketAddr>);

/// Host names that stand for all below them, too, written `hooks.example.com,example.org`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zones(Vec<String>);

/// Why there is no guard or no client.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A NAT64 prefix of another length.
    #[error("--egress-nat64-prefixes: {0} is not an IPv6 prefix of length 96")]
    Nat64(IpNet),
    /// The machine's addresses, which no webhook may reach, cannot be listed.
    #[error("cannot list this machine's addresses")]
    Interfaces(#[source] std::io::Error),
    /// There is no resolver.
    #[error("cannot set up name resolution")]
    Resolver(#[source] hickory_resolver::net::NetError),
    /// The file of `--egress-ca-file` cannot be read.
    #[error("cannot read the certificate authorities in {}", path.display())]
    CaFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file of `--egress-ca-file` holds something else.
    #[error("{} holds no certificate in PEM form", path.display())]
    Ca {
        /// Which.
        path: PathBuf,
    },
    /// The client cannot be built: usually there are no certificate authorities on the machine.
    #[error("cannot set up the client for receivers (is the system's ca-certificates package installed?)")]
    Client(#[source] rustls::Error),
}

impl Config {
    /// Says loudly at start what is open that should not be in production.
    pub fn warn_if_open(&self) {
        if self.allow_http {
            tracing::warn!("webhooks may use plain http (POSTHASTE_EGRESS_ALLOW_HTTP): for development only");
        }
        if !self.allow_cidrs.is_empty() {
            tracing::warn!(
                cidrs = %self.allow_cidrs,
                "webhooks may reach addresses that are not public (POSTHASTE_EGRESS_ALLOW_CIDRS): whoever may create a \
                 webhook may send requests to them"
            );
        }
        if !self.allow_hosts.is_empty() {
            tracing::warn!(hosts = %self.allow_hosts, "webhooks may name local hosts (POSTHASTE_EGRESS_ALLOW_HOSTS)");
        }
        if let Some(proxy) = &self.proxy {
            tracing::warn!(
                %proxy,
                "requests to webhooks leave by a proxy (POSTHASTE_EGRESS_PROXY), which resolves their hosts' names: that \
                 these lead to no address inside is the proxy's to enforce, and not enforced here"
            );
        }
    }
}

pub(super) fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let pem = std::fs::read(path).map_err(|source| ConfigError::CaFile {
        path: path.to_owned(),
        source,
    })?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(authorities) if !authorities.is_empty() => Ok(authorities),
        _ => Err(ConfigError::Ca { path: path.to_owned() }),
    }
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ', '\n']).filter(|entry| !entry.is_empty())
}

impl FromStr for Cidrs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        entries(text)
            .map(|entry| {
                let net = entry.parse::<IpNet>().ok();
                net.or_else(|| entry.parse::<IpAddr>().ok().map(IpNet::from))
                    .ok_or_else(|| format!("`{entry}` is not an address range such as 10.0.0.0/8 or ::1/128"))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl FromStr for Hosts {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(
            entries(text)
                .map(|entry| entry.trim_end_matches('.').to_ascii_lowercase())
                .collect(),
        ))
    }
}

impl FromStr for NameServers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        entries(text)
            .map(|entry| {
                let address = entry.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 53));
                address
                    .or_else(|| entry.parse().ok())
                    .ok_or_else(|| format!("`{entry}` is not a name server's address such as 10.0.0.53 or [::1]:5353"))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl FromStr for Zones {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let zone = |entry: &str| match Host::parse(entry) {
            Ok(Host::Domain(name)) if !name.trim_end_matches('.').is_empty() && !name.contains('*') => {
                Ok(name.trim_end_matches('.').to_owned())
            }
            Ok(Host::Ipv4(_) | Host::Ipv6(_)) => Err(format!(
                "`{entry}` is an address; --egress-deny-cidrs keeps webhooks from those"
            )),
            _ => Err(format!(
                "`{entry}` is not a host name such as hooks.example.com, which stands for all below it, too"
            )),
        };
        entries(text).map(zone).collect::<Result<_, _>>().map(Self)
    }
}

impl Deref for Zones {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl Deref for Cidrs {
    type Target = [IpNet];

    fn deref(&self) -> &[IpNet] {
        &self.0
    }
}

impl Deref for Hosts {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl Deref for NameServers {
    type Target = [SocketAddr];

    fn deref(&self) -> &[SocketAddr] {
        &self.0
    }
}

impl fmt::Display for Cidrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        egress: Config,
    }

    fn parse(arguments: &[&str]) -> Result<Config, clap::Error> {
        Command::try_parse_from(std::iter::once(&"posthaste").chain(arguments)).map(|command| command.egress)
    }

    #[test]
    fn nothing_is_open_by_default() {
        assert_eq!(parse(&[]).unwrap(), Config::default());
    }

    #[test]
    fn what_is_open_is_written_as_people_write_it() {
        let config = parse(&[
            "--egress-allow-http",
            "--egress-allow-cidrs=127.0.0.0/8, ::1/128,",
            "--egress-deny-cidrs=34.118.224.0/20",
            "--egress-allow-hosts=Receiver.,db.internal",
            "--egress-name-servers=10.0.0.53,[::1]:5353",
        ])
        .unwrap();
        assert!(config.allow_http);
        assert_eq!(config.allow_cidrs.to_string(), "127.0.0.0/8,::1/128");
        assert_eq!(config.allow_hosts.to_string(), "receiver,db.internal");
        assert_eq!(
            config.name_servers.to_vec(),
            ["10.0.0.53:53", "[::1]:5353"].map(|server| server.parse().unwrap())
        );
        assert!(!parse(&["--egress-allow-http=false"]).unwrap().allow_http);
        assert!(parse(&["--egress-allow-http=1"]).unwrap().allow_http);
        for bad in [
            "--egress-allow-http=perhaps",
            "--egress-allow-cidrs=10.0.0.0/33",
            "--egress-deny-cidrs=host",
            "--egress-name-servers=ns.example",
            "--egress-own-hosts=*.example.com",
            "--egress-own-hosts=https://example.com",
            "--egress-own-hosts=10.0.0.1",
            "--egress-proxy=proxy:3128",
        ] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
        let address = parse(&["--egress-own-hosts=10.0.0.1"]).unwrap_err().to_string();
        assert!(
            address.contains("is an address; --egress-deny-cidrs keeps webhooks from those"),
            "{address}"
        );
    }

    /// What a service with this configuration warns of when it starts.
    fn warnings(config: &Config) -> String {
        let log = tempfile::NamedTempFile::new().unwrap();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(Mutex::new(log.reopen().unwrap()))
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || config.warn_if_open());
        std::fs::read_to_string(log.path()).unwrap()
    }

    #[test]
    fn what_is_open_is_warned_of_and_nothing_else() {
        let closed = Config {
            deny_cidrs: "8.8.8.8".parse().unwrap(),
            own_hosts: "hooks.example.com".parse().unwrap(),
            name_servers: "10.0.0.53".parse().unwrap(),
            ..Config::default()
        };
        assert_eq!(warnings(&closed), "");
        for (open, variable, value) in [
            ("--egress-allow-http", "POSTHASTE_EGRESS_ALLOW_HTTP", ""),
            (
                "--egress-allow-cidrs=10.0.0.0/8",
                "POSTHASTE_EGRESS_ALLOW_CIDRS",
                "10.0.0.0/8",
            ),
            (
                "--egress-allow-hosts=receiver",
                "POSTHASTE_EGRESS_ALLOW_HOSTS",
                "receiver",
            ),
            (
                "--egress-proxy=http://proxy:3128",
                "POSTHASTE_EGRESS_PROXY",
                "http://proxy:3128",
            ),
        ] {
            let said = warnings(&parse(&[open]).unwrap());
            assert!(
                said.contains(&format!("({variable})")) && said.contains(value),
                "{said}"
            );
            assert_eq!((said.matches("WARN").count(), said.lines().count()), (1, 1), "{said}");
        }
    }
}
