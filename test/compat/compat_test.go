// Package compat_test holds the broker with SECRET_BACKEND=internal against what the
// existing broker answers, whose clients must work unchanged: a gateway, an SDK, a
// command line for manifests. The files of testdata are conversations with the real
// binary, a section for each sentence about an answer of today; transcript_test.go has
// their form. What is this broker's own is not in them.
//
// Everything runs on SQLite, and on PostgreSQL where "make test" has one.
package compat_test

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/httpapi/openapitest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// databases are what a broker can lie on, each with how to make an empty one.
var databases = map[string]func(t *testing.T) (dsn string){
	"SQLite":     func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "broker.db") },
	"PostgreSQL": func(t *testing.T) string { return servers.Postgres(t) },
}

func transcripts(t *testing.T) []transcript {
	t.Helper()
	files, err := filepath.Glob("testdata/*.http")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var all []transcript
	for _, file := range files {
		all = append(all, readTranscript(t, file))
	}
	return all
}

// TestAnswersOfToday has the conversations of testdata.
func TestAnswersOfToday(t *testing.T) {
	for name, database := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, tr := range transcripts(t) {
				t.Run(strings.TrimSuffix(filepath.Base(tr.name), ".http"), func(t *testing.T) {
					t.Parallel()
					newStage(t, database(t), tr.env).play(t, tr)
				})
			}
		})
	}
}

// ours are the operations of the contract that the existing broker does not have.
var ours = []string{
	"GET /connections", "DELETE /connections/{id}", "GET /providers/health", "GET /health/ready", "GET /openapi.yaml",
}

// TestEveryOperationOfTodayIsAsked: the conversations leave no operation out, and every
// error and every event type of today is in them but for the errors that only a broken
// database brings about.
func TestEveryOperationOfTodayIsAsked(t *testing.T) {
	asked := map[string]bool{}
	var answered strings.Builder
	for _, tr := range transcripts(t) {
		for _, s := range tr.sections {
			for _, st := range s.steps {
				method, path, _ := strings.Cut(st.request.first, " ")
				path, _, _ = strings.Cut(path, "?")
				asked[method+" "+regexp.MustCompile(`\{\{[^}]+\}\}`).ReplaceAllString(path, "x")] = true
				answered.WriteString(strings.Join(st.answer.body, "") + strings.Join(st.lines, ""))
			}
		}
	}
	contract, err := openapitest.Load()
	require.NoError(t, err)
	for path, item := range contract.Document().Paths.Map() {
		for method := range item.Operations() {
			if slices.Contains(ours, method+" "+path) {
				continue
			}
			like := regexp.MustCompile("^" + method + " " + strings.NewReplacer("{id}", "[^/]+", "{name}", "[^/]+", ".", `\.`).Replace(path) + "$")
			require.True(t, slices.ContainsFunc(slices.Collect(maps.Keys(asked)), like.MatchString), "%s %s is in no conversation", method, path)
		}
	}
	for _, code := range []string{
		"not_found", "method_not_allowed", "body_too_large", "missing_api_key", "invalid_api_key", "access_denied",
		"invalid_json", "missing_profile", "invalid_provider_name", "provider_creation_failed", "provider_not_found", "invalid_provider_id",
		"missing_fields", "return_url_not_allowed", "unsupported_auth_type", "oauth_error", "missing_params", "invalid_state",
		"connection_not_found", "token_exchange_failed", "invalid_id_token", "schema_not_found", "invalid_credentials",
		"invalid_connection_id", "token_not_found", "connection_not_active", "attention_required", "static_token", "no_refresh_token",
		"upstream_error", "invalid_since",
	} {
		require.Contains(t, answered.String(), `"error":"`+code+`"`, "no conversation has this code")
	}
	for _, event := range []string{
		"provider.created", "provider.updated", "provider.deleted", "oauth_flow_completed", "token_retrieved", "token_retrieval_failed",
		"token_exchange_failed", "token_refresh_fatal", "state_verification_failed", "connection_not_found", "id_token_verification_failed",
		"oauth_error", "token_storage_failed", "provider_not_found", "status_update_failed", "invalid_return_url",
	} {
		require.Contains(t, answered.String(), `"event_type":"`+event+`"`, "no conversation has this event")
	}
}
