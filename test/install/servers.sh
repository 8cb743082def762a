#!/bin/sh
# Sees to it that everything is there that the tests need besides Go: a PostgreSQL
# server, a Vault, an OpenID provider, curl and jq. What it has to build or download
# it keeps in NEXUS_TEST_CACHE, or in nexus-broker in the user's cache folder, for
# next time. Prints the PATH with which the tests find it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache.sh"

command -v go >/dev/null || fail "Go is missing: see https://go.dev/dl"
have Go "$(go env GOROOT) $(go env GOVERSION)"
"$here/postgres.sh"
PATH=$("$here/node.sh"):$PATH
have oidc-provider "$("$here/oidc-provider.sh")"
"$here/vaultdev.sh"
"$here/jq.sh"
"$here/botocore.sh"
echo "$PATH"
