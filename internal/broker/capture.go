package broker

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
)

// CaptureForm returns what the form of a static provider asks for.
func (s *Service) CaptureForm(ctx context.Context, signed string) (CaptureForm, error) {
	_, p, err := s.captureOf(ctx, signed)
	if err != nil {
		return CaptureForm{}, err
	}
	schema := p.Profile.Params.object(paramCredentialSchema)
	if schema == nil {
		return CaptureForm{}, fail(CodeSchemaNotFound, "this provider has no params.credential_schema")
	}
	return CaptureForm{ProviderName: p.Profile.Name, Schema: schema}, nil
}

// captureOf returns the pending connection of a state and its static provider.
func (s *Service) captureOf(ctx context.Context, signed string) (Connection, Provider, error) {
	conn, err := s.verifiedConnection(ctx, signed)
	if err != nil {
		return conn, Provider{}, err
	}
	if err := s.pending(ctx, conn); err != nil {
		return conn, Provider{}, err
	}
	p, err := s.visible(ctx, conn.ProviderID)
	if err == nil && p.Profile.AuthType == AuthOAuth2 {
		return conn, p, fail(CodeInvalidState, "this state is for an authorization at the provider, not for a form")
	}
	return conn, p, err
}

// Capture stores the credentials that a user has entered and says where the browser
// goes. The state is used up by a success only, so that a typing error costs nothing.
func (s *Service) Capture(ctx context.Context, signed string, entered map[string]json.RawMessage) (Redirect, error) {
	conn, p, err := s.captureOf(ctx, signed)
	if err != nil {
		return Redirect{}, err
	}
	if len(entered) == 0 {
		return Redirect{}, fail(CodeInvalidCredentials, "credentials are required")
	}
	if err := checkSchema(p.Profile.Params.object(paramCredentialSchema), entered); err != nil {
		return Redirect{}, err
	}
	captured := oauth.NewTokenSet(entered)
	if err := s.tryOut(ctx, p, captured); err != nil {
		return Redirect{}, err
	}
	release, err := s.hold()
	if err != nil {
		return Redirect{}, err
	}
	defer release()
	err = s.activate(context.WithoutCancel(ctx), p, conn, captured, audit.New(ctx, audit.CredentialCaptured, conn.ID, completedData(p, conn)))
	if err != nil {
		return Redirect{}, err
	}
	return Redirect{URL: withQuery(conn.ReturnURL, "status", "success", "connection_id", conn.ID.String())}, nil
}

// checkSchema validates what was entered. Its message names fields and never values.
func checkSchema(schema json.RawMessage, entered map[string]json.RawMessage) error {
	if schema == nil {
		return nil
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return errUnusableSchema(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(noLoader{})
	const name = "credential_schema.json"
	if err := compiler.AddResource(name, document); err != nil {
		return errUnusableSchema(err)
	}
	compiled, err := compiler.Compile(name)
	if err != nil {
		return errUnusableSchema(err)
	}
	raw, err := json.Marshal(entered)
	if err != nil {
		return fail(CodeInvalidCredentials, "credentials are not a JSON object")
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return fail(CodeInvalidCredentials, "credentials are not a JSON object")
	}
	var invalid *jsonschema.ValidationError
	if err := compiled.Validate(instance); errors.As(err, &invalid) {
		return &Error{Code: CodeInvalidCredentials, Details: map[string]any{"fields": invalidFields(invalid)},
			Message: "the credentials do not match the provider's schema"}
	}
	return nil
}

// noLoader keeps a schema from making the broker fetch a URL or read a file.
type noLoader struct{}

func (noLoader) Load(string) (any, error) {
	return nil, errors.New("references to other documents are not followed")
}

func errUnusableSchema(err error) error {
	return &Error{Code: CodeInvalidCredentials, Err: err,
		Message: "the provider's params.credential_schema is not a usable JSON schema; its administrator must correct it"}
}

// invalidFields lists the places that do not match, as JSON pointers.
func invalidFields(e *jsonschema.ValidationError) []string {
	if len(e.Causes) == 0 {
		pointer := ""
		for _, part := range e.InstanceLocation {
			pointer += "/" + part
		}
		return []string{pointer}
	}
	var fields []string
	for _, cause := range e.Causes {
		fields = append(fields, invalidFields(cause)...)
	}
	return fields
}

// tryOut asks the provider's API with the credentials, where the profile says whom
// to ask.
func (s *Service) tryOut(ctx context.Context, p Provider, entered oauth.TokenSet) error {
	if p.Profile.APIBaseURL == "" || p.Profile.UserInfoEndpoint == "" {
		return nil
	}
	target := userInfoURL(p.Profile)
	if err := oauth.CheckEndpoint(target); err != nil {
		return &Error{Code: CodeInvalidCredentials, Err: err,
			Message: "the provider's api_base_url and user_info_endpoint are not a usable URL; its administrator must correct them"}
	}
	header, apply, err := captureHeader(p.Profile, entered)
	if err != nil || !apply {
		return err
	}
	status, err := s.oauth.CheckAPI(ctx, target, header)
	switch {
	case err != nil:
		s.learn(ctx, p, HealthUnreachable, "the API does not answer")
		return &Error{Code: CodeInvalidCredentials, Err: err, Message: "the provider's API does not answer, so the credentials could not be checked"}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return fail(CodeInvalidCredentials, "the provider's API refused the credentials")
	case status >= 200 && status < 300:
		s.learn(ctx, p, HealthHealthy, "")
	}
	return nil // any other answer says nothing of the credentials
}

// userInfoURL is where captured credentials are tried out: api_base_url and
// user_info_endpoint put together as they are, with one slash between them.
func userInfoURL(p Profile) string {
	if strings.HasPrefix(p.UserInfoEndpoint, "?") {
		return p.APIBaseURL + p.UserInfoEndpoint
	}
	return strings.TrimSuffix(p.APIBaseURL, "/") + "/" + strings.TrimPrefix(p.UserInfoEndpoint, "/")
}

// captureHeader returns the request header that carries the credentials. It is
// false for the types whose use of a request is more than a header.
func captureHeader(p Profile, entered oauth.TokenSet) (h http.Header, apply bool, err error) {
	name, value := "Authorization", ""
	switch p.AuthType {
	case AuthAPIKey:
		value = entered.Text("api_key").Reveal()
		if p.AuthHeader == "" || http.CanonicalHeaderKey(p.AuthHeader) == name {
			value = "Bearer " + value
		} else {
			name = p.AuthHeader
		}
	case AuthBasic:
		pair := entered.Text("username").Reveal() + ":" + entered.Text("password").Reveal()
		value = "Basic " + base64.StdEncoding.EncodeToString([]byte(pair))
	default:
		return nil, false, nil
	}
	switch {
	case !headerName.MatchString(name):
		return nil, false, fail(CodeInvalidCredentials, "the provider's auth_header is not the name of a header; its administrator must correct it")
	case hasControl(value):
		return nil, false, fail(CodeInvalidCredentials, "the credentials contain a control character")
	}
	return http.Header{http.CanonicalHeaderKey(name): {value}}, true, nil
}

// headerName is a field name (RFC 9110 §5.1).
var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
