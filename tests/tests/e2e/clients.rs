//! Running programs that nobody here wrote.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub(crate) fn client(name: &str) -> PathBuf {
    root().join("tests/clients").join(name)
}

/// A program of the Python environment that `make setup` makes.
pub(crate) fn tool(name: &str) -> PathBuf {
    root().join(".tools/venv/bin").join(name)
}

/// Runs a program to its end; what it has written.
pub(crate) async fn run(program: impl AsRef<std::ffi::OsStr>, args: &[&str], input: &str) -> String {
    run_with(root(), program.as_ref(), args, input).await
}

/// Runs a program to its end, in this folder.
pub(crate) async fn run_in(folder: &Path, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> String {
    run_with(folder, program.as_ref(), args, "").await
}

async fn run_with(folder: &Path, program: &std::ffi::OsStr, args: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{program:?}: {error}; `make setup` installs what is missing"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{program:?} {args:?}: {said}\n{complained}");
    said.into_owned()
}

/// Runs a script of `tests/clients`.
pub(crate) async fn python(name: &str, args: &[&str], input: &str) -> String {
    let path = client(name);
    let mut all = vec![path.to_str().unwrap()];
    all.extend(args);
    run(tool("python"), &all, input).await
}
