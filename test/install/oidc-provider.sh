#!/bin/sh
# Installs the packages that test/oidc-provider needs, once for each state of its
# package-lock.json, into the cache. Prints the folder.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache.sh"

program=$(cd "$here/../oidc-provider" && pwd)
hash=$(node -e 'const { createHash } = require("crypto"); process.stdout.write(createHash("sha256").update(require("fs").readFileSync(process.argv[1])).digest("hex").slice(0, 16))' "$program/package-lock.json")
target=$cache/oidc-provider-$hash

if [ ! -d "$target/node_modules" ]; then
	have oidc-provider "fetching its packages from npm"
	mkdir -p "$target"
	work=$(mktemp -d "$target/install.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	cp "$program/package.json" "$program/package-lock.json" "$work"
	(cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2) ||
		fail "npm could not install the packages of test/oidc-provider"
	# Complete or not at all, also when two of these run at once.
	mv "$work/node_modules" "$target/" 2>/dev/null || [ -d "$target/node_modules/oidc-provider" ]
fi
echo "$target"
