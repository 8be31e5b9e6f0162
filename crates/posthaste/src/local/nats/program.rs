//! Which nats-server to run.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{NAME, Options};
use crate::local::{Error, config};

/// The oldest version whose streams do what ours need.
const OLDEST: Version = Version(2, 12, 0);

/// The first server that is new enough; the one named in the options, or those of PATH and of the checkout.
pub(super) fn find(options: &Options) -> Result<PathBuf, Error> {
    if let Some(program) = &options.program {
        check(program)?;
        return Ok(program.clone());
    }
    let checkout = PathBuf::from(config::CHECKOUT_PROGRAMS);
    let mut folders = config::search_path();
    folders.push(checkout.clone());
    let mut refused = None;
    for candidate in config::find(&folders, NAME) {
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or(Error::NatsServerMissing { checkout }))
}

fn check(program: &Path) -> Result<(), Error> {
    let answer = Command::new(program)
        .arg("--version")
        .output()
        .map_err(Error::io(format!("run {} --version", program.display())))?;
    let answer = String::from_utf8_lossy(&answer.stdout);
    match Version::parse(&answer) {
        Some(found) if found >= OLDEST => Ok(()),
        Some(found) => Err(Error::NatsServerTooOld {
            program: program.to_owned(),
            found: found.to_string(),
            needed: OLDEST.to_string(),
        }),
        None => Err(Error::NotNatsServer {
            program: program.to_owned(),
            answer: answer.trim().to_owned(),
        }),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32, u32);

impl Version {
    /// Of `nats-server: v2.15.1`; what follows the third number (`-RC.1`) does not count.
    fn parse(answer: &str) -> Option<Self> {
        let mut numbers = answer.trim().strip_prefix("nats-server: v")?.splitn(3, '.');
        let mut next = || {
            let text = numbers.next()?;
            text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        Some(Self(next()?, next()?, next()?))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered_by_number() {
        assert_eq!(Version::parse("nats-server: v2.15.1\n"), Some(Version(2, 15, 1)));
        assert_eq!(Version::parse("nats-server: v2.14.0-RC.2"), Some(Version(2, 14, 0)));
        assert!(Version(2, 9, 10) < OLDEST && OLDEST <= Version(2, 12, 0) && OLDEST < Version(3, 0, 0));
        for other in [
            "",
            "2.15.1",
            "nats-server: v",
            "nats-server: v2.x.1",
            "nginx version: 1.2.3",
        ] {
            assert_eq!(Version::parse(other), None, "{other}");
        }
    }
}
