package main

import (
	"sync"
	"time"
)

// tokens knows every token that the provider has issued, in which order, and to which
// process of a broker.
type tokens struct {
	mu       sync.Mutex
	issued   int               // tokens so far
	byAccess map[string]*grant // the grant that an access token belongs to
	order    map[string]int    // access token -> its number
	refresh  map[string]*use   // refresh token -> what became of it
	twice    []string          // what was presented again without an excuse
	orphans  int               // what was presented again because its successor died with a process
}

// grant is one user's consent: the family of tokens that began with one code.
type grant struct {
	orphaned bool // a successor died with the process that had received it
	handed   int  // number of the newest token that a caller has been given
}

// use is a refresh token's.
type use struct {
	grant    *grant
	number   int // of the access token that came with it
	by       *incarnation
	pending  bool // the provider has not answered
	answered time.Time
	next     int // number of what it was exchanged for, 0 if it was not
}

func newTokens() *tokens {
	return &tokens{byAccess: map[string]*grant{}, order: map[string]int{}, refresh: map[string]*use{}}
}

// storeTime is how long a process may try to store what it has received, and still be
// excused for having died with it: the database may be away.
const storeTime = 30 * time.Second

// present notes that a process presents a refresh token to the provider. One that is
// under way, or has been exchanged, must not come again: the provider would end the
// grant. The one excuse is that its successor never got into the database, because the
// process that had asked for it was killed, and was handed to nobody.
func (t *tokens) present(token string, by *incarnation, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.refresh[token]
	switch {
	case u == nil:
		return // not of this provider: it will say so
	case !u.pending && u.next == 0:
	case u.diedWithItsProcess():
		t.orphans++
		u.grant.orphaned = true
		return
	default:
		what := "was exchanged before"
		if u.pending {
			what = "is being exchanged"
		}
		t.twice = append(t.twice, now.Format("15:04:05.000")+": a refresh token that "+what)
		return
	}
	u.pending, u.by = true, by
}

func (u *use) diedWithItsProcess() bool {
	if u.by == nil || u.next != 0 && u.grant.handed >= u.next {
		return false
	}
	death := u.by.death()
	return !death.IsZero() && (u.pending || death.Sub(u.answered) < storeTime)
}

// refused notes that the provider did not exchange the token.
func (t *tokens) refused(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u := t.refresh[token]; u != nil {
		u.pending = false
	}
}

// exchanged notes the answer to a code (token is "") or to a refresh token.
func (t *tokens) exchanged(token, access, refresh string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.issued++
	g := &grant{}
	if u := t.refresh[token]; token != "" && u != nil {
		g = u.grant
		u.pending, u.answered, u.next = false, now, t.issued
	}
	t.byAccess[access], t.order[access] = g, t.issued
	if refresh != "" {
		t.refresh[refresh] = &use{grant: g, number: t.issued}
	}
}

// number returns the number of an access token, 0 if the provider has not issued it.
func (t *tokens) number(access string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.order[access]
}

// handedOut notes that a caller was given an access token.
func (t *tokens) handedOut(access string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g := t.byAccess[access]; g != nil {
		g.handed = max(g.handed, t.order[access])
	}
}

// orphaned reports whether the provider has ended the grant of an access token
// because a process died with its successor.
func (t *tokens) orphaned(access string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.byAccess[access]
	return g != nil && g.orphaned
}

func (t *tokens) counts() (issued, orphans int, twice []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.issued, t.orphans, append([]string(nil), t.twice...)
}
