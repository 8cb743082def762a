package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// smallConnections is how many connections a database has that counts as empty.
const smallConnections = 1000

// rates are what throughput takes in each round.
type rates struct {
	transaction, statement, token, internal, vault []sample
}

// throughput measures what one broker serves, each figure beside pgbench on the same
// server in the same round.
func throughput(ctx context.Context, l *lab) ([]row, error) {
	internal, err := l.world(ctx, 0, smallConnections, nil)
	if err != nil {
		return nil, err
	}
	defer internal.stop()
	vault, err := l.world(ctx, 0, smallConnections, l.vaultEnv())
	if err != nil {
		return nil, err
	}
	defer vault.stop()
	var warmUp, r rates
	if err := takeAll(warmUp.measures(ctx, l, internal, vault, time.Second)); err != nil {
		return nil, err
	}
	measures := r.measures(ctx, l, internal, vault, l.load)
	for range l.rounds {
		if err := takeAll(measures); err != nil {
			return nil, err
		}
		slices.Reverse(measures) // none is always the first after another
	}
	return r.rows(), nil
}

// vaultEnv is a broker's that keeps its credentials in the lab's Vault.
func (l *lab) vaultEnv() env {
	l.vault.Policy("bench", `
path "secret/data/nexus/providers/*" { capabilities = ["create", "read", "update", "delete"] }
path "secret/metadata/nexus/providers/*" { capabilities = ["read", "delete", "list"] }`)
	return env{
		"SECRET_BACKEND": "hashicorp-vault", "VAULT_ADDR": l.vault.Addr,
		"VAULT_TOKEN": l.vault.Token([]string{"bench"}, nil),
	}
}

// measures are those of one round.
func (r *rates) measures(ctx context.Context, l *lab, internal, vault *world, d time.Duration) []measure {
	return []measure{
		{&r.transaction, func() (sample, error) {
			return l.pgbench(ctx, internal.database, d, readAndInsert(smallConnections))
		}},
		{&r.statement, func() (sample, error) {
			return l.pgbench(ctx, internal.database, d, oneStatement(smallConnections))
		}},
		{&r.token, func() (sample, error) {
			return l.wrk(ctx, internal.instance, d, "token", strconv.Itoa(smallConnections))
		}},
		{&r.internal, func() (sample, error) {
			return l.wrk(ctx, internal.instance, d, "consent", "1", internal.provider)
		}},
		{&r.vault, func() (sample, error) {
			return l.wrk(ctx, vault.instance, d, "consent", "1", vault.provider)
		}},
	}
}

func (r *rates) rows() []row {
	const token = "`GET /connections/{id}/token`, 64 connections, audit row durable before the answer"
	const consent = "`POST /auth/consent-spec`, 64 connections, `hashicorp-vault`, warm cache"
	return []row{
		r.againstPgbench(token, r.token, 0.5),
		latency("the same, p99", r.token, 20*time.Millisecond),
		r.againstPgbench(consent, r.vault, 0.4),
		r.againstInternal("the same, against `internal`"),
	}
}

// againstPgbench compares with the faster of the two scripts.
func (r *rates) againstPgbench(what string, s []sample, mark float64) row {
	two, one := compare(s, r.transaction, rateOf), compare(s, r.statement, rateOf)
	return row{
		what, fmt.Sprintf("≥ %.1f × pgbench", mark), fmt.Sprintf(
			"%s/s = %s of read_and_insert.sql (%s/s), %s of one_statement.sql (%s/s)%s", number(median(each(s, rateOf))),
			two, number(median(each(r.transaction, rateOf))), one, number(median(each(r.statement, rateOf))), failures(s)),
		metIf(min(two.ratio, one.ratio) >= mark && errorsIn(s) == 0),
	}
}

func (r *rates) againstInternal(what string) row {
	c := compare(r.vault, r.internal, rateOf)
	return row{
		what, "within 5 %", fmt.Sprintf("%s (`internal`: %s/s)%s", c, number(median(each(r.internal, rateOf))), failures(r.internal)),
		metIf(c.ratio >= 0.95 && errorsIn(r.internal) == 0),
	}
}

func latency(what string, s []sample, mark time.Duration) row {
	p99 := each(s, p99Of)
	return row{
		what, "≤ " + mark.String(), fmt.Sprintf("%s (rounds: %s to %s)", millis(median(p99)), millis(slices.Min(p99)), millis(slices.Max(p99))),
		metIf(median(p99) <= mark),
	}
}
