package manifest

import (
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func parse(text string, env map[string]string) (Manifest, error) {
	return Parse([]File{{"m.yaml", []byte(text)}}, func(n string) string { return env[n] })
}

func TestEverythingThatIsWrongIsReported(t *testing.T) {
	_, err := parse(`version: 2
extra: x
providers:
- name: a
  auth_type: api_key
  description: ${ONE} ${TWO}
- name: a
  auth_type: api_key
  scope: [x]
- name: b
  name: b
  client_id: 123
  client_secret:
  enable_discovery: "true"
- name: c
- name: Bad Name
  auth_type: magic
- name: d
  auth_type: api_key
  params: {1: x, a: !!binary aGk=, b: .inf, c: "${"}
- name: e
  auth_url: ftp://x
  token_url: https://u:p@h
  client_id: i
  credentials_ref: {client_id: x, other: y}
`, nil)
	require.Error(t, err)
	require.Equal(t, `the manifest has 19 problems:
  m.yaml:2: the manifest has no member "extra"
  m.yaml:1: this program reads version 1 of the format
  m.yaml:6: description: the environment variable ONE is not set
  m.yaml:6: description: the environment variable TWO is not set
  m.yaml:9: a provider has no member "scope": is scopes meant?
  m.yaml:11: name is there twice, first on line 10
  m.yaml:12: client_id must be a text: put the value into quotes
  m.yaml:13: client_secret has no value: give one, or leave the member out
  m.yaml:14: enable_discovery must be true or false
  m.yaml:15: auth_url is required for oauth2 without enable_discovery
  m.yaml:15: token_url is required for oauth2 without enable_discovery
  m.yaml:16: name must match ^[a-z0-9-]+$ and have at most 255 characters
  m.yaml:16: auth_type must be one of oauth2, api_key, basic_auth, header, query_param, hmac_payload, aws_sigv4
  m.yaml:20: params has a member whose name is not a text: put it into quotes
  m.yaml:20: params.a has a YAML tag that JSON cannot express
  m.yaml:20: params.b is a number that JSON cannot express
  m.yaml:20: params.c: "${" must be followed by a variable's name and "}", as in ${NAME} or ${NAME:-default}; write "$${" for the characters themselves
  m.yaml:25: credentials_ref has no member "other"
  m.yaml:7: the provider "a" is there already, at m.yaml:4`, err.Error())
}

func TestExpansion(t *testing.T) {
	env := map[string]string{"A": "a: [${B}]\n", "EMPTY": ""}
	m, err := parse("version: 1\nproviders:\n- {name: x, auth_type: api_key, description: 'x${A}y$${A}$A', category: '${EMPTY:-d}${NONE:-}', enable_discovery: '${ON:-true}', params: {p: '${A}', '${A}': 1}}\n", env)
	require.NoError(t, err)
	p := m.Providers[0]
	require.Equal(t, "xa: [${B}]\ny${A}$A", p.Description, "what has been put in is not read again")
	require.Equal(t, "d", p.Category)
	require.True(t, p.EnableDiscovery)
	require.Equal(t, "a: [${B}]\n", p.Params["p"])
	require.Contains(t, p.Params, "${A}", "names are not expanded")
}

func TestNoCredentialIsQuotedInAProblem(t *testing.T) {
	for _, text := range []string{
		"version: 1\nproviders:\n- name: a\n  client_secret: *canary\n",
		"version: 1\nproviders:\n- name: a\n  client_secret: \"\\canary\"\n",
		"version: 1\nproviders:\n- name: a\n  client_secret: [canary]\n",
		"version: 1\nproviders:\n- name: a\n  client_secret: @canary\n",
		"version: 1\nproviders:\n- name: a\n  client_secret: 'canary\n",
		"version: 1\nproviders:\n- name: a\n  client_secret: ${canary!}\n",
	} {
		_, err := parse(text, nil)
		require.Error(t, err, text)
		require.NotContains(t, err.Error(), "canary", text)
	}
}

// Aliases are followed, but not to where a small file becomes a large one.
func TestAliases(t *testing.T) {
	m, err := parse("version: 1\nproviders:\n- {name: a, auth_type: api_key, scopes: &s [x, y]}\n- {name: b, auth_type: api_key, scopes: *s}\n", nil)
	require.NoError(t, err)
	require.Equal(t, []string{"x", "y"}, m.Providers[1].Scopes)

	bomb := "version: 1\nproviders:\n- name: a\n  auth_type: api_key\n  params:\n    l0: &l0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		n, o := string(rune('1'+i)), string(rune('0'+i))
		bomb += "    l" + n + ": &l" + n + " [" + strings.TrimSuffix(strings.Repeat("*l"+o+",", 10), ",") + "]\n"
	}
	_, err = parse(bomb, nil)
	require.ErrorContains(t, err, "nested too deeply or holds too much")
	_, err = parse("version: 1\nproviders:\n- {name: a, auth_type: api_key, params: &p {p: *p}}\n", nil)
	require.ErrorContains(t, err, "nested too deeply or holds too much")
}

func TestSeveralFilesAreOneManifest(t *testing.T) {
	one := []byte("version: 1\nproviders: [{name: a, auth_type: api_key}]\n---\nversion: 1\nproviders: [{name: b, auth_type: api_key}]\n")
	m, err := Parse([]File{{"1", one}, {"2", []byte("version: 1\nproviders: []\n")}}, nil)
	require.NoError(t, err)
	require.Len(t, m.Providers, 2)
	_, err = Parse([]File{{"1", one}, {"2", one}}, nil)
	require.ErrorContains(t, err, `2:2: the provider "a" is there already, at 1:2`)
	_, err = Parse([]File{{"3", nil}}, nil)
	require.ErrorContains(t, err, "3: the file is empty")
}

// The schema and the parser know the same members.
func TestTheSchemaAgreesWithTheParser(t *testing.T) {
	f, err := os.Open("../../docs/manifest.schema.json")
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	doc, err := jsonschema.UnmarshalJSON(f)
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("schema.json", doc))
	schema, err := c.Compile("schema.json")
	require.NoError(t, err)
	provider := schema.Properties["providers"].Items2020.Ref
	var names []string
	for name := range provider.Properties {
		names = append(names, name)
	}
	require.ElementsMatch(t, Fields(), names)

	for text, valid := range map[string]bool{
		"version: 1\nproviders: []": true,
		"version: 2\nproviders: []": false,
		"providers: []":             false,
		"version: 1":                false,
		"version: 1\nproviders: [{name: a, auth_type: api_key, enable_discovery: true}]":              true,
		"version: 1\nproviders: [{name: a, auth_type: api_key, enable_discovery: '${X:-true}'}]":      true,
		"version: 1\nproviders: [{name: a, auth_type: api_key, enable_discovery: 'true'}]":            false,
		"version: 1\nproviders: [{name: a, auth_type: api_key, client_id: 1}]":                        false,
		"version: 1\nproviders: [{name: a, auth_type: api_key, client_id: null}]":                     false,
		"version: 1\nproviders: [{name: a, auth_type: api_key, scopes: x}]":                           false,
		"version: 1\nproviders: [{name: a, auth_type: api_key, params: [x]}]":                         false,
		"version: 1\nproviders: [{name: a, auth_type: api_key, credentials_ref: {client_secret: x}}]": false,
		"version: 1\nproviders: [{auth_type: api_key}]":                                               false,
		"version: 1\nproviders: [{name: a, auth_type: api_key, other: x}]":                            false,
	} {
		_, err := parse(text, nil)
		require.Equal(t, valid, err == nil, "the parser: %s: %v", text, err)
		var v any
		require.NoError(t, yaml.Unmarshal([]byte(text), &v))
		require.Equal(t, valid, schema.Validate(v) == nil, "the schema: %s", text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("version: 1\nproviders: [{name: a, params: {a: ${B}}}]")
	f.Add("version: 1\nproviders:\n- &a {name: *a}\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := parse(text, map[string]string{"B": "x"})
		if err != nil {
			require.IsType(t, Problems{}, err)
		}
	})
}

func FuzzExpand(f *testing.F) {
	f.Add("$${a} ${b} $$")
	f.Fuzz(func(t *testing.T, s string) {
		got, used, unset, err := expand(escape(s), func(string) string { return "x" })
		require.NoError(t, err)
		require.False(t, used)
		require.Empty(t, unset)
		require.Equal(t, s, got)
		_, _, _, _ = expand(s, func(string) string { return "${s}" })
	})
}
