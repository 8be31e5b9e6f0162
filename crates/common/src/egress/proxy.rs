//! The operator's proxy, where requests are to leave by one: an HTTP tunnel (CONNECT, RFC 9110 §9.3.6) for each
//! connection, whatever is spoken over it.
//!
//! The proxy resolves names, so it alone sees to which addresses they lead, and which of them a request may go to is then
//! its own to enforce. All that can be told from a URL holds here as before, literal addresses included.
//!
//! It is what the operator says and nothing else: no `HTTP_PROXY` or the like in the environment is looked at.

use std::fmt;
use std::str::FromStr;

use proto_schemas::ledger::ErrorClass;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::{Host, Url};

use super::USER_AGENT;
use super::error::Error;

/// Longest head of a proxy's answer, in bytes.
const HEAD_MAX: usize = 8 * 1024;

/// Where the proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    host: Host,
    port: u16,
}

impl FromStr for Proxy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "a proxy is written http://host:port, with nothing behind it";
        let url = Url::parse(text).map_err(|_| wrong)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a proxy that asks for a password cannot be used; let it know requests by their address");
        }
        let is_bare = url.scheme() == "http" && url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        // Its default port is dropped by the parser, and as good as any.
        match (url.host(), url.port_or_known_default()) {
            (Some(host), Some(port)) if is_bare => Ok(Self {
                host: host.to_owned(),
                port,
            }),
            _ => Err(wrong),
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// Why there is no tunnel.
pub(super) enum Failed {
    /// The proxy lets nobody go there.
    Refused,
    /// Anything else, in words for the webhook's owner.
    Other(Error),
}

impl Proxy {
    /// A connection to that host and port by way of the proxy. `host` is in brackets where it is an IPv6 address.
    pub(super) async fn tunnel(&self, host: &str, port: u16) -> Result<TcpStream, Failed> {
        match self.attempt(host, port).await {
            // By what it is told the operator learns more than the webhook's owner is to know of our network.
            Ok((_, status @ 403)) => {
                tracing::warn!(host, port, status, "the egress proxy refuses a webhook's host");
                Err(Failed::Refused)
            }
            Ok((socket, 200..=299)) => Ok(socket),
            Ok((_, status @ (401 | 407))) => {
                tracing::error!(proxy = %self, status, "the egress proxy wants to know who asks, and cannot be told");
                Err(Failed::Other(no_connection()))
            }
            Ok((_, status)) => {
                tracing::debug!(host, port, status, "no connection by the egress proxy");
                Err(Failed::Other(no_connection()))
            }
            Err(error) => {
                tracing::warn!(proxy = %self, %error, "the egress proxy does not answer as one");
                Err(Failed::Other(no_connection()))
            }
        }
    }

    async fn attempt(&self, host: &str, port: u16) -> std::io::Result<(TcpStream, u16)> {
        let mut socket = match &self.host {
            Host::Domain(name) => TcpStream::connect((name.as_str(), self.port)).await?,
            Host::Ipv4(address) => TcpStream::connect((*address, self.port)).await?,
            Host::Ipv6(address) => TcpStream::connect((*address, self.port)).await?,
        };
        let request =
            format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: {USER_AGENT}\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut head = Vec::with_capacity(256);
        // Byte by byte: what follows the head is not the proxy's any more, and belongs to who reads the connection next.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= HEAD_MAX {
                return Err(std::io::Error::other("its answer has too long a head"));
            }
            head.push(socket.read_u8().await?);
        }
        let status = status(&head).ok_or_else(|| std::io::Error::other("its answer is not HTTP/1"))?;
        Ok((socket, status))
    }
}

fn no_connection() -> Error {
    Error::new(ErrorClass::Connect, "no connection")
}

/// The status of an answer that begins like this.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.strip_prefix(b"HTTP/1.")?.get(1..)?.strip_prefix(b" ")?;
    std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_and_a_port() {
        for (text, shown) in [
            ("http://proxy.internal:3128", "http://proxy.internal:3128"),
            ("http://10.0.0.1:3128/", "http://10.0.0.1:3128"),
            ("http://[fd00::1]:3128", "http://[fd00::1]:3128"),
            ("http://proxy", "http://proxy:80"),
        ] {
            assert_eq!(text.parse::<Proxy>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "proxy:3128",
            "https://proxy:3128",
            "socks5://proxy:1080",
            "http://u:p@proxy:3128",
            "http://u@proxy:3128",
            "http://:p@proxy:3128",
            "http://proxy:3128/path",
            "http://proxy:3128?x",
            "http://proxy:3128#x",
        ] {
            assert!(bad.parse::<Proxy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_answer_has_a_status() {
        assert_eq!(status(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407 x\r\n\r\n"), Some(407));
        for bad in [
            "",
            "HTTP/1.1",
            "HTTP/2 200\r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
        ] {
            assert_eq!(status(bad.as_bytes()), None, "{bad}");
        }
    }
}
