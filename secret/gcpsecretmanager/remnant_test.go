package gcpsecretmanager_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/gcpsecretmanager"
	"github.com/nexus-broker/nexus-broker/secret/secrettest"
	"github.com/nexus-broker/nexus-broker/test/gcpserver"
)

// remnantsOn leaves what a Create leaves whose version does not arrive. Readings lag
// behind for lag.
func remnantsOn(s *gcpserver.Server, lag time.Duration) secrettest.Remnants {
	return secrettest.Remnants{
		Leave: func(t *testing.T, b secret.SecretBackend, key, owner string) {
			t.Helper()
			s.Intercept(gcpserver.Fail(codes.Unavailable, "AddSecretVersion"))
			defer s.Intercept(nil)
			if _, err := secret.CapabilitiesOf(b).Owned.Create(t.Context(), key, "lost", owner); !isOnly(t, err, secret.ErrUnavailable) {
				t.Fatalf("the version does not arrive: %v", err)
			}
			time.Sleep(2 * lag)
		},
		Left: func(t *testing.T, b secret.SecretBackend, key string) bool {
			t.Helper()
			time.Sleep(2 * lag)
			_, err := s.GetSecret(t.Context(), &secretmanagerpb.GetSecretRequest{Name: b.(*gcpsecretmanager.GCPBackend).Locate(key)})
			if err != nil && status.Code(err) != codes.NotFound {
				t.Fatal(err)
			}
			return err == nil
		},
	}
}

func anybody(string) bool { return true }

func isSomebody(owner string) bool { return owner == somebody }

func wantRemoved(t *testing.T, b *gcpsecretmanager.GCPBackend, mine func(string) bool, want bool) {
	t.Helper()
	if removed, err := b.RemoveRemnant(t.Context(), key, mine); err != nil || removed != want {
		t.Errorf("RemoveRemnant: %t, %v; want %t", removed, err, want)
	}
}

// TestNothingIsLeftOfACreateThatIsCutOff kills the process after each request of a Create
// and has another one clear up: what is no value goes, and what is one stays. What arrives
// after that finds no secret.
func TestNothingIsLeftOfACreateThatIsCutOff(t *testing.T) {
	t.Parallel()
	for n := range 5 {
		t.Run(fmt.Sprint("after ", n), func(t *testing.T) {
			s, p, b := fresh(t)
			s.Intercept(crash(n))
			_, _ = b.Create(t.Context(), key, "new", somebody)
			made := slices.ContainsFunc(s.Calls(), func(c gcpserver.Call) bool { return c.Method == "CreateSecret" && c.Code == codes.OK })
			added := slices.ContainsFunc(s.Calls(), func(c gcpserver.Call) bool { return c.Method == "AddSecretVersion" && c.Code == codes.OK })
			s.Intercept(nil)
			other := open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{})
			wantRemoved(t, other, func(owner string) bool { return owner != somebody }, false)
			wantRemoved(t, other, isSomebody, made && !added)
			if added {
				wantItem(t, other, "new", "1", somebody)
				return
			}
			if p.states() != nil {
				t.Error("the secret is still there")
			}
			_, err := s.AddSecretVersion(t.Context(), &secretmanagerpb.AddSecretVersionRequest{Parent: name, Payload: &secretmanagerpb.SecretPayload{Data: []byte("late")}})
			if status.Code(err) != codes.NotFound {
				t.Errorf("a late addition: %v", err)
			}
			create(t, other, "again")
		})
	}
}

// From a secret that somebody else has made only the announcement goes.
func TestTheSecretOfSomebodyElseStays(t *testing.T) {
	t.Parallel()
	s, p, b := fresh(t)
	p.create()
	remnantsOn(s, 0).Leave(t, b, key, somebody)
	wantRemoved(t, b, isSomebody, true)
	x := p.secret()
	if x.GetLabels()["team"] != "a" || x.GetAnnotations()["theirs"] != "x" || len(x.GetAnnotations()) != 1 {
		t.Errorf("labels %v, annotations %v", x.GetLabels(), x.GetAnnotations())
	}
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Second) // an announcement lasts for 15
	defer cancel()
	if _, err := b.Create(soon, key, "ours", somebody); err != nil {
		t.Error(err)
	}
}

// What can be enabled again, or is there, is no remnant.
func TestASecretWithAVersionIsNoRemnant(t *testing.T) {
	t.Parallel()
	for what, come := range map[string]func(person){
		"a person's value":             func(p person) { p.add("theirs") },
		"a person's, disabled":         func(p person) { p.add("theirs"); p.disable(1) },
		"a person's, then he is empty": func(p person) { p.add("theirs"); p.destroy(1) },
	} {
		t.Run(what, func(t *testing.T) {
			s, p, b := fresh(t)
			remnantsOn(s, 0).Leave(t, b, key, somebody)
			come(p)
			before := p.states()
			wantRemoved(t, b, anybody, false)
			p.wantStates(before...)
		})
	}
	t.Run("an old value under an announcement", func(t *testing.T) {
		s, p, b := fresh(t)
		create(t, b, "old")
		s.Intercept(gcpserver.Fail(codes.Unavailable, "AddSecretVersion"))
		if _, err := b.Replace(t.Context(), key, "lost", somebody, "1"); !isOnly(t, err, secret.ErrUnavailable) {
			t.Fatal(err)
		}
		s.Intercept(nil)
		wantRemoved(t, b, anybody, false)
		wantItem(t, b, "old", "1", somebody)
		p.wantStates("1 ENABLED")
	})
}

// Whoever announces a version at the last moment keeps his secret.
func TestAWriterWhoComesBetweenKeepsTheSecret(t *testing.T) {
	t.Parallel()
	s, p, b := fresh(t)
	remnantsOn(s, 0).Leave(t, b, key, somebody)
	other := open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{Now: later})
	s.Intercept(slip("DeleteSecret", func() {
		if _, err := other.Create(t.Context(), key, "theirs", "other"); err != nil {
			t.Error(err)
		}
	}))
	wantRemoved(t, b, isSomebody, false)
	p.wantStates("1 ENABLED")
	wantItem(t, other, "theirs", "1", "other")
}
