//! A private nats-server with JetStream, on a free port of 127.0.0.1.
//!
//! By default it asks nobody for a password: it can be reached from this machine alone, which is enough for tests. Whoever
//! runs it for longer has [`Options::more`] ask for one, as `posthaste dev` does: another account of the machine could write
//! definitions otherwise. (Postgres always asks, because there a stranger could run programs as us; see
//! [`super::postgres`].)

mod program;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::process::{GLANCE, Process, Program};
use super::{Error, config, port};

/// What to do about a missing or too old server.
pub(super) const FIX: &str = "run `make setup` in a checkout of Posthaste, or name a newer one in POSTHASTE_NATS_SERVER, \
     or a running one in NATS_URL";

/// A server that finds a large store takes its time to read it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a restarted server tries to get its port back.
const PORT_PATIENCE: Duration = Duration::from_secs(10);

const NAME: &str = "nats-server";

/// How a private nats-server is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program; `None` looks for one. By default what `POSTHASTE_NATS_SERVER` says.
    pub program: Option<PathBuf>,
    /// How many bytes JetStream may keep on disk: enough for the streams' own limits, too little to fill a laptop.
    pub storage: u64,
    /// Whether each message is on the disk itself, and not only with the operating system, before it is acked. Without
    /// it a power cut can cost the last two minutes; a killed server costs nothing either way.
    pub sync_always: bool,
    /// Further configuration in nats-server's own language: accounts, TLS. Where it listens and stores is not for it to
    /// say.
    pub more: String,
    /// Further environment variables.
    pub env: Vec<(&'static str, String)>,
    /// The user and password that [`Nats::url`] has.
    pub login: Option<(&'static str, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            program: config::path(config::NATS_SERVER),
            storage: 16 << 30,
            sync_always: false,
            more: String::new(),
            env: Vec::new(),
            login: None,
        }
    }
}

/// A private nats-server. Dropped, it is stopped.
#[derive(Debug)]
pub struct Nats {
    program: PathBuf,
    options: Options,
    folder: PathBuf,
    port: u16,
    server: Option<Process>,
}

impl Nats {
    /// Starts a server whose store is in `folder`, which is made if it is not there. Returns when clients can connect.
    ///
    /// # Errors
    /// The server is missing or too old, its folder cannot be used, or it does not start: then with its last words.
    pub async fn start(folder: &Path, options: &Options) -> Result<Self, Error> {
        let program = program::find(options)?;
        let folder = private_folder(folder)?;
        let mut nats = Self {
            program,
            options: options.clone(),
            folder,
            port: 0,
            server: None,
        };
        for _ in 0..port::TRIES {
            nats.port = port::propose();
            match nats.launch().await {
                Err(Error::PortTaken { .. }) => {}
                launched => return launched.map(|()| nats),
            }
        }
        Err(nats.port_taken())
    }

    /// `nats://127.0.0.1:PORT`, with the login of the options, if there is one; the same over restarts.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.options.login {
            Some((user, password)) => self.url_of(user, password),
            None => format!("nats://{}:{}", Ipv4Addr::LOCALHOST, self.port),
        }
    }

    /// [`Nats::url`] for another user.
    #[must_use]
    pub fn url_of(&self, user: &str, password: &str) -> String {
        format!("nats://{user}:{password}@{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// The port; the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that streams and buckets are stored in.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// The process, while one runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.server.as_ref().map(Process::id)
    }

    /// Looks whether it still runs.
    ///
    /// # Errors
    /// It has ended by itself: then with its last words.
    pub fn check(&mut self) -> Result<(), Error> {
        self.server.as_mut().map_or(Ok(()), Process::check)
    }

    /// Stops it in good order. Its store stays.
    ///
    /// # Errors
    /// The operating system refuses to say whether it has ended.
    pub async fn stop(&mut self) -> Result<(), Error> {
        match self.server.take() {
            Some(mut server) => server.stop(Signal::TERM).await,
            None => Ok(()),
        }
    }

    /// SIGKILL. Its store stays as it is.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.server.take().map_or(Ok(()), |mut server| server.kill())
    }

    /// Stops it if it runs, and starts it on the same store and port.
    ///
    /// # Errors
    /// It does not start, or its port is [`Error::PortTaken`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.stop().await?;
        let started = Instant::now();
        loop {
            match self.launch().await {
                Err(Error::PortTaken { .. }) if started.elapsed() < PORT_PATIENCE => tokio::time::sleep(GLANCE).await,
                launched => return launched,
            }
        }
    }

    async fn launch(&mut self) -> Result<(), Error> {
        let ports = self.folder.join("ports");
        let _ = fs::remove_dir_all(&ports);
        private_folder(&ports)?;
        let configuration = self.folder.join("nats-server.conf");
        fs::write(&configuration, self.configuration(&ports))
            .map_err(Error::io(format!("write {}", configuration.display())))?;
        let mut server = Process::start(Program {
            file: self.program.clone(),
            arguments: vec!["--config".to_owned(), configuration.to_string_lossy().into_owned()],
            account: None,
            env: self.options.env.clone(),
            log: self.folder.join("nats-server.log"),
            last_signal: Signal::KILL,
        })?;
        // The server writes this file once it listens: somebody else on the port is not mistaken for it.
        let suffix = format!("_{}.ports", server.id());
        let listens = || {
            fs::read_dir(&ports).is_ok_and(|files| {
                files
                    .flatten()
                    .any(|f| f.file_name().to_string_lossy().ends_with(&suffix))
            })
        };
        match server.ready(PATIENCE, listens).await {
            Err(Error::Failed { log, .. }) if port::was_taken(&log) => Err(self.port_taken()),
            ready => {
                ready?;
                self.server = Some(server);
                Ok(())
            }
        }
    }

    /// nats-server reads JSON's members, too, and JSON quotes any path. Of what is said twice, it takes the last.
    fn configuration(&self, ports: &Path) -> String {
        let sync = if self.options.sync_always { "always" } else { "2m" };
        let own = [
            ("server_name", json!("posthaste-local")),
            ("listen", json!(format!("{}:{}", Ipv4Addr::LOCALHOST, self.port))),
            ("ports_file_dir", json!(ports)),
            (
                "jetstream",
                json!({
                    "store_dir": self.store(),
                    "max_memory_store": 256 << 20,
                    "max_file_store": self.options.storage,
                    "sync_interval": sync,
                }),
            ),
        ];
        let own = own.map(|(name, value)| format!("\n\"{name}\": {value}")).concat();
        format!("{}{own}\n", self.options.more)
    }

    fn port_taken(&self) -> Error {
        Error::PortTaken {
            server: NAME,
            port: self.port,
        }
    }
}

fn private_folder(folder: &Path) -> Result<PathBuf, Error> {
    let cannot = || Error::io(format!("make the folder {}", folder.display()));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(cannot())?;
    fs::canonicalize(folder).map_err(cannot())
}
