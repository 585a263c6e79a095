#!/bin/sh
# Installs Debian's chromium, which the browser tests need, where that is ours to do.
set -eu

say() { echo "setup: $*" >&2; }

if [ -n "${ZAAZ_TEST_CHROMIUM:-}" ] || command -v chromium >/dev/null; then exit 0; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "the browser tests are skipped: install chromium, or set ZAAZ_TEST_CHROMIUM to one"
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
install() { timeout 300 apt-get install -qq -y --no-install-recommends chromium >/dev/null; }

say "installing Debian's chromium"
install 2>/dev/null || { timeout 120 apt-get update -qq >&2 && install; } ||
    say "chromium could not be installed: the browser tests will fail"
