# Sourced by the scripts beside it. Sets cache to the folder where they keep what
# they build, the same that package test/servers looks into.
case $(uname) in
Darwin) cache="$HOME/Library/Caches/nexus-broker" ;;
*) cache="${XDG_CACHE_HOME:-$HOME/.cache}/nexus-broker" ;;
esac
cache=${NEXUS_TEST_CACHE:-$cache}

# have names on one line what a step has provided.
have() { printf '  %-14s %s\n' "$1" "$2" >&2; }

# fail ends the script with what is missing and what to do.
fail() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}
