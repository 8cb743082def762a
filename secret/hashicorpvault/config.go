package hashicorpvault

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/nexus-broker/nexus-broker/secret"
)

// What an empty field of Config and Options means.
const (
	DefaultMount        = "secret"
	DefaultAppRoleMount = "approle"
	DefaultTimeout      = 30 * time.Second
)

// Config says where the secrets lie and how to log in. Nothing else does: the
// VAULT_* variables that the vendor's client reads by itself are put out of force.
type Config struct {
	// Address is the URL of the server, for example https://vault.example.com:8200.
	// It may have a path, for a server behind a gateway.
	Address string
	// Namespace of the secrets (Enterprise, OpenBao); "" sends none.
	Namespace string
	// AuthNamespace is where the login takes place; "" is Namespace. "root" is the
	// server's root namespace.
	AuthNamespace string
	// Mount is the path of the KV secrets engine; "" is DefaultMount.
	Mount string
	// PathPrefix is the path below the mount under which all keys lie, "" for none.
	// Slashes at its ends do not matter, and unless KVVersion is 1 it may be pasted
	// from a URL of the API: "v1/secret/data/nexus" and "data/nexus" mean "nexus".
	PathPrefix string
	// KVVersion is 1 or 2; 0 asks the server, on the first call.
	KVVersion int
	// Login is how to get a token.
	Login Login
	// ReferencePrefixes are the paths below which a program lets references lie, beside
	// the backend's own place, as ReferenceSegments takes them. Policy grants to read
	// there, and Diagnose tries it; ReadReference reads everywhere.
	ReferencePrefixes []string
	// TLS applies to https addresses.
	TLS TLS
}

// Login is a way to get a token: TokenLogin, AppRoleLogin, KubernetesLogin, JWTLogin,
// AWSLogin or CertLogin.
type Login interface {
	// problems returns what is wrong with it, as part of c.
	problems(c Config) []error
	method(c *conn) method
}

// TokenLogin uses a token that somebody else has obtained. Exactly one of the fields
// is set.
type TokenLogin struct {
	Token secret.Value
	// File holds the token, white space around it is dropped. It is read again when it
	// changes, so that a Vault Agent or an operator can replace the token.
	File string
}

// TLS says whom to trust and who we are. Certificates are PEM.
type TLS struct {
	// The server's certificate must be signed by a CA of the file, a file of the
	// directory, or the PEM bytes; by one of the system's if all three are empty. File
	// and directory are read again when a certificate does not verify.
	CACertFile string
	CACertDir  string
	CACertPEM  []byte
	// ClientCertFile and ClientKeyFile are read for each connection.
	ClientCertFile string
	ClientKeyFile  string
	// ServerName is what the server's certificate is issued to, and the SNI; "" is the
	// host of the address.
	ServerName string
	// InsecureSkipVerify accepts any certificate: whoever answers gets the token.
	InsecureSkipVerify bool
}

// Options are what the program around the backend provides. The zero Options are
// usable.
type Options struct {
	// Logger is told of logins, renewals and of what a Delete had to leave behind; nil
	// discards.
	Logger *slog.Logger
	// OnLogin is called after each attempt to get a token, with nil for a success. A
	// token that was given to us is one as soon as the server has accepted it. It must
	// not block.
	OnLogin func(err error)
	// Timeout ends a single request whose ctx does not end it earlier, as
	// secret.ErrUnavailable; 0 is DefaultTimeout.
	Timeout time.Duration
}

// check returns every problem of the configuration.
func (c Config) check() error {
	problems := []error{checkAddress(c.Address)}
	if c.KVVersion < 0 || c.KVVersion > 2 {
		problems = append(problems, fmt.Errorf("KV version %d: it is 1, 2, or 0 to ask the server", c.KVVersion))
	}
	for _, p := range []struct{ what, path string }{
		{"mount", c.Mount}, {"path prefix", c.PathPrefix}, {"namespace", c.Namespace}, {"login namespace", c.AuthNamespace},
	} {
		if err := checkPath(p.path); err != nil {
			problems = append(problems, fmt.Errorf("%s %q: %w", p.what, p.path, err))
		}
	}
	if c.Login == nil {
		problems = append(problems, errors.New("no login: a token, or another way to get one, is needed"))
	} else {
		problems = append(problems, c.Login.problems(c)...)
	}
	if (c.TLS.ClientCertFile == "") != (c.TLS.ClientKeyFile == "") {
		problems = append(problems, errors.New("a client certificate needs both its file and its key's"))
	}
	return errors.Join(problems...)
}

func checkAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil: // its text quotes the address, which may hold a password
		return errors.New("the address is not a URL")
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return errors.New("the address must read https://host:port")
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return errors.New("the address must have no user, query or fragment")
	}
	return nil
}

func checkPath(path string) error {
	for _, s := range segments(path) {
		if s == "." || s == ".." {
			return fmt.Errorf("a segment is %q", s)
		}
	}
	if strings.ContainsFunc(path, unprintable) {
		return errors.New("a character is not printable")
	}
	return nil
}

// segments splits a path, without the empty segments that doubled slashes or
// slashes at the ends make.
func segments(path string) []string {
	return slices.DeleteFunc(strings.Split(strings.TrimSpace(path), "/"), func(s string) bool { return s == "" })
}

// place returns the mount and the prefix without what pasting has added.
func (c Config) place() (mount, prefix string) {
	m := segments(c.Mount)
	if len(m) == 0 {
		m = []string{DefaultMount}
	}
	p := segments(c.PathPrefix)
	if c.KVVersion != 1 {
		p = withoutAPIPath(p, m)
	}
	return strings.Join(m, "/"), strings.Join(p, "/")
}

// withoutAPIPath cuts ["v1"] mount "data" or just "data" off the front of p. The
// mount alone is not cut off: it may be the name of a directory as well.
func withoutAPIPath(p, mount []string) []string {
	q := p
	if len(q) > 0 && q[0] == "v1" {
		q = q[1:]
	}
	if len(q) > len(mount) && slices.Equal(q[:len(mount)], mount) {
		q = q[len(mount):]
	} else {
		q = p
	}
	if len(q) > 0 && (q[0] == "data" || q[0] == "metadata") {
		return q[1:]
	}
	return p
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
