package config

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// The setters of the table. What they return never holds the text they were given.

func invalid(wrong, want string) *Problem { return &Problem{Wrong: wrong, Want: want} }

// accepted takes any value and keeps none.
func accepted(*Config, string) *Problem { return nil }

func plain(field func(*Config) *string) setter {
	return func(c *Config, text string) *Problem {
		*field(c) = text
		return nil
	}
}

func secretText(field func(*Config) *secret.Value) setter {
	return func(c *Config, text string) *Problem {
		*field(c) = secret.NewValue(text)
		return nil
	}
}

func boolean(field func(*Config) *bool) setter {
	return func(c *Config, text string) *Problem {
		b, err := strconv.ParseBool(strings.ToLower(text))
		if err != nil {
			return invalid("is neither true nor false", "give true or false")
		}
		*field(c) = b
		return nil
	}
}

func oneOf(field func(*Config) *string, values ...string) setter {
	return func(c *Config, text string) *Problem {
		if !slices.Contains(values, text) {
			return invalid("is none of the known values", "give "+alternatives(values))
		}
		*field(c) = text
		return nil
	}
}

// alternatives returns "a, b or c".
func alternatives(values []string) string {
	last := len(values) - 1
	if last == 0 {
		return values[0]
	}
	return strings.Join(values[:last], ", ") + " or " + values[last]
}

// duration accepts zero or more; positive a millisecond or more.
func duration(field func(*Config) *time.Duration) setter { return durationFrom(0, field) }
func positive(field func(*Config) *time.Duration) setter {
	return durationFrom(time.Millisecond, field)
}

func durationFrom(least time.Duration, field func(*Config) *time.Duration) setter {
	return func(c *Config, text string) *Problem {
		d, ok := ParseDuration(text)
		if !ok {
			return invalid("is not a duration", "give a duration such as 500ms, 30s, 5m, 12h or 90d")
		}
		if d < least {
			return invalid("is too short", fmt.Sprintf("give a duration of at least %s", least))
		}
		*field(c) = d
		return nil
	}
}

// ParseDuration reads a Go duration, whole days ("90d"), or a plain number of seconds.
func ParseDuration(text string) (time.Duration, bool) {
	const longest = 100 * 365 * 24 * time.Hour
	unit, number := time.Second, text
	if days, ok := strings.CutSuffix(text, "d"); ok {
		unit, number = 24*time.Hour, days
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n < -int64(longest/unit) || n > int64(longest/unit) {
			return 0, false
		}
		return time.Duration(n) * unit, true
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d.Abs() <= longest
}

func prefixes(field func(*Config) *[]netip.Prefix) setter {
	return func(c *Config, text string) *Problem {
		var list []netip.Prefix
		for i, entry := range splitList(text) {
			p, err := netip.ParsePrefix(entry)
			if err != nil {
				return invalid(fmt.Sprintf("entry %d is not a CIDR", i+1), "give CIDRs separated by commas, such as 10.0.0.0/8,::1/128")
			}
			list = append(list, p.Masked())
		}
		*field(c) = list
		return nil
	}
}

// splitList returns the entries of a comma-separated list, without the empty ones.
func splitList(text string) []string {
	var list []string
	for entry := range strings.SplitSeq(text, ",") {
		if entry = strings.TrimSpace(entry); entry != "" {
			list = append(list, entry)
		}
	}
	return list
}

// file stores the path of a file that can be read.
func file(field func(*Config) *string) setter {
	return func(c *Config, text string) *Problem {
		if p := checkFile(text); p != nil {
			return p
		}
		*field(c) = text
		return nil
	}
}

func checkFile(path string) *Problem {
	const want = "name a readable file"
	f, err := os.Open(path)
	if err != nil {
		return invalid("names a file that cannot be read ("+reason(err)+")", want)
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return invalid("names a folder", want)
	}
	return nil
}

// filledFile stores the path of a file that can be read and is not blank.
func filledFile(field func(*Config) *string) setter {
	return func(c *Config, text string) *Problem {
		b, err := os.ReadFile(text)
		switch {
		case err != nil:
			return invalid("names a file that cannot be read ("+reason(err)+")", "name a readable file")
		case strings.TrimSpace(string(b)) == "":
			return invalid("names a file that is empty", "name a file that holds the value")
		}
		*field(c) = text
		return nil
	}
}
