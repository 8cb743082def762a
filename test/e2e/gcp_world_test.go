package e2e_test

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nexus-broker/nexus-broker/secret/gcpsecretmanager"
	"github.com/nexus-broker/nexus-broker/test/gcpserver"
)

// cloudGCP is a Google Cloud of the test's own, and a world whose broker keeps its
// credentials there. The test calls the server's methods as an administrator, past its
// faults.
type cloudGCP struct {
	*gcpserver.Server
	world  world
	names  *gcpsecretmanager.GCPBackend // for the names of secrets; it never connects
	grants []gcpserver.Grant            // what the broker may do: what doctor prints
	mu     *sync.Mutex                  // guards rights
	rights *[]gcpserver.Grant           // those in force
}

// allow gives the broker these rights and no other ones.
func (g cloudGCP) allow(grants ...gcpserver.Grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	*g.rights = grants
	g.Allow(grants...)
}

// administer does what the broker may have no right to.
func (g cloudGCP) administer(do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.AllowAll()
	defer func() { g.Allow(*g.rights...) }()
	do()
}

// newGCP is w with its credentials in Google Cloud's Secret Manager.
func newGCP(t *testing.T, w world) cloudGCP {
	t.Helper()
	g := cloudGCP{Server: gcpserver.Start(t), world: w, mu: new(sync.Mutex), rights: new([]gcpserver.Grant)}
	g.world.name, g.world.external = "GCP Secret Manager, "+w.name, true
	g.world.env = w.env.with(env{
		"SECRET_BACKEND": "gcp-secret-manager", "GCP_PROJECT_ID": gcpserver.Project, "SECRET_MANAGER_EMULATOR_HOST": g.Addr,
	})
	var err error
	g.names, err = gcpsecretmanager.New(gcpsecretmanager.Config{ProjectID: gcpserver.Project, EmulatorHost: g.Addr}, gcpsecretmanager.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.names.Close()) })
	g.grants = g.printedGrants(t, nil)
	g.allow(g.grants...)
	g.world.path = g.names.Locate
	g.world.set = func(t *testing.T, key, value string) { g.administer(func() { g.store(t, key, []byte(value)) }) }
	g.world.look = func(t *testing.T, key string) (value string) {
		g.administer(func() { value = g.look(t, key) })
		return value
	}
	g.world.gone = func(t *testing.T, key string) { g.administer(func() { g.gone(t, key) }) }
	return g
}

var (
	printedPermissions = regexp.MustCompile(`--permissions=(\S+)`)
	printedCondition   = regexp.MustCompile(`resource\.name\.startsWith\('projects/\$NUMBER([^']+)'\)`)
)

// printedGrants are the rights that the commands give which doctor prints: those of
// the first role below the prefix, that of the second, if there is one, on the project.
func (g cloudGCP) printedGrants(t *testing.T, more env) []gcpserver.Grant {
	t.Helper()
	text := printedPolicy(t, g.world.env.with(more))
	roles, condition := printedPermissions.FindAllStringSubmatch(text, -1), printedCondition.FindStringSubmatch(text)
	require.NotEmpty(t, roles, text)
	require.NotNil(t, condition, text)
	const project = "projects/" + gcpserver.ProjectNumber
	grants := []gcpserver.Grant{{Permissions: strings.Split(roles[0][1], ","), Prefix: project + condition[1]}}
	for _, role := range roles[1:] {
		grants = append(grants, gcpserver.Grant{Permissions: strings.Split(role[1], ","), Prefix: project})
	}
	return grants
}

// store adds a version as a person does with gcloud.
func (g cloudGCP) store(t *testing.T, key string, value []byte) {
	t.Helper()
	add := &secretmanagerpb.AddSecretVersionRequest{Parent: g.names.Locate(key), Payload: &secretmanagerpb.SecretPayload{Data: value}}
	_, err := g.AddSecretVersion(t.Context(), add)
	if status.Code(err) == codes.NotFound {
		id, invalid := g.names.ID(key)
		require.NoError(t, invalid)
		_, err = g.CreateSecret(t.Context(), &secretmanagerpb.CreateSecretRequest{
			Parent: "projects/" + gcpserver.Project, SecretId: id,
			Secret: &secretmanagerpb.Secret{Replication: &secretmanagerpb.Replication{
				Replication: &secretmanagerpb.Replication_Automatic_{Automatic: &secretmanagerpb.Replication_Automatic{}},
			}},
		})
		require.NoError(t, err)
		_, err = g.AddSecretVersion(t.Context(), add)
	}
	require.NoError(t, err)
}

func (g cloudGCP) look(t *testing.T, key string) string {
	t.Helper()
	out, err := g.AccessSecretVersion(t.Context(), &secretmanagerpb.AccessSecretVersionRequest{Name: g.names.Locate(key) + "/versions/latest"})
	if code := status.Code(err); code == codes.NotFound || code == codes.FailedPrecondition {
		return ""
	}
	require.NoError(t, err)
	return string(out.GetPayload().GetData())
}

func (g cloudGCP) gone(t *testing.T, key string) {
	t.Helper()
	_, err := g.GetSecret(t.Context(), &secretmanagerpb.GetSecretRequest{Name: g.names.Locate(key)})
	require.Equal(t, codes.NotFound, status.Code(err), "%s is still there: %v", key, err)
}

// external is g for the tests that are about every external backend.
func (g cloudGCP) external(t *testing.T) external {
	g.world.env = g.world.env.with(env{"SECRET_TIMEOUT": vaultTime.String(), "SECRET_CACHE_TTL": "0"})
	return external{
		world: g.world, faults: g.faults(t), down: g.Down, up: func() { require.NoError(t, g.Up()) },
		ways: map[string]func(*testing.T, string, string){"as the broker writes": g.world.set},
		odd:  func(t *testing.T, key string) { g.administer(func() { g.store(t, key, []byte{0xff, 0xfe}) }) },
		remove: func(t *testing.T, key string) {
			g.administer(func() {
				_, err := g.DeleteSecret(t.Context(), &secretmanagerpb.DeleteSecretRequest{Name: g.names.Locate(key)})
				require.NoError(t, err)
			})
		},
		history: func(t *testing.T, key string) (all any) {
			g.administer(func() {
				secret, err := g.GetSecret(t.Context(), &secretmanagerpb.GetSecretRequest{Name: g.names.Locate(key)})
				require.NoError(t, err)
				versions, err := g.ListSecretVersions(t.Context(), &secretmanagerpb.ListSecretVersionsRequest{Parent: g.names.Locate(key)})
				require.NoError(t, err)
				all = fmt.Sprint(secret, versions)
			})
			return all
		},
		reader: func() env {
			g.allow(g.printedGrants(t, env{"SECRET_READ_ONLY": "true"})...)
			return nil
		},
		forget: g.Forget,
		wrote: func() (calls []string) {
			for _, c := range g.Calls() {
				if !strings.HasPrefix(c.Method, "Access") && !strings.HasPrefix(c.Method, "Get") &&
					!strings.HasPrefix(c.Method, "List") && !strings.HasPrefix(c.Method, "Test") {
					calls = append(calls, c.Method+" "+c.Resource)
				}
			}
			return calls
		},
	}
}

func (g cloudGCP) faults(t *testing.T) []fault {
	heal := func() { g.Intercept(nil) }
	outage := func(name string, with gcpserver.Interceptor) fault {
		return fault{name, func() { g.Intercept(with) }, heal, 503, "secret_backend_unavailable", "unavailable", 5}
	}
	stopped := outage("stopped", nil)
	stopped.begin, stopped.end = g.Down, func() { require.NoError(t, g.Up()) }
	throttled := outage("throttled", gcpserver.Throttle(7*time.Second))
	throttled.retryAfter = 7
	return []fault{
		stopped,
		outage("frozen", gcpserver.Hang()),
		outage("slow", gcpserver.Delay(10*vaultTime)),
		outage("away", gcpserver.Fail(codes.Unavailable)),
		outage("internal failure", gcpserver.Fail(codes.Internal)),
		outage("answers of somebody else", gcpserver.Fail(codes.Unknown)),
		outage("throttled without a wait", gcpserver.Throttle(0)),
		throttled,
		{"policy taken away", func() { g.allow() }, func() { g.allow(g.grants...) }, 502, "secret_backend_denied", "denied", 0},
	}
}
