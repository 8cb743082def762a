package storetest

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// plainColumns hold no envelope, in either database.
var plainColumns = []string{
	"audit_events.connection_id", "audit_events.event_data", "audit_events.event_type", "audit_events.id", "audit_events.ip_address",
	"audit_events.user_agent",
	"connection_refreshes.connection_id", "connection_refreshes.outcome",
	"connections.health_status", "connections.id", "connections.provider_id", "connections.return_url", "connections.revocation_reason",
	"connections.scopes", "connections.status", "connections.workspace_id",
	"credential_cleanups.backend", "credential_cleanups.id", "credential_cleanups.last_error", "credential_cleanups.provider_id",
	"credential_cleanups.secret_key",
	"leases.holder", "leases.name",
	"provider_aliases.alias", "provider_aliases.alias_norm",
	"provider_profiles.api_base_url", "provider_profiles.auth_header", "provider_profiles.auth_type", "provider_profiles.auth_url",
	"provider_profiles.category", "provider_profiles.client_id", "provider_profiles.client_id_reference", "provider_profiles.client_secret",
	"provider_profiles.client_secret_reference", "provider_profiles.credentials_state", "provider_profiles.description",
	"provider_profiles.health_message", "provider_profiles.health_status", "provider_profiles.id", "provider_profiles.issuer",
	"provider_profiles.name", "provider_profiles.op", "provider_profiles.op_id", "provider_profiles.params", "provider_profiles.revocation_url",
	"provider_profiles.scopes", "provider_profiles.secret_backend", "provider_profiles.secret_key", "provider_profiles.token_url",
	"provider_profiles.user_info_endpoint",
	"reconsents.connection_id", "reconsents.return_url", "reconsents.scopes",
	"sealed_secrets.key", "sealed_secrets.owner",
	"sqlite_sequence.name", "sqlite_sequence.seq",
	"tokens.connection_id", "tokens.id",
}

// RequireKnownColumns fails if a column that could hold an envelope is neither known to
// hold none nor among those that a rotation of the encryption key looks at: what was
// sealed there would be lost when the old key is dropped.
func RequireKnownColumns(t *testing.T, columns, sealed []string) {
	t.Helper()
	require.Subset(t, columns, sealed, "the sealed columns are in the database")
	for _, column := range columns {
		require.True(t, slices.Contains(sealed, column) != slices.Contains(plainColumns, column),
			"does %s hold what package seal has sealed? Add it to the sealed columns of internal/store/relational, or to plainColumns here", column)
	}
}
