package hashicorpvault

import "errors"

// DefaultServiceAccountToken is where Kubernetes mounts the token of a pod's service account.
const DefaultServiceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// KubernetesLogin logs in as the service account of the pod
// (https://developer.hashicorp.com/vault/docs/auth/kubernetes). To Vault 1.13 a
// Kubernetes API that does not answer and one that refuses the token are the same: both
// are reported as a refused login.
type KubernetesLogin struct {
	Mount string // of the auth method; "" is "kubernetes"
	Role  string
	// TokenFile holds the token of the service account; "" is DefaultServiceAccountToken.
	// It is read at each login: Kubernetes replaces a projected token before it expires.
	TokenFile string
}

func (l KubernetesLogin) problems(Config) []error {
	problems := checkMount("Kubernetes", l.Mount)
	if l.Role == "" {
		problems = append(problems, errors.New("the Kubernetes role is missing"))
	}
	return problems
}

func (l KubernetesLogin) method(c *conn) method {
	file := l.TokenFile
	if file == "" {
		file = DefaultServiceAccountToken
	}
	return &login{
		proof: &bearerProof{role: l.Role, token: &credential{what: "service account token", file: file}},
		conn:  c, name: "kubernetes", what: "Kubernetes", path: loginPath(l.Mount, "kubernetes"),
		advice: "check the role, its service account names, namespaces and audience, that Vault may review tokens at the Kubernetes API, " +
			"the auth mount and the login namespace",
		refusals: []string{"could not load backend configuration", "service account namespace and name", "could not parse UID"},
	}
}
