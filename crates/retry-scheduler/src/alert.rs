//! Alerts → e-mails.
//!
//! In: what [`crate::announce`] has gathered. Out: at most one mail about a webhook in a while, which says of each kind of
//! event how many there were, and of the last one what is known.
//!
//! Guarantee: alerts are deleted when the mail server has taken the mail. A crash in between sends it once more; two
//! processes never send about the same webhook at the same time. What a mail server refuses for good is given up, with a
//! line in the log: the events themselves are on record.

mod mail;

use std::time::Duration;

use common::clock::Clock;
use lettre::address::AddressError;
use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use secrecy::ExposeSecret as _;
use store::Store;
use store::alerts::{self, About, Gathered};
use tokio_util::sync::CancellationToken;

use crate::config::{MailServer, Security};
use crate::metrics::Metrics;
use crate::next_step::later;
use crate::patience::Patience;

/// How often to look for something to tell.
const EVERY: Duration = Duration::from_secs(1);

/// How long a mail server is waited for.
const SMTP_TIMEOUT: Duration = Duration::from_secs(20);

/// How long others are kept from what is being sent: longer than sending can take.
const LEASE: Duration = Duration::from_secs(120);

/// When to try again after a mail server could not be reached, or asked for patience.
const AGAIN: Duration = Duration::from_secs(15);

/// Why there is no mailer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sender's address is none.
    #[error("--smtp-from (POSTHASTE_SMTP_FROM) is no address; write it like `Posthaste <posthaste@example.com>`")]
    From(#[from] AddressError),
    /// TLS cannot be set up.
    #[error("the connection to the mail server cannot be secured")]
    Tls(#[from] lettre::transport::smtp::Error),
}

/// The stage.
pub struct Mailer {
    store: Store,
    clock: Clock,
    patience: Patience,
    metrics: Metrics,
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    interval: Duration,
}

impl Mailer {
    /// A mailer by this server.
    ///
    /// # Errors
    /// [`Error`]
    pub fn new(
        server: &MailServer,
        store: Store,
        clock: Clock,
        patience: Patience,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let tls = || TlsParameters::new(server.host.clone());
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&server.host)
            .port(server.port)
            .timeout(Some(SMTP_TIMEOUT))
            .tls(match server.security {
                Security::None => Tls::None,
                Security::StartTls => Tls::Required(tls()?),
                Security::Tls => Tls::Wrapper(tls()?),
            });
        if let Some((user, password)) = &server.credentials {
            transport = transport.credentials(Credentials::new(user.clone(), password.expose_secret().to_owned()));
        }
        Ok(Self {
            store,
            clock,
            patience,
            metrics,
            transport: transport.build(),
            from: server.from.parse()?,
            interval: server.interval,
        })
    }

    /// Sends until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let sent = tokio::select! {
                () = stop.cancelled() => return,
                sent = self.send_due() => sent,
            };
            if let Err(error) = sent {
                self.patience.fault(&error);
            }
        }
    }

    /// Sends every mail that may go now.
    ///
    /// # Errors
    /// Any [`store::Error`]
    pub async fn send_due(&self) -> Result<(), store::Error> {
        loop {
            let now = self.clock.now();
            let about = alerts::claim(&mut *self.store.connection().await?, now, later(now, LEASE)).await?;
            let Some(about) = about else {
                return alerts::forget_pauses(&mut *self.store.connection().await?, now).await;
            };
            let gathered = alerts::gather(&mut *self.store.connection().await?, about).await?;
            if let Some(gathered) = gathered {
                self.send(about, &gathered).await?;
            }
        }
    }

    async fn send(&self, about: About, gathered: &Gathered) -> Result<(), store::Error> {
        if let Some(message) = self.message(about, gathered) {
            match self.transport.send(message).await {
                Ok(_) => self.metrics.mailed("sent"),
                Err(error) if error.is_permanent() => {
                    self.metrics.mailed("refused");
                    tracing::error!(project = gathered.project, %error, "the mail server refuses an alert; given up");
                }
                Err(error) => {
                    self.metrics.mailed("failed");
                    tracing::warn!(project = gathered.project, %error, "an alert cannot be mailed; trying again");
                    let next = later(self.clock.now(), AGAIN);
                    return alerts::pause(&mut *self.store.connection().await?, about, next).await;
                }
            }
        }
        let now = self.clock.now();
        let mut transaction = self.store.begin().await?;
        alerts::told(&mut transaction, about, gathered.up_to, later(now, self.interval)).await?;
        transaction.commit().await
    }

    /// The mail; `None` where there is nobody to send it to.
    fn message(&self, about: About, gathered: &Gathered) -> Option<Message> {
        let (subject, body) = mail::compose(about, gathered, self.interval);
        let mut message = Message::builder()
            .from(self.from.clone())
            .subject(subject)
            .header(ContentType::TEXT_PLAIN);
        let mut anybody = false;
        for email in &gathered.emails {
            // config-api takes only what can be read here.
            let Ok(mailbox) = email.parse::<Mailbox>() else {
                continue;
            };
            message = message.to(mailbox);
            anybody = true;
        }
        let message = anybody.then(|| message.body(body))?;
        message
            .inspect_err(|error| tracing::error!(%error, "an alert cannot be written"))
            .ok()
    }
}

impl std::fmt::Debug for Mailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailer")
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}
