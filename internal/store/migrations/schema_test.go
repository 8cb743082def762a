package migrations_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// Why a column may hold a NULL that has none in a new database.
const (
	nobodys = "a row of the existing broker may belong to nobody; it is left where it is, and no flow comes to it"
	checked = "to forbid NULL takes a pass over the table, which may be very big, while nobody is served; no row has one"
	unused  = "this broker never uses the table"
)

// onPurpose is what differs between the schema of a database that was upgraded and
// finished and that of a new one, and why: a line with - is in the new one alone, one with
// + in the upgraded one alone.
var onPurpose = map[string]string{
	"- column connections.provider_id uuid NOT NULL":                                                                                      nobodys,
	"+ column connections.provider_id uuid":                                                                                               nobodys,
	"- column tokens.connection_id uuid NOT NULL":                                                                                         nobodys,
	"+ column tokens.connection_id uuid":                                                                                                  nobodys,
	"- column audit_events.created_at timestamp with time zone NOT NULL DEFAULT now()":                                                    checked,
	"+ column audit_events.created_at timestamp with time zone DEFAULT now()":                                                             checked,
	"- column provider_aliases.created_at timestamp with time zone NOT NULL DEFAULT now()":                                                unused,
	"+ column provider_aliases.created_at timestamp with time zone DEFAULT now()":                                                         unused,
	"- column provider_aliases.provider_id uuid NOT NULL":                                                                                 unused,
	"+ column provider_aliases.provider_id uuid":                                                                                          unused,
	"+ function touch  BEGIN NEW.updated_at = now(); RETURN NEW; END; ":                                                                   "its trigger is gone; a function is not ours to drop",
	"- index CREATE UNIQUE INDEX provider_profiles_name_active ON public.provider_profiles USING btree (name) WHERE (deleted_at IS NULL)": sameIndex,
	"+ index CREATE UNIQUE INDEX idx_provider_profiles_name ON public.provider_profiles USING btree (name) WHERE (deleted_at IS NULL)":    sameIndex,
}

const sameIndex = "the same index under the existing broker's name"

// schemaQuery lists all that a schema consists of, a line each. What makes no difference to
// a statement is not in it: the order of columns.
const schemaQuery = `
SELECT 'table ' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind NOT IN ('i', 'I', 't')
UNION ALL
SELECT 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
	|| CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END || COALESCE(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')
	|| CASE WHEN a.attidentity <> '' OR a.attgenerated <> '' THEN ' GENERATED' ELSE '' END
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
	WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'index ' || pg_get_indexdef(i.indexrelid) || CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END
	FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = 'public'::regnamespace
UNION ALL
SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
	FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
UNION ALL
SELECT 'trigger ' || pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text
	FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = 'public'::regnamespace AND NOT t.tgisinternal
UNION ALL
SELECT 'function ' || proname || ' ' || regexp_replace(prosrc, '\s+', ' ', 'g') FROM pg_proc WHERE pronamespace = 'public'::regnamespace`

// timeless are rows with a NULL for every time that the existing broker's tables allow.
const timeless = `
INSERT INTO provider_profiles (id, name, client_id, client_secret, created_at, updated_at) VALUES
	('00000000-0000-4000-8000-000000000001', 'p', 'x', 'y', NULL, NULL), ('00000000-0000-4000-8000-000000000002', 'q', 'x', 'y', now(), NULL);
INSERT INTO connections (id, workspace_id, provider_id, status, created_at, updated_at)
	VALUES ('00000000-0000-4000-8000-000000000011', 'ws', '00000000-0000-4000-8000-000000000001', 'active', NULL, NULL);
INSERT INTO tokens (connection_id, encrypted_data, created_at) VALUES ('00000000-0000-4000-8000-000000000011', 'SEALED', NULL);
INSERT INTO audit_events (event_type, created_at) VALUES ('token_retrieved', NULL);`

// requireTimes: no row is without a time.
func requireTimes(t *testing.T, url string) {
	t.Helper()
	require.Equal(t, "0", list(t, "pgx", url, `SELECT (SELECT count(*) FROM provider_profiles WHERE created_at IS NULL OR updated_at IS NULL)
		+ (SELECT count(*) FROM connections WHERE created_at IS NULL OR updated_at IS NULL)
		+ (SELECT count(*) FROM tokens WHERE created_at IS NULL) + (SELECT count(*) FROM audit_events WHERE created_at IS NULL)`))
}

func schema(t *testing.T, url string) map[string]bool {
	t.Helper()
	lines := map[string]bool{}
	for line := range strings.SplitSeq(list(t, "pgx", url, schemaQuery), "\n") {
		lines[line] = true
	}
	return lines
}

// TestAnUpgradedDatabaseHasTheSchemaOfANewOne compares everything, of both shapes that a
// database of the existing broker may have.
func TestAnUpgradedDatabaseHasTheSchemaOfANewOne(t *testing.T) {
	fresh := servers.Postgres(t)
	_, m := postgresAt(fresh).opened(t)
	_, err := m.Up(t.Context())
	require.NoError(t, err)
	want := schema(t, fresh)
	for name, tables := range map[string]string{"older": servers.ExistingTables, "newer": servers.ExistingTables + servers.NewerColumns} {
		t.Run(name, func(t *testing.T) {
			url := servers.Postgres(t)
			d := postgresAt(url)
			d.exec(t, tables)
			d.exec(t, strings.Replace(timeless, "SEALED", ring(t).SealAsBefore([]byte("{}")), 1))
			_, m := d.opened(t)
			m = m.WithKeys(ring(t))
			_, err := m.Up(t.Context())
			require.NoError(t, err)
			done, err := m.Finish(t.Context(), true)
			require.NoError(t, err)
			require.Equal(t, 2, done.Pairs)
			requireTimes(t, url)
			got := schema(t, url)
			differences := map[string]string{}
			for line := range want {
				if !got[line] {
					differences["- "+line] = onPurpose["- "+line]
				}
			}
			for line := range got {
				if !want[line] {
					differences["+ "+line] = onPurpose["+ "+line]
				}
			}
			require.Equal(t, strings.Join(slices.Sorted(maps.Keys(onPurpose)), "\n"), strings.Join(slices.Sorted(maps.Keys(differences)), "\n"))
		})
	}
}

// TestAListingComesToEveryRow: pages go by age, and a provider of the existing broker may
// have none, also in a database that was finished before that was seen to.
func TestAListingComesToEveryRow(t *testing.T) {
	pages := func(t *testing.T, s store) (names []string) {
		t.Helper()
		for page := (broker.Page{Limit: 1}); ; {
			found, err := s.ProvidersByAge(t.Context(), page)
			require.NoError(t, err)
			if len(found) == 0 {
				return names
			}
			names = append(names, found[0].Profile.Name)
			page.After = found[0].ID
		}
	}
	rows := strings.Replace(timeless, "SEALED", ring(t).SealAsBefore([]byte("{}")), 1)
	t.Run("finished now", func(t *testing.T) {
		d := postgresDatabase(t)
		d.exec(t, servers.ExistingTables+rows)
		s, m := d.opened(t)
		m = m.WithKeys(ring(t))
		_, err := m.Up(t.Context())
		require.NoError(t, err)
		_, err = m.Finish(t.Context(), true)
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"p", "q"}, pages(t, s))
	})
	t.Run("finished before", func(t *testing.T) {
		url := servers.Postgres(t)
		d := postgresAt(url)
		s, m := d.opened(t)
		require.NoError(t, m.UpTo(t.Context(), 5))
		d.exec(t, `ALTER TABLE provider_profiles ALTER created_at DROP NOT NULL, ALTER updated_at DROP NOT NULL;
			ALTER TABLE connections ALTER created_at DROP NOT NULL, ALTER updated_at DROP NOT NULL;
			ALTER TABLE tokens ALTER created_at DROP NOT NULL; ALTER TABLE audit_events ALTER created_at DROP NOT NULL;
			INSERT INTO existing_broker (finished_at) VALUES (now())`)
		d.exec(t, strings.ReplaceAll(rows, "'x', 'y'", "NULL, NULL"))
		_, err := m.Up(t.Context())
		require.NoError(t, err)
		requireTimes(t, url)
		require.ElementsMatch(t, []string{"p", "q"}, pages(t, s))
	})
}
