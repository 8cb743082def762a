package seal_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/seal"
)

const (
	token    = "token/6f1d9b2e-0c5a-4a7e-9d3f-2b8e1c4a5d60"
	another  = "token/00000000-0000-4000-8000-000000000000"
	verifier = "verifier/6f1d9b2e-0c5a-4a7e-9d3f-2b8e1c4a5d60"
)

// vector is an envelope made by another implementation of the formats.
type vector struct {
	Name      string `json:"name"`
	Key       []byte `json:"key"`
	Purpose   string `json:"purpose"`
	Plaintext string `json:"plaintext"`
	Format    int    `json:"format"`
	Envelope  string `json:"envelope"`
}

func golden(t testing.TB) (vectors []vector) {
	t.Helper()
	b, err := os.ReadFile("testdata/golden.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &vectors))
	return vectors
}

func key(fill byte) []byte { return bytes.Repeat([]byte{fill}, seal.KeyBytes) }

func ring(t testing.TB, keys ...[]byte) *seal.Keyring {
	t.Helper()
	r, err := seal.NewKeyring(keys...)
	require.NoError(t, err)
	return r
}

func TestGoldenVectorsOpen(t *testing.T) {
	formats := map[int]int{}
	for _, v := range golden(t) {
		plain, err := ring(t, key(9), v.Key).Open(v.Purpose, v.Envelope)
		require.NoError(t, err, v.Name)
		require.Equal(t, v.Plaintext, string(plain), v.Name)
		formats[v.Format]++
		if v.Format == 1 {
			require.True(t, strings.HasPrefix(ring(t, v.Key).Seal("x", nil), v.Envelope[:len("nb1.")+16+1]),
				"%s: the same key has the same id", v.Name)
		}
	}
	require.Len(t, formats, 2)
}

func TestSealedOpensForItsPurposeOnly(t *testing.T) {
	r := ring(t, key(1))
	envelope := r.Seal(token, []byte("hello"))
	plain, err := r.Open(token, envelope)
	require.NoError(t, err)
	require.Equal(t, "hello", string(plain))
	for _, purpose := range []string{another, verifier, "secret/google/client_id", "", token + "/", token[:len(token)-1], strings.ToUpper(token)} {
		_, err := r.Open(purpose, envelope)
		require.ErrorIs(t, err, seal.ErrOpen, purpose)
	}
}

func TestAlteredDoesNotOpen(t *testing.T) {
	r := ring(t, key(1))
	envelope := r.Seal(token, []byte("hello"))
	for i := range envelope {
		for _, c := range []byte{envelope[i] ^ 1, 'A', '.', '\n', 0} {
			if c == envelope[i] {
				continue
			}
			altered := envelope[:i] + string(rune(c)) + envelope[i+1:]
			_, err := r.Open(token, altered)
			require.Error(t, err, "byte %d", i)
		}
		for _, altered := range []string{envelope[:i], envelope[:i] + envelope[i+1:], envelope[:i] + "\n" + envelope[i:]} {
			_, err := r.Open(token, altered)
			require.Error(t, err, "byte %d", i)
		}
	}
	_, err := r.Open(token, envelope+"=")
	require.ErrorIs(t, err, seal.ErrFormat)
	_, err = r.Open(token, strings.ToUpper(envelope[:20])+envelope[20:])
	require.Error(t, err)
}

func TestNoTwoEnvelopesAreEqual(t *testing.T) {
	r := ring(t, key(1))
	seen := map[string]bool{}
	for range 1000 {
		seen[r.Seal(token, []byte("same"))] = true
	}
	require.Len(t, seen, 1000)
}

func TestTheFirstKeyOfTheRingSealsAndAllOpen(t *testing.T) {
	older, newer := ring(t, key(1)), ring(t, key(2), key(1))
	fromOlder, fromNewer := older.Seal(token, []byte("old")), newer.Seal(token, []byte("new"))
	for envelope, want := range map[string]string{fromOlder: "old", fromNewer: "new"} {
		plain, err := newer.Open(token, envelope)
		require.NoError(t, err)
		require.Equal(t, want, string(plain))
	}
	_, err := older.Open(token, fromNewer)
	require.ErrorIs(t, err, seal.ErrOpen)
	require.ErrorContains(t, err, "ENCRYPTION_KEY")
	plain, err := ring(t, key(2)).Open(token, fromNewer)
	require.NoError(t, err)
	require.Equal(t, "new", string(plain))
}

func TestAnEnvelopeUnderAForgedKeyIDDoesNotOpen(t *testing.T) {
	r := ring(t, key(1), key(2))
	under1, under2 := r.Seal(token, []byte("x")), ring(t, key(2)).Seal(token, []byte("x"))
	const id = len("nb1.") + 16
	_, err := r.Open(token, under2[:id]+under1[id:])
	require.ErrorIs(t, err, seal.ErrOpen)
}

func TestTheOldFormatOpensForTokensOnly(t *testing.T) {
	for _, v := range golden(t) {
		if v.Format != 0 {
			continue
		}
		r := ring(t, key(9), v.Key)
		plain, err := r.Open(another, v.Envelope) // nothing binds it to its row
		require.NoError(t, err)
		require.Equal(t, v.Plaintext, string(plain))
		for _, purpose := range []string{verifier, "secret/google/client_secret", "", "tokens/x"} {
			_, err := r.Open(purpose, v.Envelope)
			require.ErrorIs(t, err, seal.ErrFormat, purpose)
		}
		_, err = ring(t, key(9)).Open(token, v.Envelope)
		require.ErrorIs(t, err, seal.ErrOpen)
		raw, err := base64.StdEncoding.DecodeString(v.Envelope)
		require.NoError(t, err)
		for i := range raw {
			altered := bytes.Clone(raw)
			altered[i] ^= 0x80
			_, err := r.Open(token, base64.StdEncoding.EncodeToString(altered))
			require.ErrorIs(t, err, seal.ErrOpen, "byte %d", i)
		}
	}
}

func TestTheNewFormatDoesNotOpenAsTheOld(t *testing.T) {
	r := ring(t, key(1))
	envelope := r.Seal(another, []byte("x"))
	raw, err := base64.RawURLEncoding.DecodeString(envelope[strings.LastIndex(envelope, ".")+1:])
	require.NoError(t, err)
	_, err = r.Open(token, base64.StdEncoding.EncodeToString(raw))
	require.ErrorIs(t, err, seal.ErrOpen, "stripping the envelope must not strip the binding")
}

func TestWhatIsNoEnvelope(t *testing.T) {
	r := ring(t, key(1))
	id := r.Seal(token, nil)[:len("nb1.")+16+1]
	for _, text := range []string{
		"", "nb1.", "nb1..", "nb1.x.AAAA", "nb1.0011.AAAA", id, id + "AAAA", id + "!!!!", id + "AAA=", "nb2.0.AAAA", "plain text", "AAAA",
	} {
		_, err := r.Open(token, text)
		require.ErrorIs(t, err, seal.ErrFormat, "%q", text)
	}
}

func TestKeysAreChecked(t *testing.T) {
	_, err := seal.NewKeyring()
	require.Error(t, err)
	for _, n := range []int{0, 16, 31, 33} {
		bad := bytes.Repeat([]byte{'K'}, n)
		_, err := seal.NewKeyring(key(1), bad)
		require.ErrorContains(t, err, "key 2")
		require.NotContains(t, err.Error(), "KK")
	}
}

func TestNothingIsPrinted(t *testing.T) {
	const canary = "canary-plaintext"
	secretKey := []byte("canary-key-canary-key-canary-key")
	r := ring(t, secretKey)
	envelope := r.Seal(token, []byte(canary))
	_, errOther := ring(t, key(1)).Open(token, envelope)
	_, errPurpose := r.Open(another, envelope)
	_, errFormat := r.Open(token, "nb1."+canary+"."+canary)

	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("x", "ring", r, "nested", struct{ R *seal.Keyring }{r})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "ring", r)
	encoded, err := json.Marshal(map[string]any{"ring": r, "value": *r})
	require.NoError(t, err)
	shown := fmt.Sprintf("%v %+v %#v %s %q %x %v %+v %#v", r, r, r, r, r, r, *r, *r, struct{ R *seal.Keyring }{r}) +
		log.String() + string(encoded) + errOther.Error() + errPurpose.Error() + errFormat.Error()
	body := envelope[strings.LastIndex(envelope, ".")+1:]
	for _, secret := range []string{canary, "canary-key", hex.EncodeToString(secretKey), base64.StdEncoding.EncodeToString(secretKey), body} {
		require.NotContains(t, shown, secret)
	}
	require.Equal(t, "keyring of 1 keys", r.String())
}

func FuzzOpen(f *testing.F) {
	for _, v := range golden(f) {
		f.Add(v.Purpose, v.Envelope)
	}
	f.Add(token, "nb1.0011223344556677.")
	f.Add("", "nb1")
	r := ring(f, bytes.Repeat([]byte{7}, seal.KeyBytes)) // which has sealed none of them
	f.Fuzz(func(t *testing.T, purpose, envelope string) {
		plain, err := r.Open(purpose, envelope)
		if err == nil || plain != nil {
			t.Fatal("opened what was never sealed")
		}
		sealed := r.Seal(purpose, []byte(envelope))
		plain, err = r.Open(purpose, sealed)
		if err != nil || string(plain) != envelope {
			t.Fatalf("%q does not survive: %v", envelope, err)
		}
	})
}
