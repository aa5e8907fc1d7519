#!/bin/sh
# The tests start a private RabbitMQ node from the server that is on the machine. If there is
# none: install it where that may be done by itself, else say how. Never starts a broker.
set -eu
if ls /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server >/dev/null 2>&1 ||
    command -v rabbitmq-server >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "rabbitmq-server is not installed: sudo apt-get install rabbitmq-server"
    exit 0
fi
echo "installing rabbitmq-server, without starting it"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM  # or the shell would leave it behind
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -qq --no-install-recommends rabbitmq-server >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends rabbitmq-server >/dev/null; } ||
    echo "that failed: apt-get install rabbitmq-server says why"
