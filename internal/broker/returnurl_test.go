package broker_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// The query of a return_url is its application's: it comes back as it was, and what the
// broker has to say is behind it. One that url.Values.Encode would write alike is sorted
// with that, as the existing broker answers.
func TestTheQueryOfAReturnURLIsKept(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.static("acme", broker.ProfileInput{AuthType: broker.Given("api_key")})
	for returnURL, want := range map[string]string{
		"https://app.example/":                        "https://app.example/?<ours>",
		"https://app.example/?":                       "https://app.example/?<ours>",
		"https://app.example/?b=2&a=1":                "https://app.example/?b=2&a=1&<ours>",
		"https://app.example/?a=1;b=2&pct=100%&z=%20": "https://app.example/?a=1;b=2&pct=100%&z=%20&<ours>",
		"https://app.example/?+&x&=&y=%2b%2B+":        "https://app.example/?+&x&=&y=%2b%2B+&<ours>",
		"https://app.example/?a=b c\"\u00e9":          "https://app.example/?a=b%20c%22%C3%A9&<ours>",
		"https://app.example/a%2Fb?x=1#f?g":           "https://app.example/a%2Fb?<ours>&x=1#f?g",
		"app:done?x=1":                                "app:done?<ours>&x=1",
		"/done?x=1":                                   "/done?<ours>&x=1",
		// Ours are ours alone, however they are spelt; others only look like them.
		"https://app.example/?status=error&a=1&stat%75s=x&status=&status": "https://app.example/?a=1&<ours>",
		"https://app.example/?connection_id=forged&mystatus=1":            "https://app.example/?connection_id=<id>&mystatus=1&status=success",
	} {
		r := request(id)
		r.ReturnURL = returnURL
		c, err := h.Begin(t.Context(), r)
		require.NoError(t, err, returnURL)
		to, err := h.Capture(t.Context(), c.State, entered(t, `{"api_key":"k"}`))
		require.NoError(t, err, returnURL)
		id := connectionIn(t, to.URL).String()
		require.Equal(t, strings.NewReplacer("<ours>", "connection_id="+id+"&status=success", "<id>", id).Replace(want), to.URL, returnURL)
	}
}
