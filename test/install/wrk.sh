#!/bin/sh
# Sees to it that wrk is there, which makes the load of the benchmarks.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache.sh"
. "$here/apt.sh"

command -v wrk >/dev/null || apt_install wrk
have wrk "$(command -v wrk)"
