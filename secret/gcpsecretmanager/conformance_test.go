package gcpsecretmanager_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/gcpsecretmanager"
	"github.com/nexus-broker/nexus-broker/secret/secrettest"
	"github.com/nexus-broker/nexus-broker/test/gcpserver"
)

// open returns a backend that is closed when the test ends. Empty fields of cfg are those
// of the server s.
func open(t *testing.T, s *gcpserver.Server, cfg gcpsecretmanager.Config, opts gcpsecretmanager.Options) *gcpsecretmanager.GCPBackend {
	t.Helper()
	if cfg.ProjectID == "" {
		cfg.ProjectID = gcpserver.Project
	}
	if s != nil {
		cfg.EmulatorHost = s.Addr
	}
	b, err := gcpsecretmanager.New(cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

const (
	globalKey = "projects/p/locations/global/keyRings/r/cryptoKeys/k"
	localKeys = "projects/p/locations/{location}/keyRings/r/cryptoKeys/k"
	berlinKey = "projects/p/locations/europe-west10/keyRings/r/cryptoKeys/k"
)

// configurations are those that the suite runs on.
var configurations = map[string]struct {
	cfg gcpsecretmanager.Config
	lag time.Duration
}{
	"Automatic":      {},
	"UserManaged":    {cfg: gcpsecretmanager.Config{Locations: []string{"europe-west3", "europe-west4"}, KeepVersions: 50}},
	"UserManagedKMS": {cfg: gcpsecretmanager.Config{Locations: []string{"europe-west3", "europe-west4"}, KMSKey: localKeys}},
	"AutomaticKMS":   {cfg: gcpsecretmanager.Config{KMSKey: globalKey, Prefix: "team__a_b-"}},
	"Regional":       {cfg: gcpsecretmanager.Config{Location: "europe-west10", KeepVersions: 1}},
	"RegionalKMS":    {cfg: gcpsecretmanager.Config{Location: "europe-west10", KMSKey: berlinKey}},
	"ReadingsLag":    {lag: 20 * time.Millisecond},
}

// quick are the configurations that run without being asked for more: a plain "go test
// ./..." shall be fast.
var quick = []string{"Automatic", "ReadingsLag"}

// all reports whether everything shall run.
func all() bool { return os.Getenv("NEXUS_TEST_SERVERS") == "1" || os.Getenv("CI") == "true" }

func TestConformance(t *testing.T) {
	t.Parallel()
	if project := os.Getenv("NEXUS_TEST_GCP_PROJECT"); project != "" {
		t.Run("Project", func(t *testing.T) { onAProject(t, project) })
	}
	for name, c := range configurations {
		if !slices.Contains(quick, name) && !all() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, closed, stalled, denied := gcpserver.Start(t), gcpserver.Start(t), gcpserver.Start(t), gcpserver.Start(t)
			server.Lag(c.lag)
			closed.Down()
			stalled.Intercept(gcpserver.Hang())
			denied.Allow()
			at := func(s *gcpserver.Server) secrettest.New {
				return func(t *testing.T) secret.SecretBackend { return open(t, s, c.cfg, gcpsecretmanager.Options{}) }
			}
			secrettest.Run(t, at(server),
				secrettest.WithName(gcpsecretmanager.Name),
				secrettest.WithUnreachable(at(closed)),
				secrettest.WithStalled(at(stalled)),
				secrettest.WithDenied(at(denied)),
				secrettest.WithRemnants(remnantsOn(server, c.lag)),
			)
		})
	}
}

// onAProject runs the same suite on a real project, with the Application Default
// Credentials: test/gcpserver/README.md says what it needs and costs. Without a project
// there is no such test, which nobody can take for one that has passed.
func onAProject(t *testing.T, project string) {
	secrettest.Run(t, func(t *testing.T) secret.SecretBackend {
		return open(t, nil, gcpsecretmanager.Config{
			ProjectID: project, Location: os.Getenv("NEXUS_TEST_GCP_LOCATION"), Prefix: "nexus-broker-test",
		}, gcpsecretmanager.Options{})
	}, secrettest.WithName(gcpsecretmanager.Name))
}
