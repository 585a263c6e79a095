#!/bin/sh
# Fails when the committed stubs and comments are not what the .proto files generate.
set -eu
cd "$(dirname "$0")/.."
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
buf generate --output "$made"
for folder in clients/python/zaaz clients/python/buf gateway/openapi/comments; do
    diff -r -x __pycache__ -x py.typed "$made/$folder" "$folder" >&2 ||
        { echo "the generated code is out of date: run 'make protos'" >&2; exit 1; }
done
