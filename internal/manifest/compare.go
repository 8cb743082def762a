package manifest

import (
	"encoding/json"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/nexus-broker/nexus-broker/internal/apiclient"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/secret"
)

// What is said of a masked member.
const (
	maskSet     = "set"     // there was none, as far as the broker shows
	maskChanged = "changed" // there is another
	maskCleared = "cleared"
	maskSent    = "sent" // it cannot be compared, and is sent all the same
)

// comparison collects what differs between a provider and its profile at the broker.
type comparison struct {
	Change
	mask mask
}

// compare plans one provider. has is nil if the broker has none.
func compare(want Provider, has *apiclient.Profile, o Options, m mask) Change {
	c := &comparison{Change: Change{Name: want.Name, Action: Create, send: apiclient.Fields{}}, mask: m}
	var old Provider
	if has != nil {
		c.ID, c.Action = has.ID, Unchanged
		var err error
		if old, err = fromBroker(*has); err != nil {
			c.Note = err.Error()
		}
		c.one(fieldName, old.Name, want.Name, false)
	} else {
		c.send[fieldName] = want.Name
	}
	oldTexts := old.texts()
	for i, t := range want.texts() {
		same := *t.value == *oldTexts[i].value || has != nil && normal(old, t.name) == normal(want, t.name)
		c.one(t.name, *oldTexts[i].value, *t.value, same)
	}
	c.discovery(old.EnableDiscovery, want.EnableDiscovery)
	c.scopes(old.Scopes, want.Scopes)
	c.params(old.Params, want.Params)
	c.credentials(want, has, o)
	if has != nil && len(c.send) > 0 {
		c.Action = Update
	}
	return c.Change
}

// normal returns a member in the form in which equal meanings are equal.
func normal(p Provider, name string) string {
	switch {
	case name == "auth_type":
		return p.authType()
	case name == "auth_header" && p.authType() == oauth2:
		return string(oauth.ParseAuthStyle(p.AuthHeader))
	case name == "auth_header" && p.authType() == "api_key" && p.AuthHeader == "":
		return "Authorization"
	}
	for _, t := range p.texts() {
		if t.name == name {
			return *t.value
		}
	}
	return ""
}

// one compares a text.
func (c *comparison) one(name, old, want string, same bool) {
	if same || old == want {
		return
	}
	c.Fields = append(c.Fields, FieldChange{Field: name, Old: c.shown(old), New: c.shown(want)})
	c.send[name] = orNull(want)
}

// orNull returns what is sent for a text: null clears.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (c *comparison) shown(s string) any {
	if s == "" {
		return nil
	}
	return c.mask.text(s)
}

func (c *comparison) discovery(old, want bool) {
	if old != want {
		c.Fields = append(c.Fields, FieldChange{Field: fieldEnableDiscovery, Old: old, New: want})
		c.send[fieldEnableDiscovery] = want
	}
}

func (c *comparison) scopes(old, want []string) {
	if slices.Equal(old, want) {
		return
	}
	f := FieldChange{Field: fieldScopes}
	if len(old) > 0 {
		f.Old = c.mask.value(texts(old))
	}
	if len(want) > 0 {
		f.New = c.mask.value(texts(want))
		c.send[fieldScopes] = want
	} else {
		c.send[fieldScopes] = nil
	}
	c.Fields = append(c.Fields, f)
}

func texts(list []string) []any {
	all := make([]any, len(list))
	for i, s := range list {
		all[i] = s
	}
	return all
}

// params compares member by member, and sends the whole.
func (c *comparison) params(old, want map[string]any) {
	before := len(c.Fields)
	c.objects(fieldParams, old, want)
	if len(c.Fields) == before {
		return
	}
	c.send[fieldParams] = nil
	if len(want) > 0 {
		c.send[fieldParams] = want
	}
}

func (c *comparison) objects(path string, old, want map[string]any) {
	names := slices.Sorted(maps.Keys(want))
	for _, name := range slices.Sorted(maps.Keys(old)) {
		if _, both := want[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		a, had := old[name]
		b, has := want[name]
		if had == has && equal(a, b) {
			continue
		}
		oldObject, ok := a.(map[string]any)
		newObject, ok2 := b.(map[string]any)
		if ok && ok2 {
			c.objects(path+"."+name, oldObject, newObject)
			continue
		}
		f := FieldChange{Field: path + "." + name}
		switch {
		case !credentialLike(name):
			f.Old, f.New = c.mask.value(a), c.mask.value(b)
		case !had:
			f.Masked = maskSet
		case !has:
			f.Masked = maskCleared
		default:
			f.Masked = maskChanged
		}
		c.Fields = append(c.Fields, f)
	}
}

// equal compares decoded JSON values; a number is equal however it is written.
func equal(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && (a == b || sameNumber(string(a), string(b)))
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, equal)
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, equal)
	}
	if _, isList := b.([]any); isList {
		return false
	}
	if _, isObject := b.(map[string]any); isObject {
		return false
	}
	return a == b
}

func sameNumber(a, b string) bool {
	const most = 400 // characters: what a double can hold, written out
	if len(a) > most || len(b) > most || hugeExponent(a) || hugeExponent(b) {
		return false
	}
	x, ok := new(big.Rat).SetString(a)
	y, ok2 := new(big.Rat).SetString(b)
	return ok && ok2 && x.Cmp(y) == 0
}

// hugeExponent: written out such a number would fill the memory.
func hugeExponent(s string) bool {
	_, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	return len(strings.TrimLeft(exponent, "+-0")) > 3
}

// credentials compares the client credentials. Left out of the manifest they are kept.
func (c *comparison) credentials(want Provider, has *apiclient.Profile, o Options) {
	if has == nil {
		has = &apiclient.Profile{AuthType: "-"} // whose credentials are known: there are none
	}
	if ref := want.CredentialsRef; ref != nil {
		c.reference(has.CredentialsRef, ref)
		return
	}
	given := !want.ClientID.IsZero() || !want.ClientSecret.IsZero()
	if !given {
		return
	}
	if has.CredentialsRef != nil {
		c.reference(has.CredentialsRef, nil)
		c.send[fieldCredentialsRef] = nil
		has = &apiclient.Profile{AuthType: "-"}
	}
	for _, v := range []struct {
		name      string
		old, want secret.Value
	}{
		{fieldClientID, has.ClientID.Value, want.ClientID}, {fieldClientSecret, has.ClientSecret.Value, want.ClientSecret},
	} {
		if !v.want.IsZero() {
			c.credential(v.name, v.old, v.want, has, o)
		}
	}
}

// credential compares one value that the manifest gives.
func (c *comparison) credential(name string, old, want secret.Value, has *apiclient.Profile, o Options) {
	how := ""
	// Of an oauth2 provider a client_id is always shown, or else nothing is.
	hidden := has.ClientID.IsZero() && (has.Credentials != nil || has.AuthType == oauth2)
	torn := has.Credentials != nil && has.Credentials.Managed && slices.Contains([]string{"incomplete", "missing"}, has.Credentials.State)
	switch {
	case torn:
		c.Note = "the broker says that its credentials are " + has.Credentials.State + ": both are sent"
		how = maskSent
	case hidden && has.Credentials != nil && !has.Credentials.Managed:
		c.Unknown = append(c.Unknown, name)
		c.Note = "its credentials are not the broker's (external): they are changed where they lie, " + has.Credentials.Location
	case hidden && !o.SetCredentials:
		c.Unknown = append(c.Unknown, name)
	case hidden:
		how = maskSent
	case old.Equal(want):
	case old.IsZero():
		how = maskSet
	default:
		how = maskChanged
	}
	if how != "" {
		c.Fields = append(c.Fields, FieldChange{Field: name, Masked: how})
		c.send[name] = want
	}
}

// reference compares where the credentials lie; nil for not said so.
func (c *comparison) reference(old, want *apiclient.Reference) {
	var a, b apiclient.Reference
	if old != nil {
		a = *old
	}
	if want != nil {
		b = *want
	}
	if a == b {
		return
	}
	for _, f := range []struct{ name, old, want string }{
		{fieldClientID, a.ClientID, b.ClientID}, {fieldClientSecret, a.ClientSecret, b.ClientSecret},
	} {
		if f.old != f.want {
			c.Fields = append(c.Fields, FieldChange{Field: fieldCredentialsRef + "." + f.name, Old: c.shown(f.old), New: c.shown(f.want)})
		}
	}
	if want != nil {
		c.send[fieldCredentialsRef] = *want
	}
}
