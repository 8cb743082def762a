package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// The scripts run the command as a process of its own. None of them takes long: a
// broker that starts where it should have refused to is ended.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nexus-broker": func() {
		time.AfterFunc(30*time.Second, func() { os.Exit(3) })
		main()
	}})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Values[scriptBackend{}] = memory.New()
			// A program that ends has no garbage worth collecting, and need not wait a second
			// for races that others may report (the race detector's default).
			env.Setenv("GOGC", "off")
			env.Setenv("GORACE", "atexit_sleep_ms=50")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":          exits,
			"refuses":        refuses,
			"keypair":        keypair,
			"standin":        standin,
			"externalbroker": externalbroker,
			"holds":          holds,
			"emptyprovider":  emptyProvider,
		},
	})
}

// exits CODE PROGRAM ARG... runs a program that must end with the code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := exitStatus(ts, args[1], args[2:]...); got != want {
		ts.Fatalf("exit code %d instead of %d", got, want)
	}
}

// refuses NAME=VALUE... : VARIABLE... starts the broker with these settings on top
// of the script's. It must end with code 2 and name exactly these variables, one
// line each; "canary" in a value must not be seen again.
func refuses(ts *testscript.TestScript, _ bool, args []string) {
	settings, variables, _ := strings.Cut(strings.Join(args, "\x00"), "\x00:\x00")
	for _, setting := range strings.Split(settings, "\x00") {
		name, value, _ := strings.Cut(setting, "=")
		defer ts.Setenv(name, ts.Getenv(name))
		ts.Setenv(name, value)
	}
	if code := exitStatus(ts, "nexus-broker"); code != 2 {
		ts.Fatalf("exit code %d instead of 2", code)
	}
	if strings.Contains(ts.ReadFile("stdout")+ts.ReadFile("stderr"), "canary") {
		ts.Fatalf("a value is printed")
	}
	var named []string
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		if problem, ok := strings.CutPrefix(line, "  "); ok {
			name, _, _ := strings.Cut(problem, " ")
			named = append(named, name)
		}
	}
	if want := strings.ReplaceAll(variables, "\x00", " "); strings.Join(named, " ") != want {
		ts.Fatalf("problems of %q instead of %q", named, want)
	}
}

func exitStatus(ts *testscript.TestScript, program string, args ...string) int {
	err := ts.Exec(program, args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	ts.Check(err)
	return 0
}

// keypair NAME LIFETIME writes NAME.crt, a self-signed certificate, and NAME.key. With
// a negative lifetime it has expired.
func keypair(ts *testscript.TestScript, _ bool, args []string) {
	lifetime, err := time.ParseDuration(args[1])
	ts.Check(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	notAfter := time.Now().Add(lifetime)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: notAfter.Add(-48 * time.Hour), NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	ts.Check(err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
}
