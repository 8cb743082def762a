package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// SQLSTATE codes (PostgreSQL documentation, "PostgreSQL Error Codes").
const (
	uniqueViolation = "23505"
	checkViolation  = "23514"
	adminShutdown   = "57P01"

	readOnlyTransaction = "25006"

	classConnectionException   = "08"
	classDataException         = "22"
	classInsufficientResources = "53"
	classOperatorIntervention  = "57P" // the server shuts down or starts
)

// translate returns err as relational.DB promises it.
func translate(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var pg *pgconn.PgError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("postgres: %w: %w: %w", broker.ErrDatabaseDown, err, ctx.Err())
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		return fmt.Errorf("postgres: %w: %w", err, ctx.Err())
	case ctx.Err() != nil:
		return err
	case isReadOnly(err) && !errors.Is(err, broker.ErrReadOnly):
		return fmt.Errorf("%w (%w)", broker.ErrReadOnly, err)
	case isDown(err):
		return fmt.Errorf("postgres: %w: %w", broker.ErrDatabaseDown, err)
	case !errors.As(err, &pg):
		return err
	case pg.Code == uniqueViolation && pg.TableName == "provider_profiles" && !strings.HasSuffix(pg.ConstraintName, "_pkey"):
		return fmt.Errorf("%w (%w)", broker.ErrDuplicateName, err)
	case pg.Code == checkViolation && strings.HasSuffix(pg.ConstraintName, "_no_plaintext"):
		return fmt.Errorf("%w (%w)", broker.ErrFinished, err)
	case strings.HasPrefix(pg.Code, classDataException):
		return fmt.Errorf("%w (%w)", broker.ErrUnstorable, err)
	}
	return fmt.Errorf("postgres: %w", err)
}

// broken reports whether err means that a connection of the pool has died, as they
// all do when the server restarts, or has become useless. That no new one can be made is
// another thing.
func broken(err error) bool {
	var (
		pg      *pgconn.PgError
		connect *pgconn.ConnectError
		network *net.OpError
	)
	switch {
	case errors.As(err, &connect):
		return false
	case isReadOnly(err):
		return true
	case errors.As(err, &pg):
		return strings.HasPrefix(pg.Code, classConnectionException) || strings.HasPrefix(pg.Code, classOperatorIntervention)
	}
	return pgconn.SafeToRetry(err) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// isDown reports whether err says nothing of what was asked for, only that the server
// cannot be reached, or cannot do it now.
func isDown(err error) bool {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	if errors.As(err, &pg) && strings.HasPrefix(pg.Code, classInsufficientResources) {
		return true
	}
	return broken(err) && !isReadOnly(err) || errors.As(err, &connect)
}

// notDone reports whether a change whose connection broke was certainly not made: it
// was not sent, or the server has ended the session instead of carrying it out, and
// so has rolled back, or has refused to write.
func notDone(err error) bool { return pgconn.SafeToRetry(err) || endedByServer(err) || isReadOnly(err) }

// endedByServer reports whether the server has ended the session instead of carrying
// out what was sent last.
func endedByServer(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == adminShutdown
}
