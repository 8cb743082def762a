package e2e_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// verifyState is what another program with the STATE_KEY does to a state. It knows
// nothing of the broker's code.
func verifyState(t *testing.T, state string) map[string]string {
	t.Helper()
	parts := strings.Split(state, ".")
	require.Len(t, parts, 2)
	payload, err := base64.RawURLEncoding.DecodeString(parts[0])
	require.NoError(t, err)
	key, err := base64.StdEncoding.DecodeString(stateKey)
	require.NoError(t, err)
	mac := hmac.New(sha256.New, key)
	mac.Write(payload)
	require.Equal(t, base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), parts[1])
	var claims map[string]string
	require.NoError(t, json.Unmarshal(payload, &claims))
	require.Len(t, claims, 4)
	issued, err := time.Parse(time.RFC3339, claims["iat"])
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), issued, 10*time.Minute)
	order := []string{`{"workspace_id":`, `,"provider_id":`, `,"nonce":`, `,"iat":`}
	at := 0
	for _, member := range order {
		i := strings.Index(string(payload)[at:], member)
		require.GreaterOrEqual(t, i, 0, "%s in %s", member, payload)
		at += i
	}
	return claims
}
