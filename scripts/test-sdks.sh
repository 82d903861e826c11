#!/usr/bin/env bash
# Packs clients/typescript, installs the package with the official SDKs in a clean folder and runs their calls over the
# built proxy, on this Node and on the newest one of the registry; checks the package with publint and attw. Needs
# `npm run build`.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

npx tsc -p clients/typescript/tsconfig.json
(cd clients/typescript && npm pack --silent --ignore-scripts --pack-destination "$folder" >/dev/null)
cp clients/typescript/test/sdks.test.mjs "$folder"
cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent ./deepseek-proxy-client-*.tgz openai@6 @anthropic-ai/sdk@1 ai@6 @ai-sdk/openai@3 \
  @ai-sdk/anthropic@3 @langchain/openai@1 publint@0.3 @arethetypeswrong/cli@0.18
npx publint node_modules/deepseek-proxy-client
npx attw --quiet --profile esm-only deepseek-proxy-client-*.tgz
SERVER="$root/dist/main.js" node --test sdks.test.mjs

# The package `node` of the registry has the program itself.
if newest=$(npx --yes --package node@latest -- which node) && "$newest" --version; then
  SERVER="$root/dist/main.js" "$newest" --test sdks.test.mjs
else
  echo "SKIPPED: the newest Node can't be had from the registry"
fi
