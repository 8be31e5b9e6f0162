//! From a host's name to addresses that may be dialled.
//!
//! The connector dials exactly the addresses given out here, with no second look-up between check and use, so a name
//! cannot answer well when checked and badly when dialled. One bad address refuses the whole name: a mixed answer is an
//! attack or a broken zone, never something to pick from.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;

use super::address_policy::AddressPolicy;

/// For one look-up, retries included. Below the connect timeout, so that what failed is named rightly.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);
/// For one question to one name server.
const QUERY_TIMEOUT: Duration = Duration::from_millis(1500);
/// Answers are kept as long as they say, but no longer than this: a receiver may move.
const MAX_TTL: Duration = Duration::from_mins(5);
/// "No such name" is forgotten soon: a webhook is often configured before its name is.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(10);
/// How many of a name's addresses are dialled; the connect timeout is shared among them.
const DIALLED_MAX: usize = 6;

/// Why a name gives no address to dial. The text is for the webhook's owner.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("target address not allowed")]
    Refused,
    #[error("the host name does not exist or has no address")]
    NoAddress,
    #[error("the host name could not be resolved")]
    Failed(#[source] NetError),
    #[error("the host name could not be resolved in time")]
    TimedOut,
}

/// Resolves names and vets every address of the answer. Cheap to clone; clones share the cache.
#[derive(Clone)]
pub(super) struct Resolver {
    dns: Arc<TokioResolver>,
    addresses: Arc<AddressPolicy>,
    refusals: Counter<u64>,
}

impl Resolver {
    /// Asks these name servers, or where there are none those of `/etc/resolv.conf`; and `/etc/hosts` before them.
    pub(super) fn new(
        servers: &[SocketAddr],
        addresses: Arc<AddressPolicy>,
        refusals: Counter<u64>,
    ) -> Result<Self, NetError> {
        let builder = match servers {
            [] => TokioResolver::builder_tokio().unwrap_or_else(|error| {
                tracing::warn!(%error, "no name servers are configured: of webhooks' hosts only those in the hosts file resolve");
                asking(Vec::new())
            }),
            servers => asking(servers.iter().copied().map(name_server).collect()),
        };
        Self::from_builder(builder, addresses, refusals)
    }

    fn from_builder(
        mut builder: ResolverBuilder<TokioRuntimeProvider>,
        addresses: Arc<AddressPolicy>,
        refusals: Counter<u64>,
    ) -> Result<Self, NetError> {
        configure(builder.options_mut());
        Ok(Self {
            dns: Arc::new(builder.build()?),
            addresses,
            refusals,
        })
    }

    /// The addresses of `host` that may be dialled: all of them, or an error.
    pub(super) async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Error> {
        // Absolute: no search domain turns `postgres` into `postgres.namespace.svc.cluster.local`.
        let absolute = format!("{host}.");
        let answer = tokio::time::timeout(LOOKUP_TIMEOUT, self.dns.lookup_ip(absolute))
            .await
            .map_err(|_| Error::TimedOut)?
            .map_err(|error| match error.is_no_records_found() {
                true => Error::NoAddress,
                false => Error::Failed(error),
            })?;
        self.vet(host, answer.iter().collect())
    }

    fn vet(&self, host: &str, mut answer: Vec<IpAddr>) -> Result<Vec<IpAddr>, Error> {
        let bad: Vec<_> = answer
            .iter()
            .filter_map(|address| Some((address, self.addresses.check(*address).err()?)))
            .collect();
        if let [(address, reason), ..] = bad[..] {
            // A healthy receiver with a stray AAAA record is the commonest honest case: worth its own words and count.
            let only_because_of_aaaa = answer.iter().any(IpAddr::is_ipv4) && bad.iter().all(|(bad, _)| bad.is_ipv6());
            let labels = [
                KeyValue::new("rule", "name"),
                KeyValue::new("only_because_of_aaaa", only_because_of_aaaa),
            ];
            self.refusals.add(1, &labels);
            tracing::warn!(host, %address, reason, only_because_of_aaaa, "a webhook's host leads to an address that is not allowed");
            return Err(Error::Refused);
        }
        if answer.is_empty() {
            return Err(Error::NoAddress);
        }
        answer.truncate(DIALLED_MAX);
        Ok(answer)
    }
}

fn asking(servers: Vec<NameServerConfig>) -> ResolverBuilder<TokioRuntimeProvider> {
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
}

/// Over UDP, and TCP for what does not fit.
fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn configure(options: &mut ResolverOpts) {
    // Both families are asked, so both are vetted. IPv4 first: a host without an IPv6 route then loses no time.
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = QUERY_TIMEOUT;
    options.attempts = 2;
    options.positive_max_ttl = Some(MAX_TTL);
    options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
    // A burst after a start asks for many names at once, over one connection where UDP answers are truncated.
    options.max_active_requests = 1024;
}

#[cfg(test)]
mod tests;
