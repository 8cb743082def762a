#!/bin/sh
# Builds test/vaultdev, a real Vault, into the cache: minutes the first time, a
# second after that. The flags are always the same, or everything is compiled anew.
# VAULT_BIN (a vault or bao program) or VAULTDEV_BIN is used instead when it is set.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache.sh"

given=${VAULT_BIN:-${VAULTDEV_BIN:-}}
if [ -n "$given" ]; then
	[ -x "$given" ] || fail "$given, of VAULT_BIN or VAULTDEV_BIN, is no program"
	have Vault "$given"
	exit
fi
mkdir -p "$cache"
[ -x "$cache/vaultdev" ] || have Vault "building, which takes about 3 minutes the first time"
GOTOOLCHAIN=local go build -C "$here/../vaultdev" -trimpath -ldflags '-s -w' -o "$cache/vaultdev" . >"$cache/vaultdev.log" 2>&1 || {
	tail -20 "$cache/vaultdev.log" >&2
	fail "test/vaultdev does not build; the whole log is $cache/vaultdev.log"
}
have Vault "$cache/vaultdev"
