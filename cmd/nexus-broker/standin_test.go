package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// standin starts what takes a broker's place for the questions of "providers apply": it
// has the provider weather once it was registered, until it is deleted. The script finds
// it in BROKER_BASE_URL.
func standin(ts *testscript.TestScript, _ bool, _ []string) {
	var mu sync.Mutex
	list := "[]"
	become := func(l string) {
		mu.Lock()
		defer mu.Unlock()
		list = l
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /providers", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprint(w, list)
	})
	mux.HandleFunc("POST /providers", func(w http.ResponseWriter, _ *http.Request) {
		become(`[{"id":"1","name":"weather"}]`)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"id":"1"}`)
	})
	mux.HandleFunc("DELETE /providers/1", func(http.ResponseWriter, *http.Request) { become("[]") })
	srv := httptest.NewServer(mux)
	ts.Defer(srv.Close)
	ts.Setenv("BROKER_BASE_URL", srv.URL)
}
