#!/bin/sh
# Installs the packages that test/oidc-provider needs, once for each state of its
# package-lock.json, outside the repository: in oidc-provider-<hash> of
# NEXUS_TEST_CACHE, or of nexus-broker in the user's cache folder. Prints the folder.
set -eu

source=$(cd "$(dirname "$0")/../oidc-provider" && pwd)
case $(uname) in
Darwin) caches="$HOME/Library/Caches" ;;
*) caches=${XDG_CACHE_HOME:-$HOME/.cache} ;;
esac
hash=$(node -e 'process.stdout.write(require("crypto").createHash("sha256").update(require("fs").readFileSync(process.argv[1])).digest("hex").slice(0, 16))' "$source/package-lock.json")
target=${NEXUS_TEST_CACHE:-$caches/nexus-broker}/oidc-provider-$hash

if [ ! -d "$target/node_modules" ]; then
	mkdir -p "$(dirname "$target")"
	work=$(mktemp -d "$target.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	cp "$source/package.json" "$source/package-lock.json" "$work"
	(cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
	# Complete or not at all, also when two of these run at once.
	mkdir -p "$target"
	mv "$work/node_modules" "$target/" 2>/dev/null || [ -d "$target/node_modules/oidc-provider" ]
fi
echo "$target"
