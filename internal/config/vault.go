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
	VaultToken   = "token"
	VaultAppRole = "approle"
)

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
	AuthMethod            string // VaultToken or VaultAppRole
	AuthMount             string // of the login method, "" with VaultToken
	Token                 secret.Value
	TokenFile             string // instead of Token; to be read again when it changes
	RoleID                string
	SecretID              secret.Value
	SecretIDFile          string // instead of SecretID; to be read at each login
}

func vaultVariables() []variable {
	vault := []selection{{"SECRET_BACKEND", BackendVault}}
	token := append(slices.Clone(vault), selection{"VAULT_AUTH_METHOD", VaultToken})
	appRole := append(slices.Clone(vault), selection{"VAULT_AUTH_METHOD", VaultAppRole})
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
		{name: "VAULT_AUTH_MOUNT", def: VaultAppRole, only: appRole, set: vaultPath(str(func(v *Vault) *string { return &v.AuthMount }))},
		{name: "VAULT_ROLE_ID", only: appRole, required: true, want: "give the role id of the AppRole", set: plain(str(func(v *Vault) *string { return &v.RoleID }))},
		{name: "VAULT_SECRET_ID", secret: true, ownFile: true, only: appRole, set: secretText(func(c *Config) *secret.Value { return &c.Secrets.Vault.SecretID })},
		{name: "VAULT_SECRET_ID_FILE", only: appRole, set: filledFile(str(func(v *Vault) *string { return &v.SecretIDFile }))},
		{name: "VAULT_SECRET_ID_WRAPPED", only: vault, set: notInThisBuild},
		{name: "VAULT_K8S_ROLE", only: vault, set: notInThisBuild},
		{name: "VAULT_K8S_TOKEN_PATH", only: vault, set: notInThisBuild},
		{name: "VAULT_JWT_ROLE", only: vault, set: notInThisBuild},
		{name: "VAULT_JWT_PATH", only: vault, set: notInThisBuild},
		{name: "VAULT_AWS_ROLE", only: vault, set: notInThisBuild},
		{name: "VAULT_CERT_ROLE", only: vault, set: notInThisBuild},
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
	supported := []string{VaultToken, VaultAppRole}
	switch {
	case slices.Contains(supported, text):
		c.Secrets.Vault.AuthMethod = text
		return nil
	case slices.Contains([]string{"kubernetes", "jwt", "aws", "cert"}, text):
		return invalid("names a login that is not supported by this build", "give "+alternatives(supported))
	}
	return invalid("is not a known login", "give "+alternatives(supported))
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
	switch v.AuthMethod {
	case VaultToken:
		l.checkOneOf("VAULT_TOKEN", "VAULT_TOKEN_FILE", "needed by VAULT_AUTH_METHOD=token")
	case VaultAppRole:
		l.checkOneOf("VAULT_SECRET_ID", "VAULT_SECRET_ID_FILE", "needed by VAULT_AUTH_METHOD=approle")
	}
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

// checkOneOf reports a problem unless exactly one of two variables is set.
func (l *loader) checkOneOf(name, orFile, why string) {
	switch {
	case l.isSet(name) && l.isSet(orFile):
		l.problem(name, "and "+orFile+" are both set", "set one of them")
	case !l.isSet(name) && !l.isSet(orFile):
		l.problem(name, "is not set but "+why, "set "+name+" or "+orFile)
	}
}
