#!/bin/sh
# Write the secrets of docker-compose.yml, random ones, to .env beside it, readable by its owner only.
#
#   scripts/make-env.sh [--force] [FILE]
#
# An existing file is left alone; --force replaces it. The passwords of running servers do not change by that:
# see docs/how-to/deploy-with-compose.md.
set -eu
umask 077

force=no
if [ "${1:-}" = --force ]; then
    force=yes
    shift
fi
case "${1:-}" in
-*)
    echo "usage: scripts/make-env.sh [--force] [FILE]" >&2
    exit 2
    ;;
esac
file=${1:-$(dirname "$0")/../.env}

names="OWNER_PASSWORD BROKER_ADMIN_PASSWORD INTAKE_PASSWORD RELAY_PASSWORD SCHEDULER_PASSWORD
ORDERS_PASSWORD BILLING_PASSWORD REMINDERS_PASSWORD PROVISIONING_PASSWORD READONLY_PASSWORD
EXPORTER_PASSWORD EVENTS_PASSWORD CONSOLE_PASSWORD GRAFANA_PASSWORD UPSTREAM_PASSWORD LINK_SECRET GATEWAY_TOKEN WEB_TOKEN DEDICATED_TOKEN CLOUD_TOKEN TELECOM_TOKEN"

if [ "$force" = no ] && { [ -e "$file" ] || [ -L "$file" ]; }; then
    echo "$file exists and was left as it is; --force replaces it" >&2
    for name in $names; do
        grep -q "^$name=." "$file" 2>/dev/null || echo "it has no $name" >&2
    done
    exit 1
fi

# Written beside it and moved: an interrupted run leaves no half of it.
new=$file.$$
trap 'rm -f "$new"' EXIT
trap 'exit 1' HUP INT TERM
rm -f "$new"
for name in $names; do
    # 24 bytes in hexadecimal: passwords become part of URLs.
    secret=$(dd if=/dev/urandom bs=24 count=1 2>/dev/null | od -An -v -tx1 | tr -d ' \n')
    [ ${#secret} -eq 48 ] || { echo "/dev/urandom cannot be read" >&2; exit 1; }
    echo "$name=$secret"
done >"$new"
if [ "$force" = yes ]; then
    mv -f "$new" "$file"
else
    ln "$new" "$file" # fails if somebody made one meanwhile
fi
echo "wrote $file"
