package gcpserver

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Call is a request that the server has seen.
type Call struct {
	Method     string // "AccessSecretVersion"
	Permission string // what IAM has to grant, "" for TestIamPermissions
	Resource   string // what it is checked on: a secret, or the project; with the number
	Code       codes.Code
}

// Calls returns what was asked since Forget.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Forget forgets the calls.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = nil
}

// Next serves a request as usual.
type Next func(ctx context.Context, req any) (any, error)

// Interceptor decides about a request; method is its name, without the service.
type Interceptor func(ctx context.Context, method string, req any, next Next) (any, error)

// Intercept hands every request to f; nil ends it.
func (s *Server) Intercept(f Interceptor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

// Hang does not answer the methods until the caller gives up; none named: all.
func Hang(methods ...string) Interceptor {
	return only(methods, func(ctx context.Context, _ string, _ any, _ Next) (any, error) {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	})
}

// Delay answers after d.
func Delay(d time.Duration, methods ...string) Interceptor {
	return only(methods, func(ctx context.Context, _ string, req any, next Next) (any, error) {
		select {
		case <-time.After(d):
			return next(ctx, req)
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	})
}

// Fail answers the methods with code.
func Fail(code codes.Code, methods ...string) Interceptor {
	return only(methods, func(context.Context, string, any, Next) (any, error) {
		return nil, status.Error(code, ForeignText)
	})
}

// ForeignText is in the answers of Fail, Throttle and LoseAnswer: no error may quote it.
const ForeignText = "canary-of-a-foreign-answer"

// LoseAnswer does what is asked for, and says that it cannot be reached.
func LoseAnswer(methods ...string) Interceptor {
	return only(methods, func(ctx context.Context, _ string, req any, next Next) (any, error) {
		if _, err := next(ctx, req); err != nil {
			return nil, err
		}
		return nil, status.Error(codes.Unavailable, ForeignText)
	})
}

// Throttle refuses the methods as above the quota, with the time to wait, 0 for none.
func Throttle(wait time.Duration, methods ...string) Interceptor {
	return only(methods, func(context.Context, string, any, Next) (any, error) { return nil, overQuota(wait) })
}

func overQuota(wait time.Duration) error {
	st := status.New(codes.ResourceExhausted, "Quota exceeded for quota metric. "+ForeignText)
	if wait > 0 {
		if detailed, err := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait)}); err == nil {
			st = detailed
		}
	}
	return st.Err()
}

func only(methods []string, f Interceptor) Interceptor {
	return func(ctx context.Context, method string, req any, next Next) (any, error) {
		if len(methods) > 0 && !slices.Contains(methods, method) {
			return next(ctx, req)
		}
		return f(ctx, method, req, next)
	}
}

// Grant lets the caller do what Permissions say where the resource's name begins with
// Prefix ("" everywhere), or where it is Name if that is set: a binding of a role, with a
// condition on resource.name.
type Grant struct {
	Permissions []string
	Prefix      string
	Name        string
}

// Allow restricts the caller to the grants; none: he may do nothing. Until it is called
// everything is allowed.
func (s *Server) Allow(grants ...Grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants = append([]Grant{}, grants...)
}

// AllowAll allows everything again.
func (s *Server) AllowAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants = nil
}

func (s *Server) allowed(permission, resource string) bool {
	return s.grants == nil || slices.ContainsFunc(s.grants, func(g Grant) bool {
		return slices.Contains(g.Permissions, permission) && strings.HasPrefix(resource, g.Prefix) &&
			(g.Name == "" || g.Name == resource)
	})
}

// RequireToken refuses every request without this access token; "" asks for none.
func (s *Server) RequireToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
}

// Lag makes readings, but those of a version by its number, see what was there a while
// ago.
func (s *Server) Lag(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = d
}

// Class is what a quota counts (https://cloud.google.com/secret-manager/quotas).
type Class string

// The classes of requests.
const (
	Access Class = "access"
	Read   Class = "read"
	Write  Class = "write"
)

// Quota limits the requests of a class per minute; 0 is no limit.
func (s *Server) Quota(class Class, perMinute int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quotas == nil {
		s.quotas = map[Class]int{}
	}
	s.quotas[class] = perMinute
	s.used = map[Class]int{}
}

func classOf(method string) Class {
	switch {
	case method == "AccessSecretVersion":
		return Access
	case strings.HasPrefix(method, "Get"), strings.HasPrefix(method, "List"), strings.HasPrefix(method, "Test"):
		return Read
	default:
		return Write
	}
}

// DisableKey makes a KMS key unusable: what is encrypted with it can neither be read nor
// written.
func (s *Server) DisableKey(key string, disabled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = maps.Clone(s.keys)
	s.keys[key] = disabled
}

// serve is what every request goes through.
func (s *Server) serve(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	method := path.Base(info.FullMethod)
	s.mu.Lock()
	f := s.intercept
	s.mu.Unlock()
	next := func(ctx context.Context, req any) (any, error) {
		if err := s.admit(ctx, method); err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
	if f == nil {
		f = func(ctx context.Context, _ string, req any, next Next) (any, error) { return next(ctx, req) }
	}
	answer, err := f(ctx, method, req, next)
	s.record(method, req, status.Code(err))
	return answer, err
}

// admit checks the token and the quota.
func (s *Server) admit(ctx context.Context, method string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token != "" {
		md, _ := metadata.FromIncomingContext(ctx)
		if got := md.Get("authorization"); len(got) != 1 || got[0] != "Bearer "+s.token {
			return status.Error(codes.Unauthenticated, "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.")
		}
	}
	class := classOf(method)
	if minute := s.now().Unix() / 60; minute != s.minute {
		s.minute, s.used = minute, map[Class]int{}
	}
	if limit := s.quotas[class]; limit > 0 {
		if s.used[class]++; s.used[class] > limit {
			return overQuota(0)
		}
	}
	return nil
}
