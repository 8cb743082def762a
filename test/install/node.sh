#!/bin/sh
# Sees to it that Node.js 18 or newer and npm are there, for test/oidc-provider.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache.sh"
. "$here/apt.sh"

major() { node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0; }

command -v node >/dev/null && command -v npm >/dev/null || apt_install nodejs npm
[ "$(major)" -ge 18 ] || fail "Node.js 18 or newer is needed and $(node --version 2>/dev/null || echo none) is here: see https://nodejs.org/en/download"
command -v npm >/dev/null || fail "npm is missing beside $(command -v node)"
have Node.js "$(command -v node) $(node --version)"
