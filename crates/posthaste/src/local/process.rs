//! A child process that ends when its launcher does, and the ways to end it before.
//!
//! The kernel signals a child when its parent ends, if the child asked for it. Asking needs a system call between fork
//! and exec, which safe Rust cannot make, so `setpriv` asks for it and then becomes the program. Two traps:
//! - *Parent* means the **thread** that forked. All children are therefore started by one thread that never ends.
//! - A launcher that dies between fork and the asking would never be noticed. So a shell between setpriv and the program
//!   compares its parent with the launcher and goes no further if that has changed.
//!
//! Each child leads a process group of its own: Ctrl-C on the terminal is for the launcher, which then stops its servers
//! in good order.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::Error;
use super::account::Account;

/// How often a child is looked at while something is expected of it.
pub(super) const GLANCE: Duration = Duration::from_millis(5);

/// How long a child that was asked to end is waited for before it is killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A child that is merely dropped gets less time: the drop blocks its thread.
const PATIENCE_IN_DROP: Duration = Duration::from_secs(3);

/// How much of a log an error repeats.
const LAST_WORDS: u64 = 2_000;

/// Variables that would change what Postgres' programs do.
const NOT_INHERITED: [&str; 10] = [
    "PGDATA",
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGUSER",
    "PGPASSWORD",
    "PGDATABASE",
    "PGOPTIONS",
    "PGSERVICE",
    "PGSSLMODE",
];

const GUARD: &str = r#"[ "$PPID" = "$1" ] || exit 1; shift; exec "$@""#;

/// What to run, and how it ends.
pub(super) struct Program<'a> {
    /// The file to run.
    pub(super) file: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// Who runs it, if not we ourselves.
    pub(super) account: Option<&'a Account>,
    /// Further environment variables.
    pub(super) env: Vec<(&'static str, String)>,
    /// Where its standard output and error go; emptied first.
    pub(super) log: PathBuf,
    /// The signal that ends it fast, be it that the launcher is gone or that the [`Process`] is dropped.
    pub(super) last_signal: Signal,
}

/// A running child. Dropped, it is ended and waited for.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    last_signal: Signal,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `program`.
    pub(super) fn start(program: Program<'_>) -> Result<Self, Error> {
        let name = program
            .file
            .file_name()
            .unwrap_or(program.file.as_os_str())
            .to_string_lossy()
            .into_owned();
        let out = File::create(&program.log).map_err(Error::io(format!("write {}", program.log.display())))?;
        let err = out
            .try_clone()
            .map_err(Error::io(format!("write {}", program.log.display())))?;

        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", signal_name(program.last_signal)]);
        if let Some(account) = program.account {
            let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
            command.args(["--reuid", uid.as_str(), "--regid", gid.as_str(), "--clear-groups"]);
        }
        command
            .args(["--", "sh", "-c", GUARD, "sh"])
            .arg(std::process::id().to_string());
        command.arg(&program.file).args(&program.arguments);
        for variable in NOT_INHERITED {
            command.env_remove(variable);
        }
        command.envs(program.env);
        command.env("LC_ALL", "C").current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(out).stderr(err);

        let child = spawn(command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::SetprivMissing,
            _ => Error::io(format!("start {name}"))(error),
        })?;
        Ok(Self {
            name,
            child,
            log: program.log,
            last_signal: program.last_signal,
            ended: None,
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        if self.ended.is_none() {
            self.ended = self
                .child
                .try_wait()
                .map_err(Error::io(format!("wait for {}", self.name)))?;
        }
        Ok(self.ended)
    }

    /// An error if it has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        self.ended()?.map_or(Ok(()), |status| Err(self.failed(status)))
    }

    /// Waits until `ready` says so. An error if the child ends before, or `patience` does.
    pub(super) async fn ready(&mut self, patience: Duration, mut ready: impl FnMut() -> bool) -> Result<(), Error> {
        let started = Instant::now();
        while !ready() {
            self.check()?;
            if started.elapsed() > patience {
                return Err(Error::TooSlow {
                    program: self.name.clone(),
                    after: patience,
                    log: self.last_words(),
                });
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Waits until it has ended by itself. An error if not with success, or not within `patience`.
    pub(super) async fn finish(mut self, patience: Duration) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            match self.ended()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failed(status)),
                None if started.elapsed() > patience => {
                    return Err(Error::TooSlow {
                        program: self.name.clone(),
                        after: patience,
                        log: self.last_words(),
                    });
                }
                None => tokio::time::sleep(GLANCE).await,
            }
        }
    }

    /// Asks it to end, and kills it if it does not.
    pub(super) async fn stop(&mut self, signal: Signal) -> Result<(), Error> {
        self.signal(signal);
        let asked = Instant::now();
        while self.ended()?.is_none() {
            if asked.elapsed() > PATIENCE {
                tracing::warn!(server = self.name, "did not stop when asked; killing it");
                return self.kill();
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// SIGKILL to the whole process group; returns when the child is gone.
    pub(super) fn kill(&mut self) -> Result<(), Error> {
        if self.ended()?.is_none() {
            if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
                // No such group: it has just ended.
                let _ = kill_process_group(pid, Signal::KILL);
            }
            let cannot = || Error::io(format!("kill {}", self.name));
            self.child.kill().map_err(cannot())?;
            self.ended = Some(self.child.wait().map_err(cannot())?);
        }
        Ok(())
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("({} cannot be read: {error})", self.log.display()))
    }

    fn failed(&self, status: ExitStatus) -> Error {
        Error::Failed {
            program: self.name.clone(),
            status: status.to_string(),
            log: self.last_words(),
        }
    }

    /// The child is ours and not yet waited for, so its id cannot have passed to another process.
    fn signal(&mut self, signal: Signal) {
        if self.ended.is_none()
            && let Some(pid) = Pid::from_raw(self.child.id().cast_signed())
        {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(self.last_signal);
        let asked = Instant::now();
        while self.ended().is_ok_and(|ended| ended.is_none()) && asked.elapsed() < PATIENCE_IN_DROP {
            thread::sleep(GLANCE);
        }
        if let Err(error) = self.kill() {
            tracing::warn!(server = self.name, %error, "may still be running");
        }
    }
}

/// Starts `command` from the one thread that lives as long as this process.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::SyncSender<io::Result<Child>>);
    static ORDERS: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (orders, received) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in received {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, answered) = mpsc::sync_channel(1);
    let gone = || io::Error::other("the thread that starts children is gone");
    orders.send((command, answer)).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

fn tail(log: &Path) -> io::Result<String> {
    let mut file = fs::File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// As setpriv wants it.
fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::QUIT => "QUIT",
        _ => "KILL",
    }
}
