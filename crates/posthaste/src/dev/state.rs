//! The folder of `posthaste dev`: the servers' data and the secrets it made up.
//!
//! ```text
//! lock               held while a `posthaste dev` uses the folder
//! admin-token        0600
//! encryption-keys    0600
//! nats-password      0600
//! nats/, postgres/   data of the private servers
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use common::{config, crypto, token};
use secrecy::{ExposeSecret as _, SecretString};

use super::Args;
use crate::local::Folder;

/// An open state folder.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
    guard: Guard,
}

#[derive(Debug)]
enum Guard {
    /// Ours alone until this is closed.
    Kept { _lock: File },
    /// Removed when this is dropped.
    Temporary { _folder: Folder },
}

/// What must not be shown to others.
#[derive(Debug)]
pub(super) struct Secrets {
    pub(super) admin_token: AdminToken,
    /// Of the private NATS: who may write there may make themselves an administrator.
    pub(super) nats_password: Password,
    pub(super) encryption: crypto::Config,
}

/// The administrator's token, and where a shell finds it.
#[derive(Debug, Clone)]
pub(super) struct AdminToken {
    pub(super) token: SecretString,
    /// What a shell replaces with the token.
    pub(super) in_shell: String,
}

/// A password, and where a shell finds it.
#[derive(Debug, Clone)]
pub(super) struct Password {
    pub(super) password: SecretString,
    /// What a shell replaces with the password.
    pub(super) in_shell: String,
}

impl State {
    /// Opens and locks the folder, which is made if it is not there; or makes a temporary one.
    pub(super) fn open(folder: Option<&Path>) -> anyhow::Result<Self> {
        let Some(folder) = folder else {
            let folder = Folder::temporary()?;
            return Ok(Self {
                folder: folder.path().to_owned(),
                guard: Guard::Temporary { _folder: folder },
            });
        };
        let cannot = || format!("cannot use the state folder {}", folder.display());
        // Where we are root, the account that Postgres runs as has to pass through; what is secret has its own mode.
        let mode = if rustix::process::geteuid().is_root() {
            0o711
        } else {
            0o700
        };
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(folder)
            .with_context(cannot)?;
        let folder = fs::canonicalize(folder).with_context(cannot)?;
        is_ours_alone(&folder).with_context(cannot)?;
        let lock = lock(&folder).with_context(cannot)?;
        Ok(Self {
            folder,
            guard: Guard::Kept { _lock: lock },
        })
    }

    /// Where it is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it is there for the next run, too.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self.guard, Guard::Kept { .. })
    }

    /// The secrets given, or else those of this folder, made up if it has none yet.
    pub(super) fn secrets(&self, args: &Args) -> anyhow::Result<Secrets> {
        let given = config::secret(
            "POSTHASTE_ADMIN_TOKEN",
            args.admin_token.as_ref(),
            args.admin_token_file.as_deref(),
        )?;
        let admin_token = match (given, &args.admin_token_file) {
            (Some(token), Some(file)) => AdminToken {
                token,
                in_shell: cat(file),
            },
            (Some(token), None) => AdminToken {
                token,
                in_shell: "$POSTHASTE_ADMIN_TOKEN".to_owned(),
            },
            (None, _) => {
                let file = self.folder.join("admin-token");
                AdminToken {
                    token: kept(&file, token::generate)?,
                    in_shell: cat(&file),
                }
            }
        };
        let mut encryption = args.encryption.clone();
        if encryption.encryption_keys.is_none() && encryption.encryption_keys_file.is_none() {
            let make = || format!("dev:{}", crypto::generate_key().expose_secret()).into();
            encryption.encryption_keys = Some(kept(&self.folder.join("encryption-keys"), make)?);
            if args.database_url.is_some() && !self.is_kept() {
                tracing::warn!(
                    "secrets are encrypted with a key that is gone at the end, but the database stays: \
                     give --state-dir or POSTHASTE_ENCRYPTION_KEYS to read them in the next run"
                );
            }
        }
        let file = self.folder.join("nats-password");
        Ok(Secrets {
            admin_token,
            nats_password: Password {
                password: kept(&file, token::generate)?,
                in_shell: cat(&file),
            },
            encryption,
        })
    }
}

/// Refuses a folder in which somebody else could put something in the place of our files.
fn is_ours_alone(folder: &Path) -> anyhow::Result<()> {
    let found = fs::metadata(folder)?;
    if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0 {
        bail!(
            "it holds secrets, and others may write into it: give it to yourself alone (chmod 700), or name another folder \
             in --state-dir"
        );
    }
    Ok(())
}

/// The lock ends with the process, however that ends.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            bail!("another `posthaste dev` is using it; stop that one, or give this one another --state-dir")
        }
        Err(TryLockError::Error(error)) => Err(error).context("it cannot be locked"),
    }
}

/// What the file holds; at first what `make` makes. It gets its name when it is whole.
fn kept(file: &Path, make: impl FnOnce() -> SecretString) -> anyhow::Result<SecretString> {
    match fs::read_to_string(file) {
        Ok(text) => return Ok(text.trim_end().to_owned().into()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
    let secret = make();
    let write = || {
        let unfinished = file.with_extension("unfinished");
        // What a process that died has left there, or somebody else has put there, a link perhaps, is not written to.
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        writeln!(options.open(&unfinished)?, "{}", secret.expose_secret())?;
        fs::rename(&unfinished, file)
    };
    write().with_context(|| format!("cannot write {}", file.display()))?;
    Ok(secret)
}

fn cat(file: &Path) -> String {
    let name = file.display().to_string();
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    if plain {
        format!("$(cat {name})")
    } else {
        format!("$(cat '{}')", name.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    fn no_args() -> Args {
        let command = Args::augment_args(Command::new("dev")).mut_args(|arg| arg.env(None::<&str>));
        Args::from_arg_matches(&command.get_matches_from(["dev"])).unwrap()
    }

    /// The folder that was in use until now: a process that another test is just starting may have its lock for as long as it
    /// takes to start.
    fn again(path: &Path) -> State {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            match State::open(Some(path)) {
                Ok(state) => return state,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error:#}"),
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn secrets_are_made_once_and_readable_by_the_owner_alone() {
        let folder = Folder::temporary().unwrap();
        let path = folder.path().join("state");
        let tokens = [0, 1].map(|_| {
            let state = again(&path);
            let secrets = state.secrets(&no_args()).unwrap();
            crypto::KeyRing::from_config(&secrets.encryption).unwrap();
            assert!(token::looks_like_token(secrets.admin_token.token.expose_secret()));
            secrets.admin_token.token.expose_secret().to_owned()
        });
        assert_eq!(tokens[0], tokens[1]);
        for file in ["admin-token", "encryption-keys", "nats-password", "lock"] {
            assert_eq!(
                path.join(file).metadata().unwrap().permissions().mode() & 0o777,
                0o600,
                "{file}"
            );
        }
    }

    #[test]
    fn two_cannot_share_a_folder() {
        let folder = Folder::temporary().unwrap();
        let first = State::open(Some(folder.path())).unwrap();
        let error = format!("{:#}", State::open(Some(folder.path())).unwrap_err());
        assert!(
            error.contains("another `posthaste dev`") && error.contains("--state-dir"),
            "{error}"
        );
        drop(first);
        again(folder.path());
    }

    #[test]
    fn a_folder_that_others_may_write_into_is_refused() {
        let folder = Folder::temporary().unwrap();
        let path = folder.path().join("state");
        fs::create_dir(&path).unwrap();
        for (mode, good) in [
            (0o755, true),
            (0o700, true),
            (0o775, false),
            (0o757, false),
            (0o1777, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let opened = State::open(Some(&path));
            assert_eq!(opened.is_ok(), good, "{mode:o}: {opened:?}");
            if let Err(error) = opened {
                assert!(format!("{error:#}").contains("others may write into it"), "{error:#}");
            }
        }
    }

    #[test]
    fn no_link_is_followed_to_where_a_secret_would_be_written() {
        let folder = Folder::temporary().unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "somebody's").unwrap();
        let path = folder.path().join("state");
        fs::create_dir(&path).unwrap();
        for name in ["admin-token", "encryption-keys", "nats-password"] {
            std::os::unix::fs::symlink(&elsewhere, path.join(name).with_extension("unfinished")).unwrap();
        }
        State::open(Some(&path)).unwrap().secrets(&no_args()).unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "somebody's");
        assert!(!path.join("admin-token").is_symlink());
    }

    #[test]
    fn given_secrets_are_used_and_not_written_down() {
        let state = State::open(None).unwrap();
        let args = Args {
            admin_token: Some("mine".into()),
            ..no_args()
        };
        let secrets = state.secrets(&args).unwrap();
        assert_eq!(secrets.admin_token.token.expose_secret(), "mine");
        assert_eq!(secrets.admin_token.in_shell, "$POSTHASTE_ADMIN_TOKEN");
        assert!(!state.folder().join("admin-token").exists());
    }

    #[test]
    fn a_shell_reads_any_path() {
        assert_eq!(cat(Path::new("/tmp/a-b/c.d")), "$(cat /tmp/a-b/c.d)");
        assert_eq!(cat(Path::new("/tmp/it's")), r"$(cat '/tmp/it'\''s')");
    }
}
