#!/bin/sh
# PgBouncer 1.24 and RabbitMQ 4 of Debian 13, for tests that want the versions people run today.
#
#   scripts/ensure-servers.sh [FOLDER [RELEASE]]      FOLDER: ~/.cache/autorenew/servers, RELEASE: trixie
#
# Another release of Debian has other versions: `AUTORENEW_TEST_RABBITMQ=FOLDER` runs the tests on the RabbitMQ there.
# Prints the folder. Nothing is installed on the machine: the packages are fetched by apt from the mirror that
# the machine itself uses, and unpacked below FOLDER/root. `FOLDER/enter.sh RUN COMMAND…` runs a command in
# there, in a mount namespace of its own, with the folder RUN at the same path inside and outside.
# Safe to repeat, and by several at once. Exit code 3: it cannot be done here, and one line says why.
set -eu
packages="pgbouncer rabbitmq-server procps bash coreutils dash sed grep gawk hostname"
release=${2:-trixie}
# shellcheck source=scripts/debian-packages.sh
. "$(dirname "$0")/debian-packages.sh"

cannot() {
    echo "PgBouncer 1.24 and RabbitMQ 4 cannot be fetched: $1" >&2
    exit 3
}

folder=${1:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/autorenew/servers}
wanted="$release: $packages"
is_there() { [ "$(cat "$folder/complete" 2>/dev/null)" = "$wanted" ]; }

if ! is_there; then
    [ "$(id -u)" = 0 ] || cannot "root is needed"
    check_tools unshare
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    exec 9>"$folder/lock"
    flock 9
fi
if ! is_there; then
    fetch "$folder" "$release" "$packages"
    printf '127.0.0.1 localhost\n' >"$folder/root/etc/hosts"
    printf 'hosts: files\n' >"$folder/root/etc/nsswitch.conf"
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >"$folder/root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$folder/root/etc/group"
    cat >"$folder/enter.sh" <<'END'
#!/bin/sh
# enter.sh RUN COMMAND…: run a command in the root beside this script; RUN is the same folder inside and outside.
here=$(cd "$(dirname "$0")" && pwd)
run=$1
shift
exec unshare --mount --propagation private sh -c '
root=$1 run=$2
shift 2
set -e
mount --bind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind /sys "$root/sys"
mkdir -p "$root$run"
mount --bind "$run" "$root$run"
exec chroot "$root" "$@"' sh "$here/root" "$run" "$@"
END
    chmod 755 "$folder/enter.sh"
    echo "$wanted" >"$folder/complete"
fi
cd "$folder" && pwd
