package hashicorpvault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

func (l AppRoleLogin) credential() *credential {
	return &credential{what: "secret id", text: l.SecretID, file: l.SecretIDFile}
}

func (l AppRoleLogin) problems() []error {
	problems := l.credential().problems()
	if l.RoleID == "" {
		problems = append(problems, errors.New("the role id is missing"))
	}
	if err := checkPath(l.Mount); err != nil {
		problems = append(problems, fmt.Errorf("AppRole mount %q: %w", l.Mount, err))
	}
	return problems
}

func (l AppRoleLogin) method(c *conn) method {
	mount := strings.Join(segments(l.Mount), "/")
	if mount == "" {
		mount = DefaultAppRoleMount
	}
	return &appRole{conn: c, path: "auth/" + mount + "/login", roleID: l.RoleID, secretID: l.credential()}
}

// appRole logs in with role id and secret id.
type appRole struct {
	conn     *conn
	path     string
	roleID   string
	secretID *credential
}

func (m *appRole) obtain(ctx context.Context) (grant, error) {
	body := map[string]string{"role_id": m.roleID}
	secretID, err := m.secretID.read()
	if err != nil {
		return grant{}, err
	}
	if !secretID.IsZero() {
		body["secret_id"] = secretID.Reveal()
	}
	r := request{method: http.MethodPut, path: m.path, body: body}
	sent := time.Now()
	a, err := m.conn.send(ctx, m.conn.login, r)
	if err == nil && a.ok() {
		return granted(a, sent)
	}
	if err == nil && m.refuses(a) {
		return grant{}, refused("AppRole login at %s: %s", m.path, m.remedy())
	}
	return grant{}, fmt.Errorf("AppRole login at %s: %w", m.path, fault(a, r, err))
}

// refuses: the answer is about what was presented. Vault before 1.14 answers a wrong
// secret id with 500.
func (m *appRole) refuses(a *answer) bool {
	if !a.fromVault || a.says("Vault is sealed") {
		return false
	}
	switch a.status {
	case http.StatusBadRequest:
		return !a.says("standby") && !a.says("DR secondary")
	case http.StatusForbidden, http.StatusNotFound:
		return true
	case http.StatusInternalServerError:
		for _, text := range []string{"secret id", "secret_id", "secret-id", "role ID", "role_id", "CIDR", "source address"} {
			if a.says(text) {
				return true
			}
		}
	}
	return false
}

func (m *appRole) changed() bool { return m.secretID.changed() }
func (m *appRole) again() bool   { return true }
func (m *appRole) proves() bool  { return true }

func (m *appRole) remedy() string {
	return "check the role id, the secret id (its expiry, uses left and CIDR bounds), the auth mount and the login namespace"
}

func (m *appRole) String() string { return "approle" }

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
