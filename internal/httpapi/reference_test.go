package httpapi_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/httpapi"
)

func TestReferencesOverHTTP(t *testing.T) {
	d := deploy(t, "hashicorp-vault")
	for _, key := range []string{"shared/client_id", "shared/client_secret"} {
		require.NoError(t, d.vault.Set(t.Context(), key, "c4n4ry-"+key))
	}
	profile := func(reference string) string {
		return fmt.Sprintf(`{"name":"salesforce","auth_url":"https://a.example.com","token_url":"https://t.example.com","credentials_ref":%s}`, reference)
	}
	for _, wrong := range []string{
		`"team-a/x"`, `[]`, `1`, `{"client_id":1,"client_secret":"team-a/x"}`, `{"client_id":["team-a/x"]}`, `{"client_id":""}`,
		`{"client_id":"team-a/x","client_secret":"team-a/x","mount":"other"}`, `{"Client_ID":"team-a/x","client_secret":"team-a/x"}`,
	} {
		d.do("POST", "/providers", `{"profile":`+profile(wrong)+`}`).requireError(t, 400, "invalid_json")
	}
	d.do("POST", "/providers", `{"profile":`+profile(`{"client_id":"team-a/x","client_id":"team-b/x"}`)+`}`).requireError(t, 400, "invalid_json")
	for _, refused := range []string{"team-ab/x", "team-a/../team-b/x", "team-a//x", "team-a/x\\u0000", "team-b/x", "team-a%2f../x"} {
		d.do("POST", "/providers", `{"profile":`+profile(fmt.Sprintf(`{"client_id":"%s","client_secret":"%s"}`, refused, refused))+`}`).
			requireError(t, 400, "credentials_ref_not_allowed")
	}
	missing := d.do("POST", "/providers", `{"profile":`+profile(`{"client_id":"team-a/x#id","client_secret":"team-a/x#secret"}`)+`}`)
	missing.requireError(t, 409, "credentials_not_found")
	require.Equal(t, []any{"team-a/x#id", "team-a/x#secret"}, missing.decode(t)["details"].(map[string]any)["paths"])

	references := `{"client_id":"memory/shared/client_id","client_secret":"memory/shared/client_secret"}`
	id := d.register(profile(references))
	got := d.get("/providers/" + id)
	body := got.decode(t)
	require.Equal(t, map[string]any{"client_id": "memory/shared/client_id", "client_secret": "memory/shared/client_secret"}, body["credentials_ref"])
	require.Equal(t, "memory/shared/client_id and memory/shared/client_secret", body["credentials"].(map[string]any)["location"])
	require.Equal(t, false, body["credentials"].(map[string]any)["managed"])
	require.NotContains(t, got.body, "c4n4ry")

	require.Equal(t, 200, d.do("PUT", "/providers/"+id, profile(references)).StatusCode)
	d.do("PATCH", "/providers/"+id, `{"client_secret":"new"}`).requireError(t, 409, "credentials_external")
	d.do("PATCH", "/providers/"+id, `{"credentials_ref":{"client_id":"team-b/x","client_secret":"team-b/x"}}`).requireError(t, 400, "credentials_ref_not_allowed")
	require.Equal(t, 200, d.do("PATCH", "/providers/"+id, `{"credentials_ref":null,"client_id":"i","client_secret":"s"}`).StatusCode)
	require.NotContains(t, d.get("/providers/"+id).decode(t), "credentials_ref")
	require.NotContains(t, d.log.String(), "c4n4ry")

	internal := deploy(t, "internal")
	internal.do("POST", "/providers", `{"profile":`+profile(references)+`}`).requireError(t, 400, "credentials_ref_not_allowed")
}

// Where a provider's credentials are read from is for an administrator alone to say.
func TestOnlyAnAdministratorSetsReferences(t *testing.T) {
	const body = `{"credentials_ref":{"client_id":"team-a/x","client_secret":"team-a/x"}}`
	for _, key := range []string{agentKey, auditorKey} {
		c := newClient(t, httpapi.Options{Broker: &stub{}}).as(key)
		for _, method := range []string{"PATCH", "PUT"} {
			c.do(method, "/providers/3fa85f64-5717-4562-b3fc-2c963f66afa6", body).requireError(t, 403, "forbidden")
		}
		c.do("POST", "/providers", `{"profile":`+body+`}`).requireError(t, 403, "forbidden")
	}
}
