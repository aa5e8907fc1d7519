#!/bin/sh
# As the public image: the cookie of Erlang is made on the first start, and kept in the volume.
set -eu
umask 077
cookie=/var/lib/rabbitmq/.erlang.cookie
[ -e "$cookie" ] || od -An -v -tx1 -N 20 /dev/urandom | tr -d ' \n' >"$cookie"
chmod 400 "$cookie"
umask 022
exec "$@"
