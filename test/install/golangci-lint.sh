#!/bin/sh
# Builds golangci-lint into the cache, at the version that .golangci.yml is written
# for: about a minute the first time. Prints the program's path.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache.sh"

version=v2.15.0
program="$cache/golangci-lint-$version"
if [ ! -x "$program" ]; then
	have golangci-lint "building $version, which takes about a minute"
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	GOBIN=$work go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version" >"$work/log" 2>&1 || {
		tail -20 "$work/log" >&2
		fail "golangci-lint $version cannot be built"
	}
	mkdir -p "$cache"
	mv "$work/golangci-lint" "$program"
fi
echo "$program"
