//! A temporary folder that is gone when its launcher is, whatever the launcher died of.
//!
//! A keeper, a tiny shell, makes the folder and then waits for the end of its standard input, whose other end only the
//! launcher holds. That end comes when the [`Folder`] is dropped, and also when the launcher is killed. The keeper sits
//! in a process group of its own, so that Ctrl-C on the terminal does not reach it, and ignores what asks it to stop.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Error, account, config};

/// Servers that are still dying may write while the folder is removed; so it is tried for ten seconds.
const KEEPER: &str = r#"
trap '' HUP INT TERM PIPE
umask 077
folder=$(mktemp -d -- "$1/posthaste-XXXXXXXX") || exit 1
chmod "$2" "$folder"
printf '%s\n' "$folder"
exec >&- 2>/dev/null
read -r _
tries=0
until rm -rf -- "$folder" || [ "$tries" -ge 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
"#;

/// A temporary folder, removed with all that is in it when dropped or when this process ends.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    keeper: Child,
}

impl Folder {
    /// Makes a folder under TMPDIR (or `/tmp`) that only we can look into.
    ///
    /// Where we are root, others may pass through it if they know the names below it, because the account that runs
    /// Postgres must.
    ///
    /// # Errors
    /// There it cannot be made.
    pub fn temporary() -> Result<Self, Error> {
        Self::within(&config::temporary())
    }

    fn within(parent: &Path) -> Result<Self, Error> {
        let cannot = || format!("make a temporary folder in {}", parent.display());
        // The keeper works elsewhere, so that it holds no folder in use.
        let parent = std::path::absolute(parent).map_err(Error::io(cannot()))?;
        let mode = if account::we_are_root() { "711" } else { "700" };
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "posthaste-keeper"])
            .arg(parent)
            .arg(mode)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(Error::io(cannot()))?;
        let mut line = String::new();
        if let Some(stdout) = keeper.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(Error::io(cannot()))?;
        }
        if line.pop() != Some('\n') {
            // mktemp has said why, on our standard error
            let _ = keeper.wait();
            return Err(Error::io(cannot())(std::io::Error::other("mktemp failed")));
        }
        Ok(Self {
            path: PathBuf::from(line),
            keeper,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        if let Err(error) = self.keeper.wait() {
            tracing::warn!(%error, folder = %self.path.display(), "cannot wait for a temporary folder to be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_all_that_is_in_it() {
        let folder = Folder::temporary().unwrap();
        let path = folder.path().to_owned();
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        std::fs::write(path.join("a/b/c"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn nobody_else_may_look_into_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = Folder::temporary().unwrap();
        let mode = folder.path().metadata().unwrap().permissions().mode();
        // Who knows a name below it may pass through where we are root.
        let allowed = if account::we_are_root() { 0o011 } else { 0 };
        assert_eq!(mode & 0o777, 0o700 | allowed);
    }

    #[test]
    fn a_parent_that_is_not_there_is_named() {
        let error = Folder::within(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(error.to_string(), "cannot make a temporary folder in /nonexistent");
    }
}
