package manifest

import (
	"encoding/json"
	"fmt"

	"github.com/nexus-broker/nexus-broker/internal/apiclient"
)

// Draft returns a manifest of a provider that no broker has yet. profile has no
// credentials in it: with variables, a variable of the environment stands in the place
// of each that the provider needs.
func Draft(profile apiclient.Fields, variables bool) (*Exported, error) {
	b, err := json.Marshal(profile)
	if err != nil {
		return nil, fmt.Errorf("the profile: %w", err)
	}
	var shown apiclient.Profile
	if err := json.Unmarshal(b, &shown); err != nil {
		return nil, fmt.Errorf("the profile: %w", err)
	}
	p, err := fromBroker(shown)
	if err != nil {
		return nil, err
	}
	if variables {
		shown.Credentials = &apiclient.Credentials{Managed: true}
	}
	e := &Exported{Providers: []Provider{p}, variables: map[string]bool{}}
	e.nodes = append(e.nodes, e.provider(p, &shown))
	return e, nil
}
