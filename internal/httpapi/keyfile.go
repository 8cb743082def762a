package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// activeKeys are the keys in force.
type activeKeys = atomic.Pointer[[]key]

// keyFile is a file with keys, read again while the broker runs.
type keyFile struct {
	variable string // that names the file
	path     string
	commas   bool // entries may be separated by commas too

	keys  []key      // in force
	near  []nearRole // among them
	seen  digest     // of the content that keys came from
	next  digest     // of the content at the last look; another one than seen may be half written
	gone  bool       // at the last look the file was missing, or held no key
	fault string     // at the last look it could not be used, and why
}

// settleTime is how long a file that has changed must stay as it is before it counts: it
// may be being written. The half of a line may be a key, and of a role that it was not
// meant for.
const settleTime = time.Second

// Watch reads the key files a second after the start and then every interval until ctx is done, so that keys can be
// added and withdrawn while the broker runs. It returns at once if there are none.
//
// What a file says is in force, a withdrawn key included, when two looks have found the
// same: the second one follows a second after a look that finds a change (or an interval
// after it, if that is shorter), since the file may be half written. A file that is missing
// or empty withdraws all its keys only when it is so an interval later too: tools that
// write a file in place, or remove it before they put the new one there, must not lock
// everybody out. A file that cannot be read or understood says nothing: its last keys
// stay, and the log has an error.
func (k *Keys) Watch(ctx context.Context, interval time.Duration) {
	if len(k.files) == 0 {
		return
	}
	look := time.NewTimer(min(interval, settleTime)) // what was read at the start may have been half written
	defer look.Stop()
	again := false // it is the second look at what has changed
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		unsettled := k.reload(again)
		again = unsettled && !again
		if again {
			look.Reset(min(interval, settleTime))
		} else {
			look.Reset(interval)
		}
	}
}

// reload looks at the files, or only at those that may have been half written at the last
// look. It reports whether there are such now.
func (k *Keys) reload(onlyUnsettled bool) (unsettled bool) {
	changed := false
	for _, f := range k.files {
		if onlyUnsettled && !f.unsettled() {
			continue
		}
		switch update, err := f.look(); {
		case err != nil && err.Error() != f.fault:
			f.fault = err.Error()
			k.log.Error("the API keys of a file cannot be read again; the last ones stay in force",
				"variable", f.variable, "err", err)
		case err == nil:
			f.fault = ""
			changed = changed || update
			if update {
				warnOfNearRoles(k.log, f.variable, "line", f.near)
			}
		}
		unsettled = unsettled || f.unsettled()
	}
	if !changed {
		return unsettled
	}
	n := k.publish()
	k.log.Info("API keys were read again", "keys", n)
	if n == 0 {
		k.log.Error("no API key is left: every call will be refused")
	}
	return unsettled
}

// load reads the file for the first time.
func (f *keyFile) load() error {
	content, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	f.keys, f.near, err = f.parse(content)
	f.seen = sha256.Sum256(bytes.TrimSpace(content))
	f.next = f.seen
	return err
}

// unsettled reports whether the file has changed and must be looked at once more.
func (f *keyFile) unsettled() bool { return f.next != f.seen }

// look reads the file again and reports whether its keys have changed.
func (f *keyFile) look() (changed bool, err error) {
	before := f.next
	f.next = f.seen // nothing to wait for, unless this look finds it
	content, err := os.ReadFile(f.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	keys, near, err := f.parse(content)
	if err != nil {
		return false, fmt.Errorf("%s: %w", f.path, err)
	}
	wasGone := f.gone
	f.gone = len(keys) == 0
	if f.gone && !wasGone {
		return false, nil
	}
	sum := digest(sha256.Sum256(bytes.TrimSpace(content)))
	f.next = sum
	if sum == f.seen || sum != before && !f.gone {
		return false, nil
	}
	f.keys, f.near, f.seen = keys, near, sum
	return true, nil
}

func (f *keyFile) parse(content []byte) (keys []key, near []nearRole, err error) {
	text := strings.ReplaceAll(strings.ReplaceAll(string(content), "\r\n", "\n"), "\r", "\n")
	for i, line := range strings.Split(text, "\n") {
		entries := []string{line}
		if f.commas {
			entries = strings.Split(line, ",")
		}
		k, n, err := parseEntries(i+1, entries...)
		if err != nil {
			return nil, nil, err
		}
		keys, near = append(keys, k...), append(near, n...)
	}
	return keys, near, nil
}
