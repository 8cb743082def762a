package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nexus-broker/nexus-broker/test/gcpserver"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

func fragileAWS(t *testing.T) *fragile {
	f := newFragile(t)
	a := newAWS(t, f.world, "0") // without a recovery window: what is deleted is gone
	f.world, f.fewer = a.world, true
	database := f.through
	f.through = func(t *testing.T, g *turnstile) env {
		url := g.http(t, a.URL, awsAction, servers.Answer(http.StatusServiceUnavailable, "application/x-amz-json-1.1", `{"__type":"ServiceUnavailable"}`))
		return database(t, g).with(env{"AWS_ENDPOINT_URL": url})
	}
	f.keys = func(*testing.T) (keys []string) {
		for _, name := range a.Below(f.path("")) {
			keys = append(keys, strings.TrimPrefix(name, f.path("")))
		}
		return keys
	}
	return f
}

// awsAction tells what a request to AWS is by its action and the name of the secret.
func awsAction(r *http.Request) string {
	_, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	body, err := io.ReadAll(r.Body)
	if err != nil || action == "" {
		return ""
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var secret struct {
		Name     string
		SecretID string `json:"SecretId"`
	}
	_ = json.Unmarshal(body, &secret) // what has no name is called by its action
	return strings.TrimSpace(action + " " + strings.TrimPrefix(secret.Name+secret.SecretID, awsPrefix+"/"))
}

// gcpPrefix is what the ids of the broker's secrets begin with.
const gcpPrefix = "nexus-providers__"

func fragileGCP(t *testing.T) *fragile {
	f := newFragile(t)
	cloud := newGCP(t, f.world)
	f.world, f.fewer = cloud.world, true
	database := f.through
	f.through = func(t *testing.T, g *turnstile) env {
		return database(t, g).with(env{"SECRET_MANAGER_EMULATOR_HOST": g.secretManager(t, cloud.Server)})
	}
	f.keys = func(t *testing.T) (keys []string) {
		ask := &secretmanagerpb.ListSecretsRequest{Parent: "projects/" + gcpserver.Project}
		for {
			var page *secretmanagerpb.ListSecretsResponse
			var err error
			cloud.administer(func() { page, err = cloud.ListSecrets(t.Context(), ask) })
			require.NoError(t, err)
			for _, s := range page.GetSecrets() {
				keys = append(keys, gcpKey(s.GetName()))
			}
			if ask.PageToken = page.GetNextPageToken(); ask.PageToken == "" {
				slices.Sort(keys)
				return keys
			}
		}
	}
	return f
}

// gcpKey is the key, of those that these tests use, that a resource belongs to.
func gcpKey(resource string) string {
	_, id, _ := strings.Cut(resource, gcpPrefix)
	id, _, _ = strings.Cut(id, "/")
	return strings.ReplaceAll(id, "__", "/")
}

// secretManager puts the turnstile in front of a Secret Manager and returns its address.
func (g *turnstile) secretManager(t *testing.T, manager secretmanagerpb.SecretManagerServiceServer) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
		what := path.Base(info.FullMethod)
		switch r := req.(type) {
		case *secretmanagerpb.CreateSecretRequest:
			what += " " + gcpKey(r.GetSecretId())
		case interface{ GetName() string }:
			what += " " + gcpKey(r.GetName())
		case interface{ GetParent() string }:
			what += " " + gcpKey(r.GetParent())
		}
		if g.judge("store", what, func() { answer, err = handler(ctx, req) }) != pass {
			return nil, status.Error(codes.Unavailable, "the connection is lost")
		}
		return answer, err
	}))
	secretmanagerpb.RegisterSecretManagerServiceServer(server, manager)
	go func() { _ = server.Serve(ln) }() // ends with Stop
	t.Cleanup(server.Stop)
	return ln.Addr().String()
}
