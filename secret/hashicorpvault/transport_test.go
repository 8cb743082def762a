package hashicorpvault_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
)

func TestNamespaces(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ namespace, auth, secrets, login string }{
		{"", "", "", ""},
		{"team-a", "", "team-a", "team-a"},
		{"team-a", "root", "team-a", "root"},
		{"", "admin", "", "admin"},
		{"team/a/", "admin/x", "team/a/", "admin/x"},
	} {
		v := newFakeVault(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v1/auth/approle/login":
				answer(w, 200, `{"request_id":"1","auth":{"client_token":"t","lease_duration":3600,"renewable":true}}`)
			case "/v1/sys/internal/ui/mounts/secret":
				answer(w, 200, `{"request_id":"1","data":{"type":"kv","path":"secret/","options":{"version":"2"}}}`)
			case "/v1/auth/token/lookup-self":
				answer(w, 200, `{"request_id":"1","data":{"ttl":3600}}`)
			case "/v1/sys/capabilities-self":
				answer(w, 200, `{"request_id":"1","data":{"secret/data/nexus-broker-probe/client_id":["root"]}}`)
			default:
				oneSecret(w, r)
			}
		})
		b := open(t, hashicorpvault.Config{
			Address: v.URL, Namespace: test.namespace, AuthNamespace: test.auth, Login: hashicorpvault.AppRoleLogin{RoleID: "r"},
		}, hashicorpvault.Options{})
		if err := b.Probe(t.Context(), secret.ReadOnly); err != nil {
			t.Error(err)
		}
		if _, err := b.Get(t.Context(), "a/b"); err != nil {
			t.Error(err)
		}
		for path, want := range map[string]string{
			"/v1/auth/approle/login":            test.login,
			"/v1/auth/token/lookup-self":        test.login,
			"/v1/sys/internal/ui/mounts/secret": test.secrets,
			"/v1/sys/capabilities-self":         test.secrets,
			"/v1/secret/data/a/b":               test.secrets,
		} {
			seen := v.seen(path)
			if len(seen) == 0 {
				t.Errorf("%+v: no request for %s", test, path)
			}
			for _, r := range seen {
				values, there := r.Header["X-Vault-Namespace"]
				if strings.Join(values, ",") != want || there != (want != "") {
					t.Errorf("%+v: %s was sent with the namespace %q, want %q", test, path, values, want)
				}
			}
		}
	}
}

func TestTheRedirectOfAStandbyIsFollowed(t *testing.T) {
	t.Parallel()
	var bodies []string
	active := newFakeVault(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/secret/data/a/b" {
			oneSecret(w, r)
			return
		}
		b, _ := io.ReadAll(r.Body)
		bodies = append(bodies, r.Method+" "+string(b))
		oneSecretOrVersion(w, r)
	})
	standby := newFakeVault(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, active.URL+strings.TrimPrefix(r.URL.RequestURI(), "/gateway"), http.StatusTemporaryRedirect)
	})
	b := open(t, hashicorpvault.Config{Address: standby.URL + "/gateway/", KVVersion: 2, Login: staticToken}, hashicorpvault.Options{})
	if v, err := b.Get(t.Context(), "a/b"); err != nil || v != "v" {
		t.Errorf("Get: %q, %v", v, err)
	}
	if err := b.Set(t.Context(), "a/b", "w"); err != nil {
		t.Errorf("Set: %v", err)
	}
	if want := []string{"GET ", `PUT {"data":{"value":"w"},"options":{}}`}; fmt.Sprint(bodies) != fmt.Sprint(want) {
		t.Errorf("the active node got %q, want %q", bodies, want)
	}
	for _, r := range active.seen("") {
		if r.Header.Get("X-Vault-Token") != canaryToken || "http://"+r.Host != active.URL {
			t.Errorf("the active node got the token %q and the host %s", r.Header.Get("X-Vault-Token"), r.Host)
		}
	}
}

// oneSecretOrVersion answers writes too.
func oneSecretOrVersion(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut {
		answer(w, 200, `{"request_id":"1","data":{"version":2}}`)
		return
	}
	oneSecret(w, r)
}

func TestNoOtherRedirectIsFollowed(t *testing.T) {
	t.Parallel()
	thief := newFakeVault(t, oneSecret)
	for name, redirect := range map[string]func(w http.ResponseWriter, r *http.Request){
		"a login portal": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.URL+"/login?back=", http.StatusFound)
		},
		"a portal with 307": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.URL+"/login", http.StatusTemporaryRedirect)
		},
		"302 to the same path": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.URL+r.URL.Path, http.StatusFound)
		},
		"301 to the same path": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.URL+r.URL.Path, http.StatusMovedPermanently)
		},
		"another path of Vault's": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.URL+"/v1/sys/health", http.StatusTemporaryRedirect)
		},
		"a loop": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		},
		"a redirect without place": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(307) },
	} {
		v := newFakeVault(t, redirect)
		b := open(t, hashicorpvault.Config{Address: v.URL, KVVersion: 2, Login: staticToken}, hashicorpvault.Options{})
		if _, err := b.Get(t.Context(), "a/b"); !errors.Is(err, secret.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(v.seen("/v1/secret/data/a/b")); n > 4 {
			t.Errorf("%s: %d requests", name, n)
		}
	}
	if n := len(thief.seen("")); n != 0 {
		t.Errorf("the token went to somebody else %d times", n)
	}
}

func TestARedirectFromHTTPSToHTTPIsNotFollowed(t *testing.T) {
	t.Parallel()
	plain := newFakeVault(t, oneSecret)
	secure := newTLSServer(t, nil, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL+r.URL.Path, http.StatusTemporaryRedirect)
	})
	b := open(t, hashicorpvault.Config{
		Address: secure.URL, KVVersion: 2, Login: staticToken, TLS: hashicorpvault.TLS{InsecureSkipVerify: true},
	}, hashicorpvault.Options{})
	if _, err := b.Get(t.Context(), "a/b"); !errors.Is(err, secret.ErrUnavailable) || !strings.Contains(err.Error(), "redirects") {
		t.Errorf("the error is %v", err)
	}
	if n := len(plain.seen("")); n != 0 {
		t.Error("the token was sent in clear")
	}
}

func TestAnAnswerIsNotReadWithoutEnd(t *testing.T) {
	t.Parallel()
	sent := make(chan int, 1)
	v := newFakeVault(t, func(w http.ResponseWriter, _ *http.Request) {
		n := 0
		_, err := io.WriteString(w, `{"request_id":"1","data":{"data":{"value":"`)
		for chunk := strings.Repeat("x", 64<<10); err == nil && n < 64<<20; n += len(chunk) {
			_, err = io.WriteString(w, chunk)
		}
		sent <- n
	})
	b := open(t, hashicorpvault.Config{Address: v.URL, KVVersion: 2, Login: staticToken}, hashicorpvault.Options{})
	if _, err := b.Get(t.Context(), "a/b"); !errors.Is(err, secret.ErrUnavailable) || !strings.Contains(err.Error(), "larger") {
		t.Errorf("the error is %v", err)
	}
	if n := <-sent; n > 32<<20 {
		t.Errorf("%d bytes were read", n)
	}
}

func TestAPerformanceStandbyThatLagsBehindIsAskedAgain(t *testing.T) {
	t.Parallel()
	reads := 0
	v := newFakeVault(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			w.Header().Set("X-Vault-Index", "v1:a:b:c:1")
			answer(w, 200, `{"request_id":"1","data":{"version":2}}`)
			return
		}
		if r.URL.Path != "/v1/secret/data/a/b" {
			oneSecret(w, r)
			return
		}
		if reads++; reads < 3 {
			if r.Header.Get("X-Vault-Index") == "" {
				t.Error("the read does not say which write it has to see")
			}
			answer(w, 412, `{"errors":["required index state not present"]}`)
			return
		}
		oneSecret(w, r)
	})
	b := open(t, hashicorpvault.Config{Address: v.URL, KVVersion: 2, Login: staticToken}, hashicorpvault.Options{})
	if err := b.Set(t.Context(), "a/b", "v"); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Get(t.Context(), "a/b"); err != nil || got != "v" {
		t.Errorf("Get: %q, %v", got, err)
	}
}

// authority is a CA for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.key, a.cert, a.pem = a.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

func (a *authority) issue(t *testing.T, template *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// server returns a certificate for 127.0.0.1 and vault.internal.
func (a *authority) server(t *testing.T) tls.Certificate {
	key, cert, _ := a.issue(t, &x509.Certificate{
		DNSNames: []string{"vault.internal"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// newTLSServer starts an HTTP/2 server; without a config its certificate is httptest's.
func newTLSServer(t *testing.T, config *tls.Config, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.TLS = config
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	clientKey, _, clientPEM := ca.issue(t, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	keyDER, err := x509.MarshalPKCS8PrivateKey(clientKey)
	if err != nil {
		t.Fatal(err)
	}
	caFile := writeFile(t, "ca.pem", string(ca.pem))
	certFile := writeFile(t, "cert.pem", string(clientPEM))
	keyFile := writeFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)

	plain := newTLSServer(t, &tls.Config{Certificates: []tls.Certificate{ca.server(t)}}, oneSecret)
	mutual := newTLSServer(t, &tls.Config{Certificates: []tls.Certificate{ca.server(t)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}, oneSecret)
	var serverName atomic.Value
	named := newTLSServer(t, &tls.Config{Certificates: []tls.Certificate{ca.server(t)}, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		serverName.Store(h.ServerName)
		return nil, nil
	}}, oneSecret)

	for _, test := range []struct {
		name string
		url  string
		tls  hashicorpvault.TLS
		says string // of the error; "" for none
	}{
		{"CA file", plain.URL, hashicorpvault.TLS{CACertFile: caFile}, ""},
		{"CA directory", plain.URL, hashicorpvault.TLS{CACertDir: filepath.Dir(caFile)}, ""},
		{"CA bytes", plain.URL, hashicorpvault.TLS{CACertPEM: ca.pem}, ""},
		{"another CA and the right one", plain.URL, hashicorpvault.TLS{CACertFile: caFile, CACertPEM: other.pem}, ""},
		{"the system's CAs", plain.URL, hashicorpvault.TLS{}, "certificate is not trusted"},
		{"another CA", plain.URL, hashicorpvault.TLS{CACertPEM: other.pem}, "certificate is not trusted"},
		{"no verification", plain.URL, hashicorpvault.TLS{InsecureSkipVerify: true}, ""},
		{"server name", named.URL, hashicorpvault.TLS{CACertPEM: ca.pem, ServerName: "vault.internal"}, ""},
		{"wrong server name", named.URL, hashicorpvault.TLS{CACertPEM: ca.pem, ServerName: "example.com"}, "certificate is not trusted"},
		{"client certificate", mutual.URL, hashicorpvault.TLS{CACertPEM: ca.pem, ClientCertFile: certFile, ClientKeyFile: keyFile}, ""},
		{"no client certificate", mutual.URL, hashicorpvault.TLS{CACertPEM: ca.pem}, "client certificate"},
		{"http to an https server", strings.Replace(plain.URL, "https", "http", 1), hashicorpvault.TLS{}, "not Vault's"},
	} {
		b := open(t, hashicorpvault.Config{Address: test.url, KVVersion: 2, Login: staticToken, TLS: test.tls}, hashicorpvault.Options{})
		v, err := b.Get(t.Context(), "a/b")
		switch {
		case test.says == "" && (err != nil || v != "v"):
			t.Errorf("%s: %q, %v", test.name, v, err)
		case test.says != "" && (!errors.Is(err, secret.ErrUnavailable) || !strings.Contains(err.Error(), test.says)):
			t.Errorf("%s: %v", test.name, err)
		}
		if test.name == "server name" && serverName.Load() != "vault.internal" {
			t.Errorf("the SNI is %q", serverName.Load())
		}
	}

	http11 := newFakeVault(t, oneSecret)
	b := open(t, hashicorpvault.Config{Address: strings.Replace(http11.URL, "http", "https", 1), KVVersion: 2, Login: staticToken}, hashicorpvault.Options{})
	if _, err := b.Get(t.Context(), "a/b"); !errors.Is(err, secret.ErrUnavailable) || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Errorf("https to an http server: %v", err)
	}
}

func TestARotatedCAIsReadAgain(t *testing.T) {
	t.Parallel()
	before, after := newAuthority(t), newAuthority(t)
	var current atomic.Pointer[tls.Config]
	serve := func(a *authority) { current.Store(&tls.Config{Certificates: []tls.Certificate{a.server(t)}}) }
	serve(before)
	v := newTLSServer(t, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.Load(), nil }}, oneSecretOrVersion)
	file := writeFile(t, "ca.pem", string(before.pem))
	b := open(t, hashicorpvault.Config{Address: v.URL, KVVersion: 2, Login: staticToken, TLS: hashicorpvault.TLS{CACertFile: file}}, hashicorpvault.Options{})
	if _, err := b.Get(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	serve(after)
	v.CloseClientConnections()
	if _, err := b.Get(t.Context(), "a/b"); !errors.Is(err, secret.ErrUnavailable) {
		t.Fatalf("before the file is replaced: %v", err)
	}
	replaceFile(t, file, string(after.pem))
	for range 2 {
		if err := b.Set(t.Context(), "a/b", "x"); err != nil {
			t.Errorf("after the file has been replaced: %v", err)
		}
		if v, err := b.Get(t.Context(), "a/b"); err != nil || v != "v" {
			t.Errorf("after the file has been replaced: %q, %v", v, err)
		}
	}
}
