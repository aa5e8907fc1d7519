#!/bin/sh
# Make .venv with the locked dependencies of requirements/$1.txt and this project in it.
set -eu
kind=$1

python=
for candidate in python3 python3.11 python3.12 python3.13 /usr/bin/python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c \
        'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "Python 3.11 or newer is needed: apt-get install python3 python3-venv" >&2
    exit 1
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "this Python has no venv: installing python3-venv"
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -y -qq python3-venv >/dev/null 2>&1 ||
            { apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null; }
    else
        echo "this Python has no venv: sudo apt-get install python3-venv" >&2
        exit 1
    fi
fi

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "making .venv with $("$python" --version)"
    "$python" -m venv .venv
fi
echo "installing requirements/$kind.txt"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
.venv/bin/python -m pip install -q --require-hashes -r "requirements/$kind.txt"
.venv/bin/python -m pip install -q --no-deps --no-build-isolation -e .
touch ".venv/$kind"
if [ "$kind" = dev ]; then touch .venv/run; fi
