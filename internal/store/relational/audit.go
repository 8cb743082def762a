package relational

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// EventColumns are the columns of an audit event, in the order of [EventValues].
const EventColumns = "id, connection_id, event_type, event_data, ip_address, user_agent, created_at"

const insertEvent = "INSERT INTO audit_events (" + EventColumns + ") VALUES ($1, $2, $3, $4, $5, $6, $7)"

// EventValues returns the values of an event as they are stored.
func EventValues(e audit.Event) ([]any, error) {
	data, err := e.DataJSON()
	if err == nil {
		data, err = recordableJSON(data)
	}
	if err != nil {
		return nil, fmt.Errorf("audit event %s: %w", e.Type, err)
	}
	return []any{
		e.ID, idOrNull(e.ConnectionID), string(e.Type), data,
		address(e.IPAddress), textOrNull(recordable(e.UserAgent)), at(e.CreatedAt),
	}, nil
}

// address returns an IP address as it is stored, nil for what is none.
func address(s string) any {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return nil
	}
	return a.WithZone("").String()
}

// RecordEvents inserts events in a transaction.
func RecordEvents(ctx context.Context, tx Tx, events []audit.Event) error {
	for _, e := range events {
		values, err := EventValues(e)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, insertEvent, values...); err != nil {
			return fmt.Errorf("recording audit event %s: %w", e.Type, err)
		}
	}
	return nil
}

// Record implements audit.Recorder.
func (s *Store) Record(ctx context.Context, events ...audit.Event) error {
	switch len(events) {
	case 0:
		return nil
	case 1:
		return RecordEvents(ctx, s.db, events)
	}
	return s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error { return RecordEvents(ctx, tx, events) })
}

// AuditEvents gives the events that f selects, newest first.
func (s *Store) AuditEvents(ctx context.Context, f audit.Filter) broker.Listing[audit.Event] {
	var sel selection
	if f.Type != "" {
		sel.where("event_type = ?", recordable(string(f.Type)))
	}
	if f.ConnectionID != uuid.Nil {
		sel.where("connection_id = ?", f.ConnectionID)
	}
	if !f.Since.IsZero() {
		sel.where("created_at >= ?", at(f.Since))
	}
	if !f.Until.IsZero() {
		sel.where("created_at < ?", at(f.Until))
	}
	if f.After != uuid.Nil {
		sel.where("(created_at, id) < ((SELECT created_at FROM audit_events WHERE id = ?), ?)", f.After)
	}
	columns := strings.Replace(EventColumns, "ip_address", s.dialect.AddressText, 1)
	statement := "SELECT " + columns + " FROM audit_events" + sel.end("created_at DESC, id DESC", f.Limit)
	return listing(ctx, s.db, statement, sel.args, scanEvent)
}

func scanEvent(scan Scan) (audit.Event, error) {
	var e audit.Event
	var data []byte
	err := scan(&e.ID, &e.ConnectionID, text(&e.Type), &data, text(&e.IPAddress), text(&e.UserAgent), instant(&e.CreatedAt))
	if err != nil || data == nil {
		return e, err
	}
	v, err := decodeJSON(data)
	if err != nil {
		return e, fmt.Errorf("data of audit event %s: %w", e.ID, err)
	}
	object, ok := v.(map[string]any)
	if !ok { // never ours; an older program's may be any JSON value
		object = map[string]any{"value": json.RawMessage(data)}
	}
	e.Data = object
	return e, nil
}

// PruneAudit deletes at most limit events older than before and returns how many.
func (s *Store) PruneAudit(ctx context.Context, before time.Time, limit int) (int, error) {
	n, err := s.db.Exec(ctx, `DELETE FROM audit_events WHERE id IN
		(SELECT id FROM audit_events WHERE created_at < $1 ORDER BY created_at, id LIMIT $2)`, at(before), limit)
	return int(n), err
}
