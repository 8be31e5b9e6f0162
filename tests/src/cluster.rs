//! The four services as processes of their own, over a private nats-server and Postgres.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use posthaste::local::{Folder, Nats, Postgres, nats, postgres};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{Api, eventually, eventually_within, nats_client};

/// Which service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes events in.
    Ingest,
    /// Delivers.
    Dispatcher,
    /// Records and retries.
    RetryScheduler,
    /// REST.
    ConfigApi,
}

impl Role {
    /// Every service.
    pub const ALL: [Self; 4] = [Self::ConfigApi, Self::RetryScheduler, Self::Dispatcher, Self::Ingest];

    /// Its name: subcommand and binary.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Dispatcher => "dispatcher",
            Self::RetryScheduler => "retry-scheduler",
            Self::ConfigApi => "config-api",
        }
    }
}

/// The user, and its password, that a service is known to nats-server by.
pub type NatsUsers = fn(Role) -> (&'static str, &'static str);

/// How a cluster is set up.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Further environment variables of every service.
    pub env: Vec<(&'static str, String)>,
    /// How nats-server is run.
    pub nats: nats::Options,
    /// The users by which services are known to it; without, all are its [`Nats::url`]'s.
    pub nats_users: Option<NatsUsers>,
    /// Whether Postgres waits for the disk, as it does in production; a test's data need not survive a power cut. What
    /// such a cluster has written is for measuring, and not searched for secrets.
    pub durable: bool,
}

/// A running cluster; gone when it is dropped.
pub struct Cluster {
    services: BTreeMap<Role, Service>,
    /// Further processes of services that run already.
    more: Vec<(Role, Child)>,
    /// The private nats-server.
    pub nats: Nats,
    /// The private Postgres.
    pub postgres: Postgres,
    /// The client of an administrator.
    pub admin: Api,
    env: Vec<(&'static str, String)>,
    /// Whether what it has written is searched for secrets at its end.
    is_searched: bool,
    nats_users: Option<NatsUsers>,
    // Last, so that it goes last.
    folder: Folder,
}

struct Service {
    child: Child,
    listen: String,
}

/// The administrator's token of every test cluster.
pub const ADMIN_TOKEN: &str = "ph_testadmintokentestadmintokentestadmin";

impl Cluster {
    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// Where a server or service does not start; its log is part of the error.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Setup::default()).await
    }

    /// [`Cluster::start`] with settings of its own.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_with(setup: Setup) -> anyhow::Result<Self> {
        let folder = Folder::temporary()?;
        let nats = Nats::start(&folder.path().join("nats"), &setup.nats).await?;
        let options = postgres::Options {
            durable: setup.durable,
            ..postgres::Options::default()
        };
        let postgres = Postgres::start(&folder.path().join("postgres"), &options).await?;
        let key = common::crypto::generate_key();
        let mut env = vec![
            ("NATS_URL", nats.url()),
            ("DATABASE_URL", postgres.url()),
            ("POSTHASTE_ADMIN_TOKEN", ADMIN_TOKEN.to_owned()),
            (
                "POSTHASTE_ENCRYPTION_KEYS",
                format!("test:{}", secrecy::ExposeSecret::expose_secret(&key)),
            ),
            ("POSTHASTE_EGRESS_ALLOW_HTTP", "true".to_owned()),
            ("POSTHASTE_EGRESS_ALLOW_CIDRS", "127.0.0.0/8,::1/128".to_owned()),
            // A test asks as fast as it can; those about limits set them.
            ("POSTHASTE_RATE_LIMIT", "0".to_owned()),
            ("POSTHASTE_INGEST_RATE_LIMIT", "0".to_owned()),
            ("POSTHASTE_DRAIN_DELAY", "0s".to_owned()),
            // Tests of what follows from failures have many; those about breakers set it.
            ("POSTHASTE_BREAKER_FAILURES", "0".to_owned()),
        ];
        env.extend(setup.env);
        let admin = Api::new("", "", ADMIN_TOKEN);
        let mut cluster = Self {
            services: BTreeMap::new(),
            more: Vec::new(),
            nats,
            postgres,
            admin,
            env,
            nats_users: setup.nats_users,
            folder,
            is_searched: !setup.durable,
        };
        for role in Role::ALL {
            cluster.spawn(role, "127.0.0.1:0", &[])?;
        }
        for role in Role::ALL {
            cluster.wait_ready(role).await?;
        }
        cluster.admin = Api::new(&cluster.url(Role::ConfigApi)?, &cluster.url(Role::Ingest)?, ADMIN_TOKEN);
        cluster.admin.canaries.add("administrator's token", ADMIN_TOKEN);
        cluster
            .admin
            .canaries
            .add("encryption key", secrecy::ExposeSecret::expose_secret(&key));
        Ok(cluster)
    }

    /// Creates a webhook for every event, with `more` members, and waits until it is in force: the API promises that
    /// only for a second later, and what a test publishes at once must not be missed.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn create_webhook(&self, project: &str, name: &str, url: &str, more: Value) -> anyhow::Result<Value> {
        let webhook = self.admin.create_webhook(project, name, url, more).await?;
        self.definitions_in_force().await?;
        Ok(webhook)
    }

    /// Waits until a webhook is active, where its endpoint is checked first, and that is in force.
    ///
    /// # Errors
    /// Where the API does not say so.
    pub async fn active(&self, project: &str, webhook: &str) -> anyhow::Result<()> {
        let path = format!("/v1/projects/{project}/webhooks/{webhook}");
        eventually("an active webhook", || async {
            let webhook = self.admin.ok(Method::GET, &path, None).await.ok()?;
            (webhook["state"] == "active").then_some(())
        })
        .await;
        // The state is published in the order of the outbox: once a later change is, it is.
        let path = format!("/v1/projects/{project}/tokens");
        self.admin.ok(Method::POST, &path, Some(&json!({}))).await?;
        self.definitions_in_force().await
    }

    /// Waits until ingest and dispatcher work by every definition published so far.
    ///
    /// # Errors
    /// Where NATS does not say how many there are.
    pub async fn definitions_in_force(&self) -> anyhow::Result<()> {
        let jetstream = async_nats::jetstream::new(nats_client(&self.nats.url()).await?);
        let bucket = jetstream.get_stream("KV_CONFIG").await?;
        let wanted = bucket.cached_info().state.last_sequence;
        for role in [Role::Ingest, Role::Dispatcher] {
            eventually("every definition in force", || async {
                let (_, metrics) = self.text(role, "/metrics").await.ok()?;
                let line = metrics
                    .lines()
                    .find(|line| line.starts_with("posthaste_definitions_revision"))?;
                let revision: u64 = line.rsplit(' ').next()?.parse().ok()?;
                (revision >= wanted).then_some(())
            })
            .await;
        }
        Ok(())
    }

    /// The base URL of a service.
    ///
    /// # Errors
    /// Where it was never ready.
    pub fn url(&self, role: Role) -> anyhow::Result<String> {
        self.services
            .get(&role)
            .map(|service| service.listen.clone())
            .context("not started")
    }

    /// The process of a service.
    #[must_use]
    pub fn process_id(&self, role: Role) -> Option<u32> {
        self.services.get(&role).map(|service| service.child.id())
    }

    /// The memory that a service has in RAM, in MiB.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn resident(&self, role: Role) -> anyhow::Result<u64> {
        let id = self.process_id(role).context("not started")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next());
        Ok(kibibytes.context("the kernel does not say")?.parse::<u64>()? / 1024)
    }

    /// Ends a service with SIGKILL, at whatever line it is.
    ///
    /// # Errors
    /// Where it cannot be signalled.
    pub fn kill(&mut self, role: Role) -> anyhow::Result<()> {
        let service = self.services.get_mut(&role).context("not started")?;
        service.child.kill()?;
        service.child.wait()?;
        Ok(())
    }

    /// Starts a further process of a service, beside those that run already, and waits until it is ready; gives its
    /// number.
    ///
    /// # Errors
    /// Where it does not become ready.
    pub async fn start_another(&mut self, role: Role) -> anyhow::Result<usize> {
        let number = self.more.len();
        let ready_file = self.folder.path().join(format!("another-{number}.ready"));
        let child = self.start_process(role, "127.0.0.1:0", &ready_file, &[])?;
        self.more.push((role, child));
        eventually("another process that is ready", || async {
            ready_file.exists().then_some(())
        })
        .await;
        Ok(number)
    }

    /// Ends one that [`Self::start_another`] has started with SIGKILL, at whatever line it is.
    ///
    /// # Errors
    /// Where it cannot be signalled.
    pub fn kill_another(&mut self, number: usize) -> anyhow::Result<()> {
        let (_, child) = self.more.get_mut(number).context("not started")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks a service to stop (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// Where it does not stop, or stops with a failure.
    pub async fn terminate(&mut self, role: Role) -> anyhow::Result<()> {
        let service = self.services.get_mut(&role).context("not started")?;
        let pid = Pid::from_raw(service.child.id().try_into()?).context("no process id")?;
        kill_process(pid, Signal::TERM)?;
        let deadline = std::time::Instant::now() + Duration::from_secs(80);
        loop {
            if let Some(status) = service.child.try_wait()? {
                ensure!(
                    status.success(),
                    "{} ended with {status}\n{}",
                    role.name(),
                    self.log(role)
                );
                return Ok(());
            }
            ensure!(std::time::Instant::now() < deadline, "{} does not stop", role.name());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts a service again, where it was before.
    ///
    /// # Errors
    /// Where it does not become ready.
    pub async fn restart(&mut self, role: Role) -> anyhow::Result<()> {
        self.begin(role)?;
        self.wait_ready(role).await
    }

    /// Starts a service again, where it was before, and does not wait until it is ready: see [`Cluster::ready`].
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn begin(&mut self, role: Role) -> anyhow::Result<()> {
        let listen = self.url(role)?;
        let listen = listen.strip_prefix("http://").unwrap_or(&listen).to_owned();
        self.spawn(role, &listen, &[])
    }

    /// Waits until a service is ready that [`Cluster::begin`] has started.
    ///
    /// # Errors
    /// Where it does not become ready.
    pub async fn ready(&mut self, role: Role) -> anyhow::Result<()> {
        self.wait_ready(role).await
    }

    /// Starts a service again with further environment variables that may have it end soon: waits until it is ready or
    /// has ended.
    ///
    /// # Errors
    /// Where it becomes neither.
    pub async fn restart_doomed(&mut self, role: Role, env: &[(&str, &str)]) -> anyhow::Result<()> {
        let listen = self.url(role)?;
        let listen = listen.strip_prefix("http://").unwrap_or(&listen).to_owned();
        self.spawn(role, &listen, env)?;
        match self.wait_ready(role).await {
            Err(_) if self.ended(role)?.is_some() => Ok(()),
            ready => ready,
        }
    }

    /// How a service has ended, if it has.
    ///
    /// # Errors
    /// Where it was never started.
    pub fn ended(&mut self, role: Role) -> anyhow::Result<Option<ExitStatus>> {
        let service = self.services.get_mut(&role).context("not started")?;
        Ok(service.child.try_wait()?)
    }

    /// What a service has logged.
    #[must_use]
    pub fn log(&self, role: Role) -> String {
        std::fs::read_to_string(self.log_path(role)).unwrap_or_default()
    }

    /// What a service answers to a plain GET: status and text.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn text(&self, role: Role, path: &str) -> anyhow::Result<(u16, String)> {
        self.admin.text(&format!("{}{path}", self.url(role)?)).await
    }

    fn log_path(&self, role: Role) -> PathBuf {
        self.folder.path().join(format!("{}.log", role.name()))
    }

    fn ready_file(&self, role: Role) -> PathBuf {
        self.folder.path().join(format!("{}.ready", role.name()))
    }

    fn spawn(&mut self, role: Role, listen: &str, env: &[(&str, &str)]) -> anyhow::Result<()> {
        let ready_file = self.ready_file(role);
        if ready_file.exists() {
            std::fs::remove_file(&ready_file)?;
        }
        let child = self.start_process(role, listen, &ready_file, env)?;
        let listen = format!("http://{listen}");
        self.services.insert(role, Service { child, listen });
        Ok(())
    }

    fn start_process(
        &self,
        role: Role,
        listen: &str,
        ready_file: &Path,
        env: &[(&str, &str)],
    ) -> anyhow::Result<Child> {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.log_path(role))?;
        // The kernel ends it when this test does, however that ends.
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program()?)
            .arg(role.name())
            .args(["--listen", listen])
            .arg("--ready-file")
            .arg(ready_file)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(self.nats_users.map(|users| {
                let (user, password) = users(role);
                ("NATS_URL", self.nats.url_of(user, password))
            }))
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", role.name()))
    }

    async fn wait_ready(&mut self, role: Role) -> anyhow::Result<()> {
        let path = self.ready_file(role);
        let log = self.log_path(role);
        let Some(service) = self.services.get_mut(&role) else {
            bail!("not started")
        };
        let child = &mut service.child;
        let ready = eventually_within(Duration::from_secs(60), role.name(), || {
            let ended = child.try_wait().ok().flatten();
            let text = std::fs::read_to_string(&path).ok();
            let log = &log;
            async move {
                match (ended, text) {
                    (Some(status), _) => Some(Err(format!(
                        "ended with {status}\n{}",
                        std::fs::read_to_string(log).unwrap_or_default()
                    ))),
                    (None, Some(text)) => Some(Ok(text)),
                    (None, None) => None,
                }
            }
        })
        .await;
        let ready: Value = serde_json::from_str(&ready.map_err(|error| anyhow::anyhow!("{}: {error}", role.name()))?)?;
        service.listen = ready["listen"]
            .as_str()
            .context("no `listen` in the ready file")?
            .to_owned();
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let more = self.more.iter_mut().map(|(_, child)| child);
        for child in self.services.values_mut().map(|service| &mut service.child).chain(more) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for role in Role::ALL {
                let log = self.log(role);
                let lines: Vec<&str> = log.lines().rev().take(40).collect();
                eprintln!("--- {} (its last lines)", role.name());
                lines.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        } else if self.is_searched {
            let found = self.admin.canaries.find_below(self.folder.path());
            assert!(found.is_empty(), "secrets were kept: {found:#?}");
        }
    }
}

/// The `posthaste` binary that was built with this test. One that is older than the sources is refused: it would be
/// tested instead of them.
///
/// # Errors
/// Where it is absent or old.
pub fn program() -> anyhow::Result<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = PROGRAM.get_or_init(|| find_program().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn find_program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    // target/<profile>/deps/<test>, or target/<profile>/<binary>
    let folder = own
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .context("no target folder")?;
    let program = folder.join("posthaste");
    let built = program.metadata().and_then(|metadata| metadata.modified());
    let built = built.with_context(|| format!("{} is missing: `make build` makes it", program.display()))?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    for sources in ["crates", "proto-schemas"] {
        if let Some(newer) = newer_source(&root.join(sources), built)? {
            bail!(
                "{} is older than {}: `make build` makes it anew",
                program.display(),
                newer.display()
            );
        }
    }
    Ok(program)
}

fn newer_source(folder: &Path, than: SystemTime) -> anyhow::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let newer = match path.is_dir() {
            // A crate's own tests are no part of the program.
            true if path.ends_with("tests") => None,
            true => newer_source(&path, than)?,
            false => (path.extension().is_some_and(|extension| extension == "rs")
                && path.metadata()?.modified()? > than)
                .then_some(path),
        };
        if newer.is_some() {
            return Ok(newer);
        }
    }
    Ok(None)
}
