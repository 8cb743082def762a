package config

import (
	"crypto/x509"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/nexus-broker/nexus-broker/secret"
)

// The values of VAULT_AUTH_METHOD that this build supports.
const (
	VaultToken      = "token"
	VaultAppRole    = "approle"
	VaultKubernetes = "kubernetes"
	VaultJWT        = "jwt"
	VaultAWS        = "aws"
	VaultCert       = "cert"
)

// vaultLogins are the ways to log in to Vault.
var vaultLogins = []string{VaultToken, VaultAppRole, VaultKubernetes, VaultJWT, VaultAWS, VaultCert}

// Vault is how the KV engine of a HashiCorp Vault or OpenBao is reached.
type Vault struct {
	Addr       string // http:// or https://
	Mount      string // of the KV engine
	PathPrefix string // as it was given; below the mount
	KVVersion  int    // 1, 2, or 0: ask the server
	// Namespace holds the KV engine, AuthNamespace the login; "" means the root,
	// and for AuthNamespace the same as Namespace.
	Namespace, AuthNamespace string

	CACert, CAPath        string // a PEM file, or a folder of them
	CACertBytes           string // PEM
	ClientCert, ClientKey string // PEM files, both set or none
	TLSServerName         string
	SkipVerify            bool

	AuthMethod string // VaultToken, VaultAppRole, …
	AuthMount  string // of the login method, "" with VaultToken
	// Role is what the login method calls so, "" where the server may choose; always ""
	// with VaultToken and VaultAppRole.
	Role string
	// TokenPath is the file of the service account's token with VaultKubernetes, of the JWT
	// with VaultJWT; to be read at each login.
	TokenPath string

	Token     secret.Value
	TokenFile string // instead of Token; to be read again when it changes

	RoleID string
	// One of the four with VaultAppRole.
	SecretID            secret.Value
	SecretIDFile        string       // to be read at each login
	SecretIDWrapped     secret.Value // a response-wrapping token, to be unwrapped at the first login
	SecretIDWrappedFile string       // the same, to be read again when it changes
}

func vaultVariables() []variable {
	vault := []selection{{"SECRET_BACKEND", BackendVault}}
	with := func(login string) []selection {
		return append(slices.Clone(vault), selection{"VAULT_AUTH_METHOD", login})
	}
	token, appRole := with(VaultToken), with(VaultAppRole)
	str := func(field func(*Vault) *string) func(*Config) *string {
		return func(c *Config) *string { return field(&c.Secrets.Vault) }
	}
	return []variable{
		{name: "VAULT_ADDR", only: vault, required: true, want: "give the server's URL, such as https://vault.example.com:8200", set: setVaultAddr},
		{name: "VAULT_MOUNT", def: "secret", only: vault, set: vaultPath(str(func(v *Vault) *string { return &v.Mount }))},
		{name: "VAULT_PATH_PREFIX", def: "nexus/providers", only: vault, set: vaultPath(str(func(v *Vault) *string { return &v.PathPrefix }))},
		{name: "VAULT_KV_VERSION", def: "auto", only: vault, set: setKVVersion},
		{name: "VAULT_NAMESPACE", only: vault, set: vaultPath(str(func(v *Vault) *string { return &v.Namespace }))},
		{name: "VAULT_AUTH_NAMESPACE", only: vault, set: vaultPath(str(func(v *Vault) *string { return &v.AuthNamespace }))},
		{name: "VAULT_CACERT", only: vault, set: certificates(str(func(v *Vault) *string { return &v.CACert }))},
		{name: "VAULT_CAPATH", only: vault, set: setCAPath},
		{name: "VAULT_CACERT_BYTES", only: vault, set: setCACertBytes},
		{name: "VAULT_CLIENT_CERT", only: vault, set: file(str(func(v *Vault) *string { return &v.ClientCert }))},
		{name: "VAULT_CLIENT_KEY", only: vault, set: file(str(func(v *Vault) *string { return &v.ClientKey }))},
		{name: "VAULT_TLS_SERVER_NAME", only: vault, set: plain(str(func(v *Vault) *string { return &v.TLSServerName }))},
		{name: "VAULT_SKIP_VERIFY", def: "false", only: vault, set: boolean(func(c *Config) *bool { return &c.Secrets.Vault.SkipVerify })},

		{name: "VAULT_AUTH_METHOD", def: VaultToken, only: vault, set: setAuthMethod},
		{name: "VAULT_TOKEN", secret: true, ownFile: true, only: token, set: secretText(func(c *Config) *secret.Value { return &c.Secrets.Vault.Token })},
		{name: "VAULT_TOKEN_FILE", only: token, set: filledFile(str(func(v *Vault) *string { return &v.TokenFile }))},
		{name: "VAULT_AUTH_MOUNT", only: vault, set: vaultPath(str(func(v *Vault) *string { return &v.AuthMount }))},
		{name: "VAULT_ROLE_ID", only: appRole, required: true, want: "give the role id of the AppRole", set: plain(str(func(v *Vault) *string { return &v.RoleID }))},
		{name: "VAULT_SECRET_ID", secret: true, ownFile: true, only: appRole, set: secretText(func(c *Config) *secret.Value { return &c.Secrets.Vault.SecretID })},
		{name: "VAULT_SECRET_ID_FILE", only: appRole, set: filledFile(str(func(v *Vault) *string { return &v.SecretIDFile }))},
		{name: "VAULT_SECRET_ID_WRAPPED", secret: true, ownFile: true, only: appRole, set: secretText(func(c *Config) *secret.Value { return &c.Secrets.Vault.SecretIDWrapped })},
		{name: "VAULT_SECRET_ID_WRAPPED_FILE", only: appRole, set: filledFile(str(func(v *Vault) *string { return &v.SecretIDWrappedFile }))},
		{name: "VAULT_K8S_ROLE", only: with(VaultKubernetes), required: true, want: "give the name of a role of the Kubernetes login", set: plain(str(func(v *Vault) *string { return &v.Role }))},
		{name: "VAULT_K8S_TOKEN_PATH", def: "/var/run/secrets/kubernetes.io/serviceaccount/token", only: with(VaultKubernetes), set: filledFile(str(func(v *Vault) *string { return &v.TokenPath }))},
		{name: "VAULT_JWT_ROLE", only: with(VaultJWT), set: plain(str(func(v *Vault) *string { return &v.Role }))},
		{name: "VAULT_JWT_PATH", only: with(VaultJWT), required: true, want: "name a file that holds the JWT", set: filledFile(str(func(v *Vault) *string { return &v.TokenPath }))},
		{name: "VAULT_AWS_ROLE", only: with(VaultAWS), set: plain(str(func(v *Vault) *string { return &v.Role }))},
		{name: "VAULT_CERT_ROLE", only: with(VaultCert), set: plain(str(func(v *Vault) *string { return &v.Role }))},
	}
}

func setVaultAddr(c *Config, text string) *Problem {
	u, wrong := parseHTTPURL(text)
	if wrong != "" {
		return invalid(wrong, "")
	}
	c.Secrets.Vault.Addr = strings.TrimRight(u.String(), "/")
	return nil
}

// vaultPath stores a path of slash-separated segments, as it was given.
func vaultPath(field func(*Config) *string) setter {
	return func(c *Config, text string) *Problem {
		const want = "give a path such as nexus/providers"
		trimmed := strings.Trim(text, "/")
		if trimmed == "" {
			return invalid("is empty", want)
		}
		for segment := range strings.SplitSeq(trimmed, "/") {
			if segment == "" || segment == "." || segment == ".." {
				return invalid("has a segment that is empty, . or ..", want)
			}
		}
		if strings.ContainsAny(text, `?#%\*+`) || strings.ContainsFunc(text, unicode.IsControl) {
			return invalid("has a character that a path must not have", want)
		}
		*field(c) = text
		return nil
	}
}

func setKVVersion(c *Config, text string) *Problem {
	switch text {
	case "auto":
		c.Secrets.Vault.KVVersion = 0
	case "1":
		c.Secrets.Vault.KVVersion = 1
	case "2":
		c.Secrets.Vault.KVVersion = 2
	default:
		return invalid("is not a version of the KV engine", "give auto, 1 or 2")
	}
	return nil
}

func setAuthMethod(c *Config, text string) *Problem {
	if !slices.Contains(vaultLogins, text) {
		return invalid("is not a known login", "give "+alternatives(vaultLogins))
	}
	c.Secrets.Vault.AuthMethod = text
	return nil
}

// certificates stores the path of a PEM file that holds a certificate.
func certificates(field func(*Config) *string) setter {
	return func(c *Config, text string) *Problem {
		const want = "name a readable file of PEM certificates"
		b, err := os.ReadFile(text)
		switch {
		case err != nil:
			return invalid("names a file that cannot be read ("+reason(err)+")", want)
		case !x509.NewCertPool().AppendCertsFromPEM(b):
			return invalid("names a file without a certificate", want)
		}
		*field(c) = text
		return nil
	}
}

func setCACertBytes(c *Config, text string) *Problem {
	if !x509.NewCertPool().AppendCertsFromPEM([]byte(text)) {
		return invalid("holds no certificate", "give certificates as PEM text")
	}
	c.Secrets.Vault.CACertBytes = text
	return nil
}

func setCAPath(c *Config, text string) *Problem {
	info, err := os.Stat(text)
	switch {
	case err != nil:
		return invalid("names a folder that cannot be read ("+reason(err)+")", "name a folder of PEM files")
	case !info.IsDir():
		return invalid("names no folder", "name a folder of PEM files, or use VAULT_CACERT for one file")
	}
	c.Secrets.Vault.CAPath = text
	return nil
}

func (l *loader) checkVault() {
	if l.cfg.Secrets.Backend != BackendVault {
		return
	}
	v := &l.cfg.Secrets.Vault
	l.checkVaultLogin(v)
	if l.isSet("VAULT_CLIENT_CERT") != l.isSet("VAULT_CLIENT_KEY") {
		l.problem("VAULT_CLIENT_CERT", "and VAULT_CLIENT_KEY belong together and one is missing", "set both, or none of them")
	}
	l.checkKeyPair("VAULT_CLIENT_CERT", v.ClientCert, "VAULT_CLIENT_KEY", v.ClientKey)
	var authorities []string
	for _, name := range []string{"VAULT_CACERT", "VAULT_CAPATH", "VAULT_CACERT_BYTES"} {
		if l.isSet(name) {
			authorities = append(authorities, name)
		}
	}
	if len(authorities) > 1 {
		l.problem(authorities[0], "is not the only one of VAULT_CACERT, VAULT_CAPATH and VAULT_CACERT_BYTES that is set", "set one of them")
	}
	if v.SkipVerify {
		l.warn("VAULT_SKIP_VERIFY is true: whoever is on the network can pose as Vault and read every credential; use VAULT_CACERT")
	}
	if u, wrong := parseHTTPURL(v.Addr); wrong == "" && u.Scheme == "http" && !isLoopback(u.Hostname()) {
		l.warn("VAULT_ADDR is not https: the token and every credential cross the network in clear")
	}
}

// checkVaultLogin checks what only belongs together under VAULT_AUTH_METHOD.
func (l *loader) checkVaultLogin(v *Vault) {
	why := "needed by VAULT_AUTH_METHOD=" + v.AuthMethod
	switch v.AuthMethod {
	case VaultToken:
		l.checkOneOf(why, "VAULT_TOKEN", "VAULT_TOKEN_FILE")
	case VaultAppRole:
		l.checkOneOf(why, "VAULT_SECRET_ID", "VAULT_SECRET_ID_FILE", "VAULT_SECRET_ID_WRAPPED", "VAULT_SECRET_ID_WRAPPED_FILE")
	case VaultCert:
		if !l.isSet("VAULT_CLIENT_CERT") && !l.isSet("VAULT_CLIENT_KEY") {
			l.problem("VAULT_CLIENT_CERT", "is not set but "+why, "name the PEM files of a client certificate and its key")
		}
		if u, wrong := parseHTTPURL(v.Addr); wrong == "" && u.Scheme != "https" {
			l.problem("VAULT_ADDR", "is not https but VAULT_AUTH_METHOD=cert", "a client certificate needs an https:// address")
		}
	}
	switch {
	case v.AuthMethod != VaultToken && v.AuthMount == "" && !l.isSet("VAULT_AUTH_MOUNT"):
		v.AuthMount = v.AuthMethod
		l.show("VAULT_AUTH_MOUNT", v.AuthMount)
	case v.AuthMethod == VaultToken && l.isSet("VAULT_AUTH_MOUNT"):
		v.AuthMount = ""
		l.warn("VAULT_AUTH_MOUNT is set but VAULT_AUTH_METHOD=token")
	}
}

// checkOneOf reports a problem unless exactly one of the variables is set.
func (l *loader) checkOneOf(why string, names ...string) {
	set := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !l.isSet(name) })
	switch {
	case len(set) == 0:
		l.problem(names[0], "is not set but "+why, "set "+alternatives(names))
	case len(set) > 1:
		both := "both"
		if len(set) > 2 {
			both = "all"
		}
		l.problem(set[0], "and "+strings.Join(set[1:], ", ")+" are "+both+" set", "set one of them")
	}
}
