#!/usr/bin/env bash
# What the tests against VS Code need, into build/editors/vscode: VS Code 1.99.3 as a server (the workbench in a browser and the real extension
# host), and into editors/vscode/node_modules what builds the extension and drives the browser. Whatever is there already is left alone.
#
# VS Code's own downloads are not needed: the npm package code-server carries the built program. Nothing of code-server itself is run.
# Needs Node.js 20 or newer with npm, and Chromium: found on PATH or named by CHROMIUM, else installed by apt-get, which takes root on Debian or Ubuntu.
set -euo pipefail

CODE_SERVER=4.99.4 # VS Code 1.99.3, the oldest that the extension runs in
HOUSE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
EXTENSION=$HOUSE/editors/vscode
SERVER=$HOUSE/build/editors/vscode

fail() { echo "error: $*" >&2; exit 1; }

command -v npm >/dev/null || fail "no npm here, expected Node.js 20 or newer with npm (Debian and Ubuntu: the packages nodejs and npm)"
node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' || fail "node is $(node --version), expected 20 or newer"

if ! { [ -n "${CHROMIUM:-}" ] || command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "no Chromium here: install chromium (or google-chrome), or name one with CHROMIUM=PATH"
  fi
  echo 'installing chromium (0.4 GB)'
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1 \
    || fail "apt-get could not install chromium: install it, or name a Chromium or Chrome with CHROMIUM=PATH"
fi

# npm itself notes what it has installed; the lock's own change is what asks for more.
if ! [ "$EXTENSION/node_modules/.package-lock.json" -nt "$EXTENSION/package-lock.json" ]; then
  echo 'installing what builds the VS Code extension into editors/vscode/node_modules (0.3 GB)'
  (cd "$EXTENSION" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch node_modules/.package-lock.json)
fi

if [ "$(cat "$SERVER/.version" 2>/dev/null)" != "$CODE_SERVER" ]; then
  echo 'installing VS Code 1.99.3 into build/editors/vscode (0.3 GB)'
  rm -rf "$SERVER" && mkdir -p "$SERVER" && cd "$SERVER"
  npm pack --silent "code-server@$CODE_SERVER" >/dev/null
  tar xzf "code-server-$CODE_SERVER.tgz" --strip-components=3 package/lib/vscode
  rm "code-server-$CODE_SERVER.tgz"
  # Without scripts: the native parts are for terminals and searches, and would be compiled for minutes.
  npm install --silent --omit=dev --ignore-scripts --no-audit --no-fund
  echo "$CODE_SERVER" > .version
fi
