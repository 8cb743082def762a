package hashicorpvault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// proof is what a login presents to the server.
type proof interface {
	// present returns the body of the login request. Its errors wrap a sentinel.
	present(ctx context.Context) (map[string]string, error)
	// changed reports whether a file that present reads has changed since it did.
	changed() bool
}

// login is a method that gets its token by presenting a proof at auth/<mount>/login.
type login struct {
	proof
	conn *conn
	name string // the method, as VAULT_AUTH_METHOD has it
	what string // the same for a person: "AppRole"
	path string
	// advice is what to check when the login is refused.
	advice string
	// refusals are texts that make an answer with status 500 a refusal: Vault's plugins
	// answer some proofs that do not hold with it.
	refusals []string
	// outages are texts that make an answer with status 400 an outage: of something
	// behind Vault that it needs to judge the proof.
	outages []string
}

// loginPath returns the path of a login below a mount, or below def if that is empty.
func loginPath(mount, def string) string {
	path := strings.Join(segments(mount), "/")
	if path == "" {
		path = def
	}
	return "auth/" + path + "/login"
}

// checkMount returns what is wrong with the mount of a login method.
func checkMount(what, mount string) []error {
	if err := checkPath(mount); err != nil {
		return []error{fmt.Errorf("%s mount %q: %w", what, mount, err)}
	}
	return nil
}

func (m *login) obtain(ctx context.Context) (grant, error) {
	body, err := m.present(ctx)
	if err != nil {
		return grant{}, err
	}
	r := request{method: http.MethodPut, path: m.path, body: body}
	sent := time.Now()
	a, err := m.conn.send(ctx, m.conn.login, r)
	if err == nil && a.ok() {
		return granted(a, sent)
	}
	if err == nil && m.refuses(a) {
		return grant{}, refused("%s login at %s: %s", m.what, m.path, m.advice)
	}
	err = fault(a, r, err)
	if a != nil && a.fromVault && a.status == http.StatusBadRequest && m.behind(a) {
		err = fmt.Errorf("%w: Vault cannot reach or use what it needs to check the login: see its log and the configuration of the auth mount",
			secret.ErrUnavailable)
	}
	return grant{}, fmt.Errorf("%s login at %s: %w", m.what, m.path, err)
}

// refuses: the answer is about what was presented, or about the mount and the role that
// it was presented to.
func (m *login) refuses(a *answer) bool {
	if !a.fromVault || a.says("Vault is sealed") {
		return false
	}
	switch a.status {
	case http.StatusBadRequest:
		return !a.says("standby") && !a.says("DR secondary") && !m.behind(a)
	case http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return true
	case http.StatusInternalServerError:
		return slices.ContainsFunc(m.refusals, a.says)
	}
	return false
}

// behind: the trouble is behind Vault.
func (m *login) behind(a *answer) bool { return slices.ContainsFunc(m.outages, a.says) }

func (m *login) again() bool    { return true }
func (m *login) proves() bool   { return true }
func (m *login) remedy() string { return m.advice }
func (m *login) String() string { return m.name }

// granted reads the token of a login's answer.
func granted(a *answer, sent time.Time) (grant, error) {
	var auth struct {
		ClientToken   string `json:"client_token"`
		LeaseDuration int64  `json:"lease_duration"` // seconds
		Renewable     bool   `json:"renewable"`
	}
	if json.Unmarshal(a.auth, &auth) != nil || auth.ClientToken == "" || strings.ContainsFunc(auth.ClientToken, unprintable) {
		return grant{}, fmt.Errorf("%w: the answer to the login holds no token: check the address", secret.ErrUnavailable)
	}
	ttl := time.Duration(auth.LeaseDuration) * time.Second
	return grant{secret.NewValue(auth.ClientToken), newLifetime(ttl, auth.Renewable, sent)}, nil
}

// bearerProof presents a role and a token from a file, read at each login.
type bearerProof struct {
	role  string // "" leaves it to the server
	token *credential
}

func (p *bearerProof) changed() bool { return p.token.changed() }

func (p *bearerProof) present(context.Context) (map[string]string, error) {
	token, err := p.token.read()
	if err != nil {
		return nil, err
	}
	return withRole(p.role, map[string]string{"jwt": token.Reveal()}), nil
}

func withRole(role string, body map[string]string) map[string]string {
	if role != "" {
		body["role"] = role
	}
	return body
}
