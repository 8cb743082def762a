package oauth

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	keysOp     = "fetching the signing keys"
	keySetTTL  = time.Hour
	maxKeySets = 1_000
	// keySetRest is how long a key set is left alone before a signature that none of
	// its keys made causes another fetch.
	keySetRest = 5 * time.Second
)

// keySet is what a provider signs with: public keys only.
type keySet []jose.JSONWebKey

// FetchKeys sees to it that the signing keys at a jwks_uri are at hand, so that
// VerifyIDToken need not wait for the provider, nor fail with it: a code can be spent
// once. Those that are kept, for an hour, are not asked for again. Every error is an *Error.
func (c *Client) FetchKeys(ctx context.Context, uri string) error {
	_, _, err := c.keys(ctx, uri)
	return err
}

// keys returns what is kept of a key set, or fetches it.
func (c *Client) keys(ctx context.Context, uri string) (e entry[keySet], cached bool, err error) {
	if e, cached = c.keySets.get(uri); cached {
		return e, true, nil
	}
	e, err = c.keySets.fetch(ctx, uri, 0, func(ctx context.Context) (keySet, error) { return c.fetchKeys(ctx, uri) })
	if err != nil {
		return e, false, asError(keysOp, err)
	}
	return e, false, nil
}

// verifyWith calls verify with each key that may have made the signature, until one
// has. Providers change keys without notice: if none has, the set is fetched anew
// and tried once more (OpenID Connect Core 1.0 §10.1.1). found is false if that did
// not help either.
func (c *Client) verifyWith(ctx context.Context, uri string, header jose.Header, verify func(key any) bool) (found bool, err error) {
	e, cached, err := c.keys(ctx, uri)
	if err != nil {
		return false, err
	}
	if e.value.any(header, verify) {
		return true, nil
	}
	if !cached || c.now().Sub(e.at) < keySetRest {
		return false, nil
	}
	e, err = c.keySets.fetch(ctx, uri, e.serial, func(ctx context.Context) (keySet, error) { return c.fetchKeys(ctx, uri) })
	if err != nil {
		return false, asError(keysOp, err)
	}
	return e.value.any(header, verify), nil
}

// any reports whether verify accepts one of the keys that the header allows: those
// with its key id, if it has one, that are not reserved for another algorithm.
func (s keySet) any(header jose.Header, verify func(key any) bool) bool {
	for _, k := range s {
		if header.KeyID != "" && k.KeyID != header.KeyID || k.Algorithm != "" && k.Algorithm != header.Algorithm {
			continue
		}
		if verify(k.Key) {
			return true
		}
	}
	return false
}

func (c *Client) fetchKeys(ctx context.Context, uri string) (keySet, error) {
	u, reason := endpointURL(uri)
	if reason != "" {
		return nil, &Error{Op: keysOp, Reason: "the jwks_uri " + reason}
	}
	a, err := c.getJSON(ctx, keysOp, u.String())
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, &Error{Op: keysOp, Status: a.status, RetryAfter: c.retryAfter(a)}
	}
	keys, reason := readKeys(a.body)
	if reason != "" {
		return nil, &Error{Op: keysOp, Status: a.status, Reason: reason}
	}
	return keys, nil
}

// readKeys reads a JWK set (RFC 7517 §5). Keys that cannot be used are passed over,
// as the RFC says: unknown types, encryption keys, and above all symmetric ones,
// which a published document cannot hold.
func readKeys(document []byte) (keys keySet, reason string) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(document, &set) != nil || set.Keys == nil {
		return nil, "the answer is not a key set"
	}
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if json.Unmarshal(raw, &k) == nil && k.Valid() && k.IsPublic() && k.Use != "enc" {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, "the key set has no usable key"
	}
	return keys, ""
}
