package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

var testKey = []byte(strings.Repeat("k", 32))

// A state is a wire format: other programs verify it.
func TestStateGolden(t *testing.T) {
	t.Parallel()
	st := state{
		WorkspaceID: "ws-1", ProviderID: "6f1d2f3a-1111-4222-8333-444455556666",
		Nonce: "0a0b0c0d-1111-4222-8333-444455556666", IssuedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	const golden = "eyJ3b3Jrc3BhY2VfaWQiOiJ3cy0xIiwicHJvdmlkZXJfaWQiOiI2ZjFkMmYzYS0xMTExLTQyMjItODMzMy00NDQ0NTU1NTY2NjYiLCJub25jZSI6IjBhMGIwYzBkLTExMTEtNDIyMi04MzMzLTQ0NDQ1NTU1NjY2NiIsImlhdCI6IjIwMjYtMDEtMDJUMDM6MDQ6MDVaIn0.c0MXgQSQ0HhgO9TS5l2rMcHrfAS_FD2kwV9ThdN5lE4"
	signed, err := st.sign(testKey)
	require.NoError(t, err)
	require.Equal(t, golden, signed)
	got, id, err := verifyState(testKey, golden, st.IssuedAt.Add(time.Minute))
	require.NoError(t, err)
	require.Equal(t, st, got)
	require.Equal(t, st.Nonce, id.String())
}

func TestStateLife(t *testing.T) {
	t.Parallel()
	now := time.Now()
	signed, err := state{Nonce: uuid.NewString(), IssuedAt: now}.sign(testKey)
	require.NoError(t, err)
	for offset, good := range map[time.Duration]bool{
		0: true, 9 * time.Minute: true, 11 * time.Minute: false,
		-5 * time.Minute: true, -6 * time.Minute: false, // signed by a replica whose clock is ahead
	} {
		_, _, err := verifyState(testKey, signed, now.Add(offset))
		require.Equal(t, good, err == nil, "%s", offset)
	}
	_, _, err = verifyState([]byte(strings.Repeat("x", 32)), signed, now)
	require.ErrorIs(t, err, errState)
}

func FuzzVerifyState(f *testing.F) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	good, err := state{WorkspaceID: "w", ProviderID: "p", Nonce: "0a0b0c0d-1111-4222-8333-444455556666", IssuedAt: now}.sign(testKey)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{good, "", ".", "a.b", good + "A", good[1:], strings.Replace(good, ".", "..", 1), good + "=",
		good[:9] + "\n" + good[9:], good + "\r\n", otherSpelling(good)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, _, err := verifyState(testKey, s, now); err == nil && s != good {
			t.Fatalf("%q was accepted and is not what was signed", s)
		}
	})
}

// otherSpelling returns unpadded base64 of whole bytes with another last character that
// a lenient decoder reads alike: of its six bits the last two mean nothing.
func otherSpelling(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, s[len(s)-1])
	return s[:len(s)-1] + alphabet[last^1:last^1+1]
}

func TestReturnURLOfTheErrors(t *testing.T) {
	t.Parallel()
	require.Equal(t, "https://a.example/x?connection_id=1&keep=%2F&status=success#frag",
		withQuery("https://a.example/x?keep=%2F&status=forged#frag", "status", "success", "connection_id", "1", "empty", ""))
}
