#!/bin/sh
# As the public image on an empty volume: a cluster, POSTGRES_USER with POSTGRES_PASSWORD as its superuser,
# POSTGRES_DB, then /docker-entrypoint-initdb.d/*.sql, before anybody may connect over the network.
set -eu
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    printf %s "${POSTGRES_PASSWORD:?}" >/tmp/password
    initdb --username="${POSTGRES_USER:=postgres}" --pwfile=/tmp/password --auth-local=trust \
        --encoding=UTF8 --locale=C.UTF-8 --auth-host=scram-sha-256 >/dev/null
    rm /tmp/password
    printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
    printf "listen_addresses = '*'\n" >>"$PGDATA/postgresql.conf"
    pg_ctl --options "-c listen_addresses=''" --wait start >/dev/null
    [ "${POSTGRES_DB:=$POSTGRES_USER}" = postgres ] || createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    for script in /docker-entrypoint-initdb.d/*.sql; do
        [ ! -e "$script" ] ||
            psql --quiet --set ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --file="$script"
    done
    pg_ctl --mode fast --wait stop >/dev/null
fi
exec "$@"
