package oauth_test

import (
	"testing"

	"github.com/nexus-broker/nexus-broker/internal/oauth"
)

func TestMatchesIssuer(t *testing.T) {
	const many = "https://login.microsoftonline.com/{tenantid}/v2.0"
	for _, c := range []struct {
		issuer, iss  string
		stated, want bool
	}{
		{"", "https://anything.example", false, true},
		{"https://op.example", "https://op.example", false, true},
		{"https://op.example", "https://op.example", true, true},
		{"https://op.example", "https://op.example/", true, false},
		{"https://op.example/", "https://op.example", true, false},
		{"https://op.example", "https://op.example/", false, true},
		{"https://op.example/", "https://op.example", false, true},
		{"https://op.example/", "https://op.example//", false, false},
		{"https://op.example/", "https://evil.example/", false, false},
		{"https://op.example", "https://evil.example", false, false},
		{many, "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0", true, true},
		{many, "https://login.microsoftonline.com/evil/../v2.0", true, false},
		{many, "https://evil.example/11111111-2222-3333-4444-555555555555/v2.0", true, false},
	} {
		if got := (oauth.Metadata{Issuer: c.issuer, Discovered: c.stated}).MatchesIssuer(c.iss); got != c.want {
			t.Errorf("issuer %q, stated %v, iss %q: got %v", c.issuer, c.stated, c.iss, got)
		}
	}
}
