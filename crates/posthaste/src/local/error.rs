use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a server could not be started, stopped or prepared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No nats-server anywhere.
    #[error("no nats-server found on PATH or in {checkout}: {}", super::nats::FIX)]
    NatsServerMissing {
        /// The folder of the checkout that was looked in, too.
        checkout: PathBuf,
    },
    /// Every nats-server found is older than what the streams need.
    #[error("{} is nats-server {found}, and {needed} or newer is needed: {}", program.display(), super::nats::FIX)]
    NatsServerTooOld {
        /// The program that was asked.
        program: PathBuf,
        /// Its version.
        found: String,
        /// The oldest version that will do.
        needed: String,
    },
    /// The program does not answer `--version` as nats-server does.
    #[error("{} does not say its version as nats-server does (it said: {answer}): {}", program.display(), super::nats::FIX)]
    NotNatsServer {
        /// The program that was asked.
        program: PathBuf,
        /// What it said.
        answer: String,
    },
    /// No Postgres anywhere.
    #[error("no Postgres server found on PATH or in {looked}: {}", super::postgres::FIX)]
    PostgresMissing {
        /// What else was looked in.
        looked: String,
    },
    /// Root runs Postgres as another account, and that account cannot get to its folder.
    #[error(
        "started by root, Postgres runs as the account `{account}`, which cannot reach {}: \
         choose another folder, or let others pass the folders above it (chmod o+x)", folder.display()
    )]
    Unreachable {
        /// Where the data should be.
        folder: PathBuf,
        /// Who should reach it.
        account: String,
    },
    /// Root, and no account to run Postgres as.
    #[error("Postgres does not run as root, and there is no account `postgres` or `nobody` to run it as: add one")]
    NoAccount,
    /// `setpriv` is not there.
    #[error("setpriv is needed to start servers that end when their launcher does: install util-linux")]
    SetprivMissing,
    /// A path too long for a Unix socket.
    #[error("{} is too long a path for a Unix socket: set TMPDIR to a shorter one", path.display())]
    SocketPathTooLong {
        /// The socket's path.
        path: PathBuf,
    },
    /// The port a server had before now belongs to somebody else.
    #[error("{server} cannot have its port {port} back: another process listens there")]
    PortTaken {
        /// Which server.
        server: &'static str,
        /// Which port.
        port: u16,
    },
    /// A program ended when it should not have, or not well.
    #[error("{program} failed ({status}); its last words:\n{log}")]
    Failed {
        /// Which program.
        program: String,
        /// How it ended.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// A program did not do in time what it was started for.
    #[error("{program} was not ready after {} s; its last words:\n{log}", after.as_secs())]
    TooSlow {
        /// Which program.
        program: String,
        /// How long it was given.
        after: Duration,
        /// The end of its log.
        log: String,
    },
    /// The operating system said no.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// What it said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: says what was tried.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            what: what.into(),
            source,
        }
    }
}
