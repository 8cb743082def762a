package credentials_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

const (
	canaryID     = "c4n4ry-client-id"
	canarySecret = "c4n4ry-client-secret"
)

// requireClean fails if text holds a canary in one of the forms it could leak in.
func requireClean(t *testing.T, what, text string) {
	t.Helper()
	for _, canary := range []string{canaryID, canarySecret} {
		for _, form := range []string{canary, base64.StdEncoding.EncodeToString([]byte(canary))[:16], hex.EncodeToString([]byte(canary))} {
			require.NotContains(t, text, form, what)
		}
	}
}

func TestNoTypeShowsAValue(t *testing.T) {
	b := newBed(t)
	p := pair(canaryID, canarySecret)
	require.NoError(t, b.Create(t.Context(), google(), ownerOf(google()), p))
	_, err := b.Get(t.Context(), google())
	require.NoError(t, err)
	for name, v := range map[string]any{
		"Pair": p, "*Pair": &p, "[]Pair": []credentials.Pair{p}, "map": map[string]credentials.Pair{"p": p},
		"struct": struct{ p credentials.Pair }{p}, "Service": b.Service,
		"Ref": google(), "Options": credentials.Options{Backends: []credentials.Backend{{Name: vault, Store: b.vault}}},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			requireClean(t, name+" "+verb, fmt.Sprintf(verb, v))
		}
		var log strings.Builder
		slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "v", v)
		requireClean(t, name+" slog", log.String())
		if encoded, err := json.Marshal(v); err == nil {
			requireClean(t, name+" json", string(encoded))
		}
	}
}

// Whatever goes wrong, at whichever call, no error, log line, event or metric shows
// a value.
func TestNoFailureShowsAValue(t *testing.T) {
	ops := []memory.Op{memory.OpRead, memory.OpCreate, memory.OpReplace, memory.OpDelete, memory.OpProbe}
	for _, op := range ops {
		for _, failure := range []error{secret.ErrDenied, errOutage, secret.ErrInvalid, secret.ErrNotFound, secret.ErrExists, errors.New("?")} {
			for _, afterwards := range []bool{false, true} {
				b := newBed(t)
				b.put(t, "google", canaryID, canarySecret)
				hook := at(op, secretKey, failing(failure))
				if afterwards {
					b.vault.After(hook)
				} else {
					b.vault.Before(hook)
				}
				old, next := pair(canaryID, canarySecret), pair(canaryID+"2", canarySecret+"2")
				ref, owner := google(), ownerOf(google())
				other := ref
				other.Key = "other"
				var errs []error
				_, err := b.Get(t.Context(), ref)
				errs = append(errs, err)
				_, _, err = b.Reload(t.Context(), ref, next)
				errs = append(errs, err)
				_, _, err = b.Marks(t.Context(), ref)
				errs = append(errs, err,
					b.Create(t.Context(), ref, owner, old), b.Create(t.Context(), other, owner, old),
					b.Replace(t.Context(), ref, owner, old, next), b.Erase(t.Context(), vault, "google", owner, true))
				for _, err := range errs {
					requireClean(t, "error", fmt.Sprintf("%v %+v %#v", err, err, err))
				}
				requireClean(t, "health", fmt.Sprintf("%+v", b.Health(t.Context())))
				requireClean(t, "log", b.log.String())
				for _, e := range b.recorder.events {
					data, err := e.DataJSON()
					require.NoError(t, err)
					requireClean(t, "audit", data)
				}
				families, err := b.metrics.Gather()
				require.NoError(t, err)
				requireClean(t, "metrics", fmt.Sprint(families))
			}
		}
	}
}
