//! The connection to NATS: how it is made, and what is heard of it.

use std::time::Duration;

use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError, ToServerAddrs as _};
use percent_encoding::percent_decode_str;
use proto_schemas::subject;
use secrecy::ExposeSecret as _;
use tokio::sync::watch;

use super::refusals::Refusals;
use super::{Config, Error};
use crate::config::is_this_machine;

/// How long to wait between two tries.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// What is heard of the connection.
#[derive(Clone)]
struct Line {
    connected: watch::Sender<bool>,
    refusals: Refusals,
}

/// Connects, trying again until `patience` is over; keeps `connected` true to the connection from then on, and `refusals`
/// to what is refused over it.
pub(super) async fn open(
    config: &Config,
    service: &str,
    patience: Duration,
    connected: watch::Sender<bool>,
    refusals: &Refusals,
) -> Result<async_nats::Client, Error> {
    let address = config.address()?;
    let servers: Vec<&str> = address.expose_secret().split(',').map(str::trim).collect();
    let servers: Vec<ServerAddr> = servers.to_server_addrs().map_err(Error::NotAnAddress)?.collect();
    let url = without_credentials(&servers);
    let line = Line {
        connected,
        refusals: refusals.clone(),
    };
    let deadline = tokio::time::Instant::now() + patience;
    let mut said = false;
    loop {
        let source = match connect(config, &servers, service, line.clone()).await {
            Ok(client) => {
                warn_of_plain_text(&servers, config.wants_tls(), client.server_info().tls_required);
                return Ok(client);
            }
            Err(source) => source,
        };
        // A server that answers and says no will say so again.
        match source.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                return Err(Error::NotLetIn { url, source });
            }
            _ if is_about_tls(&source) => return Err(Error::NotTrusted { url, source }),
            _ => {}
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Error::Unreachable { url, source });
        }
        if !said {
            tracing::info!(url, error = %source, "waiting for NATS");
            said = true;
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

async fn connect(
    config: &Config,
    servers: &[ServerAddr],
    service: &str,
    line: Line,
) -> Result<async_nats::Client, ConnectError> {
    let mut options = log_in(ConnectOptions::new(), servers);
    if let Some(path) = &config.nats_credentials_file {
        let read = options.credentials_file(path).await;
        options = read.map_err(|error| ConnectError::with_source(ConnectErrorKind::Authentication, error))?;
    }
    if let Some(path) = &config.nats_ca_file {
        options = options.add_root_certificates(path.clone());
    }
    if let Some((certificate, key)) = config.client_certificate() {
        options = options.add_client_certificate(certificate.to_owned(), key.to_owned());
    }
    options
        .name(format!("posthaste {service}"))
        // Nobody else is allowed to listen there.
        .custom_inbox_prefix(subject::inbox(service))
        // Or else whoever stands between could have it all in plain text.
        .require_tls(config.wants_tls())
        .connection_timeout(Duration::from_secs(5))
        .ping_interval(Duration::from_secs(5))
        // A burst of publishes and acks must find room in the client's own queue.
        .client_capacity(64 * 1024)
        .subscription_capacity(256 * 1024)
        .reconnect_delay_callback(|attempts| Duration::from_millis((50 * attempts as u64).min(1_000)))
        .max_reconnects(None)
        .event_callback(move |event| {
            let line = line.clone();
            async move { line.hear(event) }
        })
        .connect(servers)
        .await
}

impl Line {
    fn hear(&self, event: Event) {
        match event {
            Event::Connected => {
                self.refusals.forget();
                self.connected.send_replace(true);
            }
            Event::Closed => drop(self.connected.send_replace(false)),
            Event::Disconnected => {
                self.connected.send_replace(false);
                tracing::warn!("lost the connection to NATS; reconnecting");
            }
            Event::SlowConsumer(subscription) => {
                tracing::warn!(subscription, "NATS messages arrive faster than they are taken");
            }
            Event::ServerError(ServerError::Other(said)) if self.refusals.note(&said) => {}
            Event::ServerError(error) => tracing::error!(%error, "NATS reports an error"),
            Event::ClientError(error) => tracing::warn!(%error, "NATS client reports an error"),
            Event::LameDuckMode | Event::Draining => {}
        }
    }
}

/// Whether certificates are what is wrong: they cannot be read, or one end does not trust the other's.
fn is_about_tls(error: &ConnectError) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        let within = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if error.is::<rustls::Error>() || within.is_some_and(|within| within.is::<rustls::Error>()) {
            return true;
        }
        source = error.source();
    }
    error.kind() == ConnectErrorKind::Tls
}

/// Takes user and password, or a token, from the first address that has any; the client itself does not.
fn log_in(options: ConnectOptions, servers: &[ServerAddr]) -> ConnectOptions {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let login = servers
        .iter()
        .find_map(|server| Some((server.username()?, server.password())));
    match login {
        Some((user, Some(password))) => options.user_and_password(decoded(user), decoded(password)),
        Some((token, None)) => options.token(decoded(token)),
        None => options,
    }
}

/// Says where a password or an event could be read on its way. `is_asked_for` says whether the server wanted TLS: then there
/// is TLS, but whoever stands between can say in the server's name that it does not, and gets the password.
fn warn_of_plain_text(servers: &[ServerAddr], is_insisted_on: bool, is_asked_for: bool) {
    let in_the_open: Vec<ServerAddr> = servers
        .iter()
        .filter(|server| !is_insisted_on && !server.tls_required() && !is_this_machine(server.host()))
        .cloned()
        .collect();
    if in_the_open.is_empty() {
        return;
    }
    let servers = without_credentials(&in_the_open);
    match is_asked_for {
        false => tracing::warn!(
            servers,
            "NATS is reached over the network WITHOUT TLS: passwords and events can be read and changed on their way; \
             have nats-server require TLS and set --nats-ca-file (POSTHASTE_NATS_CA_FILE)"
        ),
        true => tracing::warn!(
            servers,
            "NATS is reached over the network with TLS only BECAUSE IT ASKS FOR IT: whoever stands between can leave it out, \
             and read the password; say tls:// in NATS_URL, or set --nats-ca-file (POSTHASTE_NATS_CA_FILE)"
        ),
    }
}

/// Addresses without users and passwords.
fn without_credentials(servers: &[ServerAddr]) -> String {
    let shown = servers.iter().map(|server| {
        let url = server.as_url_str();
        match (url.find("://"), url.rfind('@')) {
            (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &url[..scheme + 3], &url[at + 1..]),
            _ => url.to_owned(),
        }
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_left_in_an_address() {
        let servers: Vec<ServerAddr> = ["nats://a:p%40ss@n1:4222", "tls://n2", "b:p@n3"]
            .to_server_addrs()
            .unwrap()
            .collect();
        assert_eq!(without_credentials(&servers), "nats://n1:4222,tls://n2,nats://n3");
    }
}
