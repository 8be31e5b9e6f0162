//! A private Postgres, on a Unix socket of its own and a free port of 127.0.0.1.
//!
//! Who may connect: whoever may put SQL to a Postgres as its superuser can run programs as the account it runs as.
//! The port can be reached by every user of this machine, so there a random password is needed (SCRAM), which a file
//! that only we can read keeps. The socket lies in a folder that only the server's account (and root) can enter, so there
//! everybody is trusted. [`Postgres::url`] goes through the socket, which is also the faster way.
//!
//! The databases belong to a role of their own, as they should anywhere: Postgres keeps projects apart for it, and not for
//! a superuser.

mod place;
mod programs;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use self::place::{folder_for, password, write_secret};
use super::account::Account;
use super::process::{GLANCE, Process, Program};
use super::{Error, Folder, config, port};

/// What to do about a missing server.
pub(super) const FIX: &str = "install Debian's package `postgresql` (`make setup` in a checkout of Posthaste does), \
     or name its folder of programs in POSTHASTE_POSTGRES_BIN, or a running server in DATABASE_URL";

/// Recovery after a kill can take a while.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a restart waits for what the server before it still holds: its port, its shared memory.
const HANDOVER: Duration = Duration::from_secs(15);

/// The longest path that fits a `sockaddr_un`, its closing zero not counted.
const LONGEST_SOCKET_PATH: usize = 107;

const NAME: &str = "postgres";
/// Whose the databases are, and who the services are; neither a superuser nor exempt from row-level security.
const OWNER: &str = "posthaste";
const SUPERUSER: &str = "postgres";
/// The superuser of clusters made before there was an owner. They are kept as they are.
const SUPERUSER_BEFORE: &str = OWNER;
const DATABASE: &str = "posthaste";

/// How a private Postgres is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of its programs; `None` looks for one. By default what `POSTHASTE_POSTGRES_BIN` says.
    pub programs: Option<PathBuf>,
    /// Whether what is committed must survive a power cut. A killed server loses nothing either way; data that goes with
    /// its temporary folder need not wait for the disk.
    pub durable: bool,
    /// Certificate and key, in PEM: TLS is spoken on the port with whoever asks for it.
    pub tls: Option<Tls>,
}

/// What a server shows of itself.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Its certificate, in PEM.
    pub certificate: String,
    /// The certificate's key, in PEM.
    pub key: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            programs: config::path(config::POSTGRES_BIN),
            durable: false,
            tls: None,
        }
    }
}

/// A private Postgres. Dropped, it is stopped.
#[derive(Debug)]
pub struct Postgres {
    // Before `run`, so that it is dropped first.
    server: Option<Process>,
    programs: PathBuf,
    options: Options,
    account: Option<Account>,
    folder: PathBuf,
    superuser: &'static str,
    password: String,
    port: u16,
    /// The socket's folder. Not in `folder`: a socket's path must be short, and the place of kept data need not be.
    run: Folder,
}

impl Postgres {
    /// Starts a server whose data is in `folder`, which is made if it is not there. Returns when clients can connect to
    /// its database `posthaste`.
    ///
    /// # Errors
    /// The server is missing or too old, its folder cannot be used, or it does not start: then with its last words.
    pub async fn start(folder: &Path, options: &Options) -> Result<Self, Error> {
        let programs = programs::find(options)?;
        let account = Account::for_postgres()?;
        let run = Folder::temporary()?;
        if let Some(account) = &account {
            account.own(run.path())?;
        }
        // The socket trusts whoever reaches it, so only the server's account may.
        fs::set_permissions(run.path(), fs::Permissions::from_mode(0o700))
            .map_err(Error::io(format!("close {}", run.path().display())))?;
        let folder = folder_for(folder, account.as_ref())?;
        let password = password(&folder.join("password"))?;
        let mut postgres = Self {
            server: None,
            programs,
            options: options.clone(),
            account,
            folder,
            superuser: SUPERUSER,
            password,
            port: 0,
            run,
        };
        postgres.initialise().await?;
        postgres.write_certificate()?;
        postgres.launch_on_a_free_port().await?;
        postgres.make_owner().await?;
        match postgres.create_database(DATABASE).await {
            // It was kept from an earlier run.
            Err(Error::Failed { log, .. }) if log.contains("already exists") => Ok(postgres),
            created => created.map(|_| postgres),
        }
    }

    /// The database `posthaste`, as its owner, through the socket; the same over restarts.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(OWNER, DATABASE)
    }

    /// The same as the server's superuser, for whom nothing is hidden: for backups, and for tests that look behind the
    /// services.
    #[must_use]
    pub fn superuser_url(&self) -> String {
        self.url_of(self.superuser, DATABASE)
    }

    /// The database `posthaste` through the port of 127.0.0.1, password included; the same over restarts.
    #[must_use]
    pub fn tcp_url(&self) -> String {
        format!(
            "postgres://{OWNER}:{}@{}:{}/{DATABASE}",
            self.password,
            Ipv4Addr::LOCALHOST,
            self.port
        )
    }

    /// The port; the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster's process, while it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.server.as_ref().map(Process::id)
    }

    /// Makes another, empty database. Returns its URL, as its owner, through the socket.
    ///
    /// # Errors
    /// There is one of this name, or the server does not run.
    pub async fn create_database(&self, name: &str) -> Result<String, Error> {
        let wanted = ["--maintenance-db=postgres", "--owner", OWNER, "--", name];
        self.run("createdb", self.as_superuser(&wanted))
            .await
            .map(|()| self.url_of(OWNER, name))
    }

    /// Makes the role that owns the databases, unless there is one.
    async fn make_owner(&mut self) -> Result<(), Error> {
        // A password has no place among a program's arguments, which everybody may read.
        let statements = self.run.path().join("owner.sql");
        let sql = format!(
            "SELECT 'CREATE ROLE {OWNER} LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{OWNER}') \\gexec
             ALTER ROLE {OWNER} PASSWORD '{}';",
            self.password
        );
        write_secret(&statements, &sql)?;
        if let Some(account) = &self.account {
            account.own(&statements)?;
        }
        let file = format!("--file={}", statements.to_string_lossy());
        let wanted = ["--no-psqlrc", "--set=ON_ERROR_STOP=1", &file, "--dbname=postgres"];
        let made = self.run("psql", self.as_superuser(&wanted)).await;
        fs::remove_file(&statements).map_err(Error::io("remove the statements that make the owner"))?;
        match made {
            Err(Error::Failed { log, .. }) if log.contains("role \"postgres\" does not exist") => {
                self.superuser = SUPERUSER_BEFORE;
                Ok(())
            }
            made => made,
        }
    }

    fn as_superuser(&self, more: &[&str]) -> Vec<String> {
        let (socket, port) = (self.run.path().to_string_lossy(), self.port.to_string());
        let who = [
            "--host",
            &*socket,
            "--port",
            &*port,
            "--username",
            self.superuser,
            "--no-password",
        ];
        who.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
    }

    /// Looks whether it still runs.
    ///
    /// # Errors
    /// It has ended by itself: then with its last words.
    pub fn check(&mut self) -> Result<(), Error> {
        self.server.as_mut().map_or(Ok(()), Process::check)
    }

    /// Stops it in good order: connections are ended, data is written out. Its folder stays.
    ///
    /// # Errors
    /// The operating system refuses to say whether it has ended.
    pub async fn stop(&mut self) -> Result<(), Error> {
        match self.server.take() {
            Some(mut server) => server.stop(Signal::INT).await,
            None => Ok(()),
        }
    }

    /// SIGKILL to the postmaster; its children see that and end by themselves. Its folder stays as it is (and so do, until
    /// it is started again, the 56 bytes of shared memory by which it knows that nobody else uses the folder).
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.server.take().map_or(Ok(()), |mut server| server.kill())
    }

    /// Stops it if it runs, and starts it on the same data, socket and port.
    ///
    /// # Errors
    /// It does not start, or its port is [`Error::PortTaken`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.stop().await?;
        let started = Instant::now();
        loop {
            match self.launch().await {
                Err(Error::PortTaken { .. }) if started.elapsed() < HANDOVER => tokio::time::sleep(GLANCE).await,
                launched => return launched,
            }
        }
    }

    fn url_of(&self, role: &str, database: &str) -> String {
        let socket = self
            .run
            .path()
            .to_string_lossy()
            .replace('%', "%25")
            .replace('/', "%2F");
        format!("postgres://{role}@localhost:{}/{database}?host={socket}", self.port)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Makes the cluster, unless there is one. It gets its final name when it is whole, so that an interruption leaves
    /// nothing that looks like a cluster.
    async fn initialise(&self) -> Result<(), Error> {
        if self.data().exists() {
            return Ok(());
        }
        let unfinished = self.folder.join("data.unfinished");
        let cannot = || Error::io(format!("make the folder {}", self.data().display()));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(cannot())?;
        }
        let password = self.run.path().join("password");
        write_secret(&password, &self.password)?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&unfinished)
            .map_err(cannot())?;
        if let Some(account) = &self.account {
            account.own(&password)?;
            account.own(&unfinished)?;
        }
        let arguments = [
            format!("--pgdata={}", unfinished.to_string_lossy()),
            format!("--username={SUPERUSER}"),
            format!("--pwfile={}", password.to_string_lossy()),
            "--auth-local=trust".to_owned(),
            "--auth-host=scram-sha-256".to_owned(),
            "--encoding=UTF8".to_owned(),
            "--locale=C".to_owned(),
            "--no-sync".to_owned(),
            "--no-instructions".to_owned(),
        ];
        self.run("initdb", arguments.into()).await?;
        fs::remove_file(&password).map_err(cannot())?;
        fs::rename(&unfinished, self.data()).map_err(cannot())
    }

    /// Where certificate and key are; the server reads them as its account.
    fn certificate(&self) -> [PathBuf; 2] {
        ["server.crt", "server.key"].map(|name| self.folder.join(name))
    }

    fn write_certificate(&self) -> Result<(), Error> {
        let Some(tls) = &self.options.tls else { return Ok(()) };
        for (file, text) in self.certificate().iter().zip([&tls.certificate, &tls.key]) {
            write_secret(file, text)?;
            if let Some(account) = &self.account {
                account.own(file)?;
            }
        }
        Ok(())
    }

    async fn launch_on_a_free_port(&mut self) -> Result<(), Error> {
        for _ in 0..port::TRIES {
            self.port = port::propose();
            match self.launch().await {
                Err(Error::PortTaken { .. }) => {}
                launched => return launched,
            }
        }
        Err(self.port_taken())
    }

    async fn launch(&mut self) -> Result<(), Error> {
        let socket = self.run.path().join(format!(".s.PGSQL.{}", self.port));
        if socket.as_os_str().len() > LONGEST_SOCKET_PATH {
            return Err(Error::SocketPathTooLong { path: socket });
        }
        let started = Instant::now();
        loop {
            let mut server = Process::start(self.server_program())?;
            let (id, data) = (server.id(), self.data());
            match server.ready(PATIENCE, || accepts_connections(&data, id)).await {
                Err(Error::Failed { log, .. }) if port::was_taken(&log) => return Err(self.port_taken()),
                // The server before it was killed, perhaps with its launcher, and its children have yet to notice.
                Err(Error::Failed { log, .. }) if is_still_held(&log) && started.elapsed() < HANDOVER => {
                    tokio::time::sleep(GLANCE).await;
                }
                ready => {
                    ready?;
                    self.server = Some(server);
                    return Ok(());
                }
            }
        }
    }

    fn server_program(&self) -> Program<'_> {
        let settings = [
            format!("listen_addresses={}", Ipv4Addr::LOCALHOST),
            format!("port={}", self.port),
            // A list of names; the quotes keep a comma or a space in the path from ending one.
            format!(
                "unix_socket_directories=\"{}\"",
                self.run.path().to_string_lossy().replace('"', "\"\"")
            ),
            "unix_socket_permissions=0700".to_owned(),
            "max_connections=200".to_owned(),
            // Shared memory as files in the data folder, and so gone with it even after a kill.
            "dynamic_shared_memory_type=mmap".to_owned(),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
            format!("fsync={}", if self.options.durable { "on" } else { "off" }),
            format!("full_page_writes={}", if self.options.durable { "on" } else { "off" }),
        ];
        let [certificate, key] = self.certificate();
        let tls = self.options.tls.as_ref().map(|_| {
            [
                "ssl=on".to_owned(),
                format!("ssl_cert_file={}", certificate.display()),
                format!("ssl_key_file={}", key.display()),
            ]
        });
        let settings = settings.into_iter().chain(tls.into_iter().flatten());
        let mut arguments = vec!["-D".to_owned(), self.data().to_string_lossy().into_owned()];
        arguments.extend(settings.flat_map(|setting| ["-c".to_owned(), setting]));
        // SIGQUIT: the postmaster ends its children and itself at once.
        self.program(NAME, arguments, Signal::QUIT)
    }

    fn program(&self, name: &str, arguments: Vec<String>, last_signal: Signal) -> Program<'_> {
        Program {
            file: self.programs.join(name),
            arguments,
            account: self.account.as_ref(),
            env: Vec::new(),
            log: self.folder.join(format!("{name}.log")),
            last_signal,
        }
    }

    /// Runs one of Postgres' programs to its end.
    async fn run(&self, name: &str, arguments: Vec<String>) -> Result<(), Error> {
        Process::start(self.program(name, arguments, Signal::KILL))?
            .finish(PATIENCE)
            .await
    }

    fn port_taken(&self) -> Error {
        Error::PortTaken {
            server: NAME,
            port: self.port,
        }
    }
}

/// What the postmaster says of itself in its pid file: its process in the first line, its state in the eighth. Somebody
/// else on the port is not mistaken for it.
fn accepts_connections(data: &Path, process: u32) -> bool {
    let said = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let mut lines = said.lines().map(str::trim);
    lines.next() == Some(process.to_string().as_str()) && lines.nth(6) == Some("ready")
}

fn is_still_held(log: &str) -> bool {
    log.contains("pre-existing shared memory block") || log.contains("\"postmaster.pid\" already exists")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_own_ready_counts() {
        let folder = Folder::temporary().unwrap();
        let said = |lines: &str| fs::write(folder.path().join("postmaster.pid"), lines).unwrap();
        assert!(!accepts_connections(folder.path(), 7));
        said("7\n/d\n1\n5432\n/run\n127.0.0.1\n  1 2\nstarting\n");
        assert!(!accepts_connections(folder.path(), 7));
        said("7\n/d\n1\n5432\n/run\n127.0.0.1\n  1 2\nready   \n");
        assert!(accepts_connections(folder.path(), 7));
        assert!(!accepts_connections(folder.path(), 77));
    }
}
