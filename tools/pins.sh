#!/bin/sh
# Rewrites requirements.txt with the versions that are installed, without index addresses.
set -eu
cd "$(dirname "$0")/.."
{
    echo "# Exact versions of everything that CI and \`make run\` install. Kept by \`make pins\`."
    .venv/bin/pip list --format=freeze --exclude-editable --disable-pip-version-check | grep -v '^pip=='
} > requirements.part
mv requirements.part requirements.txt
