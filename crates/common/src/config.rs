//! Values as people write them on a command line or in the environment.
//!
//! Each service has one clap struct; these are the parsers its fields name:
//!
//! ```
//! # use std::{path::PathBuf, time::Duration};
//! # use common::config;
//! # use secrecy::SecretString;
//! #[derive(clap::Args, Clone, Debug)]
//! struct Config {
//!     /// Give up on a request after this long.
//!     #[arg(long, env = "POSTHASTE_TIMEOUT", default_value = "30s", value_parser = config::duration)]
//!     timeout: Duration,
//!     /// The longest body taken.
//!     #[arg(long, env = "POSTHASTE_MAX_BODY", default_value = "256KiB", value_parser = config::size::<u64>)]
//!     max_body: usize,
//!     /// What admins send.
//!     #[arg(long, env = "POSTHASTE_ADMIN_TOKEN", hide_env_values = true, value_parser = config::secret_text)]
//!     admin_token: Option<SecretString>,
//!     /// A file that holds it.
//!     #[arg(long, env = "POSTHASTE_ADMIN_TOKEN_FILE")]
//!     admin_token_file: Option<PathBuf>,
//! }
//! ```

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

/// Why a setting cannot be used, though clap could read it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A secret that has to be there is not.
    #[error("set {0}, or {0}_FILE to the path of a file that holds it")]
    Missing(&'static str),
    /// Two sources for one secret.
    #[error("{0} and {0}_FILE are both set; keep one of them")]
    SetTwice(&'static str),
    /// A secret of no characters would let everybody in.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// The file of a secret cannot be read.
    #[error("cannot read {path}, which {name}_FILE names")]
    Unreadable {
        /// The environment variable without `_FILE`.
        name: &'static str,
        /// The path it holds.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads `30s`, `1m 30s` or `250ms`; a bare `0` is no time at all.
///
/// # Errors
/// Text that says what is expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text.trim()).map_err(|error| format!("{error}; write it like 30s, 5m or 250ms"))
}

/// Units of [`size`]: binary ones as IEC 80000-13 writes them, and the decimal ones.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads `256KiB`, `1MiB`, `64kB` or a bare number of bytes, as whatever number its reader counts in.
///
/// # Errors
/// Text that says what is expected.
pub fn size<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| "not a size; write it like 256KiB, 1MiB or 4096".to_owned())?;
    let factor = match unit.trim() {
        "" => 1,
        unit => UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .map(|(_, factor)| *factor)
            .ok_or_else(|| format!("`{unit}` is not a unit of size; use B, KiB, MiB, GiB, TiB, kB, MB, GB or TB"))?,
    };
    let bytes = number
        .checked_mul(factor)
        .ok_or_else(|| format!("{text} is too large"))?;
    T::try_from(bytes).map_err(|_| format!("{text} is too large"))
}

/// Takes a secret as it stands. Its `Debug` shows nothing.
///
/// # Errors
/// None; clap wants a `Result`.
pub fn secret_text(text: &str) -> Result<SecretString, Infallible> {
    Ok(SecretString::from(text))
}

/// A secret that may be given as text or in a file, where one line end at its end is dropped.
///
/// `name` is the variable of the text; the file's is `<name>_FILE`.
///
/// # Errors
/// Both are set, the file cannot be read as UTF-8, or the secret is empty.
pub fn secret(
    name: &'static str,
    text: Option<&SecretString>,
    file: Option<&Path>,
) -> Result<Option<SecretString>, Error> {
    let secret = match (text, file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(Error::SetTwice(name)),
        (Some(text), None) => text.clone(),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .map(SecretString::from)
                .map_err(|source| Error::Unreadable {
                    name,
                    path: path.to_owned(),
                    source,
                })?;
            let line = text.expose_secret();
            let line = line.strip_suffix('\n').unwrap_or(line);
            SecretString::from(line.strip_suffix('\r').unwrap_or(line))
        }
    };
    if secret.expose_secret().trim().is_empty() {
        return Err(Error::Empty(name));
    }
    Ok(Some(secret))
}

/// As [`secret`], for one the service cannot start without.
///
/// # Errors
/// As [`secret`], and if neither is set.
pub fn required_secret(
    name: &'static str,
    text: Option<&SecretString>,
    file: Option<&Path>,
) -> Result<SecretString, Error> {
    secret(name, text, file)?.ok_or(Error::Missing(name))
}

/// Whether a host, by name or address, is the machine this runs on: what goes there is on no network.
#[must_use]
pub fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const NAME: &str = "POSTHASTE_ADMIN_TOKEN";

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration(" 1m 30s "), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("soon").unwrap_err().contains("write it like 30s"));
        assert!(duration("30").unwrap_err().contains("write it like 30s"));
        assert!(duration("-1s").is_err());
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(size::<u64>("4096"), Ok(4096));
        assert_eq!(size::<u64>("256KiB"), Ok(256 * 1024));
        assert_eq!(size::<u64>(" 2 mib "), Ok(2 * 1024 * 1024));
        assert_eq!(size::<u64>("64kB"), Ok(64_000));
        assert!(size::<u64>("lots").unwrap_err().contains("write it like 256KiB"));
        assert!(size::<u64>("1 parsec").unwrap_err().contains("`parsec` is not a unit"));
        assert!(size::<u64>("-1").is_err());
        assert!(size::<u64>("1.5MiB").is_err());
        assert!(size::<u64>("99999999999TiB").unwrap_err().contains("too large"));
    }

    #[test]
    fn this_machine_is_known_by_its_loopback_addresses() {
        for host in [
            "localhost",
            "LocalHost",
            "127.0.0.1",
            "127.8.9.1",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "nats",
            "10.0.0.1",
            "localhost.example.com",
            "::",
            "0.0.0.0",
            "fe80::1",
            "",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn a_secret_comes_from_text_or_from_a_file_but_not_from_both() {
        let text = SecretString::from("from text");
        let file = file(b"from a file\r\n");
        let read = |text, path| secret(NAME, text, path).map(|s| s.map(|s| s.expose_secret().to_owned()));
        assert_eq!(read(Some(&text), None).unwrap().as_deref(), Some("from text"));
        assert_eq!(read(None, Some(file.path())).unwrap().as_deref(), Some("from a file"));
        assert_eq!(read(None, None).unwrap(), None);
        assert!(matches!(
            read(Some(&text), Some(file.path())),
            Err(Error::SetTwice(NAME))
        ));
    }

    #[test]
    fn an_empty_or_absent_or_unreadable_secret_is_refused_by_name() {
        let empty = file(b"\n");
        assert!(matches!(
            secret(NAME, None, Some(empty.path())),
            Err(Error::Empty(NAME))
        ));
        assert!(matches!(
            secret(NAME, Some(&SecretString::from("")), None),
            Err(Error::Empty(NAME))
        ));
        let error = required_secret(NAME, None, None).unwrap_err().to_string();
        assert_eq!(
            error,
            "set POSTHASTE_ADMIN_TOKEN, or POSTHASTE_ADMIN_TOKEN_FILE to the path of a file that holds it"
        );
        let error = secret(NAME, None, Some(Path::new("/nowhere/at/all")))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "cannot read /nowhere/at/all, which POSTHASTE_ADMIN_TOKEN_FILE names"
        );
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        let Ok(secret) = secret_text("canary");
        assert!(!format!("{secret:?}").contains("canary"));
    }
}
