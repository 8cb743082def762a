package config

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Dev is what --dev has made.
type Dev struct {
	Enabled bool
	// Dir holds the database and the keys, mode 0700.
	Dir string
	// APIKey is the generated key, to be shown to the person at the terminal. It is
	// zero if the environment gives API keys. It is in Access too.
	APIKey secret.Value
}

// The files of --dev, mode 0600, each one key in base64.
const (
	devEncryptionKey = "encryption.key"
	devStateKey      = "state.key"
	devAPIKey        = "api.key"
)

// devDefaults are the defaults of --dev. The zero devDefaults has none.
type devDefaults struct {
	dir     string
	inspect bool
	texts   map[string]string // by variable
	files   map[string]string // file names, by variable
}

func newDevDefaults(o Options, env map[string]string) devDefaults {
	d := devDefaults{
		dir: o.DataDir, inspect: o.Inspect,
		texts: map[string]string{
			"DATABASE_URL": "sqlite:" + filepath.Join(o.DataDir, "nexus.db"),
			"BASE_URL":     "http://localhost:8080",
			"LOG_FORMAT":   "text",
		},
		files: map[string]string{"ENCRYPTION_KEY": devEncryptionKey, "STATE_KEY": devStateKey},
	}
	if d.dir == "" {
		d.dir = "nexus-data"
		d.texts["DATABASE_URL"] = "sqlite:./nexus-data/nexus.db"
	}
	if !slices.ContainsFunc(keySources(), func(name string) bool { return env[name] != "" }) {
		d.files["API_KEY"] = devAPIKey
	}
	return d
}

// value returns the default of a variable. It makes the key file if there is none.
func (d devDefaults) value(name string) (text string, found bool, err error) {
	if text, found = d.texts[name]; found {
		return text, true, nil
	}
	if base, ok := d.files[name]; ok {
		text, err = d.key(base)
		return text, err == nil, err
	}
	return "", false, nil
}

// key returns the key that is kept in a file, a new one if there is no file yet.
func (d devDefaults) key(base string) (string, error) {
	path := filepath.Join(d.dir, base)
	text, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return text, err
	}
	text = newKey(base)
	if d.inspect {
		return text, nil
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return "", err
	}
	err = createKey(path, text)
	if errors.Is(err, fs.ErrExist) { // another process was faster
		return readKey(path)
	}
	return text, err
}

// newKey returns 32 random bytes as text. An API key is to be typed into a shell
// and a header: it has no "+", "/" or "=".
func newKey(base string) string {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	if base == devAPIKey {
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	return base64.StdEncoding.EncodeToString(raw)
}

func readKey(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", errors.New(filepath.Base(path) + " can be read by others: chmod 600 it")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		return "", errors.New(filepath.Base(path) + " is empty: delete it")
	}
	return text, nil
}

// createKey writes a file that must not exist, in full or not at all.
func createKey(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(text + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}

// prepareDev makes the folder of the database and notes the generated API key.
func (l *loader) prepareDev() {
	if !l.opts.Dev || len(l.problems) > 0 {
		return
	}
	if !l.opts.Inspect {
		if err := os.MkdirAll(l.dev.dir, 0o700); err != nil {
			l.problem("DATABASE_URL", "cannot be kept for --dev ("+reason(err)+")", "set it, or make the folder "+l.dev.dir+" writable")
		}
	}
	if _, ok := l.dev.files["API_KEY"]; ok {
		l.cfg.Dev.APIKey = l.cfg.Access.APIKey
	}
}
