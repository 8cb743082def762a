package postgres_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestATransactionWhoseCommitWasNotAnsweredIsNotRepeated: it may have been carried out,
// and the caller, who can find out, has to know. One that was never committed fails too.
func TestATransactionWhoseCommitWasNotAnsweredIsNotRepeated(t *testing.T) {
	for name, arrives := range map[string]bool{"answer lost": true, "commit lost": false} {
		t.Run(name, func(t *testing.T) {
			p := servers.NewPostgresProxy(t, servers.Postgres(t))
			s := open(t, p.URL)
			defer func() { _ = s.Close() }()
			provider, _ := addActive(t, s)
			op := broker.Op{ID: uuid.New(), Kind: broker.OpUpdate, TTL: time.Minute}
			var commits atomic.Int64
			p.Around(func(statement string, ask func() bool) bool {
				if statement != "commit" || commits.Add(1) > 1 {
					return ask()
				}
				return arrives && ask() && false
			})
			_, err := s.BeginOp(t.Context(), provider, op, false)
			require.Error(t, err)
			require.NotErrorIs(t, err, broker.ErrBusy, "it has met itself")
			require.EqualValues(t, 1, commits.Load())
			err = s.KeepOp(t.Context(), provider, op)
			if arrives {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, broker.ErrLostOp)
			}
		})
	}
}
