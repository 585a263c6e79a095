#!/bin/sh
# Fails when the contract breaks clients of the main branch's.
set -eu
cd "$(dirname "$0")/.."
if git rev-parse --verify --quiet main:protos >/dev/null; then
    buf breaking protos --against '.git#branch=main,subdir=protos'
fi
