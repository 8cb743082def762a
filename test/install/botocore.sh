#!/bin/sh
# Puts the official model of AWS Secrets Manager's interface into the cache: a file of
# Debian's package python3-botocore, which is not installed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache.sh"

model=$cache/botocore/secretsmanager.json
if [ ! -s "$model" ]; then
	command -v apt-get >/dev/null || fail "not a Debian or Ubuntu system: put botocore's data/secretsmanager/2017-10-17/service-2.json at $model"
	mkdir -p "$cache/botocore"
	dir=$(mktemp -d)
	chmod 755 "$dir" # apt downloads as a user of its own
	(cd "$dir" && apt-get download python3-botocore >log 2>&1 && dpkg-deb -x python3-botocore_*.deb .) || {
		tail -20 "$dir/log" >&2
		rm -rf "$dir"
		fail "apt-get cannot download python3-botocore"
	}
	cat "$dir"/usr/lib/python3/dist-packages/botocore/data/secretsmanager/2017-10-17/service-2.json* >"$model.new"
	rm -rf "$dir"
	case $(head -c 2 "$model.new" | od -An -tx1 | tr -d ' ') in
	1f8b) gunzip <"$model.new" >"$model" && rm "$model.new" ;;
	*) mv "$model.new" "$model" ;;
	esac
fi
have "AWS's model" "$model"
