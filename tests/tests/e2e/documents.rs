//! What the documents promise about themselves: what they refer to is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every document, with its path from the root.
fn documents() -> Vec<PathBuf> {
    let within = |folder: &str| fs::read_dir(root().join(folder)).unwrap();
    let found: Vec<PathBuf> = within("")
        .chain(within("docs"))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| path.strip_prefix(root()).unwrap().to_owned())
        .collect();
    assert!(found.len() > 8, "the documents are not where they were");
    found
}

fn text(document: &Path) -> String {
    fs::read_to_string(root().join(document)).unwrap()
}

fn events(markdown: &str) -> Parser<'_> {
    Parser::new_ext(markdown, Options::ENABLE_TABLES)
}

/// Where a link leads, from the root, and to which heading. `None` where it leads elsewhere in the world.
fn target(document: &Path, link: &str) -> Option<(PathBuf, Option<String>)> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, heading) = link
        .split_once('#')
        .map_or((link, None), |(path, heading)| (path, Some(heading)));
    let path = match path {
        "" => document.to_owned(),
        path => document.parent().unwrap().join(path),
    };
    Some((path, heading.map(str::to_owned)))
}

/// The headings of a document as links name them: in small letters, with `-` for each space, without punctuation.
fn headings(markdown: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut heading: Option<String> = None;
    for event in events(markdown) {
        match (event, &mut heading) {
            (Event::Start(Tag::Heading { .. }), _) => heading = Some(String::new()),
            (Event::Text(text) | Event::Code(text), Some(heading)) => heading.push_str(&text),
            (Event::End(TagEnd::Heading(_)), Some(words)) => {
                let words = words.to_lowercase().replace(' ', "-");
                found.insert(
                    words
                        .chars()
                        .filter(|c| c.is_alphanumeric() || "-_".contains(*c))
                        .collect(),
                );
                heading = None;
            }
            _ => {}
        }
    }
    found
}

#[test]
fn what_documents_link_to_is_there() {
    let mut broken = Vec::new();
    let mut links = 0;
    for document in documents() {
        for event in events(&text(&document)) {
            let Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) = event else {
                continue;
            };
            let Some((path, heading)) = target(&document, &dest_url) else {
                continue;
            };
            links += 1;
            let is_there = match heading {
                None => root().join(&path).exists(),
                Some(heading) => root().join(&path).is_file() && headings(&text(&path)).contains(&heading),
            };
            if !is_there {
                broken.push(format!("{}: {dest_url}", document.display()));
            }
        }
    }
    assert!(links > 100, "the test has found {links} links");
    assert_eq!(broken, Vec::<String>::new());
}

/// Tests are named in front of a link to their file: `one`, `another` ([file.rs](…)).
#[test]
fn tests_that_documents_name_are_in_the_files_they_link_to() {
    let mut missing = Vec::new();
    let mut tests = 0;
    for document in documents() {
        let mut named: Vec<String> = Vec::new();
        for event in events(&text(&document)) {
            match event {
                Event::Code(code) => named.push(code.into_string()),
                Event::Start(Tag::Link { dest_url, .. }) if dest_url.ends_with(".rs") => {
                    let Some((path, _)) = target(&document, &dest_url) else {
                        continue;
                    };
                    let source = fs::read_to_string(root().join(&path)).unwrap_or_default();
                    for name in named.drain(..).filter(|name| name.matches('_').count() > 1) {
                        tests += 1;
                        if !source.contains(&format!("fn {name}(")) {
                            missing.push(format!("{}: {name} is not in {}", document.display(), path.display()));
                        }
                    }
                }
                Event::SoftBreak => {}
                Event::Text(between) if [",", "and", "("].contains(&between.trim()) => {}
                _ => named.clear(),
            }
        }
    }
    assert!(tests > 200, "the test has found {tests} tests");
    assert_eq!(missing, Vec::<String>::new());
}
