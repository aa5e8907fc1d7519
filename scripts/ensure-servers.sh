#!/bin/sh
# PgBouncer 1.24 and RabbitMQ 4 of Debian 13, for tests that want the versions people run today.
#
#   scripts/ensure-servers.sh [FOLDER]      FOLDER: ~/.cache/autorenew/servers
#
# Prints the folder. Nothing is installed on the machine: the packages are fetched by apt from the mirror that
# the machine itself uses, and unpacked below FOLDER/root. `FOLDER/enter.sh RUN COMMAND…` runs a command in
# there, in a mount namespace of its own, with the folder RUN at the same path inside and outside.
# Safe to repeat, and by several at once. Exit code 3: it cannot be done here, and one line says why.
set -eu
packages="pgbouncer rabbitmq-server procps bash coreutils dash sed grep gawk hostname"
release=trixie
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

cannot() {
    echo "PgBouncer 1.24 and RabbitMQ 4 cannot be fetched: $1" >&2
    exit 3
}

folder=${1:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/autorenew/servers}
wanted="$release: $packages"
is_there() { [ "$(cat "$folder/complete" 2>/dev/null)" = "$wanted" ]; }

if ! is_there; then
    [ "$(id -u)" = 0 ] || cannot "root is needed"
    for program in apt-get dpkg-deb unshare flock; do
        command -v "$program" >/dev/null || cannot "there is no $program on this machine"
    done
    [ -e "$keyring" ] || cannot "there is no $keyring (the package debian-archive-keyring)"
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    exec 9>"$folder/lock"
    flock 9
fi
if ! is_there; then
    apt=$folder/apt
    rm -rf "$folder/complete" "$folder/root" "$apt"
    mkdir -p "$folder/root" "$apt/etc/apt/apt.conf.d" "$apt/etc/apt/preferences.d" "$apt/etc/apt/trusted.gpg.d" \
        "$apt/var/lib/dpkg" "$apt/var/lib/apt/lists/partial" "$apt/var/cache/apt/archives/partial" "$apt/var/log/apt"
    : >"$apt/var/lib/dpkg/status"
    # Its own folders; proxies and credentials stay those of the machine.
    own() {
        apt-get -qq -o Dir::State="$apt/var/lib/apt" -o Dir::State::status="$apt/var/lib/dpkg/status" \
            -o Dir::Cache="$apt/var/cache/apt" -o Dir::Log="$apt/var/log/apt" \
            -o Dir::Etc::sourcelist="$apt/etc/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
            -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
            -o APT::Install-Recommends=false -o APT::Sandbox::User=root "$@"
    }
    # The mirrors of Debian that this machine is set to use; the first one that has the release is taken.
    # shellcheck disable=SC2016
    mirrors=$(apt-get indextargets --format '$(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk '$1 == "main" && !seen[$2]++ { print $2 }')
    [ -n "$mirrors" ] || cannot "apt of this machine is set to no mirror of Debian"
    found=no
    for mirror in $mirrors; do
        echo "deb [signed-by=$keyring] $mirror $release main" >"$apt/etc/apt/sources.list"
        if own update >"$apt/log" 2>&1 && ! grep -q '^[EW]:' "$apt/log"; then
            found=yes
            break
        fi
    done
    [ "$found" = yes ] || cannot "no mirror that this machine uses has Debian $release: $(tail -n 1 "$apt/log")"
    # shellcheck disable=SC2086
    own install -y --download-only $packages >"$apt/log" 2>&1 || cannot "$(tail -n 1 "$apt/log")"
    for package in "$apt"/var/cache/apt/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$folder/root" --keep-directory-symlink
    done
    rm -rf "$apt"
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
