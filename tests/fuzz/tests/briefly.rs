//! Each target over its corpus, and for a moment over what can be made of it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fuzz::mutate::Mutator;
use fuzz::{TARGETS, Target};

/// For what is made of the corpus, per target.
const TIME: Duration = Duration::from_secs(1);
/// No input keeps a program that is not optimised busy for longer; what a stranger sends must not hold others up.
const SLOW: Duration = Duration::from_secs(5);
/// The inputs are the same in every run; how many of them there are is the machine's.
const SEED: u64 = 0x706f_7374;

/// Says which input it was when a target panics.
struct Telling<'a>(&'a Target, &'a [u8]);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("target {} with \"{}\"", self.0.name, self.1.escape_ascii());
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = files(&here.join("corpus").join(target.name));
    if target.name == "wire" {
        // Every message that was ever written is a good beginning.
        found.extend(files(&here.join("../../proto-schemas/tests/golden/v1")));
    }
    assert!(!found.is_empty(), "{} has no corpus", target.name);
    found.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn run(target: &Target, input: &[u8]) {
    let _telling = Telling(target, input);
    let begun = Instant::now();
    (target.run)(input);
    assert!(begun.elapsed() < SLOW, "it took {:?}", begun.elapsed());
}

fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let inputs = corpus(target);
    for input in &inputs {
        run(target, input);
    }
    let mut mutator = Mutator::new(SEED, &inputs, target.words);
    let begun = Instant::now();
    let mut made = 0;
    while begun.elapsed() < TIME {
        run(target, &mutator.another());
        made += 1;
    }
    assert!(made > 20, "only {made} inputs were tried");
}

#[test]
fn no_url_is_two_things() {
    fuzz("url");
}

#[test]
fn no_retry_after_is_more_than_a_day() {
    fuzz("retry-after");
}

#[test]
fn no_key_makes_a_signature_that_is_none() {
    fuzz("signature");
}

#[test]
fn no_answer_of_a_token_endpoint_is_repeated() {
    fuzz("access-token");
}

#[test]
fn no_pem_is_taken_for_what_it_is_not() {
    fuzz("pem");
}

#[test]
fn no_cursor_is_read_as_what_it_is_not() {
    fuzz("cursor");
}

#[test]
fn nothing_that_is_published_makes_what_fits_no_message() {
    fuzz("published");
}

#[test]
fn no_message_is_read_as_another_than_was_written() {
    fuzz("wire");
}

#[test]
fn no_template_makes_what_is_no_json() {
    fuzz("template");
}

#[test]
fn no_filter_goes_on_for_ever() {
    fuzz("filter");
}

#[test]
fn no_schema_goes_on_for_ever() {
    fuzz("schema");
}

#[test]
fn every_target_has_its_test_and_no_folder_is_of_none() {
    let source = include_str!("briefly.rs");
    for target in TARGETS {
        assert!(
            source.contains(&format!("fuzz(\"{}\")", target.name)),
            "{}",
            target.name
        );
    }
    let folders = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"));
    assert_eq!(folders.len(), TARGETS.len());
}
