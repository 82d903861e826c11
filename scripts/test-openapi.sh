#!/usr/bin/env bash
# Holds docs/openapi.json against the rules of Redocly, the built proxy against the document (schemathesis), and makes
# clients of it that compile and stream a chat: by openapi-typescript and openapi-python-client. Needs `npm run build`.
# PYTHON names another interpreter than python3.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
python=${PYTHON:-python3}
export PIP_DISABLE_PIP_VERSION_CHECK=1 REDOCLY_TELEMETRY=off
# Of what the clients are made.
packages=(@redocly/cli@2.77.0 openapi-typescript@7.13.0 openapi-fetch@0.17.0 typescript@5.9.3 @types/node@20.19.43)
wheels=(schemathesis==4.32.5 openapi-python-client==0.29.1 ruff==0.17.6 mypy==2.4.1)

clients=$root/node_modules/.cache/openapi-clients
if [ "$(cat "$clients/installed" 2>/dev/null)" != "${packages[*]}" ]; then
  rm -rf "$clients"
  mkdir -p "$clients"
  (cd "$clients" && npm init -y >/dev/null && npm install --no-audit --no-fund --silent "${packages[@]}")
  echo "${packages[*]}" >"$clients/installed"
fi
venv=$root/node_modules/.cache/openapi-python-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$(cat "$venv/installed" 2>/dev/null)" != "${wheels[*]}" ]; then
  rm -rf "$venv"
  "$python" -m venv "$venv"
  "$venv/bin/pip" install -q "${wheels[@]}"
  echo "${wheels[*]}" >"$venv/installed"
fi

cp scripts/openapi/client.ts "$clients"
cd "$clients"
npx redocly lint "$root/docs/openapi.json" --config "$root/scripts/openapi/redocly.yaml" --format summary 2>&1 | grep -v '║'
npx openapi-typescript "$root/docs/openapi.json" --output schema.d.ts
npm pkg set type=module >/dev/null
npx tsc --strict --target es2023 --module nodenext --skipLibCheck --rewriteRelativeImportExtensions client.ts

rm -rf python
PATH="$venv/bin:$PATH" openapi-python-client generate --path "$root/docs/openapi.json" --meta none \
  --output-path python/deepseek_proxy_client --fail-on-warning
"$venv/bin/python" -m compileall -q python
# The generator's own templates are not clean under mypy; what is used of them is checked.
MYPYPATH=python "$venv/bin/mypy" --strict --follow-imports silent --cache-dir python/.mypy_cache \
  "$root/scripts/openapi/client.py"
PYTHONPATH=$clients/python node "$root/scripts/openapi/run.mjs" "$venv" "$clients"
