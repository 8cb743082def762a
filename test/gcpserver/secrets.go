package gcpserver

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// record is what is and was kept under a name. A state is never changed: a write puts
// another one beside it, so that a reading can see an older one.
type record struct {
	states []state // in the order of time
}

// state is a secret at a time; secret is nil while there is none.
type state struct {
	since    time.Time
	secret   *secretmanagerpb.Secret
	versions []version // by number, from 1
}

// version is a version with its payload.
type version struct {
	meta *secretmanagerpb.SecretVersion
	data []byte
	keys []string // of KMS, that it is encrypted with
}

// now returns what is kept under a name, with the expirations that have come.
func (s *Server) current(name string) state {
	r := s.secrets[name]
	if r == nil {
		return state{}
	}
	st := r.states[len(r.states)-1]
	if e := st.secret.GetExpireTime(); e != nil && !e.AsTime().After(s.now()) {
		return s.put(name, state{})
	}
	for i, v := range st.versions {
		if at := v.meta.GetScheduledDestroyTime(); at != nil && !at.AsTime().After(s.now()) {
			st = s.put(name, st.with(i, s.destroyed(v)))
		}
	}
	return st
}

// seen returns what a reading sees, which may lag behind.
func (s *Server) seen(name string) state {
	now := s.current(name)
	if s.lag == 0 {
		return now
	}
	states := s.secrets[name]
	if states == nil {
		return state{}
	}
	for _, st := range slices.Backward(states.states) {
		if time.Since(st.since) >= s.lag {
			return st
		}
	}
	return state{}
}

func (s *Server) put(name string, st state) state {
	r := s.secrets[name]
	if r == nil {
		r = &record{}
		s.secrets[name] = r
	}
	st.since = time.Now()
	r.states = append(r.states, st)
	if s.lag == 0 && len(r.states) > 1 { // nobody will look back
		r.states = r.states[len(r.states)-1:]
	}
	return st
}

// with returns the state with version i replaced.
func (st state) with(i int, v version) state {
	st.versions = slices.Clone(st.versions)
	st.versions[i] = v
	return st
}

func notFound(name string) error {
	return status.Errorf(codes.NotFound, "Secret [%s] not found.", name)
}

// errETag is the answer to an etag that is not the current one
// (https://cloud.google.com/secret-manager/docs/etags).
func errETag(name string) error {
	return status.Errorf(codes.FailedPrecondition, "The etag provided for [%s] does not match the current one.", name)
}

// CreateSecret makes a secret without versions.
func (s *Server) CreateSecret(_ context.Context, r *secretmanagerpb.CreateSecretRequest) (*secretmanagerpb.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.enter("CreateSecret", r.GetParent())
	if err != nil {
		return nil, err
	}
	if p.secret != "" || !idPattern.MatchString(r.GetSecretId()) {
		return nil, invalid("The provided Secret ID [%s] does not match the expected format [[a-zA-Z_0-9]+].", r.GetSecretId())
	}
	p.secret = r.GetSecretId()
	if r.GetSecret() == nil {
		return nil, invalid("Missing required field [secret].")
	}
	if err := checkSecret(r.GetSecret()); err != nil {
		return nil, err
	}
	if err := checkReplication(p, r.GetSecret()); err != nil {
		return nil, err
	}
	if len(r.GetSecret().GetVersionAliases()) > 0 {
		return nil, invalid("there is no version to name")
	}
	if s.current(p.name()).secret != nil {
		return nil, status.Errorf(codes.AlreadyExists, "Secret [%s] already exists.", p.name())
	}
	x := clone(r.GetSecret())
	x.Name, x.CreateTime, x.Etag = p.name(), timestamppb.New(s.now()), s.nextETag()
	if err := s.expire(x); err != nil {
		return nil, err
	}
	s.put(p.name(), state{secret: x})
	return clone(x), nil
}

// expire turns a TTL into the time of expiration.
func (s *Server) expire(x *secretmanagerpb.Secret) error {
	if ttl := x.GetTtl(); ttl != nil {
		x.Expiration = &secretmanagerpb.Secret_ExpireTime{ExpireTime: timestamppb.New(s.now().Add(ttl.AsDuration()))}
	}
	if e := x.GetExpireTime(); e != nil && !e.AsTime().After(s.now()) {
		return invalid("the expiration must lie in the future")
	}
	return nil
}

// GetSecret returns a secret's metadata.
func (s *Server) GetSecret(_ context.Context, r *secretmanagerpb.GetSecretRequest) (*secretmanagerpb.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.enter("GetSecret", r.GetName())
	if err != nil {
		return nil, err
	}
	st := s.seen(p.name())
	if st.secret == nil {
		return nil, notFound(p.name())
	}
	return clone(st.secret), nil
}

// ListSecrets lists the secrets of a project or location, the newest first. Filters are
// not known.
func (s *Server) ListSecrets(_ context.Context, r *secretmanagerpb.ListSecretsRequest) (*secretmanagerpb.ListSecretsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.enter("ListSecrets", r.GetParent())
	if err != nil {
		return nil, err
	}
	if r.GetFilter() != "" {
		return nil, status.Error(codes.Unimplemented, "the Secret Manager of the tests knows no filters")
	}
	var all []*secretmanagerpb.Secret
	for name := range s.secrets {
		rest, below := strings.CutPrefix(name, p.parent()+"/secrets/")
		if st := s.seen(name); below && !strings.Contains(rest, "/") && st.secret != nil {
			all = append(all, clone(st.secret))
		}
	}
	slices.SortFunc(all, func(a, b *secretmanagerpb.Secret) int {
		return b.GetCreateTime().AsTime().Compare(a.GetCreateTime().AsTime())
	})
	page, next, err := paged(all, r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &secretmanagerpb.ListSecretsResponse{Secrets: page, NextPageToken: next, TotalSize: int32(len(all))}, nil
}

// paged cuts a page out of a list; the token is where the next one begins.
func paged[T any](all []T, size int32, token string) (page []T, next string, err error) {
	from := 0
	if token != "" {
		if from, err = strconv.Atoi(token); err != nil || from < 0 || from > len(all) {
			return nil, "", invalid("the page token is not valid")
		}
	}
	if size < 0 {
		return nil, "", invalid("the page size is negative")
	}
	if size == 0 || size > maxPage {
		size = 100 // what the server decides
	}
	to := min(len(all), from+int(size))
	if to < len(all) {
		next = strconv.Itoa(to)
	}
	return all[from:to], next, nil
}

// UpdateSecret changes what the mask names. The etag changes also if nothing else does.
func (s *Server) UpdateSecret(_ context.Context, r *secretmanagerpb.UpdateSecretRequest) (*secretmanagerpb.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.enter("UpdateSecret", r.GetSecret().GetName())
	if err != nil {
		return nil, err
	}
	st := s.current(p.name())
	if st.secret == nil {
		return nil, notFound(p.name())
	}
	if e := r.GetSecret().GetEtag(); e != "" && e != st.secret.GetEtag() {
		return nil, errETag(p.name())
	}
	if len(r.GetUpdateMask().GetPaths()) == 0 {
		return nil, invalid("Missing required field [update_mask].")
	}
	x, change := clone(st.secret), clone(r.GetSecret())
	for _, field := range r.GetUpdateMask().GetPaths() {
		switch field {
		case "labels":
			x.Labels = change.GetLabels()
		case "annotations":
			x.Annotations = change.GetAnnotations()
		case "version_aliases":
			x.VersionAliases = change.GetVersionAliases()
		case "topics":
			x.Topics = change.GetTopics()
		case "rotation":
			x.Rotation = change.GetRotation()
		case "version_destroy_ttl":
			x.VersionDestroyTtl = change.GetVersionDestroyTtl()
		case "ttl", "expire_time":
			x.Expiration = change.GetExpiration()
		case "customer_managed_encryption":
			x.CustomerManagedEncryption = change.GetCustomerManagedEncryption()
		default:
			return nil, invalid("the field %q cannot be updated", field)
		}
	}
	if err := checkSecret(x); err != nil {
		return nil, err
	}
	for alias, n := range x.GetVersionAliases() {
		if n < 1 || n > int64(len(st.versions)) {
			return nil, invalid("alias %q names a version that does not exist", alias)
		}
	}
	if err := s.expire(x); err != nil {
		return nil, err
	}
	x.Etag = s.nextETag()
	st.secret = x
	s.put(p.name(), st)
	return clone(x), nil
}

// DeleteSecret deletes a secret and its versions at once. The name is free again.
func (s *Server) DeleteSecret(_ context.Context, r *secretmanagerpb.DeleteSecretRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.enter("DeleteSecret", r.GetName())
	if err != nil {
		return nil, err
	}
	st := s.current(p.name())
	if st.secret == nil {
		return nil, notFound(p.name())
	}
	if r.GetEtag() != "" && r.GetEtag() != st.secret.GetEtag() {
		return nil, errETag(p.name())
	}
	s.put(p.name(), state{})
	return &emptypb.Empty{}, nil
}

// TestIamPermissions returns which of the permissions the caller has on a secret: none on
// one that does not exist.
func (s *Server) TestIamPermissions(_ context.Context, r *iampb.TestIamPermissionsRequest) (*iampb.TestIamPermissionsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := parse(r.GetResource())
	if err != nil {
		return nil, err
	}
	answer := &iampb.TestIamPermissionsResponse{}
	if s.seen(p.name()).secret == nil {
		return answer, nil
	}
	for _, permission := range r.GetPermissions() {
		if s.allowed(permission, p.name()) {
			answer.Permissions = append(answer.Permissions, permission)
		}
	}
	return answer, nil
}

func clone[M proto.Message](m M) M { return proto.Clone(m).(M) }
