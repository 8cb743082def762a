package sqlite

import (
	"context"
	"fmt"
	"testing"
)

// Settings returns the settings of the connection that writes.
func (s *Store) Settings(ctx context.Context) (map[string]string, error) {
	settings := map[string]string{}
	for _, name := range []string{"journal_mode", "synchronous", "foreign_keys"} {
		var value string
		if err := s.db.writer.QueryRowContext(ctx, "PRAGMA "+name).Scan(&value); err != nil {
			return nil, err
		}
		settings[name] = value
	}
	return settings, nil
}

// LimitPages lets the database grow by a number of pages only, until it is lifted.
func (s *Store) LimitPages(t *testing.T, more int) (lift func()) {
	t.Helper()
	set := func(n int) {
		if _, err := s.db.writer.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", n)); err != nil {
			t.Fatal(err)
		}
	}
	var pages int
	if err := s.db.writer.QueryRowContext(t.Context(), "PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	set(pages + more)
	return func() { set(1 << 30) }
}
