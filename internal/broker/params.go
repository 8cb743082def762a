package broker

import (
	"encoding/json"
	"net/url"
)

// The broker's own switches in a profile's params. They are not sent to the
// provider.
const (
	paramSkipScopeOnAuth     = "skip_scope_on_auth"
	paramSkipScopeOnExchange = "skip_scope_on_exchange"
	paramTokenRequestFormat  = "token_request_format"
	paramCredentialSchema    = "credential_schema"
	paramAuthStrategy        = "auth_strategy"
)

var ownParams = map[string]bool{
	paramSkipScopeOnAuth: true, paramSkipScopeOnExchange: true, paramTokenRequestFormat: true,
	paramCredentialSchema: true, paramAuthStrategy: true,
}

// IsZero reports whether there are no params.
func (p Params) IsZero() bool { return len(p) == 0 || string(p) == "null" }

func (p Params) members() map[string]json.RawMessage {
	var m map[string]json.RawMessage
	if json.Unmarshal(p, &m) != nil {
		return nil
	}
	return m
}

func (p Params) isTrue(name string) bool { return string(p.members()[name]) == "true" }

func (p Params) text(name string) string {
	var s string
	if json.Unmarshal(p.members()[name], &s) != nil {
		return ""
	}
	return s
}

// object returns the member if it is a JSON object, else nil.
func (p Params) object(name string) json.RawMessage {
	raw := p.members()[name]
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil || m == nil {
		return nil
	}
	return raw
}

// authorization returns the entries that go to the authorization endpoint: every
// string that is not a switch of the broker's own.
func (p Params) authorization() url.Values {
	v := url.Values{}
	for name, raw := range p.members() {
		var s string
		if !ownParams[name] && json.Unmarshal(raw, &s) == nil {
			v.Set(name, s)
		}
	}
	return v
}

// jsonTokenRequest reports whether token requests are sent as JSON.
func (p Params) jsonTokenRequest() bool { return p.text(paramTokenRequestFormat) == "json" }

// strategy returns how an agent applies the credentials of a connection.
func (p Params) strategy(authType string) json.RawMessage {
	switch {
	case authType == AuthOAuth2:
		return json.RawMessage(`{"type":"oauth2"}`)
	case p.object(paramAuthStrategy) != nil:
		return p.object(paramAuthStrategy)
	case authType == AuthAPIKey:
		return json.RawMessage(`{"type":"header","config":{"header_name":"X-API-Key","credential_field":"api_key"}}`)
	}
	b, _ := json.Marshal(map[string]string{"type": authType}) // a map of strings always encodes
	return b
}
