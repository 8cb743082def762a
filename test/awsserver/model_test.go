package awsserver_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/awsserver"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// model is the official description of the service, as botocore carries it.
type model struct {
	Operations map[string]struct {
		Input, Output struct{ Shape string }
		Errors        []struct{ Shape string }
	}
	Shapes map[string]struct {
		Type      string
		Required  []string
		Members   map[string]struct{ Shape string }
		Member    struct{ Shape string }
		Value     struct{ Shape string }
		Min, Max  *int
		Exception bool
	}
}

// serviceModel reads the model that test/install/botocore.sh has put into the cache.
func serviceModel(t *testing.T) model {
	t.Helper()
	path := filepath.Join(servers.CacheDir(), "botocore", "secretsmanager.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		if os.Getenv("CI") == "true" || os.Getenv("NEXUS_TEST_SERVERS") == "1" {
			t.Fatalf("AWS's model of the service: %v: run test/install/botocore.sh", err)
		}
		t.Skipf("needs AWS's model of the service: %v: run 'make test'", err)
	}
	var m model
	require.NoError(t, json.Unmarshal(raw, &m))
	return m
}

// samples are requests that succeed, in this order, and refuse what must be refused.
var samples = []struct{ action, body string }{
	{"CreateSecret", `{"Name":"a","SecretString":"v","ClientRequestToken":"00000000-0000-4000-8000-000000000001","Tags":[{"Key":"k","Value":"v"}],"Description":"d"}`},
	{"GetSecretValue", `{"SecretId":"a"}`},
	{"PutSecretValue", `{"SecretId":"a","SecretBinary":"AAE=","ClientRequestToken":"00000000-0000-4000-8000-000000000002"}`},
	{"GetSecretValue", `{"SecretId":"a"}`},
	{"DescribeSecret", `{"SecretId":"a"}`},
	{"ListSecretVersionIds", `{"SecretId":"a"}`},
	{"ListSecrets", `{}`},
	{"UpdateSecret", `{"SecretId":"a","SecretString":"w","ClientRequestToken":"00000000-0000-4000-8000-000000000003"}`},
	{"UpdateSecretVersionStage", `{"SecretId":"a","VersionStage":"X","MoveToVersionId":"00000000-0000-4000-8000-000000000003"}`},
	{"TagResource", `{"SecretId":"a","Tags":[{"Key":"l","Value":"v"}]}`},
	{"UntagResource", `{"SecretId":"a","TagKeys":["l"]}`},
	{"DeleteSecret", `{"SecretId":"a","RecoveryWindowInDays":7}`},
	{"RestoreSecret", `{"SecretId":"a"}`},
}

func TestAnswersHaveTheMembersOfTheModel(t *testing.T) {
	m := serviceModel(t)
	s := awsserver.Start(t)
	seen := map[string]bool{}
	for _, x := range samples {
		status, _, body := send(t, s.URL, "secretsmanager."+x.action, []byte(x.body), time.Now())
		require.Equal(t, 200, status, "%s: %s", x.action, body)
		op, known := m.Operations[x.action]
		require.True(t, known, x.action)
		seen[x.action] = true
		if op.Output.Shape == "" {
			require.Empty(t, body, x.action)
			continue
		}
		var answer any
		require.NoError(t, json.Unmarshal(body, &answer))
		m.check(t, x.action, op.Output.Shape, answer)
	}
	for name := range m.Operations {
		status, _, body := send(t, s.URL, "secretsmanager."+name, []byte(`{}`), time.Now())
		if !seen[name] { // an operation that the server does not have
			require.Equal(t, 400, status, name)
			require.Contains(t, string(body), "UnknownOperationException", name)
		}
	}
}

// check compares a value with the shape that the model gives it.
func (m model) check(t *testing.T, at, shape string, value any) {
	t.Helper()
	s := m.Shapes[shape]
	switch s.Type {
	case "structure":
		members, ok := value.(map[string]any)
		require.True(t, ok, at)
		for name, v := range members {
			member, known := s.Members[name]
			require.True(t, known, "%s has a member %s that the model does not know", at, name)
			m.check(t, at+"."+name, member.Shape, v)
		}
	case "list":
		list, ok := value.([]any)
		require.True(t, ok, at)
		for _, v := range list {
			m.check(t, at, s.Member.Shape, v)
		}
	case "map":
		entries, ok := value.(map[string]any)
		require.True(t, ok, at)
		for _, v := range entries {
			m.check(t, at, s.Value.Shape, v)
		}
	case "timestamp", "long", "integer":
		require.IsType(t, float64(0), value, at)
	case "boolean":
		require.IsType(t, true, value, at)
	default:
		require.IsType(t, "", value, at)
	}
}

// Each required member is missed, each limit of length kept, and the errors are those
// that the model lists, or of the layer in front of every service.
func TestRefusalsAreThoseOfTheModel(t *testing.T) {
	m := serviceModel(t)
	front := []string{"ValidationException", "AccessDeniedException", "SerializationException"}
	for _, x := range samples {
		op := m.Operations[x.action]
		allowed := slices.Clone(front)
		for _, e := range op.Errors {
			allowed = append(allowed, e.Shape)
		}
		var sample map[string]any
		require.NoError(t, json.Unmarshal([]byte(x.body), &sample))
		for name, member := range m.Shapes[op.Input.Shape].Members {
			shape := m.Shapes[member.Shape]
			var bad []any
			if slices.Contains(m.Shapes[op.Input.Shape].Required, name) {
				bad = append(bad, nil)
			}
			if _, given := sample[name]; given && shape.Type == "string" {
				if shape.Max != nil {
					bad = append(bad, strings.Repeat("x", *shape.Max+1))
				}
				if shape.Min != nil && *shape.Min > 1 {
					bad = append(bad, strings.Repeat("x", *shape.Min-1))
				}
				bad = append(bad, 17)
			}
			for _, v := range bad {
				changed := map[string]any{}
				for k, old := range sample {
					changed[k] = old
				}
				changed[name] = v
				if v == nil {
					delete(changed, name)
				}
				s := awsserver.Start(t)
				if x.action != "CreateSecret" {
					send(t, s.URL, "secretsmanager.CreateSecret", []byte(samples[0].body), time.Now())
				}
				body, err := json.Marshal(changed)
				require.NoError(t, err)
				status, _, answer := send(t, s.URL, "secretsmanager."+x.action, body, time.Now())
				what := fmt.Sprintf("%s with %s = %.20v: %s", x.action, name, v, answer)
				require.Equal(t, 400, status, what)
				var refusal map[string]string
				require.NoError(t, json.Unmarshal(answer, &refusal), what)
				require.Contains(t, allowed, refusal["__type"], what)
			}
		}
	}
}
