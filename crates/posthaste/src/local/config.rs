//! Where the servers' programs are looked for.

use std::env;
use std::path::{Path, PathBuf};

/// Names the nats-server to run instead of looking for one.
pub const NATS_SERVER: &str = "POSTHASTE_NATS_SERVER";

/// Names the folder of Postgres' programs (`postgres`, `initdb`, `createdb`, `psql`) instead of looking for one.
pub const POSTGRES_BIN: &str = "POSTHASTE_POSTGRES_BIN";

/// Where `make setup` puts nats-server: in the checkout that this was built from.
pub(super) const CHECKOUT_PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools/venv/bin");

/// Where Debian puts a folder per major version of Postgres; none of them is on PATH.
pub(super) const DEBIAN_POSTGRES: &str = "/usr/lib/postgresql";

/// A path from the environment; an empty one counts as none.
pub(super) fn path(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where temporary folders are made: TMPDIR, or `/tmp`.
pub(super) fn temporary() -> PathBuf {
    env::temp_dir()
}

/// The folders of PATH.
pub(super) fn search_path() -> Vec<PathBuf> {
    env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect())
        .unwrap_or_default()
}

/// Every file called `program` in `folders`, in their order.
pub(super) fn find<'a>(folders: &'a [PathBuf], program: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    folders
        .iter()
        .filter(|folder| folder.is_absolute())
        .map(move |folder| folder.join(program))
        .filter(|file| is_file(file))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}
