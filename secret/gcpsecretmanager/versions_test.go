package gcpsecretmanager_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/gcpsecretmanager"
	"github.com/nexus-broker/nexus-broker/test/gcpserver"
)

const (
	key      = "acme/client_secret"
	name     = "projects/test-project/secrets/nexus-providers__acme__client_secret"
	provider = "0b6cf4a4-6a63-4b8e-9f0f-3f5f1c2d4e5f"
	somebody = "nexus-broker/" + provider + "/1"
)

// isOnly reports whether err wraps want and no other sentinel; nil wants no error.
func isOnly(t *testing.T, err, want error) bool {
	t.Helper()
	for _, s := range []error{secret.ErrNotFound, secret.ErrDenied, secret.ErrUnavailable, secret.ErrThrottled, secret.ErrInvalid, secret.ErrExists, secret.ErrChanged} {
		if errors.Is(err, s) != errors.Is(want, s) {
			return false
		}
	}
	return want != nil || err == nil
}

// person is somebody with gcloud: he adds, disables, destroys and looks at what is there.
type person struct {
	t *testing.T
	s *gcpserver.Server
}

func (p person) add(value string) {
	p.t.Helper()
	_, err := p.s.AddSecretVersion(context.Background(), &secretmanagerpb.AddSecretVersionRequest{Parent: name, Payload: &secretmanagerpb.SecretPayload{Data: []byte(value)}})
	p.must(err)
}

func (p person) create() {
	p.t.Helper()
	_, err := p.s.CreateSecret(context.Background(), &secretmanagerpb.CreateSecretRequest{
		Parent: "projects/test-project", SecretId: "nexus-providers__acme__client_secret",
		Secret: &secretmanagerpb.Secret{Labels: map[string]string{"team": "a"}, Annotations: map[string]string{"theirs": "x"},
			Replication: &secretmanagerpb.Replication{Replication: &secretmanagerpb.Replication_Automatic_{Automatic: &secretmanagerpb.Replication_Automatic{}}}},
	})
	p.must(err)
}

func (p person) disable(n int) {
	p.t.Helper()
	_, err := p.s.DisableSecretVersion(context.Background(), &secretmanagerpb.DisableSecretVersionRequest{Name: fmt.Sprintf("%s/versions/%d", name, n)})
	p.must(err)
}

func (p person) destroy(n int) {
	p.t.Helper()
	_, err := p.s.DestroySecretVersion(context.Background(), &secretmanagerpb.DestroySecretVersionRequest{Name: fmt.Sprintf("%s/versions/%d", name, n)})
	p.must(err)
}

// states returns the states of all versions, the newest first: "2 ENABLED".
func (p person) states() []string {
	p.t.Helper()
	list, err := p.s.ListSecretVersions(context.Background(), &secretmanagerpb.ListSecretVersionsRequest{Parent: name})
	if status.Code(err) == codes.NotFound {
		return nil
	}
	p.must(err)
	all := []string{}
	for _, v := range list.GetVersions() {
		all = append(all, v.GetName()[strings.LastIndexByte(v.GetName(), '/')+1:]+" "+v.GetState().String())
	}
	return all
}

func (p person) wantStates(want ...string) {
	p.t.Helper()
	if got := p.states(); !slices.Equal(got, want) {
		p.t.Errorf("the versions are %q, want %q", got, want)
	}
}

func (p person) secret() *secretmanagerpb.Secret {
	p.t.Helper()
	x, err := p.s.GetSecret(context.Background(), &secretmanagerpb.GetSecretRequest{Name: name})
	p.must(err)
	return x
}

func (p person) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// fresh returns a server, a person, and a backend.
func fresh(t *testing.T) (*gcpserver.Server, person, *gcpsecretmanager.GCPBackend) {
	t.Helper()
	s := gcpserver.Start(t)
	return s, person{t, s}, open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{})
}

func wantItem(t *testing.T, b *gcpsecretmanager.GCPBackend, value, version, owner string) {
	t.Helper()
	item, err := b.Read(t.Context(), key)
	if err != nil || item.Value.Reveal() != value || item.Version != version || item.Owner != owner {
		t.Errorf("Read: %q, version %q, owner %q, %v; want %q, %q, %q", item.Value.Reveal(), item.Version, item.Owner, err, value, version, owner)
	}
}

// set, create and replace must succeed.
func set(t *testing.T, b *gcpsecretmanager.GCPBackend, value string) {
	t.Helper()
	if err := b.Set(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, b *gcpsecretmanager.GCPBackend, value string) string {
	t.Helper()
	version, err := b.Create(t.Context(), key, value, somebody)
	if err != nil {
		t.Fatal(err)
	}
	return version
}

func TestGetReadsTheNewestEnabledVersion(t *testing.T) {
	t.Parallel()
	s, p, b := fresh(t)
	p.create()
	if _, err := b.Get(t.Context(), key); !isOnly(t, err, secret.ErrNotFound) {
		t.Errorf("no version: %v", err)
	}
	for i := 1; i <= 5; i++ {
		p.add(fmt.Sprint("value ", i))
	}
	s.Forget()
	wantItem(t, b, "value 5", "5", "")
	if calls := methods(s); !slices.Equal(calls, []string{"AccessSecretVersion", "GetSecret"}) {
		t.Errorf("a Read makes the calls %v", calls)
	}
	s.Forget()
	if _, err := b.Get(t.Context(), key); err != nil || len(s.Calls()) != 1 {
		t.Errorf("a Get makes the calls %v, %v", methods(s), err)
	}
	p.disable(5)
	wantItem(t, b, "value 4", "4", "")
	p.destroy(4)
	wantItem(t, b, "value 3", "3", "")
	p.destroy(5)
	wantItem(t, b, "value 3", "3", "")
	for _, n := range []int{1, 2, 3} {
		p.disable(n)
	}
	if _, err := b.Get(t.Context(), key); !isOnly(t, err, secret.ErrNotFound) || !strings.Contains(err.Error(), "no version of the secret is enabled") {
		t.Errorf("none is enabled: %v", err)
	}
	if version := create(t, b, "ours"); version != "6" {
		t.Errorf("Create made version %s", version)
	}
	wantItem(t, b, "ours", "6", somebody)
	p.wantStates("6 ENABLED", "5 DESTROYED", "4 DESTROYED", "3 DISABLED", "2 DISABLED", "1 DISABLED")
}

func methods(s *gcpserver.Server) []string {
	var all []string
	for _, c := range s.Calls() {
		all = append(all, c.Method)
	}
	return all
}

func TestSetAddsAVersionOnlyForAnotherValue(t *testing.T) {
	t.Parallel()
	_, p, b := fresh(t)
	for _, value := range []string{"one", "one", "two", "two", "one", "one"} {
		set(t, b, value)
	}
	p.wantStates("3 ENABLED", "2 ENABLED", "1 DESTROYED")
	if _, err := b.Replace(t.Context(), key, "one", somebody, ""); err != nil {
		t.Fatal(err)
	}
	p.wantStates("4 ENABLED", "3 ENABLED", "2 DESTROYED", "1 DESTROYED")
	set(t, b, "one") // takes the owner, and adds nothing
	wantItem(t, b, "one", "4", "")
	wantItem(t, open(t, p.s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{}), "one", "4", "")
}

func TestKeptVersions(t *testing.T) {
	t.Parallel()
	for keep := 1; keep <= 4; keep++ {
		s := gcpserver.Start(t)
		p, b := person{t, s}, open(t, s, gcpsecretmanager.Config{KeepVersions: keep}, gcpsecretmanager.Options{})
		for i := range 6 {
			set(t, b, fmt.Sprint(i))
		}
		want := []string{"6 ENABLED", "5 ENABLED", "4 ENABLED", "3 ENABLED", "2 ENABLED", "1 ENABLED"}
		for i := keep; i < len(want); i++ {
			want[i] = strings.Replace(want[i], "ENABLED", "DESTROYED", 1)
		}
		p.wantStates(want...)
	}
}

func TestDelayedDestruction(t *testing.T) {
	t.Parallel()
	s, p, b := fresh(t)
	set(t, b, "1")
	_, err := s.UpdateSecret(context.Background(), &secretmanagerpb.UpdateSecretRequest{
		Secret:     &secretmanagerpb.Secret{Name: name, VersionDestroyTtl: durationpb.New(24 * time.Hour)},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"version_destroy_ttl"}},
	})
	p.must(err)
	for i := 2; i <= 4; i++ {
		set(t, b, fmt.Sprint(i))
	}
	p.wantStates("4 ENABLED", "3 ENABLED", "2 DISABLED", "1 DISABLED")
	s.Advance(25 * time.Hour)
	p.wantStates("4 ENABLED", "3 ENABLED", "2 DESTROYED", "1 DESTROYED")
}

func TestWhatCannotBeDestroyedStaysAndTheValueIsStored(t *testing.T) {
	t.Parallel()
	s, p, b := fresh(t)
	s.Intercept(gcpserver.Fail(codes.PermissionDenied, "DestroySecretVersion"))
	for i := 1; i <= 3; i++ {
		set(t, b, fmt.Sprint(i))
	}
	s.Intercept(nil)
	p.wantStates("3 ENABLED", "2 ENABLED", "1 ENABLED")
	set(t, b, "4")
	p.wantStates("4 ENABLED", "3 ENABLED", "2 DESTROYED", "1 DESTROYED")
}

func TestLabelsAndAnnotations(t *testing.T) {
	t.Parallel()
	_, p, b := fresh(t)
	create(t, b, "v")
	x := p.secret()
	if x.GetLabels()["managed-by"] != "nexus-broker" || x.GetLabels()["nexus-broker-provider"] != provider {
		t.Errorf("the labels are %v", x.GetLabels())
	}
	if want := (map[string]string{"nexus-broker.owner.1": somebody}); fmt.Sprint(x.GetAnnotations()) != fmt.Sprint(want) {
		t.Errorf("the annotations are %v, want %v", x.GetAnnotations(), want)
	}
}

func TestASecretOfSomebodyElseKeepsWhatItHas(t *testing.T) {
	t.Parallel()
	_, p, b := fresh(t)
	p.create()
	version := create(t, b, "v")
	x := p.secret()
	if fmt.Sprint(x.GetLabels()) != "map[team:a]" || x.GetAnnotations()["theirs"] != "x" {
		t.Errorf("labels %v, annotations %v", x.GetLabels(), x.GetAnnotations())
	}
	if err := b.RemoveVersion(t.Context(), key, version); err != nil {
		t.Fatal(err)
	}
	p.wantStates("1 DESTROYED") // the secret is theirs, and stays
}

func TestRemoveVersionHidesWhatIsOlder(t *testing.T) {
	t.Parallel()
	_, p, b := fresh(t)
	set(t, b, "old")
	version, err := b.Replace(t.Context(), key, "new", somebody, "1")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.RemoveVersion(t.Context(), key, version); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Get(t.Context(), key); !isOnly(t, err, secret.ErrNotFound) {
			t.Errorf("Get: %v", err)
		}
	}
	p.wantStates("2 DESTROYED", "1 DISABLED")
	for _, illegal := range []string{"", "0", "-1", "x", "1 ", "01", "latest"} {
		if err := b.RemoveVersion(t.Context(), key, illegal); !isOnly(t, err, secret.ErrInvalid) {
			t.Errorf("of the version %q: %v", illegal, err)
		}
	}
}

func TestRemoveVersionOfTheOnlyOneLeavesNothing(t *testing.T) {
	t.Parallel()
	_, p, b := fresh(t)
	version := create(t, b, "ours")
	if err := b.RemoveVersion(t.Context(), key, version); err != nil {
		t.Fatal(err)
	}
	if states := p.states(); states != nil {
		t.Errorf("the secret is still there, with %q", states)
	}
}

func TestAPersonsVersionHasNoOwner(t *testing.T) {
	t.Parallel()
	s, p, b := fresh(t)
	create(t, b, "ours")
	p.add("theirs")
	wantItem(t, b, "theirs", "2", "")
	p.disable(2)
	wantItem(t, b, "ours", "1", somebody) // as before
	wantItem(t, open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{}), "ours", "1", somebody)
}

func TestReplicationAndEncryption(t *testing.T) {
	t.Parallel()
	for conf, want := range map[string]string{
		"Automatic":      "replication:{automatic:{}}",
		"AutomaticKMS":   "replication:{automatic:{customer_managed_encryption:{kms_key_name:\"" + globalKey + "\"}}}",
		"UserManaged":    "replication:{user_managed:{replicas:{location:\"europe-west3\"} replicas:{location:\"europe-west4\"}}}",
		"UserManagedKMS": strings.ReplaceAll("projects/p/locations/europe-west4/keyRings", "\\", ""),
		"RegionalKMS":    "customer_managed_encryption:{kms_key_name:\"" + berlinKey + "\"}",
	} {
		s := gcpserver.Start(t)
		var made string
		s.Intercept(func(ctx context.Context, method string, req any, next gcpserver.Next) (any, error) {
			if r, ok := req.(*secretmanagerpb.CreateSecretRequest); ok {
				made = strings.Join(strings.Fields(r.GetSecret().String()), " ")
			}
			return next(ctx, req)
		})
		set(t, open(t, s, configurations[conf].cfg, gcpsecretmanager.Options{}), "v")
		if !strings.Contains(made, want) {
			t.Errorf("%s: the secret is made with %s", conf, made)
		}
	}
}

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }
