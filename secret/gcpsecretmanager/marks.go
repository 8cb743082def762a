package gcpsecretmanager

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"github.com/google/uuid"
)

// The labels and annotations of a secret that the broker writes. Labels allow too few
// characters for an owner.
const (
	labelManagedBy = "managed-by"
	managedBy      = "nexus-broker"
	// labelProvider has the provider's id, for people. Nothing reads it.
	labelProvider = "nexus-broker-provider"
	// annotationOwner and a number have the owner of that version, or unowned.
	annotationOwner = "nexus-broker.owner."
	// annotationPending is the announcement of a version; see claim.
	annotationPending = "nexus-broker.pending"
)

// unowned marks a version whose owner was taken away; no owner has this character.
const unowned = "!"

// maxMarks bounds how many versions have a mark: those that were marked last.
const maxMarks = 16

// marks are what the annotations of a secret say of its versions.
type marks struct {
	owners  map[int64]string // unowned for none
	pending *claim
}

// claim announces a version. Its mark counts from the moment that the version is there,
// so that no version is ever without the owner it was written for; it knows the version
// by a fingerprint of 32 bits, with a random key, so that it does not take a version
// that somebody else adds in its place for the announced one. (So few bits tell nothing
// of a value that could not be guessed anyway. They go when the version is settled.)
type claim struct {
	nonce       string // 16 bytes in hex, the fingerprint's key
	number      int64  // the version will have this number, or a higher one
	fingerprint string // 4 bytes in hex
	made        time.Time
	owner       string
}

// claimLife is how long an announcement keeps others from making one.
const claimLife = 15 * time.Second

func newClaim(number int64, value, owner string, now time.Time) *claim {
	key := make([]byte, 16)
	_, _ = rand.Read(key) // never fails
	c := &claim{nonce: hex.EncodeToString(key), number: number, made: now, owner: owner}
	c.fingerprint = c.fingerprintOf(value)
	return c
}

func (c *claim) fingerprintOf(value string) string {
	h := hmac.New(sha256.New, []byte(c.nonce))
	h.Write([]byte(value))
	return hex.EncodeToString(h.Sum(nil)[:4])
}

// covers reports whether a version is the announced one.
func (c *claim) covers(number int64, value string) bool {
	return c != nil && number >= c.number && c.fingerprint == c.fingerprintOf(value)
}

// ended reports whether others may make an announcement in its place. A clock that
// goes wrong by more than its life makes it end.
func (c *claim) ended(now time.Time) bool {
	age := now.Sub(c.made)
	return age > claimLife || age < -claimLife
}

func (c *claim) String() string {
	return fmt.Sprintf("%s %d %s %d %s", c.nonce, c.number, c.fingerprint, c.made.UnixMilli(), c.owner)
}

// parseClaim reads what String has written; nil for anything else.
func parseClaim(s string) *claim {
	f := strings.Split(s, " ")
	if len(f) != 5 {
		return nil
	}
	number, err1 := strconv.ParseInt(f[1], 10, 64)
	made, err2 := strconv.ParseInt(f[3], 10, 64)
	if err1 != nil || err2 != nil {
		return nil
	}
	return &claim{nonce: f[0], number: number, fingerprint: f[2], made: time.UnixMilli(made), owner: f[4]}
}

func marksOf(s *secretmanagerpb.Secret) marks {
	m := marks{owners: map[int64]string{}}
	for name, text := range s.GetAnnotations() {
		if name == annotationPending {
			m.pending = parseClaim(text)
		} else if n, ok := strings.CutPrefix(name, annotationOwner); ok {
			if number, err := parseVersion(n); err == nil {
				m.owners[number] = text
			}
		}
	}
	return m
}

// ownerOf returns the owner of a version; marked is false if nothing is said of it.
func (m marks) ownerOf(number int64, value string) (owner string, marked bool) {
	switch owner, marked = m.owners[number]; {
	case owner == unowned:
		return "", true
	case marked:
		return owner, true
	case m.pending.covers(number, value):
		return m.pending.owner, true
	default:
		return "", false
	}
}

// newest is the highest number that is marked, 0 for none.
func (m marks) newest() int64 {
	var n int64
	for number := range m.owners {
		n = max(n, number)
	}
	return n
}

// annotate returns the annotations of s with ours replaced by m. Those of others stay.
func annotate(s *secretmanagerpb.Secret, m marks) map[string]string {
	all := maps.Clone(s.GetAnnotations())
	if all == nil {
		all = map[string]string{}
	}
	maps.DeleteFunc(all, func(name, _ string) bool {
		return name == annotationPending || strings.HasPrefix(name, annotationOwner)
	})
	numbers := slices.Sorted(maps.Keys(m.owners))
	for _, n := range numbers[max(0, len(numbers)-maxMarks):] {
		all[annotationOwner+format(n)] = m.owners[n]
	}
	if m.pending != nil {
		all[annotationPending] = m.pending.String()
	}
	return all
}

// labelled returns labels with the provider's id that is part of an owner, if it is one.
func labelled(labels map[string]string, owner string) map[string]string {
	all := maps.Clone(labels)
	if all == nil {
		all = map[string]string{}
	}
	delete(all, labelProvider)
	for part := range strings.SplitSeq(owner, "/") {
		if id, err := uuid.Parse(part); err == nil && len(part) == 36 {
			all[labelProvider] = id.String()
			break
		}
	}
	return all
}
