package hashicorpvault

import (
	"context"
	"errors"
	"strings"
	"sync"
)

// CertLogin logs in with the client certificate of the TLS connection
// (https://developer.hashicorp.com/vault/docs/auth/cert). Vault itself has to end the
// TLS connection: what a proxy has ended carries no certificate of ours.
type CertLogin struct {
	Mount string // of the auth method; "" is "cert"
	Role  string // the name of the certificate's entry; "" tries all of them
}

func (l CertLogin) problems(c Config) []error {
	problems := checkMount("certificate", l.Mount)
	if c.TLS.ClientCertFile == "" || c.TLS.ClientKeyFile == "" {
		problems = append(problems, errors.New("a login with a certificate needs a client certificate and its key"))
	}
	if !strings.HasPrefix(c.Address, "https:") {
		problems = append(problems, errors.New("a login with a certificate needs an https address"))
	}
	return problems
}

func (l CertLogin) method(c *conn) method {
	return &login{
		proof: &certProof{role: l.Role, transport: c.idle},
		conn:  c, name: "cert", what: "certificate", path: loginPath(l.Mount, "cert"),
		advice: "check the client certificate (its expiry, and that its authority is the one of an entry of the auth mount), the entry's constraints, " +
			"that no proxy ends the TLS connection, the auth mount and the login namespace",
		refusals: []string{"client certificate", "client's certificate", "tls connection"},
	}
}

// certProof presents the certificate of the connection that the login is sent over.
type certProof struct {
	role      string
	transport *transport

	mu   sync.Mutex
	seen []fileState // of the certificate and its key, at the last login
}

// present makes sure that the login does not travel over a connection that was made with
// a certificate which has been replaced since.
func (p *certProof) present(context.Context) (map[string]string, error) {
	p.mu.Lock()
	p.seen = p.transport.clientFiles()
	p.mu.Unlock()
	// Where the files do not fit together, because they are just being replaced, the
	// connections that are there stay in use, and a new one says what is wrong.
	_ = p.transport.rebuild()
	body := map[string]string{}
	if p.role != "" {
		body["name"] = p.role
	}
	return body, nil
}

func (p *certProof) changed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen != nil && !sameFiles(p.seen, p.transport.clientFiles())
}
