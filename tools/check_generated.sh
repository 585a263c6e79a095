#!/bin/sh
# Fails when the committed stubs are not what the .proto files generate.
set -eu
cd "$(dirname "$0")/.."
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
buf generate --output "$made"
for package in zaaz buf; do
    diff -r -x __pycache__ -x py.typed "$made/clients/python/$package" "clients/python/$package" >&2 ||
        { echo "the generated stubs are out of date: run 'make protos'" >&2; exit 1; }
done
