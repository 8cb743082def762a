package servers_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestFaultProxy(t *testing.T) {
	var passed atomic.Int32
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		passed.Add(1)
		_, _ = io.WriteString(w, "from "+r.URL.Path)
	}))
	defer origin.Close()
	p := servers.NewFaultProxy(t, origin.URL)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) (int, string, http.Header) {
		resp, err := client.Get(p.URL + path)
		if err != nil {
			return 0, "", nil
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), resp.Header
	}
	expect := func(what, path string, status int, body string) http.Header {
		t.Helper()
		s, b, h := get(path)
		if s != status || !strings.Contains(b, body) {
			t.Errorf("%s: %d %q, want %d %q", what, s, b, status, body)
		}
		return h
	}

	expect("passing", "/a", 200, "from /a")
	p.Inject(servers.HTML(502), servers.PathIs("/a"), servers.MethodIs("GET"))
	expect("HTML", "/a", 502, "<html")
	expect("another path", "/b", 200, "from /b")
	p.Inject(servers.Throttle(3*time.Second), servers.PathIs("/b"))
	if h := expect("throttled", "/b", 429, "quota"); h.Get("Retry-After") != "3" {
		t.Errorf("Retry-After is %q", h.Get("Retry-After"))
	}
	p.Heal()
	expect("healed", "/a", 200, "from /a")

	p.Inject(servers.Drop())
	expect("dropped", "/a", 0, "")
	before := passed.Load()
	p.Heal()
	p.Inject(servers.DropAnswer())
	expect("answer dropped", "/a", 0, "")
	if passed.Load() != before+1 {
		t.Error("DropAnswer did not ask the server")
	}
	p.Heal()

	p.Down()
	expect("down", "/a", 0, "")
	p.Up()
	expect("up", "/a", 200, "from /a")

	p.Forget()
	expect("recorded", "/c", 200, "from /c")
	if n := len(p.Requests()); n != 1 || len(p.Requests(servers.PathIs("/x"))) != 0 || len(p.Requests(servers.PathIs("/c"))) != 1 {
		t.Errorf("%d requests recorded", n)
	}
}
