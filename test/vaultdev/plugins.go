package main

import (
	authjwt "github.com/hashicorp/vault-plugin-auth-jwt"
	authk8s "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	authaws "github.com/hashicorp/vault/builtin/credential/aws"
	authcert "github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/builtin/credential/userpass"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

var authMethods = map[string]logical.Factory{
	"approle":    approle.Factory,
	"aws":        authaws.Factory,
	"cert":       authcert.Factory,
	"jwt":        authjwt.Factory,
	"kubernetes": authk8s.Factory,
	"oidc":       authjwt.Factory,
	"userpass":   userpass.Factory,
}

var secretsEngines = map[string]logical.Factory{
	"kv":      kv.Factory,
	"transit": transit.Factory,
}

// registry is the catalogue of built-in plugins, reduced to those above. Vault's own
// would link every plugin there is.
type registry struct{}

func (registry) table(t consts.PluginType) map[string]logical.Factory {
	switch t {
	case consts.PluginTypeCredential:
		return authMethods
	case consts.PluginTypeSecrets:
		return secretsEngines
	}
	return nil
}

func (r registry) Contains(name string, t consts.PluginType) bool {
	_, ok := r.table(t)[name]
	return ok
}

func (r registry) Get(name string, t consts.PluginType) (func() (any, error), bool) {
	f, ok := r.table(t)[name]
	return func() (any, error) { return f, nil }, ok
}

func (r registry) Keys(t consts.PluginType) []string {
	var names []string
	for name := range r.table(t) {
		names = append(names, name)
	}
	return names
}

func (r registry) DeprecationStatus(name string, t consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, t)
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
