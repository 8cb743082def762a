#!/bin/sh
# Sees to it that the programs are there that the commands of README.md and
# docs/vault.md use.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache.sh"
. "$here/apt.sh"

for program in curl jq; do
	command -v $program >/dev/null || apt_install $program
	have $program "$(command -v $program)"
done
