#!/bin/sh
# Breaks the guard, signing and retries in every small way, one at a time, and looks whether a test notices. `make mutants`
# calls it; .cargo/mutants.toml says which files, and what is left out and why.
#
#   tests/mutants.sh [REGEX]      only mutants whose names match, such as egress/resolver
#
# What became of each is in target/mutants/<package>/mutants.out. Fails where one survives.
set -eu
cd "$(dirname "$0")/.."

for needed in unshare:util-linux ip:iproute2; do
    command -v "${needed%:*}" >/dev/null || {
        echo "mutants: there is no ${needed%:*} here: install Debian's ${needed#*:}" >&2
        exit 1
    }
done
cargo fetch --locked --quiet

# A copy, since a mutant is written into its file; with what is not committed, and without what is built.
work=$PWD/target/mutants
rm -rf "$work/tree"
mkdir -p "$work/tree"
git ls-files -z --cached --others --exclude-standard |
    tar --null --files-from=- --ignore-failed-read --create --file=- |
    tar --extract --directory="$work/tree" --file=-
export CARGO_TARGET_DIR="$work/build" CARGO_NET_OFFLINE=true CARGO_PROFILE_DEV_DEBUG=0
# What a property test has found of one mutant is nothing to try on the next.
export PROPTEST_DISABLE_FAILURE_PERSISTENCE=true

# Where there is no network but loopback: a guard that is broken lets requests go anywhere.
alone='--net --map-root-user'
[ "$(id -u)" -ne 0 ] || alone=--net

# Of one package; the tests that cargo is told of.
mutate() {
    package=$1
    shift
    status=0
    # shellcheck disable=SC2086
    unshare $alone sh -c 'ip link set lo up && exec "$@"' sh .tools/cargo/bin/cargo-mutants mutants --dir "$work/tree" \
        --in-place --output "$work/$package" --package "$package" --re "$only" --timeout 30 "$@" || status=$?
    case $status in
        # None survived, though some may have made a test hang.
        0 | 3) ;;
        2) return 1 ;;
        *) exit "$status" ;;
    esac
}

only=${1:-.}
survivors=
# Unit tests take a second. What they let live has to outlive the tests with name servers and receivers, too.
mutate common --cargo-arg=--lib || mutate common --iterate --cargo-arg=--test=it || survivors="$survivors common"
mutate dispatcher --cargo-arg=--lib || survivors="$survivors dispatcher"
mutate retry-scheduler --cargo-arg=--lib || survivors="$survivors retry-scheduler"

for package in $survivors; do
    sed 's/^/mutants: survived: /' "$work/$package/mutants.out/missed.txt" >&2
done
[ -z "$survivors" ]
