package broker

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
)

// given is what an input says of the credentials: a pair, references, or neither.
type given struct {
	pair       credentials.Pair
	references ReferencePair
	// unreferenced: credentials_ref is null, which ends what references there were.
	unreferenced bool
}

func (g given) hasPair() bool { return !g.pair.ClientID.IsZero() || !g.pair.ClientSecret.IsZero() }

func (g given) hasReferences() bool { return g.references != ReferencePair{} }

// credentials returns what the input says; an empty value counts as absent.
func (in ProfileInput) credentials() (given, error) {
	g := given{
		pair:       credentials.Pair{ClientID: in.ClientID.Value.Value, ClientSecret: in.ClientSecret.Value.Value},
		references: in.CredentialsRef.Value, unreferenced: in.CredentialsRef.Null,
	}
	if in.CredentialsRef.Present && !in.CredentialsRef.Null && !g.hasReferences() {
		return g, fail(CodeMissingClientID, "credentials_ref.client_id is required")
	}
	if err := checkCredential(credentials.ClientIDKey, g.pair.ClientID); err != nil {
		return g, err
	}
	if err := checkCredential(credentials.ClientSecretKey, g.pair.ClientSecret); err != nil {
		return g, err
	}
	return g, nil
}

// referencedRef returns credentials that lie where references say, if they may. It asks
// no backend.
func (s *Service) referencedRef(id uuid.UUID, profile Profile, g given) (credentials.Ref, error) {
	ref := credentials.Ref{
		ProviderID: id, Backend: s.creds.WriteTo(), Public: profile.public(),
		ClientIDReference: g.references.ClientID, ClientSecretReference: g.references.ClientSecret,
		State: credentials.Ready, Generation: 1,
	}
	if err := s.checkReferences(ref); err != nil {
		return ref, err
	}
	if g.hasPair() {
		return ref, fail(CodeProviderCreationFailed, "client_id and client_secret, or credentials_ref: not both")
	}
	return ref, completeReferences(profile, ref)
}

// completeReferences checks that there is a reference for each value that the profile
// needs. Where a value is not needed, one that is named has to be there all the same.
func completeReferences(profile Profile, ref credentials.Ref) error {
	switch {
	case ref.Public && ref.ClientSecretReference != "":
		return fail(CodeProviderCreationFailed, `a public client ("auth_header": "none") has no client_secret`)
	case ref.ClientIDReference == "":
		return fail(CodeMissingClientID, "credentials_ref.client_id is required")
	case profile.AuthType == AuthOAuth2 && !ref.Public && ref.ClientSecretReference == "":
		return fail(CodeMissingClientSecret, "credentials_ref.client_secret is required")
	}
	return nil
}

// checkReferences refuses what the broker may not read.
func (s *Service) checkReferences(ref credentials.Ref) error {
	if !s.creds.External() {
		return fail(CodeCredentialsRefDenied, "credentials_ref needs a secret backend outside of the broker's database (SECRET_BACKEND)")
	}
	switch err := s.creds.CheckReferences(ref); {
	case err == nil:
		return nil
	case errors.Is(err, secret.ErrInvalid):
		return errBadReference(err)
	default:
		return &Error{Code: CodeCredentialsRefDenied, Err: err, Message: "a reference may lie below the place of the broker's own keys, " +
			"or below one of SECRET_REF_ALLOWED_PREFIXES, which the broker's operator sets; this one does not"}
	}
}

// errBadReference is for whoever has just given a reference that is none in its store.
func errBadReference(err error) *Error {
	reason, ok := secret.ReferenceReason(err)
	if !ok {
		reason = "the secret backend cannot have this one"
	}
	return &Error{Code: CodeCredentialsRefDenied, Err: err, Message: "a reference reads path[@version][#field]; " + reason}
}

// planReferences: the credentials shall lie where references say. A managed pair that
// they replace is deleted, like one that a rename leaves behind.
func (s *Service) planReferences(c change, g given) (change, error) {
	before := c.before.Credentials
	if before.Managed && s.creds.ReadOnly() {
		return c, s.errExternal(before, "the broker is read-only (SECRET_READ_ONLY) and cannot delete what the references would replace")
	}
	ref, err := s.referencedRef(c.before.ID, c.after.Profile, g)
	if err != nil {
		return c, err
	}
	if before.Managed && s.creds.PointsInto(ref, before) {
		return c, fail(CodeCredentialsRefDenied, "the reference names what the broker itself has written and deletes when a reference replaces it")
	}
	ref.Generation, ref.State = before.Generation, before.State
	if ref != before {
		ref.Generation, ref.State = before.Generation+1, credentials.Ready
	}
	c.after.Credentials = ref
	return c, nil
}

// planReferenced is an update of a provider whose credentials lie where references say,
// and that gives no others.
func (s *Service) planReferenced(ctx context.Context, c change, g given) (change, error) {
	current := c.before.Credentials
	if g.hasPair() && !g.unreferenced {
		return c, s.errExternal(current, `its references say where they lie ("credentials_ref": null ends that)`)
	}
	if g.unreferenced {
		return s.planFirstPair(ctx, c, g)
	}
	ref := current
	if ref.Public = c.after.Profile.public(); ref.Public {
		ref.ClientSecretReference = "" // a client that becomes public has no secret any more
	}
	if err := completeReferences(c.after.Profile, ref); err != nil {
		return c, err
	}
	if ref != current {
		ref.Generation++
	}
	c.after.Credentials = ref
	return c, nil
}
