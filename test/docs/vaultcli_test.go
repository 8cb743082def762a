package docs_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strings"
	"time"
)

// vaultCommand stands in for the command line of Vault: it understands the commands
// and flags that the documents use, and nothing else. Like the real one it takes
// the server and the token from VAULT_ADDR and VAULT_TOKEN. Without -field it prints
// the answer as JSON, where the real one prints a table.
func vaultCommand(args []string, stdin io.Reader, stdout, stderr io.Writer) (exitCode int) {
	c := vaultClient{addr: os.Getenv("VAULT_ADDR"), token: os.Getenv("VAULT_TOKEN"), stdin: stdin}
	answer, err := c.run(args)
	if err == nil {
		err = c.print(stdout, answer)
	}
	if err != nil {
		fmt.Fprintln(stderr, "vault:", err)
		return 2
	}
	return 0
}

type vaultClient struct {
	addr, token string
	stdin       io.Reader
	flags       map[string]string // without the dash; "" for one without a value
}

// run carries out a command and returns the fields of its answer.
func (c *vaultClient) run(args []string) (map[string]any, error) {
	words := c.parse(args)
	for _, known := range []struct {
		command string
		least   int // arguments
		do      func(args []string) (map[string]any, error)
	}{
		{"policy write", 2, c.writePolicy},
		{"token create", 0, c.createToken},
		{"auth enable", 1, c.enableAuth},
		{"secrets enable", 1, c.enableSecrets},
		{"kv put", 2, func(a []string) (map[string]any, error) { return c.putKV(http.MethodPost, a) }},
		{"kv patch", 2, func(a []string) (map[string]any, error) { return c.putKV(http.MethodPatch, a) }},
		{"kv get", 1, c.getKV},
		{"write", 1, c.write},
		{"read", 1, c.read},
	} {
		name := strings.Fields(known.command)
		if len(words) < len(name)+known.least || strings.Join(words[:len(name)], " ") != known.command {
			continue
		}
		return known.do(words[len(name):])
	}
	return nil, fmt.Errorf("this stand-in does not know the command %q", strings.Join(args, " "))
}

// parse splits flags from words.
func (c *vaultClient) parse(args []string) (words []string) {
	c.flags = map[string]string{}
	for _, a := range args {
		if flag, ok := strings.CutPrefix(a, "-"); ok && flag != "" {
			name, value, _ := strings.Cut(flag, "=")
			c.flags[name] = value
			continue
		}
		words = append(words, a)
	}
	return words
}

func (c *vaultClient) print(w io.Writer, answer map[string]any) error {
	field, one := c.flags["field"]
	if !one {
		return json.NewEncoder(w).Encode(answer)
	}
	value, ok := answer[field]
	if !ok {
		return fmt.Errorf("field %q not present in secret", field)
	}
	_, err := fmt.Fprintln(w, value)
	return err
}

func (c *vaultClient) writePolicy(args []string) (map[string]any, error) {
	text, err := c.value("@" + args[1])
	if args[1] == "-" {
		text, err = c.value("-")
	}
	if err != nil {
		return nil, err
	}
	return c.send(http.MethodPut, "sys/policies/acl/"+args[0], map[string]any{"policy": text})
}

func (c *vaultClient) createToken([]string) (map[string]any, error) {
	body := map[string]any{"policies": []string{c.flags["policy"]}, "period": c.flags["period"]}
	_, body["no_parent"] = c.flags["orphan"]
	answer, err := c.send(http.MethodPost, "auth/token/create", body)
	if auth, ok := answer["auth"].(map[string]any); ok {
		auth["token"] = auth["client_token"]
		return auth, err
	}
	return answer, err
}

func (c *vaultClient) enableAuth(args []string) (map[string]any, error) {
	return c.send(http.MethodPost, "sys/auth/"+args[0], map[string]any{"type": args[0]})
}

func (c *vaultClient) enableSecrets(args []string) (map[string]any, error) {
	return c.send(http.MethodPost, "sys/mounts/"+c.flags["path"], map[string]any{
		"type": args[0], "options": map[string]string{"version": c.flags["version"]},
	})
}

// kvPath returns the API path of a key, and whether the mount is of version 2.
func (c *vaultClient) kvPath(key string) (string, bool, error) {
	answer, err := c.send(http.MethodGet, "sys/internal/ui/mounts/"+c.flags["mount"], nil)
	if err != nil {
		return "", false, err
	}
	data, _ := answer["data"].(map[string]any)
	options, _ := data["options"].(map[string]any)
	if options["version"] == "2" {
		return path.Join(c.flags["mount"], "data", key), true, nil
	}
	return path.Join(c.flags["mount"], key), false, nil
}

func (c *vaultClient) putKV(method string, args []string) (map[string]any, error) {
	at, versioned, err := c.kvPath(args[0])
	if err != nil {
		return nil, err
	}
	fields, err := c.fields(args[1:])
	if err != nil {
		return nil, err
	}
	if versioned {
		return c.send(method, at, map[string]any{"data": fields})
	}
	return c.send(http.MethodPut, at, fields)
}

func (c *vaultClient) getKV(args []string) (map[string]any, error) {
	at, versioned, err := c.kvPath(args[0])
	if err != nil {
		return nil, err
	}
	answer, err := c.read([]string{at})
	if inner, ok := answer["data"].(map[string]any); ok && versioned {
		return inner, err
	}
	return answer, err
}

func (c *vaultClient) write(args []string) (map[string]any, error) {
	fields, err := c.fields(args[1:])
	if err != nil {
		return nil, err
	}
	answer, err := c.send(http.MethodPut, args[0], fields)
	if info, ok := answer["wrap_info"].(map[string]any); ok {
		return map[string]any{"wrapping_token": info["token"]}, err
	}
	return data(answer, err)
}

func (c *vaultClient) read(args []string) (map[string]any, error) {
	return data(c.send(http.MethodGet, args[0], nil))
}

func data(answer map[string]any, err error) (map[string]any, error) {
	inner, _ := answer["data"].(map[string]any)
	return inner, err
}

// fields reads arguments of the form name=value.
func (c *vaultClient) fields(args []string) (map[string]any, error) {
	fields := map[string]any{}
	for _, a := range args {
		name, text, ok := strings.Cut(a, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not name=value", name)
		}
		value, err := c.value(text)
		if err != nil {
			return nil, err
		}
		fields[name] = value
	}
	return fields, nil
}

// value is the text, or for "-" the standard input, or for "@name" a file.
func (c *vaultClient) value(text string) (string, error) {
	switch file, named := strings.CutPrefix(text, "@"); {
	case text == "-":
		b, err := io.ReadAll(c.stdin)
		return string(b), err
	case named:
		b, err := os.ReadFile(file)
		return string(b), err
	}
	return text, nil
}

func (c *vaultClient) send(method, at string, body any) (map[string]any, error) {
	payload, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(method, c.addr+"/v1/"+at, bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Vault-Token", c.token)
	if ttl := c.flags["wrap-ttl"]; ttl != "" {
		req.Header.Set("X-Vault-Wrap-TTL", ttl)
	}
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	client := &http.Client{Timeout: 30 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode > 299 {
		return nil, fmt.Errorf("%s %s: %s %s", method, at, resp.Status, raw)
	}
	var answer map[string]any
	if len(raw) > 0 && json.Unmarshal(raw, &answer) != nil {
		return nil, errors.New("the answer is no JSON object")
	}
	return answer, nil
}
