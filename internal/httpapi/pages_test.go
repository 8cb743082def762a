package httpapi_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
)

const awkwardSchema = `{
	"type": "object", "title": "Weather <script>alert(1)</script>", "description": "Find the key in \"Settings\".",
	"required": ["password", "region"],
	"properties": {
		"state": {"type": "string"},
		"password": {"type": "string", "format": "password", "title": "API key", "description": "40 characters"},
		"region": {"enum": ["eu", "us & ca"], "title": "Region"},
		"port": {"type": ["integer", "null"]},
		"level": {"enum": [1, 2, null]},
		"sandbox": {"type": "boolean", "title": "Sandbox"},
		"empty": {"type": "string", "format": "email"},
		"pin": {"type": "string", "writeOnly": true},
		"site": {"type": "string", "format": "uri"},
		"anything": true,
		"\" onfocus=\"alert(1)": {"type": "string"}
	}
}`

// requirePage checks what every page must have: a policy that lets nothing of it run
// or be loaded, and nobody put it into a frame.
func requirePage(t *testing.T, answer got) {
	t.Helper()
	require.Equal(t, "text/html; charset=utf-8", answer.Header.Get("Content-Type"), answer.body)
	require.Equal(t, "DENY", answer.Header.Get("X-Frame-Options"))
	policy := answer.Header.Get("Content-Security-Policy")
	for _, rule := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} {
		require.Contains(t, policy, rule)
	}
	require.NotContains(t, policy, "unsafe")
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(answer.body)
	require.NotNil(t, style)
	sum := sha256.Sum256([]byte(style[1]))
	require.Contains(t, policy, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'", "the style is allowed")
	require.NotContains(t, answer.body, "<script")
	require.NotRegexp(t, `(?i)<[^>]*\son\w+\s*=|<[^>]*\sstyle=`, regexp.MustCompile(`"[^"]*"`).ReplaceAllString(answer.body, `""`))
	require.Contains(t, answer.body, `<html lang="en">`)
}

func TestFormOfASchema(t *testing.T) {
	domain := &stub{form: broker.CaptureForm{ProviderName: "weather", Schema: json.RawMessage(awkwardSchema)}}
	c := newClient(t, httpapi.Options{Broker: domain}).as("").with("Accept", browserAccept)
	answer := c.get("/auth/capture-schema?state=" + signedState + "%22%3E")
	require.Equal(t, 200, answer.StatusCode)
	requirePage(t, answer)
	require.Equal(t, "Accept", answer.Header.Get("Vary"))
	for _, want := range []string{
		`<h1>Weather &lt;script&gt;alert(1)&lt;/script&gt;</h1>`,
		`<p>Find the key in &#34;Settings&#34;.</p>`,
		`<form method="post" action="capture-credential" autocomplete="off">`,
		`<input type="hidden" name="state" value="` + signedState + `&#34;&gt;">`,
		`<label for="field-0">state (optional)</label>`,
		`<input type="text" id="field-0" name="credentials.state"`,
		`<label for="field-1">API key</label>`,
		`<p class="hint" id="field-1-hint">40 characters</p>`,
		`<input type="password" id="field-1" name="credentials.password" autocomplete="off" autocapitalize="none" spellcheck="false" required aria-describedby="field-1-hint">`,
		`<select id="field-2" name="credentials.region" required>`, `<option value="us &amp; ca">us &amp; ca</option>`,
		`<input type="text" inputmode="decimal" id="field-3" name="credentials.port">`,
		`<option value="null">null</option>`,
		`<label for="field-5">Sandbox</label>`, `<input type="checkbox" id="field-5" name="credentials.sandbox" value="true">`,
		`type="email" id="field-6"`, `type="password" id="field-7"`, `type="url" id="field-8"`, `type="text" id="field-9"`,
		`name="credentials.&#34; onfocus=&#34;alert(1)"`,
	} {
		require.Contains(t, answer.body, want)
	}
	// In the order of the schema, each with a label of its own.
	require.Less(t, strings.Index(answer.body, "credentials.state"), strings.Index(answer.body, "credentials.password"))
	require.Equal(t, 11, strings.Count(answer.body, "<label for="))
}

func TestFormWithoutTitles(t *testing.T) {
	domain := &stub{form: broker.CaptureForm{ProviderName: "weather", Schema: json.RawMessage(`{"properties":{"api_key":{"type":"string"}}}`)}}
	c := newClient(t, httpapi.Options{Broker: domain}).as("").with("Accept", browserAccept)
	answer := c.get("/auth/capture-schema?state=s")
	require.Contains(t, answer.body, "<h1>Connect weather</h1>")
	require.NotContains(t, answer.body, `role="alert"`)
}

func TestSchemaWithoutFields(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain}).as("").with("Accept", browserAccept)
	for _, schema := range []string{`{}`, `{"properties":{}}`, `{"properties":[]}`, `{"properties":5}`, `{"required":5}`, `{"title":5,"properties":{"a":{}}}`} {
		domain.form = broker.CaptureForm{ProviderName: "weather", Schema: json.RawMessage(schema)}
		answer := c.get("/auth/capture-schema?state=s")
		require.Equal(t, 404, answer.StatusCode, schema)
		requirePage(t, answer)
		require.Contains(t, answer.body, "schema_not_found")
	}
}
