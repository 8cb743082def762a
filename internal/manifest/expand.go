package manifest

import (
	"errors"
	"regexp"
	"strings"
)

// variable is what stands between ${ and }: a name, and perhaps a default.
var variable = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?$`)

var errBadExpansion = errors.New(`"${" must be followed by a variable's name and "}", as in ${NAME} or ${NAME:-default}; write "$${" for the characters themselves`)

// expand replaces each ${NAME} in s by the value that lookup has for it, and each
// ${NAME:-default} by the value or else by the default, which ends at the first "}".
// A variable that is empty counts as not set. $${ stands for the characters ${. What
// has been put in is not looked at again.
//
// used reports whether a variable is named in s; unset are those without a value.
func expand(s string, lookup func(string) string) (expanded string, used bool, unset []string, err error) {
	var b strings.Builder
	for s != "" {
		switch {
		case strings.HasPrefix(s, "$${"):
			b.WriteString("${")
			s = s[len("$${"):]
		case strings.HasPrefix(s, "${"):
			inner, rest, closed := strings.Cut(s[len("${"):], "}")
			m := variable.FindStringSubmatch(inner)
			if !closed || m == nil {
				return "", used, unset, errBadExpansion
			}
			used = true
			value := lookup(m[1])
			switch {
			case value != "":
				b.WriteString(value)
			case len(inner) > len(m[1]): // it has a default, which may be empty
				b.WriteString(m[2])
			default:
				unset = append(unset, m[1])
			}
			s = rest
		default:
			b.WriteByte(s[0])
			s = s[1:]
		}
	}
	return b.String(), used, unset, nil
}

// escape returns what expand turns into s.
func escape(s string) string { return strings.ReplaceAll(s, "${", "$${") }
