package migrations

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// kind is a type that a column may have.
type kind string

const (
	kindUUID  kind = "uuid"
	kindText  kind = "text" // or character varying, of any length
	kindTexts kind = "text[]"
	kindTime  kind = "timestamp with time zone"
	kindBool  kind = "boolean"
	kindJSON  kind = "jsonb"
	kindInet  kind = "inet"
)

// existingColumns are the columns that a database of the existing broker has, whatever
// its version.
var existingColumns = map[string]map[string]kind{
	"provider_profiles": {
		"id": kindUUID, "name": kindText, "client_id": kindText, "client_secret": kindText, "auth_url": kindText,
		"token_url": kindText, "scopes": kindTexts, "created_at": kindTime, "updated_at": kindTime, "issuer": kindText,
		"enable_discovery": kindBool, "deleted_at": kindTime, "auth_type": kindText, "auth_header": kindText, "params": kindJSON,
		"api_base_url": kindText, "user_info_endpoint": kindText, "description": kindText, "category": kindText,
	},
	"connections": {
		"id": kindUUID, "workspace_id": kindText, "provider_id": kindUUID, "status": kindText, "code_verifier": kindText,
		"scopes": kindTexts, "return_url": kindText, "created_at": kindTime, "expires_at": kindTime, "updated_at": kindTime,
	},
	"tokens": {
		"id": kindUUID, "connection_id": kindUUID, "encrypted_data": kindText, "expires_at": kindTime, "created_at": kindTime,
	},
	"audit_events": {
		"id": kindUUID, "connection_id": kindUUID, "event_type": kindText, "event_data": kindJSON, "ip_address": kindInet,
		"user_agent": kindText, "created_at": kindTime,
	},
}

// newerColumns are those that its newer versions have too.
var newerColumns = map[string]map[string]kind{
	"provider_profiles": {"last_health_check_at": kindTime, "health_status": kindText, "health_message": kindText},
	"connections": {
		"last_health_check_at": kindTime, "health_status": kindText, "revoked_at": kindTime, "revocation_reason": kindText,
	},
	"provider_aliases": {"id": kindUUID, "provider_id": kindUUID, "alias": kindText, "alias_norm": kindText, "created_at": kindTime},
}

func (k kind) is(sqlType string) bool {
	return sqlType == string(k) || k == kindText && strings.HasPrefix(sqlType, "character varying") && !strings.HasSuffix(sqlType, "[]")
}

// querier is what a database and a transaction have in common.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// recognise checks that the tables are those of the existing broker, and reports whether
// they have every newer column. The error wraps ErrExistingBroker and names what is not as it
// should be.
func recognise(ctx context.Context, db querier) (newer bool, err error) {
	columns, err := columnsOf(ctx, db)
	if err != nil {
		return false, err
	}
	newer = true
	for _, wanted := range []struct {
		tables map[string]map[string]kind
		needed bool
	}{{existingColumns, true}, {newerColumns, false}} {
		for _, table := range slices.Sorted(maps.Keys(wanted.tables)) {
			for _, column := range slices.Sorted(maps.Keys(wanted.tables[table])) {
				want := wanted.tables[table][column]
				switch found := columns[table+"."+column]; {
				case found == "" && wanted.needed:
					return false, fmt.Errorf("%w: %s has no column %s", ErrExistingBroker, table, column)
				case found == "":
					newer = false
				case !want.is(found):
					return false, fmt.Errorf("%w: %s.%s is of the type %s instead of %s", ErrExistingBroker, table, column, found, want)
				}
			}
		}
	}
	return newer, nil
}

// columnsOf returns the types of the columns of the current schema, by "table.column".
func columnsOf(ctx context.Context, db querier) (map[string]string, error) {
	rows, err := db.QueryContext(ctx, `SELECT c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod)
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped`)
	if err != nil {
		return nil, fmt.Errorf("listing the columns of the database: %w", err)
	}
	defer func() { _ = rows.Close() }()
	columns := map[string]string{}
	for rows.Next() {
		var name, sqlType string
		if err := rows.Scan(&name, &sqlType); err != nil {
			return nil, err
		}
		columns[name] = sqlType
	}
	return columns, rows.Err()
}
