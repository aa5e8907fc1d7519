#!/bin/sh
# kubectl of Debian 13, for tests of deploy/kubernetes/: Debian 12 has no package of it.
#
#   scripts/ensure-kubectl.sh [FOLDER]      FOLDER: ~/.cache/autorenew/kubectl
#
# Prints the folder, which holds `kubectl`. Nothing is installed on the machine and root is not needed: the package is
# unpacked below FOLDER/root. Safe to repeat, and by several at once. Exit code 3: it cannot be done here, and one line
# says why.
set -eu
packages="kubernetes-client"
release=trixie
# shellcheck source=scripts/debian-packages.sh
. "$(dirname "$0")/debian-packages.sh"

cannot() {
    echo "kubectl cannot be fetched: $1" >&2
    exit 3
}

folder=${1:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/autorenew/kubectl}
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
    [ -x "$folder/root/usr/bin/kubectl" ] || cannot "the packages of $release have no kubectl"
    ln -sf root/usr/bin/kubectl "$folder/kubectl"
    "$folder/kubectl" version --client >/dev/null 2>&1 || cannot "it does not run on this machine"
    echo "$wanted" >"$folder/complete"
fi
cd "$folder" && pwd
