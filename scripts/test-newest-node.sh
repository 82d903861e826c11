#!/usr/bin/env bash
# Runs the tests of streams, sockets and files on the newest Node of the registry: what Node does beneath them changes
# between its versions. Needs `npm run build`.
set -euo pipefail
cd "$(dirname "$0")/.."

# The package `node` of the registry has the program itself.
if newest=$(npx --yes --package node@latest -- which node) && "$newest" --version; then
  "$newest" node_modules/vitest/vitest.mjs run test/e2e/streaming.test.ts test/e2e/long-streams.test.ts \
    test/e2e/faults.test.ts test/faults/late-backends.test.ts test/faults/buffers.test.ts \
    test/faults/reading-wrong-forms.test.ts test/crash/kill.test.ts test/events test/gateway
else
  echo "SKIPPED: the newest Node can't be had from the registry"
fi
