package secret

import "context"

// Diagnoser is implemented by backends that can examine their own set-up for an
// administrator.
type Diagnoser interface {
	// Diagnose examines one thing after the other and returns a line for each: that the
	// store answers, TLS, the clocks, the login and how long it lasts, and each right
	// that is needed below the prefix. What cannot be examined because of an earlier
	// failure is left out.
	//
	// With ReadWrite it writes a probe key of its own below the prefix and removes it
	// again; with ReadOnly it writes nothing. No line contains a value, a login token, or
	// anything derived from one.
	Diagnose(ctx context.Context, need Access) []Finding
}

// Finding is one line of a diagnosis.
type Finding struct {
	// Check names what was examined, in a few words: "connection", "read".
	Check string `json:"check"`
	// Verdict is Ok, Warn or Fail.
	Verdict Verdict `json:"verdict"`
	// Detail says what was found.
	Detail string `json:"detail"`
	// Advice says what to do about it, "" with Ok.
	Advice string `json:"advice,omitempty"`
}

// Verdict says what a finding means.
type Verdict string

// The verdicts.
const (
	Ok   Verdict = "ok"
	Warn Verdict = "warn" // it works, and may not for long, or not as it should
	Fail Verdict = "fail" // it does not work
)

// PolicyWriter is implemented by backends that can say which rights they need.
type PolicyWriter interface {
	// Policy returns the least policy that the store has to grant for need, as text that
	// its administrator can apply: HCL for Vault, JSON for AWS, commands for GCP. It
	// sends nothing that needs a right of its own, and works without a connection.
	Policy(ctx context.Context, need Access) (string, error)
}
