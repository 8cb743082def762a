// Package presets knows the endpoints and quirks of well-known providers, each with the
// document they come from and how far that was confirmed. It makes profiles; it calls
// nobody.
package presets

import (
	"bytes"
	_ "embed" // the table
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed presets.yaml
var table []byte

// Preset is a well-known provider.
type Preset struct {
	Name  string `yaml:"name" json:"name"`
	Title string `yaml:"title" json:"title"`
	// Source is the vendor's document, or the main one of several, and Checked the day it
	// was last looked at.
	Source  string `yaml:"source" json:"source"`
	Checked string `yaml:"checked" json:"checked"`
	// Evidence says how far the endpoints are confirmed: "vendor" (the vendor's own words
	// or code name the authorization and the token endpoint), "partly" (they name other
	// members), "code" (public code of others names the endpoints) or "unconfirmed".
	Evidence string `yaml:"evidence" json:"evidence"`
	// Confirmed names the members that the vendor's own words or code were seen to say.
	Confirmed []string `yaml:"confirmed" json:"confirmed,omitempty"`
	// Needs are the values that the URLs have a place for, each with what it is.
	Needs         map[string]string `yaml:"needs" json:"needs,omitempty"`
	AuthHeader    string            `yaml:"auth_header" json:"auth_header,omitempty"` // "": client_secret_post
	AuthURL       string            `yaml:"auth_url" json:"auth_url"`
	TokenURL      string            `yaml:"token_url" json:"token_url"`
	RevocationURL string            `yaml:"revocation_url" json:"revocation_url,omitempty"`
	Issuer        string            `yaml:"issuer" json:"issuer,omitempty"`
	Params        map[string]any    `yaml:"params" json:"params,omitempty"`
	// Rotates says whether a refresh replaces the refresh token: "yes", "no", "optional"
	// (a setting at the provider) or "unknown".
	Rotates string `yaml:"rotates" json:"rotates"`
	Notes   string `yaml:"notes" json:"notes,omitempty"`
}

// All returns the presets by name.
func All() ([]Preset, error) {
	var all []Preset
	d := yaml.NewDecoder(bytes.NewReader(table))
	d.KnownFields(true)
	if err := d.Decode(&all); err != nil {
		return nil, fmt.Errorf("the table of presets: %w", err)
	}
	slices.SortFunc(all, func(a, b Preset) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Find returns the preset with this name.
func Find(name string) (Preset, error) {
	all, err := All()
	if err != nil {
		return Preset{}, err
	}
	for _, p := range all {
		if p.Name == name {
			return p, nil
		}
	}
	return Preset{}, fmt.Errorf("there is no preset %q; \"providers presets\" lists them", name)
}

// label is what may stand for a place in a URL's host or path: the parts of a host name.
var label = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

// Profile returns the members of a profile as POST /providers takes them, without
// credentials. values must have exactly what the preset needs; each is a host name, or
// a part of one.
func (p Preset) Profile(values map[string]string) (map[string]any, error) {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(p.Needs)) {
		if !label.MatchString(values[name]) {
			return nil, fmt.Errorf("the preset %s needs --set %s=… (%s), letters, digits, hyphens and dots", p.Name, name, p.Needs[name])
		}
		pairs = append(pairs, "{"+name+"}", values[name])
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if _, ok := p.Needs[name]; !ok {
			return nil, fmt.Errorf("the preset %s has no place for %q", p.Name, name)
		}
	}
	filled := strings.NewReplacer(pairs...)
	profile := map[string]any{"name": p.Name, "auth_type": "oauth2", "description": p.Title}
	for member, text := range map[string]string{
		"auth_header": p.AuthHeader, "auth_url": p.AuthURL, "token_url": p.TokenURL, "revocation_url": p.RevocationURL, "issuer": p.Issuer,
	} {
		if text != "" {
			profile[member] = filled.Replace(text)
		}
	}
	if len(p.Params) > 0 {
		profile["params"] = maps.Clone(p.Params)
	}
	return profile, nil
}
