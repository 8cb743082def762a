package credentials_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

const salesforce = "team-a/salesforce"

// team allows references below team-a.
func team(o *credentials.Options) { o.ReferencePrefixes = []string{"team-a/"} }

// newTeamBed returns a bed whose vault somebody else uses too.
func newTeamBed(t *testing.T, change ...func(*credentials.Options)) (*bed, *memory.Backend) {
	m := memory.New()
	faulty := memory.NewFaulty(m)
	b := newBed(t, append([]func(*credentials.Options){team, func(o *credentials.Options) { o.Backends[0].Store = faulty }}, change...)...)
	b.vault = faulty
	return b, m
}

// referenced is a provider's reference to two fields of one secret.
func referenced() credentials.Ref {
	return credentials.Ref{
		ProviderID: google().ProviderID, Backend: vault, Generation: 1,
		ClientIDReference: salesforce + "#id", ClientSecretReference: salesforce + "#secret",
	}
}

func place(t *testing.T, m *memory.Backend, path, value string) string {
	t.Helper()
	version, err := m.Place(path, value)
	require.NoError(t, err)
	return version
}

func TestReferencesAreReadWhereTheySay(t *testing.T) {
	b, m := newTeamBed(t)
	version := place(t, m, salesforce, `{"id":"the id","secret":"the secret"}`)
	p, err := b.Get(t.Context(), referenced())
	require.NoError(t, err)
	requirePair(t, p, "the id", "the secret")

	events := b.recorder.of(audit.CredentialsRead)
	require.Len(t, events, 2)
	for i, name := range []string{salesforce + "#id", salesforce + "#secret"} {
		require.Equal(t, map[string]any{
			"backend": vault, "reference": name, "version": version, "provider_id": referenced().ProviderID.String(),
		}, events[i].Data)
	}
	require.Equal(t, salesforce+"#id and "+salesforce+"#secret", b.Locate(referenced()))

	place(t, m, salesforce, `{"id":"new id","secret":"new secret"}`)
	pinned := referenced()
	pinned.ClientIDReference = salesforce + "@" + version + "#id"
	pinned.ClientSecretReference = salesforce + "@" + version + "#secret"
	p, err = b.Read(t.Context(), pinned)
	require.NoError(t, err)
	requirePair(t, p, "the id", "the secret")
	p, err = b.Read(t.Context(), referenced())
	require.NoError(t, err)
	requirePair(t, p, "new id", "new secret")

	public := referenced()
	public.Public, public.ClientSecretReference = true, ""
	p, err = b.Read(t.Context(), public)
	require.NoError(t, err)
	requirePair(t, p, "new id", "")
}

func TestWhatAReferenceDoesNotFindIsNamed(t *testing.T) {
	b, m := newTeamBed(t)
	_, err := b.Get(t.Context(), referenced())
	var missing *credentials.MissingError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, []string{salesforce + "#id", salesforce + "#secret"}, missing.Paths)
	place(t, m, salesforce, `{"id":"the id"}`)
	_, err = b.Read(t.Context(), referenced())
	require.ErrorIs(t, err, secret.ErrInvalid)
	require.NotContains(t, err.Error(), "the id")
}

// Nothing that a reference may not name is asked for, however it is written.
func TestReferencesOutsideOfWhatIsAllowed(t *testing.T) {
	b, m := newTeamBed(t)
	for _, path := range []string{"team-ab/x", "team-b/x", "team", "x"} {
		place(t, m, path, "c4n4ry")
	}
	for _, written := range []string{
		"team-ab/x", "team-b/x", "team", "x", "/team-b/x", "team-a/../team-b/x", "team-a/./../team-b/x", "team-a/..", "..",
		"../x", "team-a//x", "team-a/../x", "memory/../team-b/x", "memory//x", "TEAM-A/x", "team%2da/x", "team-a%2f..%2fx", "team-a\\..\\x",
		"team-a\x00/x", "team-a/x\n", "\u202eteam-a/x", "", "#id", "@1", "team-a/x@", "team-a/x#", " team-a/x", "team-a /x", "memor", "memoryx/a",
	} {
		ref := referenced()
		ref.ClientIDReference, ref.ClientSecretReference = written, salesforce+"#secret"
		if written == "" {
			ref.ClientIDReference = " "
		}
		calls := b.vault.Count()
		err := b.CheckReferences(ref)
		require.Error(t, err, "%q", written)
		require.True(t, errors.Is(err, credentials.ErrReferenceNotAllowed) || errors.Is(err, secret.ErrInvalid), "%q: %v", written, err)
		p, err := b.Read(t.Context(), ref)
		require.Error(t, err, "%q", written)
		require.Zero(t, p)
		require.Equal(t, calls, b.vault.Count(), "%q", written)
	}
	for _, written := range []string{salesforce, "/team-a/x#id", "team-a", "team-a/x@1#../../team-b/x", "memory/google/client_id"} {
		ref := referenced()
		ref.ClientIDReference = written
		require.NoError(t, b.CheckReferences(ref), written)
	}
}

// An operator who becomes stricter is obeyed at the next read, without a call.
func TestAllowedPlacesAreCheckedAtEveryRead(t *testing.T) {
	stricter := newBed(t, func(o *credentials.Options) { o.CacheTTL = 0 })
	_, err := stricter.Get(t.Context(), referenced())
	require.ErrorIs(t, err, credentials.ErrReferenceNotAllowed)
	require.ErrorIs(t, err, secret.ErrDenied)
	require.Zero(t, stricter.vault.Count())
	require.Equal(t, credentials.StatusOK, stricter.Health(t.Context())[0].Status, "the backend has denied nothing")
	denied := stricter.recorder.of(audit.CredentialsDenied)
	require.Len(t, denied, 2)
	require.Equal(t, salesforce+"#id", denied[0].Data["reference"])
}

// Where the broker's keys lie at the top of the store, that alone allows nothing.
func TestAnOwnPlaceThatIsTheWholeStoreAllowsNothing(t *testing.T) {
	m := memory.New()
	whole := func(o *credentials.Options) {
		can := secret.CapabilitiesOf(m)
		can.References = wholeStore{m}
		o.Backends[0].Store = can
	}
	ref := referenced()
	require.ErrorIs(t, newBed(t, whole).CheckReferences(ref), credentials.ErrReferenceNotAllowed)
	require.NoError(t, newBed(t, whole, team).CheckReferences(ref))
}

type wholeStore struct{ secret.ReferenceReader }

func (wholeStore) ReferencePrefix() []string { return nil }

func TestABackendWithoutReferencesAllowsNone(t *testing.T) {
	b := newBed(t, func(o *credentials.Options) {
		o.Backends[0].Store = bare{o.Backends[0].Store}
		o.ReferencePrefixes = []string{"team-a"}
	})
	require.ErrorIs(t, b.CheckReferences(referenced()), credentials.ErrReferenceNotAllowed)
	_, err := b.Get(t.Context(), referenced())
	require.ErrorIs(t, err, credentials.ErrReferenceNotAllowed)
}

func TestAnIllegalPrefixIsRefusedAtTheStart(t *testing.T) {
	for _, prefix := range []string{"team-a/../team-b", "..", "team-a//b", "/"} {
		_, err := credentials.New(credentials.Options{
			Backends: []credentials.Backend{{Name: vault, Store: memory.New()}}, WriteTo: vault, Audit: &recorder{},
			ReferencePrefixes: []string{"team-a", prefix},
		})
		require.ErrorContains(t, err, "SECRET_REF_ALLOWED_PREFIXES", prefix)
	}
}

// The cache tells apart two references of one provider, and two providers with the same ones.
func TestTheCacheKeepsReferencesApart(t *testing.T) {
	b, m := newTeamBed(t)
	place(t, m, salesforce, `{"id":"a","secret":"b"}`)
	place(t, m, "team-a/other", `{"id":"c","secret":"d"}`)
	other := referenced()
	other.ClientIDReference, other.ClientSecretReference = "team-a/other#id", "team-a/other#secret"
	twin := referenced()
	twin.ProviderID = uuid.New()
	want := map[credentials.Ref][2]string{referenced(): {"a", "b"}, other: {"c", "d"}, twin: {"a", "b"}}
	for ref, values := range want {
		p, err := b.Get(t.Context(), ref)
		require.NoError(t, err)
		requirePair(t, p, values[0], values[1])
	}
	// Of the same generation the last one that was read is cached for a provider.
	calls := len(b.recorder.of(audit.CredentialsRead))
	for range 3 {
		_, err := b.Get(t.Context(), twin)
		require.NoError(t, err)
	}
	require.Len(t, b.recorder.of(audit.CredentialsRead), calls, "served from memory")
	next := other
	next.Generation++
	_, err := b.Get(t.Context(), next)
	require.NoError(t, err)
	require.Len(t, b.recorder.of(audit.CredentialsRead), calls+2, "a new generation is read")
}

// A pair in one secret is never put together from two versions of it.
func TestAPairInOneSecretIsOfOneVersion(t *testing.T) {
	b, m := newTeamBed(t)
	place(t, m, salesforce, `{"id":"old","secret":"old"}`)
	rotated := make(chan struct{})
	var once sync.Once
	b.vault.Before(func(_ context.Context, c memory.Call) error {
		if strings.HasSuffix(c.Key, "#secret") {
			<-rotated // the id was read before, the secret is after
		}
		return nil
	})
	b.vault.After(func(_ context.Context, c memory.Call) error {
		if strings.HasSuffix(c.Key, "#id") {
			once.Do(func() {
				place(t, m, salesforce, `{"id":"new","secret":"new"}`)
				close(rotated)
			})
		}
		return nil
	})
	p, err := b.Read(t.Context(), referenced())
	require.NoError(t, err)
	requirePair(t, p, "new", "new")
	require.Len(t, b.recorder.of(audit.CredentialsRead), 2, "what is handed out")

	alwaysTorn := newBed(t, team, func(o *credentials.Options) {
		can := secret.CapabilitiesOf(m)
		can.References = eachAnotherVersion{m}
		o.Backends[0].Store = can
	})
	_, err = alwaysTorn.Read(t.Context(), referenced())
	require.ErrorIs(t, err, secret.ErrUnavailable)
	require.Empty(t, alwaysTorn.recorder.of(audit.CredentialsRead))
	require.Equal(t, credentials.StatusOK, alwaysTorn.Health(t.Context())[0].Status)
}

type eachAnotherVersion struct{ secret.ReferenceReader }

func (eachAnotherVersion) ReadReference(_ context.Context, ref secret.Reference) (secret.Item, error) {
	return secret.Item{Value: secret.NewValue("x"), Version: ref.Field}, nil
}

// Whatever is called with references, nothing is written or deleted.
func TestNothingIsWrittenWhereReferencesPoint(t *testing.T) {
	b, m := newTeamBed(t)
	place(t, m, salesforce, `{"id":"a","secret":"b"}`)
	ref := referenced()
	require.Error(t, b.Create(t.Context(), ref, ownerOf(ref), pair("x", "y")))
	require.Error(t, b.Replace(t.Context(), ref, ownerOf(ref), pair("a", "b"), pair("x", "y")))
	require.Error(t, b.Erase(t.Context(), ref.Backend, ref.Key, ownerOf(ref), true))
	require.Empty(t, m.Keys())
	p, err := b.Read(t.Context(), ref)
	require.NoError(t, err)
	requirePair(t, p, "a", "b")
}

// FuzzReferences compares what may be read with the rule, written once more: the cleaned
// path begins with the segments of an allowed place, and none of it goes up.
func FuzzReferences(f *testing.F) {
	for _, written := range []string{"team-a/x#id", "team-ab/x", "team-a/../b", "team-a//b", "memory/k@1", "/team-a", "team-a%2f..", "a@b@c#d#e", "team-a/x\x00"} {
		f.Add(written)
	}
	m := memory.New()
	s, err := credentials.New(credentials.Options{
		Backends: []credentials.Backend{{Name: vault, Store: m}}, WriteTo: vault, Audit: &recorder{}, ReferencePrefixes: []string{"team-a", "shared/oauth/"},
	})
	require.NoError(f, err)
	f.Cleanup(s.Close)
	f.Fuzz(func(t *testing.T, written string) {
		if written == "" {
			return // no reference
		}
		err := s.CheckReferences(credentials.Ref{Backend: vault, ClientIDReference: written})
		if err != nil {
			if !errors.Is(err, credentials.ErrReferenceNotAllowed) && !errors.Is(err, secret.ErrInvalid) {
				t.Fatalf("%q: %v", written, err)
			}
			return
		}
		ref, err := secret.ParseReference(written)
		if err != nil || ref.String() != written {
			t.Fatalf("%q is allowed and reads %q, %v", written, ref, err)
		}
		parts := strings.Split(strings.Trim(ref.Path, "/"), "/")
		below := parts[0] == "team-a" || parts[0] == memory.Name || len(parts) > 1 && parts[0] == "shared" && parts[1] == "oauth"
		if !below || slices.ContainsFunc(parts, func(s string) bool { return s == "" || s == "." || s == ".." }) {
			t.Fatalf("%q is allowed", written)
		}
	})
}
