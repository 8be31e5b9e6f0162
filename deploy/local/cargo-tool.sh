#!/bin/sh
# Installs a program of cargo's into .tools/cargo, in the version given, unless it is there. Compiling one takes minutes.
#
#   deploy/local/cargo-tool.sh NAME VERSION
set -eu
cd "$(dirname "$0")/../.."

name=$1 version=$2
root=.tools/cargo
# cargo's own list of what it has installed there.
if ! grep -qs "^\"$name $version " "$root/.crates.toml" || ! [ -x "$root/bin/$name" ]; then
    echo "setup: compiling $name $version into $root" >&2
    # In a target directory of its own: its dependencies have other features than ours.
    CARGO_TARGET_DIR=.tools/cargo-build cargo install --quiet --locked --root "$root" --version "=$version" "$name"
    rm -rf .tools/cargo-build
fi
