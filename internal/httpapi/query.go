package httpapi

import (
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// pageOf reads limit and after; without them a listing is whole.
func pageOf(q url.Values) (p broker.Page, err error) {
	if s := q.Get("limit"); s != "" {
		if p.Limit, err = strconv.Atoi(s); err != nil || p.Limit < 1 {
			return p, failure(codeInvalidLimit, "limit is not a positive number")
		}
	}
	p.After, err = optionalID(q, "after", codeInvalidAfter)
	return p, err
}

// minTTL reads for how long a token should last, 0 if that is not said.
func minTTL(q url.Values) (time.Duration, error) {
	const most = 366 * 24 * 60 * 60 // seconds
	if !q.Has("min_ttl") {
		return 0, nil
	}
	n, err := strconv.Atoi(q.Get("min_ttl"))
	if err != nil || n < 0 || n > most {
		return 0, failure(codeInvalidMinTTL, "min_ttl is not a number of seconds from 0 to 31622400")
	}
	return time.Duration(n) * time.Second, nil
}

// auditFilter reads the query of GET /audit.
func auditFilter(q url.Values) (f audit.Filter, err error) {
	f.Type, f.Limit = audit.Type(q.Get("event_type")), auditLimit(q.Get("limit"))
	if f.Since, err = optionalTime(q, "since", codeInvalidSince); err != nil {
		return f, err
	}
	if f.Until, err = optionalTime(q, "until", codeInvalidUntil); err != nil {
		return f, err
	}
	if f.ConnectionID, err = optionalID(q, "connection_id", codeInvalidConnectionID); err != nil {
		return f, err
	}
	f.After, err = optionalID(q, "after", codeInvalidAfter)
	return f, err
}

// auditLimit takes 1 to 1000; anything else is 50.
func auditLimit(s string) int {
	const usual, most = 50, 1000
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most {
		return usual
	}
	return n
}

func optionalTime(q url.Values, name string, code broker.Code) (time.Time, error) {
	s := q.Get(name)
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, failure(code, name+" is not a time of RFC 3339, such as 2025-01-31T12:00:00Z")
	}
	return t.UTC(), nil
}

func optionalID(q url.Values, name string, code broker.Code) (uuid.UUID, error) {
	s := q.Get(name)
	if s == "" {
		return uuid.Nil, nil
	}
	return parseID(s, code, name+" is not a UUID")
}
