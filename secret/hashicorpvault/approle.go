package hashicorpvault

import (
	"context"
	"errors"

	"github.com/nexus-broker/nexus-broker/secret"
)

// AppRoleLogin logs in with the AppRole method
// (https://developer.hashicorp.com/vault/docs/auth/approle). A role that is not bound to
// a secret id needs none; else exactly one of the four says where it comes from.
type AppRoleLogin struct {
	Mount    string // of the auth method; "" is DefaultAppRoleMount
	RoleID   string
	SecretID secret.Value
	// SecretIDFile holds the secret id, white space around it is dropped. It is read
	// at each login.
	SecretIDFile string
	// WrappedSecretID is a response-wrapping token for the secret id. It is unwrapped at
	// the first login, which uses it up; the secret id is kept in memory.
	WrappedSecretID secret.Value
	// WrappedSecretIDFile holds such a token. It is read again when it changes: another
	// token in it is unwrapped at the next login.
	WrappedSecretIDFile string
}

func (l AppRoleLogin) wrapped() bool {
	return !l.WrappedSecretID.IsZero() || l.WrappedSecretIDFile != ""
}

func (l AppRoleLogin) credential() *credential {
	if l.wrapped() {
		return &credential{what: "wrapping token", text: l.WrappedSecretID, file: l.WrappedSecretIDFile}
	}
	return &credential{what: "secret id", text: l.SecretID, file: l.SecretIDFile}
}

func (l AppRoleLogin) problems(Config) []error {
	problems := l.credential().problems()
	if l.wrapped() && (!l.SecretID.IsZero() || l.SecretIDFile != "") {
		problems = append(problems, errors.New("the secret id is given twice, wrapped and as it is"))
	}
	if l.RoleID == "" {
		problems = append(problems, errors.New("the role id is missing"))
	}
	return append(problems, checkMount("AppRole", l.Mount)...)
}

func (l AppRoleLogin) method(c *conn) method {
	var source secretIDSource = givenSecretID{l.credential()}
	if l.wrapped() {
		source = &wrappedSecretID{conn: c, token: l.credential()}
	}
	return &login{
		proof: &appRoleProof{roleID: l.RoleID, secretID: source},
		conn:  c, name: "approle", what: "AppRole", path: loginPath(l.Mount, DefaultAppRoleMount),
		advice: "check the role id, the secret id (its expiry, uses left and CIDR bounds), the auth mount and the login namespace",
		// Vault before 1.14 answers a wrong secret id with 500.
		refusals: []string{"secret id", "secret_id", "secret-id", "role ID", "role_id", "CIDR", "source address"},
	}
}

// secretIDSource is where a secret id comes from.
type secretIDSource interface {
	get(ctx context.Context) (secret.Value, error)
	changed() bool
}

// givenSecretID is a secret id as it is, maybe in a file.
type givenSecretID struct{ *credential }

func (s givenSecretID) get(context.Context) (secret.Value, error) { return s.read() }

// appRoleProof presents role id and secret id.
type appRoleProof struct {
	roleID   string
	secretID secretIDSource
}

func (p *appRoleProof) changed() bool { return p.secretID.changed() }

func (p *appRoleProof) present(ctx context.Context) (map[string]string, error) {
	body := map[string]string{"role_id": p.roleID}
	secretID, err := p.secretID.get(ctx)
	if err != nil {
		return nil, err
	}
	if !secretID.IsZero() {
		body["secret_id"] = secretID.Reveal()
	}
	return body, nil
}
