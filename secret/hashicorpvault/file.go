package hashicorpvault

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/nexus-broker/nexus-broker/secret"
)

// maxCredentialFile bounds the file of a token or a secret id.
const maxCredentialFile = 64 << 10

// fileState tells one content of a file from the next without reading it. Mounted
// secrets are replaced by another file; the modification time shows a file that was
// written in place.
type fileState struct{ info os.FileInfo } // nil: it is not there

func stateOf(path string) fileState {
	info, err := os.Stat(path)
	if err != nil {
		return fileState{}
	}
	return fileState{info}
}

func (s fileState) same(t fileState) bool {
	if s.info == nil || t.info == nil {
		return s.info == nil && t.info == nil
	}
	return os.SameFile(s.info, t.info) && s.info.Size() == t.info.Size() && s.info.ModTime().Equal(t.info.ModTime())
}

func sameFiles(a, b []fileState) bool { return slices.EqualFunc(a, b, fileState.same) }

// credential is a secret given as such or in a file.
type credential struct {
	what string // "token", "secret id"
	text secret.Value
	file string // "" if text is it

	mu   sync.Mutex
	seen fileState // when it was read last
}

// changed reports whether the file is another than at the last read.
func (c *credential) changed() bool {
	if c.file == "" {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !stateOf(c.file).same(c.seen)
}

// read returns the secret without the white space around it. A file that cannot be
// read is ErrUnavailable: it may come, or come back.
func (c *credential) read() (secret.Value, error) {
	if c.file == "" {
		return c.text, nil
	}
	c.mu.Lock()
	c.seen = stateOf(c.file)
	c.mu.Unlock()
	raw, err := readAtMost(c.file, maxCredentialFile)
	if err != nil {
		return secret.Value{}, fmt.Errorf("%w: the file of the %s cannot be read: %w", secret.ErrUnavailable, c.what, err)
	}
	s := strings.TrimSpace(string(raw))
	if s == "" {
		return secret.Value{}, fmt.Errorf("%w: the file of the %s, %s, is empty", secret.ErrUnavailable, c.what, c.file)
	}
	return secret.NewValue(s), nil
}

// problems returns what is wrong with giving the secret this way.
func (c *credential) problems() []error {
	if !c.text.IsZero() && c.file != "" {
		return []error{fmt.Errorf("the %s is given twice, as such and as a file", c.what)}
	}
	if strings.ContainsFunc(c.text.Reveal(), unprintable) {
		return []error{fmt.Errorf("the %s has a character that is not printable: was it pasted with a line break?", c.what)}
	}
	return nil
}

func readAtMost(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errors.New("it is too large")
	}
	return b, err
}
