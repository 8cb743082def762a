package gcpserver

import (
	"fmt"
	"regexp"
	"strings"

	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The rules that the comments of the interface give.
var (
	idPattern         = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
	labelKeyPattern   = regexp.MustCompile(`^[\p{Ll}\p{Lo}][\p{Ll}\p{Lo}\p{N}_-]{0,62}$`)
	labelValuePattern = regexp.MustCompile(`^[\p{Ll}\p{Lo}\p{N}_-]{0,63}$`)
	annotationPattern = regexp.MustCompile(`^[a-z0-9A-Z]([-_.a-z0-9A-Z]{0,61}[a-z0-9A-Z])?$`)
	aliasPattern      = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,62}$`)
	namePattern       = regexp.MustCompile(`^projects/([^/]+)(?:/locations/([a-z0-9-]+))?(?:/secrets/([^/]+)(?:/versions/([^/]+))?)?$`)
	kmsPattern        = regexp.MustCompile(`^projects/[^/]+/locations/([^/]+)/keyRings/[^/]+/cryptoKeys/[^/]+$`)
)

const (
	maxPayload     = 64 << 10
	maxLabels      = 64
	maxAliases     = 50
	maxAnnotations = 16 << 10
	maxPage        = 25000
)

// place is a parsed resource name.
type place struct{ location, secret, version string }

// parse reads a resource name. Another project is one that the caller has no right to.
func parse(name string) (place, error) {
	m := namePattern.FindStringSubmatch(name)
	if m == nil {
		return place{}, status.Errorf(codes.InvalidArgument, "The provided resource name [%s] is invalid.", name)
	}
	if m[1] != Project && m[1] != ProjectNumber {
		return place{}, status.Errorf(codes.PermissionDenied, "Permission denied on resource project %s.", m[1])
	}
	return place{m[2], m[3], m[4]}, nil
}

func (p place) parent() string {
	if p.location != "" {
		return "projects/" + ProjectNumber + "/locations/" + p.location
	}
	return "projects/" + ProjectNumber
}

// name of the secret, or of what secrets lie in.
func (p place) name() string {
	if p.secret == "" {
		return p.parent()
	}
	return p.parent() + "/secrets/" + p.secret
}

func permissionOf(method string) string {
	switch method {
	case "CreateSecret":
		return "secretmanager.secrets.create"
	case "GetSecret":
		return "secretmanager.secrets.get"
	case "ListSecrets":
		return "secretmanager.secrets.list"
	case "UpdateSecret":
		return "secretmanager.secrets.update"
	case "DeleteSecret":
		return "secretmanager.secrets.delete"
	case "AddSecretVersion":
		return "secretmanager.versions.add"
	case "TestIamPermissions":
		return ""
	}
	verb := strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(method, "SecretVersions"), "SecretVersion"))
	return "secretmanager.versions." + verb
}

// nameIn returns the name that a request is about.
func nameIn(req any) string {
	switch r := req.(type) {
	case interface{ GetParent() string }:
		return r.GetParent()
	case interface{ GetName() string }:
		return r.GetName()
	case *secretmanagerpb.UpdateSecretRequest:
		return r.GetSecret().GetName()
	case *iampb.TestIamPermissionsRequest:
		return r.GetResource()
	}
	return ""
}

func (s *Server) record(method string, req any, code codes.Code) {
	p, _ := parse(nameIn(req))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, Call{method, permissionOf(method), p.name(), code})
}

// enter parses the name of a request and checks the right to it.
func (s *Server) enter(method, name string) (place, error) {
	p, err := parse(name)
	if err != nil {
		return place{}, err
	}
	permission := permissionOf(method)
	if !s.allowed(permission, p.name()) {
		return place{}, status.Errorf(codes.PermissionDenied, "Permission '%s' denied for resource '%s' (or it may not exist).", permission, p.name())
	}
	return p, nil
}

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// checkSecret checks what a caller has set of a secret.
func checkSecret(x *secretmanagerpb.Secret) error {
	if len(x.GetLabels()) > maxLabels {
		return invalid("a secret has at most %d labels", maxLabels)
	}
	for k, v := range x.GetLabels() {
		if !labelKeyPattern.MatchString(k) || !labelValuePattern.MatchString(v) || len(k) > 128 || len(v) > 128 {
			return invalid("label %q=%q is not allowed", k, v)
		}
	}
	size := 0
	for k, v := range x.GetAnnotations() {
		if size += len(k) + len(v); !annotationPattern.MatchString(k) {
			return invalid("annotation key %q is not allowed", k)
		}
	}
	if size >= maxAnnotations {
		return invalid("the annotations have %d bytes, they must have less than %d", size, maxAnnotations)
	}
	if len(x.GetVersionAliases()) > maxAliases {
		return invalid("a secret has at most %d aliases", maxAliases)
	}
	for alias := range x.GetVersionAliases() {
		if !aliasPattern.MatchString(alias) || alias == "latest" || alias == "NEW" {
			return invalid("alias %q is not allowed", alias)
		}
	}
	return nil
}

// checkReplication checks where a new secret shall lie.
func checkReplication(p place, x *secretmanagerpb.Secret) error {
	if p.location != "" {
		if x.GetReplication() != nil {
			return invalid("a regional secret has no replication")
		}
		return checkKey(x.GetCustomerManagedEncryption(), p.location)
	}
	if x.GetCustomerManagedEncryption() != nil {
		return invalid("customer_managed_encryption of a secret is for regional ones")
	}
	switch r := x.GetReplication().GetReplication().(type) {
	case *secretmanagerpb.Replication_Automatic_:
		return checkKey(r.Automatic.GetCustomerManagedEncryption(), "global")
	case *secretmanagerpb.Replication_UserManaged_:
		if len(r.UserManaged.GetReplicas()) == 0 {
			return invalid("user managed replication needs a replica")
		}
		keys := 0
		for _, replica := range r.UserManaged.GetReplicas() {
			if err := checkKey(replica.GetCustomerManagedEncryption(), replica.GetLocation()); err != nil {
				return err
			}
			if replica.GetCustomerManagedEncryption() != nil {
				keys++
			}
		}
		if keys != 0 && keys != len(r.UserManaged.GetReplicas()) {
			return invalid("either every replica has a key or none")
		}
		return nil
	default:
		return invalid("Missing required field [secret.replication].")
	}
}

func checkKey(e *secretmanagerpb.CustomerManagedEncryption, location string) error {
	if e == nil {
		return nil
	}
	m := kmsPattern.FindStringSubmatch(e.GetKmsKeyName())
	if m == nil || m[1] != location {
		return invalid("KMS key %q is not one of location %s", e.GetKmsKeyName(), location)
	}
	return nil
}

// keysOf returns the KMS keys of a secret.
func keysOf(x *secretmanagerpb.Secret) []string {
	var keys []string
	add := func(e *secretmanagerpb.CustomerManagedEncryption) {
		if e != nil {
			keys = append(keys, e.GetKmsKeyName())
		}
	}
	add(x.GetCustomerManagedEncryption())
	add(x.GetReplication().GetAutomatic().GetCustomerManagedEncryption())
	for _, r := range x.GetReplication().GetUserManaged().GetReplicas() {
		add(r.GetCustomerManagedEncryption())
	}
	return keys
}

// checkKeys fails if one of the keys is disabled.
func (s *Server) checkKeys(keys []string) error {
	for _, k := range keys {
		if s.keys[k] {
			return status.Error(codes.FailedPrecondition, fmt.Sprintf("The KMS key %s is not enabled.", k))
		}
	}
	return nil
}
