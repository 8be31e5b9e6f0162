//! Compiles the `.proto` text with protox, so that no protoc has to be installed, and lists the catalogues' files, so
//! that adding an event type is adding a folder.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "proto/posthaste/v1/event.proto",
        "proto/posthaste/v1/delivery.proto",
        "proto/posthaste/v1/ledger.proto",
        "proto/posthaste/v1/definition.proto",
        "proto/posthaste/v1/seen.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .compile_fds(descriptors)?;

    println!("cargo:rerun-if-changed=catalogues");
    let list = PathBuf::from(std::env::var("OUT_DIR")?).join("catalogues.rs");
    fs::write(list, catalogues(Path::new("catalogues"))?)?;
    Ok(())
}

/// The catalogues as source: every `<catalogue>/<event type>/` with what its files say.
fn catalogues(folder: &Path) -> Result<String> {
    let mut source = String::from("&[\n");
    for (name, catalogue) in folders(folder)? {
        writeln!(source, "Catalogue {{ name: {name:?}, types: &[")?;
        for (name, event_type) in folders(&catalogue)? {
            let about = event_type.join("type.json");
            let wrong = |what: &str| format!("{}: {what}", about.display());
            let said: serde_json::Value = fs::read_to_string(&about)
                .map_err(|error| wrong(&error.to_string()))
                .and_then(|text| serde_json::from_str(&text).map_err(|error| wrong(&error.to_string())))?;
            let member = |name: &str| said[name].as_str().ok_or_else(|| wrong(&format!("no text `{name}`")));
            let (version, description) = (member("version")?, member("description")?);
            writeln!(
                source,
                "EventType {{ name: {name:?}, version: {version:?}, description: {description:?},"
            )?;
            for file in ["schema", "example"] {
                let path = event_type.join(format!("{file}.json"));
                let path = fs::canonicalize(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                writeln!(source, "{file}: include_str!({path:?}),")?;
            }
            writeln!(source, "}},")?;
        }
        writeln!(source, "] }},")?;
    }
    source.push(']');
    Ok(source)
}

/// The folders in a folder, by name.
fn folders(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if let (true, Some(name)) = (path.is_dir(), path.file_name().and_then(|name| name.to_str())) {
            found.push((name.to_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}
