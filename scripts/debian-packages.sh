# Packages of Debian, unpacked into a folder: sourced by scripts that bring servers for tests.
#
#   fetch FOLDER RELEASE PACKAGES     FOLDER/root holds them, and FOLDER/complete says which
#
# Nothing is installed on the machine: the packages are fetched by apt from the mirror that the machine itself
# uses. Safe to repeat. Whoever sources it has a function `cannot REASON`, and holds FOLDER/lock.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

check_tools() {
    for program in apt-get dpkg-deb flock "$@"; do
        command -v "$program" >/dev/null || cannot "there is no $program on this machine"
    done
    [ -e "$keyring" ] || cannot "there is no $keyring (the package debian-archive-keyring)"
}

fetch() {
    target=$1 suite=$2 wanted_packages=$3
    apt=$target/apt
    rm -rf "$target/complete" "$target/root" "$apt"
    mkdir -p "$target/root" "$apt/etc/apt/apt.conf.d" "$apt/etc/apt/preferences.d" "$apt/etc/apt/trusted.gpg.d" \
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
        echo "deb [signed-by=$keyring] $mirror $suite main" >"$apt/etc/apt/sources.list"
        if own update >"$apt/log" 2>&1 && ! grep -q '^[EW]:' "$apt/log"; then
            found=yes
            break
        fi
    done
    [ "$found" = yes ] || cannot "no mirror that this machine uses has Debian $suite: $(tail -n 1 "$apt/log")"
    # shellcheck disable=SC2086
    own install -y --download-only $wanted_packages >"$apt/log" 2>&1 || cannot "$(tail -n 1 "$apt/log")"
    for package in "$apt"/var/cache/apt/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$target/root" --keep-directory-symlink
    done
    rm -rf "$apt"
}
