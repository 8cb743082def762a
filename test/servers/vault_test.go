package servers_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestVault(t *testing.T) {
	v := servers.Vault(t)
	v.MountKV("kv1", 1)
	v.Write("kv1/a", map[string]any{"value": "one"})
	v.Write("secret/data/a", map[string]any{"data": map[string]any{"value": "two"}})
	for _, path := range []string{"kv1/a", "secret/data/a"} {
		if v.Read(path) == nil {
			t.Errorf("%s was written and is not there", path)
		}
	}
	v.Policy("nothing", `path "none/*" { capabilities = ["read"] }`)
	if token := v.Token([]string{"nothing"}, map[string]any{"ttl": "1m"}); token == "" {
		t.Error("no token")
	}
	if role, id := v.AppRole("r", []string{"nothing"}, nil); role == "" || id == "" {
		t.Error("no AppRole")
	}

	v.Seal()
	if status, _ := v.Do(http.MethodGet, "secret/data/a", nil); status != http.StatusServiceUnavailable {
		t.Errorf("sealed, it answers %d", status)
	}
	v.Unseal()
	if v.Read("secret/data/a") == nil {
		t.Error("sealing has lost data")
	}

	address := v.Addr
	v.Stop()
	v.Start()
	if v.Addr != address || v.Read("secret/data/a") != nil {
		t.Error("started again, it is not empty or elsewhere")
	}
}

func TestVaultTLS(t *testing.T) {
	v := servers.Vault(t, servers.VaultTLS())
	v.Write("secret/data/a", map[string]any{"data": map[string]any{"value": "two"}})
	if v.CAFile == "" || v.Read("secret/data/a") == nil {
		t.Error("no TLS")
	}
}

func TestVaultPause(t *testing.T) {
	v := servers.Vault(t)
	v.Pause()
	client := &http.Client{Timeout: 200 * time.Millisecond}
	if resp, err := client.Get(v.Addr + "/v1/sys/health"); err == nil {
		resp.Body.Close()
		t.Error("paused, it answers")
	}
	v.Resume()
	if status, _ := v.Do(http.MethodGet, "sys/health", nil); status != http.StatusOK {
		t.Errorf("resumed, it answers %d", status)
	}
}
