package config

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// docs/configuration.md has one row for each variable of the table, with its default.
func TestDocumentation(t *testing.T) {
	b, err := os.ReadFile("../../docs/configuration.md")
	require.NoError(t, err)
	rows := map[string][]string{} // default, meaning, example
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z0-9_]+)` \\| ([^|]*) \\| ([^|]*) \\| ([^|]*)\\|$").FindAllStringSubmatch(string(b), -1) {
		require.NotContains(t, rows, m[1], "%s has two rows", m[1])
		rows[m[1]] = m[2:]
	}
	for _, v := range append(variables(), clientVariables()[0]) { // the key's names are in the table already
		row, documented := rows[v.name]
		require.True(t, documented, "%s has no row", v.name)
		delete(rows, v.name)
		want := "–"
		switch {
		case v.required:
			want = "required"
		case v.def != "":
			want = "`" + v.def + "`"
		}
		require.Equal(t, want, row[0], "the default of %s", v.name)
		if v.secret {
			require.Contains(t, row[1], "*Secret", v.name)
			require.Equal(t, !v.ownFile, strings.Contains(row[1], "`"+v.name+"_FILE`"), v.name)
		}
	}
	require.Empty(t, rows, "rows of variables that do not exist")
}

// Whatever is set to whatever, nothing of it is quoted.
func TestNoValueIsQuoted(t *testing.T) {
	for _, v := range variables() {
		for _, name := range v.names() {
			for _, value := range []string{"canary", "https://canary:canary@h", "canary\ncanary", "-1canary", "\x00canary", "canary=canary", "/canary"} {
				for _, backend := range []string{BackendInternal, BackendVault, BackendAWS, BackendGCP} {
					methods := vaultLogins
					if backend != BackendVault {
						methods = methods[:1] // nobody asks which
					}
					for _, method := range methods {
						c, err := Load([]string{name + "=" + value, "SECRET_BACKEND=" + backend, "VAULT_AUTH_METHOD=" + method}, Options{})
						var problems Problems
						require.ErrorAs(t, err, &problems)
						require.NotContains(t, err.Error(), "canary", "%s=%q", name, value)
						for _, p := range problems {
							for _, s := range c.Settings {
								require.False(t, s.Name == p.Variable && strings.Contains(s.Value, "canary"), "%s=%q is shown", name, value)
							}
						}
					}
				}
			}
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("DATABASE_URL", "host=h password='a\\'b")
	f.Add("ENCRYPTION_KEY", "AAAA,,")
	f.Add("ALLOWED_CIDRS", "::/0,1.2.3.4/33")
	f.Fuzz(func(t *testing.T, name, value string) {
		c, err := Load([]string{name + "=" + value, "SECRET_BACKEND=" + BackendVault}, Options{})
		require.Error(t, err)
		for _, line := range append(strings.Split(err.Error(), "\n"), c.Warnings...) {
			if len(value) > 12 && !strings.HasSuffix(name, "_FILE") {
				require.NotContains(t, line, value)
			}
		}
	})
}
