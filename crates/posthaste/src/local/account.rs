//! The account that Postgres runs as.
//!
//! Postgres refuses to run as root. Root therefore runs it as `postgres`, which Debian's package makes, or else as
//! `nobody`; anybody else runs it as themselves.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use super::Error;

/// An account to change to before a program is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// The account for Postgres; `None` stands for our own.
    pub(super) fn for_postgres() -> Result<Option<Self>, Error> {
        if !we_are_root() {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").map_err(Error::io("read /etc/passwd"))?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| find(&accounts, name))
            .map(Some)
            .ok_or(Error::NoAccount)
    }

    /// Gives `path` to the account.
    pub(super) fn own(&self, path: &Path) -> Result<(), Error> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).map_err(Error::io(format!(
            "give {} to {}",
            path.display(),
            self.name
        )))
    }

    /// Whether the account can get into `folder`.
    pub(super) fn can_pass(&self, folder: &Path) -> Result<bool, Error> {
        let (uid, gid) = (self.uid.to_string(), self.gid.to_string());
        Command::new("setpriv")
            .args([
                "--reuid",
                uid.as_str(),
                "--regid",
                gid.as_str(),
                "--clear-groups",
                "--",
                "test",
                "-x",
            ])
            .arg(folder)
            .current_dir("/")
            .status()
            .map(|status| status.success())
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Error::SetprivMissing,
                _ => Error::io("run setpriv")(error),
            })
    }
}

pub(super) fn we_are_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `name:password:uid:gid:…`, as passwd(5) has it.
fn find(accounts: &str, name: &str) -> Option<Account> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (uid != 0).then(|| Account {
            name: name.to_owned(),
            uid,
            gid,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNTS: &str =
        "root:x:0:0:root:/root:/bin/sh\npostgres2:x:9:9::/:\npostgres:x:101:104:PostgreSQL,,,:/v:/bin/bash\n";

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        assert_eq!(
            find(ACCOUNTS, "postgres"),
            Some(Account {
                name: "postgres".to_owned(),
                uid: 101,
                gid: 104
            })
        );
        assert_eq!(find(ACCOUNTS, "nobody"), None);
    }

    #[test]
    fn root_by_another_name_is_no_account_for_postgres() {
        assert_eq!(find("postgres:x:0:0::/:/bin/sh\n", "postgres"), None);
    }
}
