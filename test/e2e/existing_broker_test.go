package e2e_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

// existingBroker does to a database what the broker that came before does: its
// statements know the columns of that broker and no others, credentials and code
// verifiers are plaintext, and tokens are sealed without associated data.
type existingBroker struct {
	t  *testing.T
	db *sql.DB
	op *oauthtest.Server
}

func newExistingBroker(t *testing.T, dsn string, op *oauthtest.Server) existingBroker {
	db, err := sql.Open("pgx", dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return existingBroker{t, db, op}
}

func (x existingBroker) exec(statement string, args ...any) {
	x.t.Helper()
	_, err := x.db.Exec(statement, args...)
	require.NoError(x.t, err)
}

func (x existingBroker) aead() cipher.AEAD {
	key, err := base64.StdEncoding.DecodeString(encryptionKey)
	require.NoError(x.t, err)
	block, err := aes.NewCipher(key)
	require.NoError(x.t, err)
	aead, err := cipher.NewGCM(block)
	require.NoError(x.t, err)
	return aead
}

func (x existingBroker) seal(token string) string {
	nonce := make([]byte, 12)
	_, _ = rand.Read(nonce)
	return base64.StdEncoding.EncodeToString(x.aead().Seal(nonce, nonce, []byte(token), nil))
}

func (x existingBroker) open(sealed string) (token map[string]any) {
	x.t.Helper()
	data, err := base64.StdEncoding.DecodeString(sealed)
	require.NoError(x.t, err, "the token is in the existing broker's format")
	plain, err := x.aead().Open(nil, data[:12], data[12:], nil)
	require.NoError(x.t, err)
	require.NoError(x.t, json.Unmarshal(plain, &token))
	return token
}

// create registers a provider.
func (x existingBroker) create(name, clientID, clientSecret string) (id string) {
	x.t.Helper()
	require.NoError(x.t, x.db.QueryRow(`INSERT INTO provider_profiles (name, client_id, client_secret, auth_url, token_url, auth_type, auth_header)
		VALUES ($1, $2, $3, $4, $5, 'oauth2', 'client_secret_basic') RETURNING id::text`,
		name, clientID, clientSecret, x.op.URL(oauthtest.Authorization), x.op.URL(oauthtest.Token)).Scan(&id))
	return id
}

// pair reads a provider's credentials, as every flow of that broker does.
func (x existingBroker) pair(id string) (clientID, clientSecret string) {
	x.t.Helper()
	require.NoError(x.t, x.db.QueryRow(`SELECT COALESCE(client_id, ''), COALESCE(client_secret, '') FROM provider_profiles WHERE id = $1`, id).
		Scan(&clientID, &clientSecret))
	return clientID, clientSecret
}

// listed returns the names of the providers.
func (x existingBroker) listed() (names []string) {
	x.t.Helper()
	rows, err := x.db.Query(`SELECT name FROM provider_profiles WHERE deleted_at IS NULL ORDER BY created_at DESC`)
	require.NoError(x.t, err)
	defer rows.Close()
	for rows.Next() {
		var name string
		require.NoError(x.t, rows.Scan(&name))
		names = append(names, name)
	}
	require.NoError(x.t, rows.Err())
	return names
}

// begin starts a consent and returns where the user goes.
func (x existingBroker) begin(provider string) (authURL string) {
	x.t.Helper()
	connection, verifier := uuid.NewString(), base64.RawURLEncoding.EncodeToString([]byte(rand.Text()+rand.Text()))
	payload, err := json.Marshal(map[string]any{"workspace_id": "ws-1", "provider_id": provider, "nonce": connection, "iat": time.Now().Format(time.RFC3339)})
	require.NoError(x.t, err)
	key, err := base64.StdEncoding.DecodeString(stateKey)
	require.NoError(x.t, err)
	mac := hmac.New(sha256.New, key)
	mac.Write(payload)
	enc := base64.RawURLEncoding
	x.exec(`INSERT INTO connections (id, workspace_id, provider_id, status, code_verifier, scopes, return_url, expires_at)
		VALUES ($1, 'ws-1', $2, 'pending', $3, '{offline_access}', $4, now() + interval '10 minutes')`, connection, provider, verifier, returnURL)
	clientID, _ := x.pair(provider)
	challenge := sha256.Sum256([]byte(verifier))
	return x.op.URL(oauthtest.Authorization) + "?" + url.Values{
		"response_type": {"code"}, "client_id": {clientID}, "redirect_uri": {publicURL + "/auth/callback"}, "scope": {"offline_access"},
		"state":          {enc.EncodeToString(payload) + "." + enc.EncodeToString(mac.Sum(nil))},
		"code_challenge": {enc.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}.Encode()
}

// callback completes a consent, its own or ours, and returns the connection.
func (x existingBroker) callback(u *url.URL) (connection string) {
	x.t.Helper()
	body, sum, _ := strings.Cut(u.Query().Get("state"), ".")
	payload, err := base64.RawURLEncoding.DecodeString(body)
	require.NoError(x.t, err)
	key, err := base64.StdEncoding.DecodeString(stateKey)
	require.NoError(x.t, err)
	mac := hmac.New(sha256.New, key)
	mac.Write(payload)
	require.Equal(x.t, base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), sum)
	var st struct{ Nonce string }
	require.NoError(x.t, json.Unmarshal(payload, &st))
	var provider, verifier string
	require.NoError(x.t, x.db.QueryRow(`SELECT provider_id::text, code_verifier FROM connections
		WHERE id = $1 AND status = 'pending' AND expires_at > now()`, st.Nonce).Scan(&provider, &verifier))
	token := x.ask(provider, url.Values{"grant_type": {"authorization_code"}, "code": {u.Query().Get("code")},
		"redirect_uri": {publicURL + "/auth/callback"}, "code_verifier": {verifier}})
	x.exec(`INSERT INTO tokens (connection_id, encrypted_data, expires_at) VALUES ($1, $2, now() + interval '1 hour')
		ON CONFLICT (connection_id) DO UPDATE SET encrypted_data = EXCLUDED.encrypted_data, expires_at = EXCLUDED.expires_at`, st.Nonce, x.seal(token))
	x.exec(`UPDATE connections SET status = 'active', updated_at = now() WHERE id = $1`, st.Nonce)
	x.exec(`INSERT INTO audit_events (connection_id, event_type, event_data, ip_address, user_agent) VALUES ($1, 'oauth_flow_completed', '{}', '10.0.0.1', 'x')`, st.Nonce)
	return st.Nonce
}

// token returns a connection's.
func (x existingBroker) token(connection string) map[string]any {
	x.t.Helper()
	var sealed string
	require.NoError(x.t, x.db.QueryRow(`SELECT t.encrypted_data FROM tokens t JOIN connections c ON c.id = t.connection_id
		WHERE c.id = $1 AND c.status = 'active'`, connection).Scan(&sealed))
	return x.open(sealed)
}

// refresh refreshes a connection's token.
func (x existingBroker) refresh(connection string) {
	x.t.Helper()
	current := x.token(connection)
	var provider string
	require.NoError(x.t, x.db.QueryRow(`SELECT provider_id::text FROM connections WHERE id = $1`, connection).Scan(&provider))
	token := x.ask(provider, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {current["refresh_token"].(string)}})
	x.exec(`UPDATE tokens SET encrypted_data = $2, expires_at = now() + interval '1 hour' WHERE connection_id = $1`, connection, x.seal(token))
}

// ask sends a request to the provider's token endpoint.
func (x existingBroker) ask(provider string, form url.Values) (token string) {
	x.t.Helper()
	clientID, clientSecret := x.pair(provider)
	req, err := http.NewRequest("POST", x.op.URL(oauthtest.Token), strings.NewReader(form.Encode()))
	require.NoError(x.t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(clientID), url.QueryEscape(clientSecret))
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	require.NoError(x.t, err)
	defer resp.Body.Close()
	var answer json.RawMessage
	require.NoError(x.t, json.NewDecoder(resp.Body).Decode(&answer))
	require.Equal(x.t, http.StatusOK, resp.StatusCode, "%s", answer)
	return string(answer)
}
