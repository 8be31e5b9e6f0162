//! The mail server, as it is set.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use common::config;
use secrecy::{ExposeSecret as _, SecretString};
use url::{Host, Url};

/// Settings of e-mail.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct MailConfig {
    /// The mail server by which projects' `alert_emails` are told what is wrong: `smtp://host:587` (STARTTLS) or
    /// `smtps://host` (TLS). On this machine `smtp://` is not encrypted, and elsewhere not with `?tls=none`. Absent: nobody
    /// is told by e-mail
    #[arg(long, env = "POSTHASTE_SMTP_URL", value_name = "URL")]
    pub smtp_url: Option<Url>,
    /// Who the e-mails are from, like `Posthaste <posthaste@example.com>`
    #[arg(long, env = "POSTHASTE_SMTP_FROM", value_name = "ADDRESS")]
    pub smtp_from: Option<String>,
    /// User at the mail server
    #[arg(long, env = "POSTHASTE_SMTP_USERNAME", value_name = "NAME", value_parser = config::secret_text)]
    pub smtp_username: Option<SecretString>,
    /// File that holds the user's name
    #[arg(long, env = "POSTHASTE_SMTP_USERNAME_FILE", value_name = "PATH")]
    pub smtp_username_file: Option<PathBuf>,
    /// The user's password
    #[arg(
        long,
        env = "POSTHASTE_SMTP_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true,
        value_parser = config::secret_text
    )]
    pub smtp_password: Option<SecretString>,
    /// File that holds the user's password
    #[arg(long, env = "POSTHASTE_SMTP_PASSWORD_FILE", value_name = "PATH")]
    pub smtp_password_file: Option<PathBuf>,
    /// At most one e-mail about a webhook in this time; what happens meanwhile is in the next one
    #[arg(
        long,
        env = "POSTHASTE_ALERT_INTERVAL",
        value_name = "TIME",
        default_value = "5m",
        value_parser = config::duration
    )]
    pub alert_interval: Duration,
}

/// A mail server, and how to talk to it.
#[derive(Debug, Clone)]
pub struct MailServer {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is secured.
    pub security: Security,
    /// User and password, if it wants any.
    pub credentials: Option<(String, SecretString)>,
    /// Who the e-mails are from.
    pub from: String,
    /// At most one e-mail about a webhook in this time.
    pub interval: Duration,
}

/// How a connection is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    None,
    /// Encrypted before anything is said of the mail (RFC 3207), or not used.
    StartTls,
    /// Encrypted from the beginning (RFC 8314).
    Tls,
}

impl MailConfig {
    /// The server; `None` where there is none.
    ///
    /// # Errors
    /// Settings that do not go together, each naming what to do.
    pub fn server(&self) -> anyhow::Result<Option<MailServer>> {
        let Some(url) = &self.smtp_url else {
            return Ok(None);
        };
        let host = url.host().context("--smtp-url (POSTHASTE_SMTP_URL) names no host")?;
        ensure!(
            url.username().is_empty() && url.password().is_none(),
            "--smtp-url holds no user or password: give them as POSTHASTE_SMTP_USERNAME and POSTHASTE_SMTP_PASSWORD_FILE"
        );
        let is_this_machine = match host {
            // Of schemes that are not the web's, addresses are names to the parser.
            Host::Domain(name) => {
                name == "localhost"
                    || name
                        .parse()
                        .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
            }
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        let (security, port) = match (url.scheme(), url.query()) {
            ("smtps", None) => (Security::Tls, 465),
            ("smtp", None) if is_this_machine => (Security::None, 25),
            ("smtp", None | Some("tls=starttls")) => (Security::StartTls, 587),
            ("smtp", Some("tls=none")) => (Security::None, 25),
            _ => bail!("--smtp-url is written smtp://host:port, smtps://host or smtp://host:port?tls=none"),
        };
        let from = self
            .smtp_from
            .clone()
            .context("--smtp-url needs --smtp-from (POSTHASTE_SMTP_FROM), like `Posthaste <posthaste@example.com>`")?;
        let user = config::secret(
            "POSTHASTE_SMTP_USERNAME",
            self.smtp_username.as_ref(),
            self.smtp_username_file.as_deref(),
        )?;
        let password = config::secret(
            "POSTHASTE_SMTP_PASSWORD",
            self.smtp_password.as_ref(),
            self.smtp_password_file.as_deref(),
        )?;
        let credentials = match (user, password) {
            (Some(user), Some(password)) => Some((user.expose_secret().to_owned(), password)),
            (None, None) => None,
            _ => bail!("POSTHASTE_SMTP_USERNAME and POSTHASTE_SMTP_PASSWORD are given both, or neither"),
        };
        Ok(Some(MailServer {
            host: match host {
                Host::Domain(name) => name.to_owned(),
                Host::Ipv4(address) => address.to_string(),
                Host::Ipv6(address) => address.to_string(),
            },
            port: url.port().unwrap_or(port),
            security,
            credentials,
            from,
            interval: self.alert_interval,
        }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        mail: MailConfig,
    }

    fn server(arguments: &[&str]) -> anyhow::Result<Option<MailServer>> {
        let all = ["x", "--smtp-from", "a@example.com"].iter().chain(arguments);
        Arguments::parse_from(all).mail.server()
    }

    #[test]
    fn a_connection_is_encrypted_unless_it_is_to_this_machine_or_said_otherwise() {
        for (url, security, port) in [
            ("smtps://mail.example.com", Security::Tls, 465),
            ("smtp://mail.example.com", Security::StartTls, 587),
            ("smtp://mail.example.com:2525", Security::StartTls, 2525),
            ("smtp://mail.example.com:25?tls=none", Security::None, 25),
            ("smtp://127.0.0.1:1025", Security::None, 1025),
            ("smtp://localhost:25?tls=starttls", Security::StartTls, 25),
            ("smtp://[::1]", Security::None, 25),
        ] {
            let found = server(&["--smtp-url", url]).unwrap().unwrap();
            assert_eq!((found.security, found.port), (security, port), "{url}");
        }
        assert!(server(&[]).unwrap().is_none());
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for arguments in [
            &["--smtp-url", "http://mail.example.com"][..],
            &["--smtp-url", "smtp://mail.example.com?tls=maybe"],
            &["--smtp-url", "smtp://user:secret@mail.example.com"],
            &["--smtp-url", "smtp://mail.example.com", "--smtp-username", "me"],
            &["--smtp-url", "smtp://mail.example.com", "--smtp-password", "secret"],
        ] {
            let error = server(arguments).unwrap_err();
            assert!(!format!("{error:#}").contains("secret@"), "{error:#}");
        }
        let both = [
            "--smtp-url",
            "smtps://m.example.com",
            "--smtp-username",
            "me",
            "--smtp-password",
            "secret",
        ];
        let found = server(&both).unwrap().unwrap();
        assert!(found.credentials.is_some() && !format!("{found:?}").contains("secret"));
    }
}
