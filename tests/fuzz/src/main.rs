//! A target under libFuzzer: `posthaste-fuzz --target=url FOLDER…`, with libFuzzer's own options; `make fuzz` runs it.

#![no_main]

use std::sync::LazyLock;

use fuzz::{TARGETS, Target};

/// libFuzzer passes over options that begin with two dashes.
static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::args().find_map(|argument| argument.strip_prefix("--target=").map(str::to_owned));
    let target = TARGETS.iter().find(|target| Some(target.name) == name.as_deref());
    *target.unwrap_or_else(|| {
        eprintln!("which? --target={}", TARGETS.map(|target| target.name).join("|"));
        std::process::exit(2)
    })
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
