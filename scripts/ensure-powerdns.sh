#!/bin/sh
# PowerDNS 4.7 of Debian 12 with its SQLite backend, for tests of the driver `powerdns`.
#
#   scripts/ensure-powerdns.sh [FOLDER]      FOLDER: ~/.cache/autorenew/powerdns
#
# Prints the folder. Nothing is installed on the machine and root is not needed: the packages are unpacked below
# FOLDER/root, and `FOLDER/pdns_server OPTION…` runs the server with the libraries that are there.
# Safe to repeat, and by several at once. Exit code 3: it cannot be done here, and one line says why.
set -eu
packages="pdns-server pdns-backend-sqlite3"
release=bookworm
# shellcheck source=scripts/debian-packages.sh
. "$(dirname "$0")/debian-packages.sh"

cannot() {
    echo "PowerDNS 4.7 cannot be fetched: $1" >&2
    exit 3
}

folder=${1:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/autorenew/powerdns}
wanted="$release: $packages"
is_there() { [ "$(cat "$folder/complete" 2>/dev/null)" = "$wanted" ]; }

if ! is_there; then
    check_tools
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    exec 9>"$folder/lock"
    flock 9
fi
if ! is_there; then
    fetch "$folder" "$release" "$packages"
    cat >"$folder/pdns_server" <<'END'
#!/bin/sh
# pdns_server OPTION…: the server of the root beside this script, with its own libraries and backends.
root=$(cd "$(dirname "$0")" && pwd)/root
set -- "$root"/usr/lib/*/pdns "$@"
modules=$1
shift
libraries=$(dirname "$modules")
triplet=$(basename "$libraries")
for loader in "$root/lib/$triplet" "$libraries"; do # where it is depends on the release
    set -- "$loader"/ld-linux-*.so.* "$@"
    loader=$1
    shift
    [ ! -e "$loader" ] || break
done
exec "$loader" --library-path "$root/lib/$triplet:$libraries" "$root/usr/sbin/pdns_server" \
    --no-config --module-dir="$modules" "$@"
END
    chmod 755 "$folder/pdns_server"
    # It ends with 99 when it has said its version.
    "$folder/pdns_server" --version 2>&1 | grep -q 'Authoritative Server' || cannot "it does not run on this machine"
    echo "$wanted" >"$folder/complete"
fi
cd "$folder" && pwd
