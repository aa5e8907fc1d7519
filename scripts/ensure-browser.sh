#!/bin/sh
# The tests of pages drive Debian's Chromium. If there is none: install it where that may be done by
# itself, else say how.
set -eu
if command -v chromium >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "chromium is not installed: sudo apt-get install chromium"
    exit 0
fi
echo "installing chromium"
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } ||
    echo "that failed: apt-get install chromium says why"
