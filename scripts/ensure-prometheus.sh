#!/bin/sh
# Prometheus, promtool, Alertmanager and amtool of Debian 12, for tests of metrics and alerts.
#
#   scripts/ensure-prometheus.sh [FOLDER]      FOLDER: ~/.cache/autorenew/prometheus
#
# Prints the folder. Nothing is installed on the machine and root is not needed: the packages are unpacked below
# FOLDER/root, and FOLDER holds the programs `prometheus`, `promtool`, `prometheus-alertmanager` and `amtool`.
# Safe to repeat, and by several at once. Exit code 3: it cannot be done here, and one line says why.
set -eu
packages="prometheus prometheus-alertmanager"
release=bookworm
# shellcheck source=scripts/debian-packages.sh
. "$(dirname "$0")/debian-packages.sh"

cannot() {
    echo "Prometheus cannot be fetched: $1" >&2
    exit 3
}

folder=${1:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/autorenew/prometheus}
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
    for program in prometheus promtool prometheus-alertmanager amtool; do
        [ -x "$folder/root/usr/bin/$program" ] || cannot "the packages of $release have no $program"
        cat >"$folder/$program" <<'END_OF_PROGRAM'
#!/bin/sh
# The program of the same name in the root beside this script, with its own libraries.
folder=$(cd "$(dirname "$0")" && pwd)
root=$folder/root
set -- "$root/usr/bin/$(basename "$0")" "$@"
for loader in "$root"/lib/*/ld-linux-*.so.* "$root"/usr/lib/*/ld-linux-*.so.*; do # depends on the release
    [ -e "$loader" ] || continue
    triplet=$(basename "$(dirname "$loader")")
    exec "$loader" --library-path "$root/lib/$triplet:$root/usr/lib/$triplet" "$@"
done
exec "$@"
END_OF_PROGRAM
        chmod 755 "$folder/$program"
        "$folder/$program" --version >/dev/null 2>&1 || cannot "$program does not run on this machine"
    done
    echo "$wanted" >"$folder/complete"
fi
cd "$folder" && pwd
