#!/bin/sh
# Runs fuzz targets under libFuzzer, which is compiled from the version in Cargo.lock. `make fuzz` calls it.
#
#   tests/fuzz/run.sh SECONDS [TARGET…]
#
# What libFuzzer has learned stays in target/fuzz/corpus. An input that makes a target panic, or takes it longer than ten
# seconds or more than a gigabyte, is written to target/fuzz/found and is the end of the run.
set -eu
cd "$(dirname "$0")/../.."

seconds=$1
shift
[ $# -gt 0 ] || set -- $(ls tests/fuzz/corpus)

command -v c++ >/dev/null || {
    echo "fuzz: libFuzzer is C++, and there is no compiler for it: install Debian's g++" >&2
    exit 1
}

# The coverage that libFuzzer is led by, as cargo-fuzz has it made, without the sanitizers: there is no unsafe code here,
# and they would need another toolchain. With a target named, build scripts and macros are compiled as always.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions" \
    cargo build --locked --target "$host" --target-dir target/fuzz --package fuzz --features libfuzzer \
    --bin posthaste-fuzz --config profile.dev.opt-level=1

mkdir -p target/fuzz/found
for target; do
    learned=target/fuzz/corpus/$target
    mkdir -p "$learned"
    echo "fuzz: $target for $seconds s" >&2
    if ! "target/fuzz/$host/debug/posthaste-fuzz" "--target=$target" "$learned" "tests/fuzz/corpus/$target" \
        -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="target/fuzz/found/$target-" 2>"target/fuzz/found/$target.log"; then
        tail -n 40 "target/fuzz/found/$target.log" >&2
        echo "fuzz: $target has failed. When it is put right, keep the input in tests/fuzz/corpus/$target, named for" \
            "what it was." >&2
        exit 1
    fi
    sed -n 's/^stat::number_of_executed_units: */fuzz: inputs tried: /p' "target/fuzz/found/$target.log" >&2
done
