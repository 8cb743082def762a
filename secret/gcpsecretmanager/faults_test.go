package gcpsecretmanager_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/gcpsecretmanager"
	"github.com/nexus-broker/nexus-broker/test/gcpserver"
)

// every method of a backend, on one key.
func everyCall(ctx context.Context, b *gcpsecretmanager.GCPBackend) map[string]error {
	_, get := b.Get(ctx, key)
	_, read := b.Read(ctx, key)
	_, create := b.Create(ctx, "acme/new", "canary-value", somebody)
	_, replace := b.Replace(ctx, "acme/new", "canary-value", somebody, "")
	_, reference := b.ReadReference(ctx, secret.Reference{Path: "team-a__x"})
	return map[string]error{
		"Get": get, "Read": read, "Create": create, "Replace": replace, "ReadReference": reference,
		"Set": b.Set(ctx, "acme/new", "canary-value"), "Delete": b.Delete(ctx, "acme/new"),
		"RemoveVersion": b.RemoveVersion(ctx, "acme/new", "1"),
		"Probe":         b.Probe(ctx, secret.ReadWrite),
	}
}

// wantQuiet checks that nothing of an answer or a value is in the message.
func wantQuiet(t *testing.T, err error) {
	t.Helper()
	text := fmt.Sprintf("%v %+v %#v", err, err, err)
	if strings.Contains(text, gcpserver.ForeignText) || strings.Contains(text, "canary") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the message quotes, or has several lines: %s", text)
	}
}

func TestFaultsAndRecovery(t *testing.T) {
	t.Parallel()
	for what, fault := range map[string]struct {
		begin gcpserver.Interceptor
		want  error
	}{
		"down":        {nil, secret.ErrUnavailable},
		"unavailable": {gcpserver.Fail(codes.Unavailable), secret.ErrUnavailable},
		"internal":    {gcpserver.Fail(codes.Internal), secret.ErrUnavailable},
		"unknown":     {gcpserver.Fail(codes.Unknown), secret.ErrUnavailable},
		"data loss":   {gcpserver.Fail(codes.DataLoss), secret.ErrUnavailable},
		"cancelled":   {gcpserver.Fail(codes.Canceled), secret.ErrUnavailable},
		"deadline":    {gcpserver.Fail(codes.DeadlineExceeded), secret.ErrUnavailable},
		"no method":   {gcpserver.Fail(codes.Unimplemented), secret.ErrUnavailable},
		"throttled":   {gcpserver.Throttle(0), secret.ErrThrottled},
		"denied":      {gcpserver.Fail(codes.PermissionDenied), secret.ErrDenied},
		"token":       {gcpserver.Fail(codes.Unauthenticated), secret.ErrDenied},
		"rejected":    {gcpserver.Fail(codes.InvalidArgument), secret.ErrInvalid},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s, _, b := fresh(t)
			set(t, b, "v")
			if fault.begin == nil {
				s.Down()
			}
			s.Intercept(fault.begin)
			for op, err := range everyCall(t.Context(), b) {
				if !isOnly(t, err, fault.want) || errors.Is(err, secret.ErrLogin) != (what == "token") {
					t.Errorf("%s: %v, want %v", op, err, fault.want)
				}
				wantQuiet(t, err)
			}
			s.Intercept(nil)
			if fault.begin == nil {
				if err := s.Up(); err != nil {
					t.Fatal(err)
				}
			}
			wait(t, "it works again", func() bool { _, err := b.Get(t.Context(), key); return err == nil })
			if err := b.Set(t.Context(), "acme/new", "x"); err != nil {
				t.Errorf("healed: %v", err)
			}
		})
	}
}

func TestThrottlingSaysForHowLong(t *testing.T) {
	t.Parallel()
	s, _, b := fresh(t)
	s.Intercept(gcpserver.Throttle(7 * time.Second))
	_, err := b.Get(t.Context(), key)
	if wait, ok := secret.RetryAfter(err); !ok || wait != 7*time.Second {
		t.Errorf("%v: %s, %t", err, wait, ok)
	}
	s.Intercept(nil)
	s.Quota(gcpserver.Access, 3)
	for range 4 {
		_, err = b.Get(t.Context(), key)
	}
	if !isOnly(t, err, secret.ErrThrottled) {
		t.Errorf("above the quota: %v", err)
	}
	s.Advance(time.Minute)
	if _, err := b.Get(t.Context(), key); !isOnly(t, err, secret.ErrNotFound) {
		t.Errorf("a minute later: %v", err)
	}
}

func TestADenialSaysWhatToGrant(t *testing.T) {
	t.Parallel()
	s, _, b := fresh(t)
	s.Allow()
	_, err := b.Get(t.Context(), key)
	for _, part := range []string{"gcp-secret-manager: get " + name + " (key " + key + "): ", "secretmanager.versions.access", "or the secret does not exist"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the message does not say %q: %v", part, err)
		}
	}
	for reason, says := range map[string]string{"SERVICE_DISABLED": "gcloud services enable", "BILLING_DISABLED": "billing account"} {
		s.Intercept(func(context.Context, string, any, gcpserver.Next) (any, error) {
			st, _ := status.New(codes.PermissionDenied, gcpserver.ForeignText).WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "googleapis.com"})
			return nil, st.Err()
		})
		if _, err := b.Get(t.Context(), key); !isOnly(t, err, secret.ErrDenied) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", reason, err)
		}
	}
}

// A denial of each single method is reported, and leaves nothing half done.
func TestADenialOfOneMethod(t *testing.T) {
	t.Parallel()
	for method, ops := range map[string][]string{
		"AccessSecretVersion":  {"get", "create", "replace", "set"},
		"GetSecret":            {"create", "replace"},
		"CreateSecret":         {"create", "set"},
		"UpdateSecret":         {"replace"},
		"AddSecretVersion":     {"create", "replace", "set"},
		"DeleteSecret":         {"delete"},
		"ListSecretVersions":   {"remove"},
		"DestroySecretVersion": {"remove"},
		"DisableSecretVersion": {"remove"},
	} {
		for _, op := range ops {
			s, p, b := fresh(t)
			if op != "create" && (op != "set" || method != "CreateSecret") {
				set(t, b, "1")
				set(t, b, "2")
			}
			s.Intercept(gcpserver.Fail(codes.PermissionDenied, method))
			var err error
			switch op {
			case "get":
				_, err = b.Get(t.Context(), key)
			case "create":
				_, err = b.Create(t.Context(), key, "new", somebody)
			case "replace":
				_, err = b.Replace(t.Context(), key, "new", somebody, "2")
			case "set":
				err = b.Set(t.Context(), key, "new")
			case "delete":
				err = b.Delete(t.Context(), key)
			case "remove":
				err = b.RemoveVersion(t.Context(), key, "2")
			}
			s.Intercept(nil)
			if op == "create" && method == "AccessSecretVersion" { // there is nothing to read before a secret is made
				if err != nil {
					t.Errorf("%s without %s: %v", op, method, err)
				}
				continue
			}
			if !isOnly(t, err, secret.ErrDenied) {
				t.Errorf("%s without %s: %v", op, method, err)
			}
			if op == "create" && p.states() != nil {
				t.Errorf("%s without %s leaves a secret with %q", op, method, p.states())
			}
			if op == "replace" { // at once: nobody has to wait for an announcement
				if _, err := b.Replace(t.Context(), key, "new", somebody, "2"); err != nil {
					t.Errorf("%s, when %s is allowed again: %v", op, method, err)
				}
			}
		}
	}
}

// The owner is a matter of its own right: who may only read values gets them.
func TestReadWithoutTheRightToAnnotations(t *testing.T) {
	t.Parallel()
	s, _, b := fresh(t)
	create(t, b, "v")
	s.Allow(gcpserver.Grant{Permissions: gcpsecretmanager.Permissions(secret.ReadOnly)})
	wantItem(t, open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{}), "v", "1", "")
}

func TestAHangingServerEndsWithTheLimit(t *testing.T) {
	t.Parallel()
	s, _, direct := fresh(t)
	b := open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{Timeout: 100 * time.Millisecond})
	set(t, b, "v")
	s.Intercept(gcpserver.Hang())
	if _, err := b.Get(t.Context(), key); !isOnly(t, err, secret.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("our own limit: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := direct.Get(ctx, key); !errors.Is(err, context.DeadlineExceeded) || !isOnly(t, err, context.DeadlineExceeded) {
		t.Errorf("a deadline: %v", err)
	}
	s.Intercept(gcpserver.Delay(20 * time.Millisecond))
	if _, err := direct.Get(t.Context(), key); err != nil {
		t.Errorf("slow: %v", err)
	}
}

// corrupt changes the data of n answers of AccessSecretVersion.
func corrupt(n int64, change func(*secretmanagerpb.SecretPayload)) (gcpserver.Interceptor, *atomic.Int64) {
	var seen atomic.Int64
	return func(ctx context.Context, method string, req any, next gcpserver.Next) (any, error) {
		answer, err := next(ctx, req)
		if a, ok := answer.(*secretmanagerpb.AccessSecretVersionResponse); ok && seen.Add(1) <= n {
			change(a.GetPayload())
		}
		return answer, err
	}, &seen
}

func TestAValueThatDoesNotMatchItsChecksum(t *testing.T) {
	t.Parallel()
	s, _, b := fresh(t)
	set(t, b, "value")
	flip := func(p *secretmanagerpb.SecretPayload) { p.Data[0] ^= 1 }
	f, seen := corrupt(1, flip)
	s.Intercept(f)
	if got, err := b.Get(t.Context(), key); err != nil || got != "value" || seen.Load() != 2 {
		t.Errorf("once: %v, after %d requests", err, seen.Load())
	}
	f, seen = corrupt(100, flip)
	s.Intercept(f)
	if got, err := b.Get(t.Context(), key); !isOnly(t, err, secret.ErrUnavailable) || got != "" || seen.Load() != 2 || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("always: %q, %v, after %d requests", got, err, seen.Load())
	}
	f, _ = corrupt(100, func(p *secretmanagerpb.SecretPayload) { p.Data = nil })
	s.Intercept(f)
	if _, err := b.Get(t.Context(), key); !isOnly(t, err, secret.ErrUnavailable) {
		t.Errorf("an empty answer: %v", err)
	}
}

func TestAValueThatArrivesChanged(t *testing.T) {
	t.Parallel()
	for _, times := range []int64{1, 100} {
		s, p, b := fresh(t)
		p.create()
		var seen atomic.Int64
		s.Intercept(func(ctx context.Context, method string, req any, next gcpserver.Next) (any, error) {
			if r, ok := req.(*secretmanagerpb.AddSecretVersionRequest); ok && seen.Add(1) <= times {
				r.Payload.Data[0] ^= 1
			}
			return next(ctx, req)
		})
		err := b.Set(t.Context(), key, "value")
		if times == 1 {
			if err != nil {
				t.Errorf("once: %v", err)
			}
			p.wantStates("1 ENABLED")
			continue
		}
		if !isOnly(t, err, secret.ErrUnavailable) || seen.Load() != 2 {
			t.Errorf("always: %v, after %d requests", err, seen.Load())
		}
		p.wantStates()
	}
}

func TestAWriteWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	s, p, b := fresh(t)
	s.Intercept(gcpserver.LoseAnswer("AddSecretVersion"))
	_, err := b.Create(t.Context(), key, "v", somebody)
	if !isOnly(t, err, secret.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	wantQuiet(t, err)
	s.Intercept(nil)
	p.wantStates("1 ENABLED")
	wantItem(t, b, "v", "1", somebody) // it has been written once, and the owner proves whose it is
}

func TestAKMSKeyThatIsDisabled(t *testing.T) {
	t.Parallel()
	s := gcpserver.Start(t)
	b := open(t, s, gcpsecretmanager.Config{KMSKey: globalKey}, gcpsecretmanager.Options{})
	set(t, b, "1")
	set(t, b, "2")
	s.DisableKey(globalKey, true)
	for op, err := range map[string]error{"set": b.Set(t.Context(), key, "3"), "get": second(b.Get(t.Context(), key))} {
		if !isOnly(t, err, secret.ErrUnavailable) || !strings.Contains(err.Error(), "KMS key") {
			t.Errorf("%s: %v", op, err)
		}
	}
	s.DisableKey(globalKey, false)
	if got, err := b.Get(t.Context(), key); err != nil || got != "2" {
		t.Errorf("%q, %v", got, err)
	}
}

func second(_ string, err error) error { return err }

func TestWhatIsNoCredentialIsInvalid(t *testing.T) {
	t.Parallel()
	_, p, b := fresh(t)
	p.create()
	for what, value := range map[string]string{"too long": strings.Repeat("canary", secret.MaxValueBytes/6+1), "no UTF-8": "canary\xff"} {
		p.add(value)
		_, err := b.Get(t.Context(), key)
		if !isOnly(t, err, secret.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
		wantQuiet(t, err)
	}
}

// proxy answers everything with an HTML page, over cleartext HTTP/2.
func proxy(t *testing.T, code int) (addr string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(code)
		fmt.Fprint(w, "<html>"+gcpserver.ForeignText+"</html>")
	})}
	srv.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = srv.Serve(l) }() // until Close
	t.Cleanup(func() { _ = srv.Close() })
	return l.Addr().String()
}

func TestAProxysPageIsAnOutage(t *testing.T) {
	t.Parallel()
	for _, code := range []int{200, 400, 401, 403, 404, 429, 502, 503} {
		b := open(t, nil, gcpsecretmanager.Config{EmulatorHost: proxy(t, code)}, gcpsecretmanager.Options{})
		for op, err := range everyCall(t.Context(), b) {
			if !isOnly(t, err, secret.ErrUnavailable) {
				t.Errorf("%d: %s: %v", code, op, err)
			}
			wantQuiet(t, err)
		}
	}
}

// No log line, and no request but the addition, carries a value.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	const value = "canary-c4n4ry"
	s := gcpserver.Start(t)
	var requests, out bytes.Buffer
	s.Intercept(func(ctx context.Context, method string, req any, next gcpserver.Next) (any, error) {
		if method != "AddSecretVersion" {
			fmt.Fprintln(&requests, method, req)
		}
		return next(ctx, req)
	})
	b := open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{
		Logger: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	create(t, b, value)
	if _, err := b.Replace(t.Context(), key, value+"2", somebody, "1"); err != nil {
		t.Fatal(err)
	}
	set(t, b, value+"3")
	s.Intercept(gcpserver.Fail(codes.Unavailable, "UpdateSecret", "DestroySecretVersion"))
	everyCall(t.Context(), b)
	for where, text := range map[string]string{"a request": requests.String(), "the log": out.String()} {
		if strings.Contains(text, "canary") {
			t.Errorf("%s has the value:\n%s", where, text)
		}
	}
}
