#!/bin/sh
# Makes .venv with the pinned packages, and what of the system they need. Idempotent.
set -eu
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }

need() { # PACKAGE COMMAND...: installs Debian's PACKAGE when COMMAND fails and we may
    package=$1
    shift
    if "$@" >/dev/null 2>&1; then return; fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing Debian's $package"
        apt-get install -qq -y "$package" >&2 ||
            { apt-get update -qq >&2 && apt-get install -qq -y "$package" >&2; }
    else
        say "please install $package (on Debian: apt-get install $package), then run this again"
        exit 1
    fi
}

stamp=.venv/.installed
if [ -f "$stamp" ] && [ "$stamp" -nt requirements.txt ] &&
    [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt clients/python/pyproject.toml ]; then
    exit 0
fi

python=$(command -v python3.11 || command -v python3)
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { say "Python 3.11 or later is needed; $python is older"; exit 1; }
need python3-venv "$python" -c 'import ensurepip'
need util-linux command -v setpriv
# The embedded mongod is linked against these two.
need libcurl4 sh -c 'PATH=$PATH:/sbin:/usr/sbin; ldconfig -p | grep -q "libcurl\.so\.4"'
need libssl3 sh -c 'PATH=$PATH:/sbin:/usr/sbin; ldconfig -p | grep -q "libssl\.so\.3"'

say "installing packages into .venv"
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt >&2
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
    -e clients/python -e . >&2
touch "$stamp"
