# Sourced by the scripts beside it, after cache.sh. Installs Debian packages.

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

# apt_install installs packages, or says by which name to install them by hand.
apt_install() {
	command -v apt-get >/dev/null || fail "not a Debian or Ubuntu system: install $* (or what it is called here) yourself"
	[ "$(id -u)" = 0 ] || command -v sudo >/dev/null || fail "neither root nor sudo: have somebody run 'apt-get install $*'"
	have apt-get "installing $*"
	log=$(mktemp)
	if ! { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
		-o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold "$@"; } >"$log" 2>&1; then
		tail -20 "$log" >&2
		rm -f "$log"
		fail "apt-get could not install $*"
	fi
	rm -f "$log"
}
