package hashicorpvault

import "errors"

// JWTLogin logs in with a JSON Web Token that somebody else has issued to this program:
// a cloud's workload identity, a CI system, SPIFFE
// (https://developer.hashicorp.com/vault/docs/auth/jwt).
type JWTLogin struct {
	Mount string // of the auth method; "" is "jwt"
	Role  string // "" is the default role of the mount
	// File holds the JWT. It is read at each login: who issues it replaces it in time.
	File string
}

func (l JWTLogin) problems(Config) []error {
	problems := checkMount("JWT", l.Mount)
	if l.File == "" {
		problems = append(problems, errors.New("the file of the JWT is missing"))
	}
	return problems
}

func (l JWTLogin) method(c *conn) method {
	return &login{
		proof: &bearerProof{role: l.Role, token: &credential{what: "JWT", file: l.File}},
		conn:  c, name: "jwt", what: "JWT", path: loginPath(l.Mount, "jwt"),
		advice: "check the JWT (its expiry, issuer, audience and signing key), the role and its bound claims, the auth mount and the login namespace",
		// The keys or the discovery document, which Vault fetches from the issuer.
		outages: []string{"fetching keys", "error configuring token validator"},
	}
}
