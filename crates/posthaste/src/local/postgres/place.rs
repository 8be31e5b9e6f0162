//! What lies beside the data: the folder itself, and the password.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rand::RngExt as _;
use rand::distr::Alphanumeric;

use crate::local::Error;
use crate::local::account::Account;

/// Makes the folder that holds the data, logs and password, and sees to it that the server's account can pass it.
pub(super) fn folder_for(folder: &Path, account: Option<&Account>) -> Result<PathBuf, Error> {
    let cannot = || Error::io(format!("make the folder {}", folder.display()));
    let mode = if account.is_some() { 0o711 } else { 0o700 };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .map_err(cannot())?;
    let folder = fs::canonicalize(folder).map_err(cannot())?;
    if let Some(account) = account
        && !account.can_pass(&folder)?
    {
        return Err(Error::Unreachable {
            folder,
            account: account.name.clone(),
        });
    }
    Ok(folder)
}

/// The password kept in `file`, or a new one. From the operating system's randomness: a seed would be a way to guess it.
pub(super) fn password(file: &Path) -> Result<String, Error> {
    match fs::read_to_string(file) {
        // Empty: an earlier start was interrupted while it wrote.
        Ok(kept) if !kept.is_empty() => return Ok(kept),
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Error::io(format!("read {}", file.display()))(error));
        }
        _ => {}
    }
    let password: String = rand::rng().sample_iter(Alphanumeric).take(32).map(char::from).collect();
    write_secret(file, &password)?;
    Ok(password)
}

pub(super) fn write_secret(file: &Path, secret: &str) -> Result<(), Error> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options
        .open(file)
        .and_then(|mut file| file.write_all(secret.as_bytes()));
    written.map_err(Error::io(format!("write {}", file.display())))
}
