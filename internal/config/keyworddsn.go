package config

import "strings"

// keywordDSN is a libpq keyword/value connection string: host=… user='…'
// (PostgreSQL documentation, 34.1.1.1).
type keywordDSN struct {
	text   string
	values map[string]string
}

func parseKeywordDSN(text string) (dsn, string) {
	d := &keywordDSN{text: text, values: map[string]string{}}
	rest := strings.TrimSpace(text)
	for rest != "" {
		name, after, found := strings.Cut(rest, "=")
		name = strings.TrimSpace(name)
		if !found || name == "" || strings.ContainsAny(name, " \t\r\n'") {
			return nil, "is neither a URL nor key=value pairs"
		}
		value, next, ok := keywordValue(strings.TrimLeft(after, " \t\r\n"))
		if !ok {
			return nil, "has a quoted value that does not end"
		}
		d.values[name] = value // the last one counts
		rest = strings.TrimLeft(next, " \t\r\n")
	}
	if len(d.values) == 0 {
		return nil, "is neither a URL nor key=value pairs"
	}
	return d, ""
}

// keywordValue reads one value, quoted or not, and returns what follows it.
func keywordValue(s string) (value, rest string, ok bool) {
	quoted := strings.HasPrefix(s, "'")
	if quoted {
		s = s[1:]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quoted && c == '\'':
			return b.String(), s[i+1:], true
		case !quoted && strings.IndexByte(" \t\r\n", c) >= 0:
			return b.String(), s[i:], true
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), "", !quoted
}

func (d *keywordDSN) get(parameter string) (string, bool) {
	v, given := d.values[parameter]
	return v, given
}

// set appends: of a parameter that is given twice the last one counts.
func (d *keywordDSN) set(parameter, value string) {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	d.values[parameter] = value
	d.text += " " + parameter + "='" + quote.Replace(value) + "'"
}

func (d *keywordDSN) String() string { return d.text }
