#!/bin/sh
# Publishes one event over HTTP with curl. `publish.sh --help` says how it is used.
set -eu

usage() {
    cat <<'END'
usage: POSTHASTE_TOKEN=ph_... publish.sh [--id ID] PROJECT TYPE [FILE]

The data is FILE's JSON, or standard input's. Prints the answer on one line, 202 and the event's id; exits with a
status other than 0 if the event was not accepted.

  --id ID    the event's id, 1 to 64 of A-Z a-z 0-9 _ -; publishing it again under the same id is harmless
             (default: a random one, so that curl's own retries are harmless too)

environment
  POSTHASTE_TOKEN   a token of the project with the scope `publish`
  POSTHASTE_INGEST  where ingest listens (default http://127.0.0.1:8081)
END
}

fail() {
    echo "publish.sh: $1" >&2
    exit 2
}

id=
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --id) [ $# -ge 2 ] || fail "--id needs a value"; id=$2; shift 2 ;;
        --) shift; break ;;
        -?*) fail "unknown option $1; try --help" ;;
        *) break ;;
    esac
done
[ $# -eq 2 ] || [ $# -eq 3 ] || { usage >&2; exit 2; }
[ -n "${POSTHASTE_TOKEN:-}" ] || fail "set POSTHASTE_TOKEN to a token of the project with the scope publish"
[ -n "$id" ] || id=evt_$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')

# These go into JSON and into a URL as they are.
for word in "$1" "$2" "$id"; do
    case $word in
        '' | *[!A-Za-z0-9._-]*) fail "'$word' may hold letters, digits, '_', '-' and, in a type, '.'" ;;
    esac
done

# curl may have to send the body again, so it cannot come from a pipe.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
{
    printf '{"type":"%s","id":"%s","data":' "$2" "$id"
    cat -- "${3:--}"
    printf '}'
} >"$folder/body"

# The token comes by standard input, not as an argument that every user of the machine could read.
# 503 means "not accepted, try again": curl does, and waits as long as the answer's Retry-After says.
status=0
code=$(
    curl --config - --silent --show-error --fail-with-body --max-time 60 \
        --retry 5 --retry-connrefused --retry-max-time 30 \
        --header 'Content-Type: application/json' --data-binary "@$folder/body" \
        --output "$folder/answer" --write-out '%{http_code}' \
        "${POSTHASTE_INGEST:-http://127.0.0.1:8081}/v1/projects/$1/events" <<END
header = "Authorization: Bearer $POSTHASTE_TOKEN"
END
) || status=$?
[ ! -s "$folder/answer" ] || printf '%s %s\n' "$code" "$(cat "$folder/answer")"
exit "$status"
