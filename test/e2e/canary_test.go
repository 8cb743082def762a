package e2e_test

import (
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// canary collects what must stay secret and everything in which it could turn up.
// check searches the second for the first, in every form in which a program writes
// a string.
type canary struct {
	mu      sync.Mutex
	secrets map[string]string // value by name
	places  map[string][]byte // content by name
}

func newCanary() *canary { return &canary{secrets: map[string]string{}, places: map[string][]byte{}} }

// protect names a value that must not turn up anywhere.
func (c *canary) protect(name, value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if value != "" {
		c.secrets[name] = value
	}
}

// search adds content to be searched.
func (c *canary) search(place string, content []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.places[place] = append(c.places[place], content...)
}

// check fails the test for every hit.
func (c *canary) check(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	require.NotEmpty(t, c.secrets)
	for place, content := range c.places {
		text := string(content)
		for name, value := range c.secrets {
			for form, written := range forms(value) {
				if strings.Contains(text, written) {
					t.Errorf("%s is in %s (%s)", name, place, form)
				}
			}
		}
	}
}

// forms are the ways in which a program may write a value.
func forms(value string) map[string]string {
	escaped, _ := json.Marshal(value)
	f := map[string]string{
		"as it is":      value,
		"hex":           hex.EncodeToString([]byte(value)),
		"hex, capitals": strings.ToUpper(hex.EncodeToString([]byte(value))),
		"query-escaped": url.QueryEscape(value),
		"path-escaped":  url.PathEscape(value),
		"JSON-escaped":  strings.Trim(string(escaped), `"`),
		"Go-quoted":     strings.Trim(fmt.Sprintf("%q", value), `"`),
	}
	// Base64 of a text that contains the value looks different for each of the three
	// places at which the value may begin in a group of three bytes; what the bytes
	// beside it can change is left out.
	for offset := range 3 {
		padded := strings.Repeat("x", offset) + value
		for name, enc := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			written := enc.EncodeToString([]byte(padded))
			from := []int{0, 2, 3}[offset]
			to := len(written) - []int{0, 2, 1}[len(padded)%3]
			if to-from >= 12 {
				f[fmt.Sprintf("%s at offset %d", name, offset)] = written[from:to]
			}
		}
	}
	return f
}

func TestCanaryFindsEveryForm(t *testing.T) {
	const value = `s3cr3t "with/+:% ümläut`
	for form, written := range forms(value) {
		c := newCanary()
		c.protect("it", value)
		c.search("here", []byte("before "+written+" after"))
		found := false
		for _, w := range forms(value) {
			found = found || strings.Contains(string(c.places["here"]), w)
		}
		require.Truef(t, found, form)
	}
	for offset := range 5 {
		embedded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("a", offset) + value + "tail"))
		found := false
		for _, w := range forms(value) {
			found = found || strings.Contains(embedded, w)
		}
		require.Truef(t, found, "base64 with %d bytes before", offset)
	}
}

// searchDir adds every file below dir.
func (c *canary) searchDir(t *testing.T, name, dir string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil {
			c.search(name+" "+d.Name(), b)
		}
		return err
	}))
}

// searchDatabase adds every value of every table.
func (c *canary) searchDatabase(t *testing.T, driver, dsn string) {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	require.NoError(t, err)
	defer db.Close()
	for _, table := range tablesOf(t, driver, db) {
		c.searchTable(t, db, table)
	}
}

func (c *canary) searchTable(t *testing.T, db *sql.DB, table string) {
	t.Helper()
	rows, err := db.Query("SELECT * FROM " + table)
	require.NoError(t, err)
	defer rows.Close()
	columns, err := rows.Columns()
	require.NoError(t, err)
	for rows.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(sql.NullString)
		}
		require.NoError(t, rows.Scan(values...))
		for i, v := range values {
			c.search("database "+table+"."+columns[i], []byte(v.(*sql.NullString).String+"\n"))
		}
	}
	require.NoError(t, rows.Err())
}

func tablesOf(t *testing.T, driver string, db *sql.DB) (names []string) {
	t.Helper()
	query := "SELECT name FROM sqlite_master WHERE type = 'table'"
	if driver == "pgx" {
		query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
	}
	rows, err := db.Query(query)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		names = append(names, name)
	}
	require.NoError(t, rows.Err())
	require.Contains(t, names, "tokens")
	require.Contains(t, names, "sealed_secrets")
	return names
}
