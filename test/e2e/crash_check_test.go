package e2e_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// allCases reports whether the tests that have more cases than a normal run has time
// for shall run all of them ("make crash").
func allCases() bool { return os.Getenv("NEXUS_TEST_ALL") == "1" }

// What an accident can leave of a provider.
const (
	nothing    = "nothing"
	oldPair    = "the old pair"
	newPair    = "the new pair"
	newName    = "the old pair under the new name"
	incomplete = "incomplete credentials"
)

// outcome returns what the API and the store have of the provider. It fails if they
// contradict each other: what is called ready can be used, and is one whole pair.
func (f *fragile) outcome(t *testing.T, b *process, a *accident) string {
	t.Helper()
	id, name := a.find(t, b)
	if id == "" {
		return nothing
	}
	if a.id != "" {
		require.Equal(t, a.id, id, "%s", a)
	}
	a.id = id
	switch state := b.credentialsState(id); state {
	case "incomplete":
		return incomplete
	default:
		require.Equal(t, "ready", state, "%s", a)
	}
	pair := f.look(t, name+"/client_id") + " " + f.look(t, name+"/client_secret")
	require.Equal(t, f.look(t, name+"/client_id"), b.clientID(id), "%s", a)
	switch {
	case name == a.renamed() && pair == a.old()+"-id "+a.old()+"-secret":
		return newName
	case pair == a.old()+"-id "+a.old()+"-secret":
		return oldPair
	}
	require.Equal(t, a.new()+"-id "+a.new()+"-secret", pair, "%s: the pair", a)
	return newPair
}

// legal returns what an accident may leave.
func (f *fragile) legal(a *accident) []string {
	success := map[string]string{"register": newPair, "update": newPair, "rename": newName, "delete": nothing}[a.operation]
	failure := oldPair
	if a.operation == "register" {
		failure = nothing
	}
	torn := []string{}
	if a.operation == "update" {
		torn = []string{incomplete}
	}
	switch {
	case a.status != 0 && a.status < 300:
		return []string{success}
	case a.what == cut && !f.fewer:
		return []string{failure} // whatever had been done could be undone
	case a.what == cut: // the clouds may still be at it while it is undone
		return append(torn, failure)
	case a.what == down && a.at.place == "store" && a.after && a.operation == "update" && a.seen == incomplete:
		// What was said so of may have been the last step: then the sweep finds one whole pair.
		return append(torn, failure, success)
	case a.what == down && a.at.place == "store":
		return append(torn, failure)
	}
	// Nobody is left who knows whether the last step took place.
	return append(torn, failure, success)
}

// observe checks what others can see right after the accident.
func (f *fragile) observe(t *testing.T, witness *process, a *accident) {
	t.Helper()
	a.seen = f.outcome(t, witness, a)
	legal := f.legal(a)
	if a.operation == "update" && a.what == cut && a.status >= 300 && a.at.text == "commit" {
		// The broker may not know that the provider is its to change: it says so until the
		// sweep has found out that nothing was changed.
		legal = append(legal, incomplete)
	}
	require.Contains(t, legal, a.seen, "%s, answered with %d", a, a.status)
}

// checkSettled checks what has come of an accident in the end.
func (f *fragile) checkSettled(t *testing.T, b *process, a *accident) {
	t.Helper()
	final := f.outcome(t, b, a)
	require.Contains(t, f.legal(a), final, "%s, answered with %d", a, a.status)
	if a.seen != incomplete {
		require.Equal(t, a.seen, final, "%s: it has changed by itself", a)
	}
	if final == incomplete {
		id, secret := f.look(t, a.name+"/client_id"), f.look(t, a.name+"/client_secret")
		require.ElementsMatch(t, []string{"old", "new"}, []string{a.part(id, "-id"), a.part(secret, "-secret")},
			"%s: the values fit together, and the sweep can tell", a)
	}
	name := map[string]string{newName: a.renamed()}[final]
	if name == "" {
		name = a.name
	}
	for _, key := range f.keys(t) {
		for _, n := range []string{a.name, a.renamed()} {
			mine := key == n+"/client_id" || key == n+"/client_secret"
			require.False(t, mine && (final == nothing || n != name), "%s: %s is left", a, key)
		}
	}
}

// part tells which of the two pairs a value is of.
func (a *accident) part(value, suffix string) string {
	switch value {
	case a.old() + suffix:
		return "old"
	case a.new() + suffix:
		return "new"
	}
	return "neither: " + value
}

// succeed goes on with the provider after the accident: what is incomplete is repaired,
// and a name that is free is taken. left gets what the store is to hold.
func (f *fragile) succeed(t *testing.T, b *process, a *accident, left map[string]string) {
	t.Helper()
	pair := a.name + ".successor"
	id, name := a.find(t, b)
	if id == "" {
		name = a.name
		id = b.call("POST", "/providers", map[string]any{"profile": profilePair(name, pair)}).want(201).text("id")
	} else {
		b.call("PATCH", "/providers/"+id, map[string]any{"client_id": pair + "-id", "client_secret": pair + "-secret"}).want(200)
	}
	require.Equal(t, "ready", b.credentialsState(id), "%s", a)
	require.Equal(t, pair+"-id", b.clientID(id), "%s", a)
	left[name+"/client_id"], left[name+"/client_secret"] = pair+"-id", pair+"-secret"
}

// find returns the provider's id, "" if there is none, and the one name that it has.
func (a *accident) find(t *testing.T, b *process) (id, name string) {
	t.Helper()
	for _, n := range []string{a.name, a.renamed()} {
		if answer := b.call("GET", "/providers/by-name/"+n, nil); answer.Status != 404 {
			require.Empty(t, id, "%s: it has two names", a)
			id, name = answer.want(200).text("id"), n
		}
	}
	return id, name
}

// credentialsState returns what the broker says of a provider's credentials. With the
// internal backend it says something only where there is something to say.
func (p *process) credentialsState(id string) any {
	p.t.Helper()
	stored, shown := p.call("GET", "/providers/"+id, nil).want(200).object()["credentials"].(map[string]any)
	if !shown {
		return "ready"
	}
	return stored["state"]
}

// clientID returns the client id that a flow of the provider begins with.
func (p *process) clientID(id string) string {
	p.t.Helper()
	a := p.call("POST", "/auth/consent-spec", map[string]any{"workspace_id": "ws", "provider_id": id, "return_url": returnURL}).want(200)
	return mustURL(p.t, a.text("authUrl")).Query().Get("client_id")
}
