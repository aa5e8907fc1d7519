#!/bin/sh
# PostgreSQL of another version than the one that comes with the environment, for tests: 17 of Debian 13.
#
#   scripts/ensure-postgresql.sh [FOLDER [RELEASE VERSION]]      FOLDER: ~/.cache/autorenew/postgresql
#
# Prints the folder; RELEASE and VERSION are `trixie 17` unless they are named. Nothing is installed on the machine
# and root is not needed: the packages are unpacked below FOLDER/root, and the programs in FOLDER/bin run with the
# libraries that are there. `AUTORENEW_LOCAL_POSTGRESQL=FOLDER` starts private servers of that version.
# Safe to repeat, and by several at once. Exit code 3: it cannot be done here, and one line says why.
set -eu
release=${2:-trixie}
version=${3:-17}
packages="postgresql-$version"
# shellcheck source=scripts/debian-packages.sh
. "$(dirname "$0")/debian-packages.sh"

cannot() {
    echo "PostgreSQL $version cannot be fetched: $1" >&2
    exit 3
}

folder=${1:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/autorenew/postgresql}
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
    installed=$folder/root/usr/lib/postgresql/$version
    # What a server needs no more once it is unpacked; the compiler of queries (jit) is switched off.
    rm -rf "$folder"/root/usr/share/doc "$folder"/root/usr/share/man "$folder"/root/usr/share/locale \
        "$folder"/root/usr/share/perl "$folder"/root/usr/lib/*/perl* "$folder"/root/usr/lib/*/libLLVM* \
        "$folder"/root/usr/lib/*/libz3* "$installed/lib/bitcode"
    # PostgreSQL finds its files from where its programs are, and initdb the other programs: each of them is a
    # script that says the program is itself.
    mv "$installed/bin" "$installed/programs"
    mkdir "$installed/bin"
    cat >"$installed/run" <<'END'
#!/bin/sh
# A program of this PostgreSQL, with the libraries of its own release.
bin=$(cd "$(dirname "$0")" && pwd -P)
root=$(cd "$bin/../../../../.." && pwd)
name=$(basename "$0")
for loader in "$root"/usr/lib/*/ld-linux-*.so.* "$root"/lib/*/ld-linux-*.so.*; do
    [ ! -e "$loader" ] || break
done
libraries=$(dirname "$loader")
exec "$loader" --argv0 "$bin/$name" --library-path "$libraries" "$bin/../programs/$name" "$@"
END
    chmod 755 "$installed/run"
    for program in "$installed"/programs/*; do
        cp "$installed/run" "$installed/bin/$(basename "$program")"
    done
    rm "$installed/run"
    ln -sfn "root/usr/lib/postgresql/$version/bin" "$folder/bin"
    "$folder/bin/postgres" --version 2>&1 | grep -q "PostgreSQL) $version" || cannot "it does not run on this machine"
    chmod 755 "$folder"
    echo "$wanted" >"$folder/complete"
fi
cd "$folder" && pwd
