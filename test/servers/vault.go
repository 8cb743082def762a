package servers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// VaultServer is a Vault that is initialised, unsealed and has KV version 2 mounted
// at secret/. It keeps its data in memory. The methods fail the test when the
// server does not do what they ask.
type VaultServer struct {
	Addr      string // URL, without a trailing slash
	RootToken string
	UnsealKey string
	CAFile    string // PEM; "" without TLS

	t       TB
	tls     bool
	log     *Log
	process *Process
	client  *http.Client
}

// VaultOption changes how Vault starts.
type VaultOption func(*VaultServer)

// VaultTLS makes the server speak TLS with a certificate for 127.0.0.1 and
// localhost, signed by a CA of its own (see CAFile).
func VaultTLS() VaultOption { return func(v *VaultServer) { v.tls = true } }

// Vault starts a server of the test's own.
//
// It is the program of test/vaultdev, taken from VAULTDEV_BIN, else from CacheDir.
// If VAULT_BIN names a "vault" or "bao" program, its "server -dev" is run instead.
// What neither can prove is written beside vaultdev.
func Vault(t TB, opts ...VaultOption) *VaultServer {
	t.Helper()
	Enabled(t, "Vault")
	v := &VaultServer{t: t, RootToken: "root", log: new(Log), client: &http.Client{Timeout: 30 * time.Second}}
	for _, o := range opts {
		o(v)
	}
	t.Cleanup(v.Stop)
	v.start("127.0.0.1:0")
	return v
}

// start runs the server on address and waits until it answers.
func (v *VaultServer) start(address string) {
	v.t.Helper()
	var err error
	if bin := os.Getenv("VAULT_BIN"); bin != "" {
		err = v.startDev(bin, address)
	} else {
		err = v.startVaultdev(address)
	}
	if err == nil {
		err = waitFor(v.process, v.healthy)
	}
	if err != nil {
		v.t.Fatalf("Vault: %v\n%s", err, v.log.String())
	}
}

func (v *VaultServer) startVaultdev(address string) error {
	bin := os.Getenv("VAULTDEV_BIN")
	if bin == "" {
		bin = filepath.Join(CacheDir(), "vaultdev")
	}
	if _, err := os.Stat(bin); err != nil {
		return fmt.Errorf("%w: 'make test' builds it, or set VAULTDEV_BIN or VAULT_BIN", err)
	}
	args := []string{"-listen", address, "-root-token", v.RootToken}
	if v.tls {
		ca := NewAuthority(v.t)
		cert, key := ca.Server()
		v.CAFile = ca.File
		args = append(args, "-tls-cert", cert, "-tls-key", key)
	}
	if err := v.run(exec.Command(bin, args...)); err != nil {
		return err
	}
	var ready struct {
		Addr      string `json:"addr"`
		UnsealKey string `json:"unseal_key"`
	}
	err := waitFor(v.process, func() error {
		return json.Unmarshal(firstJSONLine(v.log.String()), &ready)
	})
	v.Addr, v.UnsealKey = v.scheme()+ready.Addr, ready.UnsealKey
	return err
}

// firstJSONLine returns the first line that begins an object.
func firstJSONLine(s string) []byte {
	for line := range strings.Lines(s) {
		if strings.HasPrefix(line, "{") && strings.HasSuffix(line, "}\n") {
			return []byte(line)
		}
	}
	return nil
}

// startDev runs the development server of HashiCorp Vault or OpenBao.
func (v *VaultServer) startDev(bin, address string) error {
	if strings.HasSuffix(address, ":0") {
		var err error
		if address, err = freeAddress(); err != nil {
			return err
		}
	}
	args := []string{"server", "-dev", "-dev-no-store-token", "-dev-root-token-id=" + v.RootToken, "-dev-listen-address=" + address}
	dir := v.t.TempDir()
	if v.tls {
		args = append(args, "-dev-tls", "-dev-tls-cert-dir="+dir)
	}
	if err := v.run(exec.Command(bin, args...)); err != nil {
		return err
	}
	v.Addr = v.scheme() + address
	return waitFor(v.process, func() error {
		if v.tls {
			found, _ := filepath.Glob(filepath.Join(dir, "*ca.pem"))
			if len(found) == 0 {
				return errors.New("no CA certificate yet")
			}
			v.CAFile = found[0]
		}
		m := unsealKeyLine.FindStringSubmatch(v.log.String())
		if m == nil {
			return errors.New("no unseal key printed yet")
		}
		v.UnsealKey = m[1]
		return nil
	})
}

var unsealKeyLine = regexp.MustCompile(`Unseal Key: (\S+)`)

func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

func (v *VaultServer) run(cmd *exec.Cmd) (err error) {
	v.log = new(Log)
	cmd.Stdout, cmd.Stderr = v.log, v.log
	v.process, err = start(cmd, nil)
	return err
}

func (v *VaultServer) scheme() string {
	if v.tls {
		return "https://"
	}
	return "http://"
}

func (v *VaultServer) healthy() error {
	if v.tls {
		if err := v.trust(); err != nil {
			return err
		}
	}
	resp, err := v.client.Get(v.Addr + "/v1/sys/health")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("health answers %s", resp.Status)
	}
	return nil
}

// Host returns host:port of the server.
func (v *VaultServer) Host() string { return strings.TrimPrefix(v.Addr, v.scheme()) }

// Log returns what the server has printed.
func (v *VaultServer) Log() string { return v.log.String() }

// Pause freezes the server: connections are accepted and never answered. The signal
// takes effect some time after it was sent; Pause returns when it has.
func (v *VaultServer) Pause() {
	v.t.Helper()
	v.signal(syscall.SIGSTOP)
	impatient := *v.client
	impatient.Timeout = 200 * time.Millisecond
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		resp, err := impatient.Get(v.Addr + "/v1/sys/health")
		if err != nil {
			return
		}
		_ = resp.Body.Close()
	}
	v.t.Fatalf("Vault: it answers although it has been stopped")
}

// Resume ends Pause.
func (v *VaultServer) Resume() { v.signal(syscall.SIGCONT) }

func (v *VaultServer) signal(s syscall.Signal) {
	v.t.Helper()
	if err := v.process.Signal(s); err != nil {
		v.t.Fatalf("Vault: signal %s: %v", s, err)
	}
}

// Stop ends the server, and with it all its data. A FaultProxy in front of the
// server can be taken down and up again without losing any.
func (v *VaultServer) Stop() {
	if v.process == nil {
		return
	}
	_ = v.process.Signal(syscall.SIGCONT)
	v.process.Stop()
}

// Start starts a stopped server again: the same address and root token, no data.
func (v *VaultServer) Start() {
	v.t.Helper()
	v.start(v.Host())
}

// Seal seals the server: it answers 503 to everything until Unseal.
func (v *VaultServer) Seal() {
	v.t.Helper()
	v.Write("sys/seal", nil)
}

// Unseal unseals the server and waits until it works again.
func (v *VaultServer) Unseal() {
	v.t.Helper()
	v.Write("sys/unseal", map[string]any{"key": v.UnsealKey})
	if err := waitFor(v.process, v.healthy); err != nil {
		v.t.Fatalf("Vault: unsealing: %v", err)
	}
}

// Do sends a request as root and returns the status and the decoded answer, nil if
// it is empty. path begins behind "/v1/".
func (v *VaultServer) Do(method, path string, body any) (status int, answer map[string]any) {
	v.t.Helper()
	return v.do(method, path, body, http.Header{})
}

func (v *VaultServer) do(method, path string, body any, header http.Header) (status int, answer map[string]any) {
	v.t.Helper()
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			v.t.Fatalf("Vault: %v", err)
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, v.Addr+"/v1/"+path, payload)
	if err != nil {
		v.t.Fatalf("Vault: %v", err)
	}
	req.Header = header
	req.Header.Set("X-Vault-Token", v.RootToken)
	resp, err := v.client.Do(req)
	if err != nil {
		v.t.Fatalf("Vault: %s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err == nil && len(raw) > 0 {
		err = json.Unmarshal(raw, &answer)
	}
	if err != nil {
		v.t.Fatalf("Vault: %s %s: %s: %v", method, path, resp.Status, err)
	}
	return resp.StatusCode, answer
}

// Write sends a write as root and returns the answer.
func (v *VaultServer) Write(path string, body any) map[string]any {
	v.t.Helper()
	return v.must(http.MethodPost, path, body)
}

// Remove sends a delete as root.
func (v *VaultServer) Remove(path string) {
	v.t.Helper()
	v.must(http.MethodDelete, path, nil)
}

// Read sends a read as root and returns the answer, nil if there is nothing.
func (v *VaultServer) Read(path string) map[string]any {
	v.t.Helper()
	status, answer := v.Do(http.MethodGet, path, nil)
	if status == http.StatusNotFound {
		return nil
	}
	if status != http.StatusOK {
		v.t.Fatalf("Vault: reading %s: %d %v", path, status, answer["errors"])
	}
	return answer
}

func (v *VaultServer) must(method, path string, body any) map[string]any {
	v.t.Helper()
	status, answer := v.Do(method, path, body)
	if status < 200 || status > 299 {
		v.t.Fatalf("Vault: %s %s: %d %v", method, path, status, answer["errors"])
	}
	return answer
}
