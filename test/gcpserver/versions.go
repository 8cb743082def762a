package gcpserver

import (
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func checksum(data []byte) int64 {
	return int64(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
}

// AddSecretVersion adds a version. It changes neither the secret nor its etag.
func (s *Server) AddSecretVersion(_ context.Context, r *secretmanagerpb.AddSecretVersionRequest) (*secretmanagerpb.SecretVersion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.enter("AddSecretVersion", r.GetParent())
	if err != nil {
		return nil, err
	}
	st := s.current(p.name())
	if st.secret == nil {
		return nil, notFound(p.name())
	}
	data := r.GetPayload().GetData()
	switch {
	case len(data) == 0:
		return nil, invalid("Secret Payload cannot be empty.")
	case len(data) > maxPayload:
		return nil, invalid("The payload is larger than %d bytes.", maxPayload)
	case r.GetPayload().DataCrc32C != nil && r.GetPayload().GetDataCrc32C() != checksum(data):
		return nil, invalid("The checksum provided in the request does not match the data.")
	}
	keys := keysOf(st.secret)
	if err := s.checkKeys(keys); err != nil {
		return nil, err
	}
	v := version{data: slices.Clone(data), keys: keys, meta: &secretmanagerpb.SecretVersion{
		Name: fmt.Sprintf("%s/versions/%d", p.name(), len(st.versions)+1), CreateTime: timestamppb.New(s.now()), Etag: s.nextETag(),
		State: secretmanagerpb.SecretVersion_ENABLED, ClientSpecifiedPayloadChecksum: r.GetPayload().DataCrc32C != nil,
		ReplicationStatus: statusOf(st.secret),
	}}
	st.versions = append(slices.Clone(st.versions), v)
	s.put(p.name(), st)
	return clone(v.meta), nil
}

// statusOf tells where a version was replicated to.
func statusOf(x *secretmanagerpb.Secret) *secretmanagerpb.ReplicationStatus {
	encrypted := func(e *secretmanagerpb.CustomerManagedEncryption) *secretmanagerpb.CustomerManagedEncryptionStatus {
		if e == nil {
			return nil
		}
		return &secretmanagerpb.CustomerManagedEncryptionStatus{KmsKeyVersionName: e.GetKmsKeyName() + "/cryptoKeyVersions/1"}
	}
	switch r := x.GetReplication().GetReplication().(type) {
	case *secretmanagerpb.Replication_Automatic_:
		return &secretmanagerpb.ReplicationStatus{ReplicationStatus: &secretmanagerpb.ReplicationStatus_Automatic{
			Automatic: &secretmanagerpb.ReplicationStatus_AutomaticStatus{CustomerManagedEncryption: encrypted(r.Automatic.GetCustomerManagedEncryption())},
		}}
	case *secretmanagerpb.Replication_UserManaged_:
		var replicas []*secretmanagerpb.ReplicationStatus_UserManagedStatus_ReplicaStatus
		for _, replica := range r.UserManaged.GetReplicas() {
			replicas = append(replicas, &secretmanagerpb.ReplicationStatus_UserManagedStatus_ReplicaStatus{
				Location: replica.GetLocation(), CustomerManagedEncryption: encrypted(replica.GetCustomerManagedEncryption()),
			})
		}
		return &secretmanagerpb.ReplicationStatus{ReplicationStatus: &secretmanagerpb.ReplicationStatus_UserManaged{
			UserManaged: &secretmanagerpb.ReplicationStatus_UserManagedStatus{Replicas: replicas},
		}}
	}
	return nil
}

// find returns the index of the version that p names. By a number it looks at what is
// there, by "latest" or an alias at what is seen: only that is documented as consistent.
func (s *Server) find(p place) (state, int, error) {
	st := s.current(p.name())
	number, err := strconv.ParseInt(p.version, 10, 64)
	if err != nil {
		st = s.seen(p.name())
		number = int64(len(st.versions))
		if p.version != "latest" {
			var known bool
			if number, known = st.secret.GetVersionAliases()[p.version]; !known {
				return state{}, 0, status.Errorf(codes.NotFound, "Secret Version [%s/versions/%s] not found.", p.name(), p.version)
			}
		}
	}
	if st.secret == nil || len(st.versions) == 0 {
		return state{}, 0, status.Errorf(codes.NotFound, "Secret [%s] not found or has no versions.", p.name())
	}
	if number < 1 || number > int64(len(st.versions)) {
		return state{}, 0, status.Errorf(codes.NotFound, "Secret Version [%s/versions/%s] not found.", p.name(), p.version)
	}
	return st, int(number - 1), nil
}

// AccessSecretVersion returns the value of an enabled version.
func (s *Server) AccessSecretVersion(_ context.Context, r *secretmanagerpb.AccessSecretVersionRequest) (*secretmanagerpb.AccessSecretVersionResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.enter("AccessSecretVersion", r.GetName())
	if err != nil {
		return nil, err
	}
	st, i, err := s.find(p)
	if err != nil {
		return nil, err
	}
	v := st.versions[i]
	if v.meta.GetState() != secretmanagerpb.SecretVersion_ENABLED {
		return nil, status.Errorf(codes.FailedPrecondition, "Secret Version [%s] is in %s state.", v.meta.GetName(), v.meta.GetState())
	}
	if err := s.checkKeys(v.keys); err != nil {
		return nil, err
	}
	sum := checksum(v.data)
	return &secretmanagerpb.AccessSecretVersionResponse{
		Name: v.meta.GetName(), Payload: &secretmanagerpb.SecretPayload{Data: slices.Clone(v.data), DataCrc32C: &sum},
	}, nil
}

// GetSecretVersion returns the metadata of a version.
func (s *Server) GetSecretVersion(_ context.Context, r *secretmanagerpb.GetSecretVersionRequest) (*secretmanagerpb.SecretVersion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.enter("GetSecretVersion", r.GetName())
	if err != nil {
		return nil, err
	}
	st, i, err := s.find(p)
	if err != nil {
		return nil, err
	}
	return clone(st.versions[i].meta), nil
}

// ListSecretVersions lists the versions, the newest first. Filters are not known.
func (s *Server) ListSecretVersions(_ context.Context, r *secretmanagerpb.ListSecretVersionsRequest) (*secretmanagerpb.ListSecretVersionsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.enter("ListSecretVersions", r.GetParent())
	if err != nil {
		return nil, err
	}
	if r.GetFilter() != "" {
		return nil, status.Error(codes.Unimplemented, "the Secret Manager of the tests knows no filters")
	}
	st := s.seen(p.name())
	if st.secret == nil {
		return nil, notFound(p.name())
	}
	var all []*secretmanagerpb.SecretVersion
	for _, v := range slices.Backward(st.versions) {
		all = append(all, clone(v.meta))
	}
	page, next, err := paged(all, r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &secretmanagerpb.ListSecretVersionsResponse{Versions: page, NextPageToken: next, TotalSize: int32(len(all))}, nil
}

// DisableSecretVersion disables a version.
func (s *Server) DisableSecretVersion(_ context.Context, r *secretmanagerpb.DisableSecretVersionRequest) (*secretmanagerpb.SecretVersion, error) {
	return s.turn("DisableSecretVersion", r.GetName(), r.GetEtag(), func(_ *secretmanagerpb.Secret, v version) version {
		return v.in(secretmanagerpb.SecretVersion_DISABLED)
	})
}

// EnableSecretVersion enables a version; a scheduled destruction is called off.
func (s *Server) EnableSecretVersion(_ context.Context, r *secretmanagerpb.EnableSecretVersionRequest) (*secretmanagerpb.SecretVersion, error) {
	return s.turn("EnableSecretVersion", r.GetName(), r.GetEtag(), func(_ *secretmanagerpb.Secret, v version) version {
		v = v.in(secretmanagerpb.SecretVersion_ENABLED)
		v.meta.ScheduledDestroyTime = nil
		return v
	})
}

// DestroySecretVersion destroys the value of a version, or schedules that where the
// secret has a delay for it.
func (s *Server) DestroySecretVersion(_ context.Context, r *secretmanagerpb.DestroySecretVersionRequest) (*secretmanagerpb.SecretVersion, error) {
	return s.turn("DestroySecretVersion", r.GetName(), r.GetEtag(), func(x *secretmanagerpb.Secret, v version) version {
		if ttl := x.GetVersionDestroyTtl().AsDuration(); ttl > 0 {
			v = v.in(secretmanagerpb.SecretVersion_DISABLED)
			v.meta.ScheduledDestroyTime = timestamppb.New(s.now().Add(ttl))
			return v
		}
		return s.destroyed(v)
	})
}

// turn brings a version into another state. From DESTROYED no way leads back.
func (s *Server) turn(method, name, etag string, how func(*secretmanagerpb.Secret, version) version) (*secretmanagerpb.SecretVersion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.enter(method, name)
	if err != nil {
		return nil, err
	}
	st, i, err := s.find(p)
	if err != nil {
		return nil, err
	}
	v := st.versions[i]
	if v.meta.GetState() == secretmanagerpb.SecretVersion_DESTROYED {
		return nil, status.Errorf(codes.FailedPrecondition, "Secret Version [%s] is in DESTROYED state.", v.meta.GetName())
	}
	if etag != "" && etag != v.meta.GetEtag() {
		return nil, errETag(v.meta.GetName())
	}
	v = how(st.secret, v)
	v.meta.Etag = s.nextETag()
	s.put(p.name(), st.with(i, v))
	return clone(v.meta), nil
}

// in returns the version in another state.
func (v version) in(state secretmanagerpb.SecretVersion_State) version {
	v.meta = clone(v.meta)
	v.meta.State = state
	return v
}

// destroyed returns the version without its value.
func (s *Server) destroyed(v version) version {
	v = v.in(secretmanagerpb.SecretVersion_DESTROYED)
	v.data, v.meta.ScheduledDestroyTime, v.meta.DestroyTime = nil, nil, timestamppb.New(s.now())
	return v
}
