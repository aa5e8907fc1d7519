#!/bin/sh
# podman, and images of Debian's packages in place of the public ones: for the tests that run docker-compose.yml.
#
#   scripts/ensure-containers.sh [FOLDER]      FOLDER: ~/.cache/autorenew/containers
#
# Prints the folder. `FOLDER/podman COMMAND…` is podman with a store of its own (FOLDER/storage, and
# /run/autorenew-containers), so that what else runs here in containers is not touched. FOLDER/images says which
# image stands for which public one, a pair a line.
#
# podman and runc are installed from Debian as root where the machine does not have them. The images are made by
# debootstrap from the mirror that the machine itself uses; no registry is asked. About three minutes, 1.5 GB.
# Safe to repeat, and by several at once. Exit code 3: it cannot be done here, and one line says why.
set -eu
umask 022
# shellcheck source=scripts/debian-packages.sh
. "$(dirname "$0")/debian-packages.sh"
recipes=$(cd "$(dirname "$0")/containers" && pwd)

cannot() {
    echo "containers cannot be run: $1" >&2
    exit 3
}

folder=${1:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/autorenew/containers}
# What FOLDER/complete says when it was made by this version of the recipes.
wanted=$(cat "$0" "$recipes"/* | cksum)
is_there() {
    [ "$(cat "$folder/complete" 2>/dev/null)" = "$wanted" ] && command -v podman >/dev/null &&
        command -v runc >/dev/null
}
if is_there; then
    cd "$folder" && pwd
    exit
fi

[ "$(id -u)" = 0 ] || cannot "root is needed"
check_tools
[ "$(dpkg --print-architecture)" = amd64 ] || [ "$(dpkg --print-architecture)" = arm64 ] ||
    cannot "RabbitMQ of Debian is tried on amd64 and arm64 only"
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
exec 9>"$folder/lock"
flock 9
if is_there; then
    echo "$folder"
    exit
fi
rm -f "$folder/complete"

log=$folder/log
: >"$log"
missing=
for program in podman runc netavark aardvark-dns debootstrap catatonit; do
    command -v "$program" >/dev/null || [ -e "/usr/sbin/$program" ] || [ -e "/usr/lib/podman/$program" ] ||
        missing="$missing $program"
done
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
        $missing uidmap conmon iptables containernetworking-plugins; } >>"$log" 2>&1 ||
        cannot "$(tail -n 1 "$log")"
fi

# What a machine without systemd needs: log files, no events in a journal, cgroups by hand.
cat >"$folder/containers.conf" <<END
[containers]
default_ulimits = []
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "$folder/networks"
END
cat >"$folder/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$folder/storage"
runroot = "/run/autorenew-containers/storage"
END
cat >"$folder/podman" <<'END'
#!/bin/sh
# podman with a store of its own, runc, and the limits on files that this machine has: it may not raise them.
here=$(cd "$(dirname "$0")" && pwd)
CONTAINERS_CONF=$here/containers.conf
CONTAINERS_STORAGE_CONF=$here/storage.conf
export CONTAINERS_CONF CONTAINERS_STORAGE_CONF
run() {
    exec podman --tmpdir /run/autorenew-containers/tmp --runtime runc "$@"
}
case "${1:-}" in
run | create)
    verb=$1
    shift
    run "$verb" --ulimit host "$@"
    ;;
*) run "$@" ;;
esac
END
chmod 755 "$folder/podman"
mkdir -p "$folder/networks"
"$folder/podman" info >>"$log" 2>&1 || cannot "$(tail -n 1 "$log")"

# shellcheck disable=SC2016
mirrors=$(apt-get indextargets --format '$(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk '$1 == "main" && $2 ~ /\/debian\/?$/ && !seen[$2]++ { print $2 }')
mirror=$(echo "$mirrors" | head -n 1)
[ -n "$mirror" ] || cannot "apt of this machine is set to no mirror of Debian"

# root NAME SUITE PACKAGES: import a minimal Debian with these packages as the image NAME, unless it is there.
root() {
    tag=$(echo "$2 $3" | cksum | cut -d ' ' -f 1)
    if "$folder/podman" image exists "localhost/$1:$tag"; then
        "$folder/podman" tag "localhost/$1:$tag" "localhost/$1:latest"
        return
    fi
    tree=$folder/root
    rm -rf "$tree"
    debootstrap --variant=minbase --include="$3" "$2" "$tree" "$mirror" >>"$log" 2>&1 ||
        cannot "debootstrap $2: $(tail -n 1 "$log")"
    rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/* "$tree"/usr/share/doc \
        "$tree"/usr/share/man "$tree"/usr/share/locale
    # What signs the registry of packages that this machine reaches.
    cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/ca-certificates.crt"
    tar -C "$tree" -c . | "$folder/podman" import --quiet - "localhost/$1:$tag" >>"$log" 2>&1 ||
        cannot "podman import: $(tail -n 1 "$log")"
    rm -rf "$tree"
    "$folder/podman" tag "localhost/$1:$tag" "localhost/$1:latest"
}
# derive NAME: an image by the recipe scripts/containers/NAME.
derive() {
    "$folder/podman" build --quiet --isolation chroot --tag "localhost/autorenew-test/$1" \
        --file "$recipes/$1" "$recipes" >>"$log" 2>&1 || cannot "podman build $1: $(tail -n 1 "$log")"
}
root autorenew-test/debian-python bookworm ca-certificates,python3,python3-venv,python3-pip
root autorenew-test/debian-services trixie \
    ca-certificates,rabbitmq-server,postgresql,prometheus,prometheus-alertmanager
for recipe in python rabbitmq postgres prometheus alertmanager; do
    derive "$recipe"
done
cat >"$folder/images" <<'END'
python localhost/autorenew-test/python
rabbitmq localhost/autorenew-test/rabbitmq
postgres localhost/autorenew-test/postgres
prom/prometheus localhost/autorenew-test/prometheus
prom/alertmanager localhost/autorenew-test/alertmanager
END
echo "$wanted" >"$folder/complete"
echo "$folder"
