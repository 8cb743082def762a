#!/bin/sh
# Sees to it that the programs of a PostgreSQL server are there. The tests start
# throw-away clusters of their own with them; no cluster is made or started here.
# PG_BINDIR names the folder of another version.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache.sh"
. "$here/apt.sh"

server() {
	if [ -n "${PG_BINDIR:-}" ]; then
		ls "$PG_BINDIR/postgres"
	else
		ls /usr/lib/postgresql/*/bin/postgres 2>/dev/null | sort -V | tail -1 | grep . || command -v postgres
	fi
}

if ! server >/dev/null; then
	[ -z "${PG_BINDIR:-}" ] || fail "PG_BINDIR=$PG_BINDIR holds no program named postgres"
	# Debian's package starts a cluster of its own on port 5432 unless this file,
	# which it leaves alone when it is there, says otherwise.
	conf=/etc/postgresql-common/createcluster.conf
	if [ ! -e "$conf" ]; then
		as_root mkdir -p "$(dirname "$conf")"
		echo 'create_main_cluster = false' | as_root tee "$conf" >/dev/null
	fi
	apt_install postgresql
fi
have PostgreSQL "$(server || fail 'no PostgreSQL server, though the package postgresql is installed: set PG_BINDIR')"
