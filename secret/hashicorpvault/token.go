package hashicorpvault

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

// method is a way to get a token.
type method interface {
	// obtain gets a token. Its errors wrap a sentinel; a refusal also wraps
	// secret.ErrLogin.
	obtain(ctx context.Context) (grant, error)
	// changed reports whether a file that obtain reads has changed since it did.
	changed() bool
	// again reports whether obtain may give a new token without anybody's help.
	again() bool
	// proves reports whether obtain asks the server, so that a token from it is one that
	// the server has accepted.
	proves() bool
	// remedy is what a person can do about a token that is not valid.
	remedy() string
	String() string
}

// grant is a token that a method has obtained.
type grant struct {
	token secret.Value
	lifetime
}

// refused returns a refusal to log in.
func refused(advice string, args ...any) error {
	return fmt.Errorf("%w: %w: %s", secret.ErrDenied, secret.ErrLogin, fmt.Sprintf(advice, args...))
}

func (l TokenLogin) credential() *credential {
	return &credential{what: "token", text: l.Token, file: l.File}
}

func (l TokenLogin) problems(Config) []error {
	if l.Token.IsZero() && l.File == "" {
		return []error{errors.New("the token is missing: give it as such or as a file")}
	}
	return l.credential().problems()
}

func (l TokenLogin) method(*conn) method { return &tokenMethod{l.credential()} }

// tokenMethod uses a token as it is. Whether it is valid shows when it is used.
type tokenMethod struct{ token *credential }

func (m *tokenMethod) obtain(context.Context) (grant, error) {
	token, err := m.token.read()
	if err != nil {
		return grant{}, err
	}
	if strings.ContainsFunc(token.Reveal(), unprintable) {
		return grant{}, refused("the file of the token holds characters that no token has")
	}
	return grant{token: token}, nil
}

func (m *tokenMethod) changed() bool { return m.token.changed() }
func (m *tokenMethod) again() bool   { return false }
func (m *tokenMethod) proves() bool  { return false }

func (m *tokenMethod) remedy() string {
	if m.token.file != "" {
		return "write a new one to " + m.token.file
	}
	return "give the broker a new one"
}

func (m *tokenMethod) String() string { return "token" }
