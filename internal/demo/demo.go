// Package demo walks through the broker's main job on one screen: a provider is
// registered, a user consents, an agent gets a token and a fresh one, and it is
// shown where the client credentials are. Every step is a real HTTP request to a
// real broker, printed as the curl that does the same.
package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

// Options are what the walk needs.
type Options struct {
	Out       io.Writer
	BrokerURL string
	APIKey    string
	Backend   string // SECRET_BACKEND
	DataDir   string // of the broker's database, to be searched for the client secret
	// SealedRow returns what the internal backend stores under a key.
	SealedRow    func(ctx context.Context, key string) (string, error)
	Provider     *oauthtest.Server
	ProviderName string
	ClientID     string
	ClientSecret string
	Keep         bool // stay, with the provider registered, until the context ends
}

type walk struct {
	Options
	step       int
	client     *http.Client
	providerID string
	connection string
}

// Run walks through the demo. It fails if a step does not do what it should.
func Run(ctx context.Context, o Options) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	w := &walk{Options: o, client: &http.Client{Timeout: 30 * time.Second, Jar: jar}}
	w.printf("nexus-broker demo: broker, provider and user on this machine only\n")
	w.printf("  broker    %s (SECRET_BACKEND=%s, SQLite in %s)\n", w.BrokerURL, w.Backend, w.DataDir)
	w.printf("  provider  %s (a small authorization server of the demo's own)\n", w.Provider.Issuer())
	defer w.leaveNothing(ctx)
	for _, step := range []func(context.Context) error{
		w.register, w.showCredentials, w.consent, w.token, w.refresh, w.audit,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("demo, step %d: %w", w.step, err)
		}
	}
	if w.Keep {
		w.printf("\nThe broker stays at %s until you press Ctrl-C.\n", w.BrokerURL)
		<-ctx.Done()
		return nil
	}
	if err := w.remove(ctx); err != nil {
		return fmt.Errorf("demo, step %d: %w", w.step, err)
	}
	return nil
}

// leaveNothing deletes the provider if the walk has ended before it did, since the
// credentials may be in somebody's real vault.
func (w *walk) leaveNothing(ctx context.Context) {
	if w.providerID == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := w.remove(ctx); err != nil {
		w.printf("\nThe provider %s was not deleted: %v\n", w.ProviderName, err)
	}
}

func (w *walk) printf(format string, args ...any) { fmt.Fprintf(w.Out, format, args...) }

func (w *walk) title(text string) {
	w.step++
	w.printf("\n%d. %s\n", w.step, text)
}

// call sends a request to the broker and prints the curl that does the same.
func (w *walk) call(ctx context.Context, method, path string, body any, shown string) (map[string]any, error) {
	curl := "   curl -s"
	if method != http.MethodGet {
		curl += " -X " + method
	}
	curl += fmt.Sprintf(" -H 'X-API-Key: %s' %s%s", w.APIKey, w.BrokerURL, path)
	if shown != "" {
		curl += " \\\n     -d '" + shown + "'"
	}
	w.printf("%s\n", curl)
	var reader io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, w.BrokerURL+path, reader)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-API-Key", w.APIKey)
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 400 {
		return nil, fmt.Errorf("%s %s answered %s: %s", method, path, resp.Status, answer)
	}
	var object map[string]any
	if len(answer) > 0 && answer[0] == '{' {
		if err := json.Unmarshal(answer, &object); err != nil {
			return nil, err
		}
	}
	return object, nil
}

func (w *walk) register(ctx context.Context) error {
	w.title("Register a provider. Its client secret goes to the secret backend and nowhere else.")
	profile := map[string]any{
		"name": w.ProviderName, "issuer": w.Provider.Issuer(), "enable_discovery": true,
		"auth_header": "client_secret_basic", "client_id": w.ClientID, "client_secret": w.ClientSecret,
	}
	shown, err := json.Marshal(map[string]any{"profile": profile})
	if err != nil {
		return err
	}
	answer, err := w.call(ctx, http.MethodPost, "/providers", map[string]any{"profile": profile}, string(shown))
	if err != nil {
		return err
	}
	w.providerID = fmt.Sprint(answer["id"])
	w.printf("   -> provider %s\n", w.providerID)
	return nil
}

func (w *walk) showCredentials(ctx context.Context) error {
	w.title("Where are the credentials?")
	if w.Backend == "internal" {
		key := w.ProviderName + "/client_secret"
		sealed, err := w.SealedRow(ctx, key)
		if err != nil {
			return err
		}
		w.printf("   In the broker's database, sealed (AES-256-GCM) under the key %s:\n   %.60s…\n", key, sealed)
	} else {
		answer, err := w.call(ctx, http.MethodGet, "/providers/"+w.providerID, nil, "")
		if err != nil {
			return err
		}
		where, _ := answer["credentials"].(map[string]any)
		w.printf("   -> in %s at %v (client_id and client_secret)\n", w.Backend, where["location"])
		if w.Backend == "hashicorp-vault" {
			mount, path, _ := strings.Cut(fmt.Sprint(where["location"]), "/")
			w.printf("   Look with: vault kv get -mount=%s %s/client_secret\n", mount, path)
		}
	}
	hits, files, err := count(w.DataDir, w.ClientSecret)
	if err != nil {
		return err
	}
	w.printf("   The client secret occurs %d times in the %d files of the broker's data folder.\n", hits, files)
	if hits != 0 {
		return fmt.Errorf("the client secret is in the broker's data folder")
	}
	return nil
}

// count searches every file below dir for text.
func count(dir, text string) (hits, files int, err error) {
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		hits += bytes.Count(b, []byte(text))
		return nil
	})
	return hits, files, err
}

func (w *walk) consent(ctx context.Context) error {
	w.title("Ask for a user's consent, and let the user agree in a browser.")
	request := map[string]any{
		"workspace_id": "demo", "provider_id": w.providerID, "scopes": []string{"openid", "email"},
		"return_url": w.Provider.Issuer() + "/returned",
	}
	shown, err := json.Marshal(request)
	if err != nil {
		return err
	}
	answer, err := w.call(ctx, http.MethodPost, "/auth/consent-spec", request, string(shown))
	if err != nil {
		return err
	}
	authURL := fmt.Sprint(answer["authUrl"])
	w.printf("   -> authUrl %.90s…\n", authURL)
	w.printf("   The demo's browser follows it: provider -> user agrees -> %s/auth/callback -> return_url\n", w.BrokerURL)
	returned, err := w.browse(ctx, authURL)
	if err != nil {
		return err
	}
	w.connection = returned.Get("connection_id")
	if returned.Get("status") != "success" || w.connection == "" {
		return fmt.Errorf("the consent came back with status %q, error %q", returned.Get("status"), returned.Get("error"))
	}
	w.printf("   -> status=success, connection_id=%s\n", w.connection)
	return nil
}

// browse follows redirects as a browser does until one leads to the return_url, and
// returns that one's query.
func (w *walk) browse(ctx context.Context, start string) (url.Values, error) {
	var returned url.Values
	browser := *w.client
	browser.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if req.URL.Path == "/returned" {
			returned = req.URL.Query()
			return http.ErrUseLastResponse
		}
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, start, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/html")
	resp, err := browser.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if returned == nil {
		return nil, fmt.Errorf("the browser ended at %s with %s", resp.Request.URL.Path, resp.Status)
	}
	return returned, nil
}

func (w *walk) token(ctx context.Context) error {
	w.title("An agent fetches the token by connection id.")
	answer, err := w.call(ctx, http.MethodGet, "/connections/"+w.connection+"/token", nil, "")
	if err != nil {
		return err
	}
	w.showToken(answer)
	return nil
}

func (w *walk) refresh(ctx context.Context) error {
	w.title("The agent asks for a fresh one. The broker reads the client secret and calls the provider.")
	answer, err := w.call(ctx, http.MethodPost, "/connections/"+w.connection+"/refresh", nil, "")
	if err != nil {
		return err
	}
	w.showToken(answer)
	return nil
}

func (w *walk) showToken(answer map[string]any) {
	w.printf("   -> access_token %.16v…, expires_in %v\n", answer["access_token"], answer["expires_in"])
}

func (w *walk) audit(ctx context.Context) error {
	w.title("Everything that touched a credential is in the audit log.")
	w.printf("   curl -s -H 'X-API-Key: %s' %s/audit\n", w.APIKey, w.BrokerURL)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.BrokerURL+"/audit", nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-API-Key", w.APIKey)
	resp, err := w.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var events []struct {
		Type string `json:"event_type"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&events); err != nil {
		return err
	}
	var names []string
	for _, e := range events {
		names = append(names, e.Type)
	}
	w.printf("   -> newest first: %s\n", strings.Join(names, ", "))
	return nil
}

func (w *walk) remove(ctx context.Context) error {
	w.title("Delete the provider: the credentials that the broker wrote go with it.")
	_, err := w.call(ctx, http.MethodDelete, "/providers/"+w.providerID, nil, "")
	if err == nil {
		w.providerID = ""
	}
	return err
}
