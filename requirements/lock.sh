#!/bin/sh
# Rewrites the locks from the *.in files. Pins that still fit stay; `sh requirements/lock.sh --upgrade` moves them all.
set -eu
cd "$(dirname "$0")/.."

venv=.venv-lock
[ -x "$venv/bin/uv" ] || {
    "${PYTHON:-python3}" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
}

# uv doesn't read pip's configuration: whatever index pip was given is passed on.
index=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$("$venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)}}
if [ -n "$index" ]; then
    export UV_DEFAULT_INDEX="$index"
fi

lock() {
    source=$1 target=$2
    shift 2
    "$venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
        "$@" --output-file "$target" "$source" >/dev/null
    echo "$target"
}

lock requirements/pip.in requirements/pip.txt "$@"
# First what runs on Lambda: requirements/dev.in is bound to its pins.
lock requirements/runtime.in layers/dependencies/requirements.txt "$@"
lock requirements/dev.in requirements/dev.txt "$@"
lock requirements/sam.in requirements/sam.txt "$@"
lock requirements/checkov.in requirements/checkov.txt "$@"
