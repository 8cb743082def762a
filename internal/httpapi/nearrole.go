package httpapi

import (
	"log/slog"
	"strings"
)

// nearRole is an entry that is an admin key as a whole, although it looks as if it was
// meant for a role. Which one it resembles tells nothing of the key.
type nearRole struct {
	entry int // the line of a file, or the number in a variable; from 1 on
	role  Role
}

// resembles returns the role that the beginning of an entry without a role resembles, "" if
// none: but for case, for spaces, or for one letter that is wrong, missing, too many or
// has changed places with its neighbour.
func resembles(entry string) Role {
	prefix, _, found := strings.Cut(entry, ":")
	if !found {
		return ""
	}
	word := strings.ToLower(strings.Join(strings.Fields(prefix), ""))
	for _, r := range []Role{Admin, Agent, Auditor} {
		if nearly(word, string(r)) {
			return r
		}
	}
	return ""
}

// nearly reports whether one edit at most makes a into b.
func nearly(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	same := 0 // bytes at the beginning
	for same < len(a) && a[same] == b[same] {
		same++
	}
	restA, restB := a[same:], b[same:]
	switch len(b) - len(a) {
	case 0:
		swapped := len(restA) > 1 && restA[0] == restB[1] && restA[1] == restB[0] && restA[2:] == restB[2:]
		return restA == "" || restA[1:] == restB[1:] || swapped
	case 1:
		return restA == restB[1:]
	}
	return false
}

// warnOfNearRoles says which entries of a source may have been meant otherwise.
func warnOfNearRoles(log *slog.Logger, variable, unit string, found []nearRole) {
	for _, n := range found {
		log.Warn("an entry of the API keys begins almost like a role and is an admin key as a whole; write the role exactly, "+
			"without spaces before the colon, if it was meant", "variable", variable, unit, n.entry, "role", n.role)
	}
}
