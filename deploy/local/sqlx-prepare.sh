#!/bin/sh
# Writes .sqlx anew: what the compiler needs to know of the database to check every statement of crates/store without
# one. Run it after changing a statement or a migration, and commit what it changes.
#
#   deploy/local/sqlx-prepare.sh           writes .sqlx
#   deploy/local/sqlx-prepare.sh --check   writes nothing; fails where .sqlx is not what the code and migrations make
#
# It starts a Postgres of its own in a temporary folder, without a port, and stops it again. Needed: PostgreSQL 15 or
# newer (Debian: postgresql), on PATH or where Debian puts it.
set -eu

check=false
case "${1-}" in
    '') ;;
    --check) check=true ;;
    *)
        echo "usage: $0 [--check]" >&2
        exit 2
        ;;
esac

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)

# initdb is not on PATH with Debian's package.
bin=
if command -v initdb >/dev/null 2>&1; then
    bin=$(dirname -- "$(readlink -f -- "$(command -v initdb)")")
else
    for folder in /usr/lib/postgresql/*/bin; do
        if [ -x "$folder/initdb" ]; then bin=$folder; fi
    done
fi
if [ -z "$bin" ]; then
    echo "$0: no PostgreSQL found; install it (Debian: apt-get install postgresql) or put initdb on PATH" >&2
    exit 1
fi

scratch=$(mktemp -d "${TMPDIR:-/tmp}/sqlx-prepare.XXXXXX")
user=$(id -un)

# Postgres refuses to run as root.
as_owner() {
    if [ "$(id -u)" -eq 0 ]; then
        setpriv --reuid=postgres --regid=postgres --clear-groups "$@"
    else
        "$@"
    fi
}

stop() {
    status=$?
    trap - EXIT INT TERM
    if [ -f "$scratch/pg/postmaster.pid" ]; then
        as_owner "$bin/pg_ctl" -D "$scratch/pg" -m immediate -s stop || true
    fi
    rm -rf "$scratch"
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT TERM

if [ "$(id -u)" -eq 0 ]; then
    user=postgres
    chown "$user" "$scratch"
fi
chmod 755 "$scratch"
cd "$scratch"
as_owner "$bin/initdb" -D "$scratch/pg" -U "$user" -A trust -E UTF8 --locale=C --no-sync >"$scratch/initdb.log" 2>&1 ||
    { cat "$scratch/initdb.log" >&2; exit 1; }
psql=$bin/psql
if ! [ -x "$psql" ]; then psql=psql; fi
as_owner "$bin/pg_ctl" -D "$scratch/pg" -s -w -l "$scratch/postgres.log" \
    -o "-k $scratch -c listen_addresses='' -c fsync=off" start ||
    { cat "$scratch/postgres.log" >&2; exit 1; }
for migration in "$root"/crates/store/migrations/*.sql; do
    "$psql" -X -q -v ON_ERROR_STOP=1 -h "$scratch" -U "$user" -d postgres -f "$migration"
done

# The macros write one file per statement as they are expanded; touching the crate makes the compiler expand them.
mkdir "$scratch/sqlx"
touch "$root/crates/store/src/lib.rs"
(
    cd "$root"
    DATABASE_URL="postgres:///postgres?host=$scratch&user=$user" SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$scratch/sqlx" \
        cargo check --quiet -p store --all-targets
)

if $check; then
    if ! diff -rq "$root/.sqlx" "$scratch/sqlx" >"$scratch/difference" 2>&1; then
        sed 's/^/  /' "$scratch/difference" >&2
        echo "$0: .sqlx is not what the statements and migrations make; run $0 and commit what it changes" >&2
        exit 1
    fi
else
    mkdir -p "$root/.sqlx"
    find "$root/.sqlx" -name 'query-*.json' -delete
    cp "$scratch"/sqlx/query-*.json "$root/.sqlx/"
    echo "$(find "$root/.sqlx" -name 'query-*.json' | wc -l) statements described in .sqlx"
fi
