//! Where Postgres' programs are.

use std::fs;
use std::path::{Path, PathBuf};

use super::Options;
use crate::local::{Error, config};

/// The folder of Postgres' programs: the one named in the options, or the first of PATH that has a server, or the newest
/// of Debian's.
pub(super) fn find(options: &Options) -> Result<PathBuf, Error> {
    let candidates = match &options.programs {
        Some(folder) => vec![folder.clone()],
        None => {
            let mut folders = config::search_path();
            folders.extend(newest_first(Path::new(config::DEBIAN_POSTGRES)));
            folders
        }
    };
    let whole = |folder: &PathBuf| {
        ["postgres", "initdb", "createdb", "psql"]
            .iter()
            .all(|name| folder.join(name).is_file())
    };
    candidates
        .into_iter()
        .find(whole)
        .ok_or_else(|| Error::PostgresMissing {
            looked: options
                .programs
                .as_deref()
                .unwrap_or(Path::new("/usr/lib/postgresql/*/bin"))
                .display()
                .to_string(),
        })
}

/// The `bin` folders below `parent`, by major version.
fn newest_first(parent: &Path) -> Vec<PathBuf> {
    let mut versions: Vec<u32> = fs::read_dir(parent)
        .map(|entries| {
            entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .collect()
        })
        .unwrap_or_default();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions
        .into_iter()
        .map(|version| parent.join(version.to_string()).join("bin"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::Folder;

    #[test]
    fn the_newest_version_comes_first_and_9_is_not_newer_than_15() {
        let folder = Folder::temporary().unwrap();
        for version in ["9", "15", "14", "common"] {
            fs::create_dir(folder.path().join(version)).unwrap();
        }
        let expected: Vec<_> = ["15", "14", "9"].map(|v| folder.path().join(v).join("bin")).into();
        assert_eq!(newest_first(folder.path()), expected);
    }

    #[test]
    fn a_named_folder_without_a_server_is_refused_by_name() {
        let options = Options {
            programs: Some("/nonexistent".into()),
            ..Options::default()
        };
        let error = find(&options).unwrap_err().to_string();
        assert!(
            error.contains("/nonexistent") && error.contains("POSTHASTE_POSTGRES_BIN"),
            "{error}"
        );
    }
}
