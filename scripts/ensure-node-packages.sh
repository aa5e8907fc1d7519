#!/bin/sh
# Packages of npm for tests of the contract over AMQP: amqplib, a client for Node, and @asyncapi/specs, the
# schema of AsyncAPI. Their versions and hashes are in tests/node/package-lock.json.
#
#   scripts/ensure-node-packages.sh [FOLDER]      FOLDER: ~/.cache/autorenew/node-packages
#
# Prints the folder, with node_modules/ in it. Nothing is installed on the machine, no script of a package is
# run, and npm asks the registry that the machine itself is set to use.
# Safe to repeat, and by several at once. Exit code 3: it cannot be done here, and one line says why.
set -eu

cannot() {
    echo "amqplib and @asyncapi/specs cannot be fetched: $1" >&2
    exit 3
}

folder=${1:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/autorenew/node-packages}
named=$(cd "$(dirname "$0")/../tests/node" && pwd)
for program in node npm flock sha256sum; do
    command -v "$program" >/dev/null || cannot "there is no $program on this machine"
done
wanted=$(cat "$named/package.json" "$named/package-lock.json" | sha256sum)
is_there() { [ "$(cat "$folder/complete" 2>/dev/null)" = "$wanted" ]; }

if ! is_there; then
    mkdir -p "$folder"
    exec 9>"$folder/lock"
    flock 9
fi
if ! is_there; then
    rm -rf "$folder/complete" "$folder/node_modules"
    cp "$named/package.json" "$named/package-lock.json" "$folder"
    (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund >"$folder/log" 2>&1) ||
        cannot "$(grep -m 1 . "$folder/log" || echo "npm ci failed")"
    echo "$wanted" >"$folder/complete"
fi
cd "$folder" && pwd
