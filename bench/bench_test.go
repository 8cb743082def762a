package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

func TestParseWrk(t *testing.T) {
	got, err := parseWrk("Running 2s test @ http://127.0.0.1:1\n  Requests/sec: 7\n" +
		`{"requests":5000,"microseconds":2000000,"p99":18250,"refused":3,"broken":4}` + "\n")
	require.NoError(t, err)
	require.Equal(t, sample{rate: 2500, p99: 18250 * time.Microsecond, errors: 7}, got)
	for _, bad := range []string{"", "unable to connect", `{"requests":1`, `{"requests":0,"microseconds":0}`} {
		_, err := parseWrk(bad)
		require.ErrorIs(t, err, errOutput, bad)
	}
}

func TestParsePgbench(t *testing.T) {
	got, err := parsePgbench("number of failed transactions: 2 (0.001%)\nlatency average = 8.0 ms\n" +
		"tps = 7981.25 (without initial connection time)\n")
	require.NoError(t, err)
	require.Equal(t, sample{rate: 7981.25, errors: 2}, got)
	_, err = parsePgbench("pgbench: error: connection to server failed")
	require.ErrorIs(t, err, errOutput)
}

func TestParseBenchmarks(t *testing.T) {
	got := parseBenchmarks("goos: linux\n" +
		"BenchmarkGetWarm/providers=1     \t 100\t       106.5 ns/op\t       0 B/op\t       0 allocs/op\n" +
		"BenchmarkGetWarm/providers=1/parallel-2 \t 100\t 60 ns/op\t 16 B/op\t 1 allocs/op\n" +
		"BenchmarkGetWarm/providers=1/parallel-2 \t 100\t 62 ns/op\t 16 B/op\t 1 allocs/op\nPASS\n")
	require.Equal(t, map[string][]benchmark{
		"BenchmarkGetWarm/providers=1":            {{nanoseconds: 106.5}},
		"BenchmarkGetWarm/providers=1/parallel-2": {{60, 16, 1}, {62, 16, 1}},
	}, got)
}

func TestCompare(t *testing.T) {
	a := []sample{{rate: 10}, {rate: 30}, {rate: 20}}
	b := []sample{{rate: 20}, {rate: 40}, {rate: 40}}
	require.Equal(t, comparison{ratio: 0.5, lowest: 0.5, highest: 0.75}, compare(a, b, rateOf))
}

func TestFailuresAreShown(t *testing.T) {
	r := rates{token: []sample{{rate: 100, errors: 1200}}, transaction: []sample{{rate: 1}}, statement: []sample{{rate: 1}}}
	got := r.againstPgbench("token", r.token, 0.5)
	require.Equal(t, short, got.verdict)
	require.Contains(t, got.measured, "1,200 requests failed")
}

// TestVerdictIsAgainstTheFasterScript: a yardstick that is easier than the other
// must not decide.
func TestVerdictIsAgainstTheFasterScript(t *testing.T) {
	r := rates{token: []sample{{rate: 40}}, transaction: []sample{{rate: 60}}, statement: []sample{{rate: 100}}}
	require.Equal(t, short, r.againstPgbench("token", r.token, 0.5).verdict)
	require.Equal(t, met, r.againstPgbench("token", r.token, 0.4).verdict)
}

func TestReport(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := report([]fact{{"Machine", "2 cores"}}, []row{{"a", "≤ 1", "x | y\nz", short}}, began, 61*time.Second)
	require.Equal(t, "Measured on 2026-01-02 03:04 UTC in 1m1s:\n\n- Machine: 2 cores\n\n"+
		"| what | mark | measured | verdict |\n|---|---|---|---|\n| a | ≤ 1 | x \\| y z | **short** |\n", got)
}

func TestUpdateFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	require.NoError(t, os.WriteFile(file, []byte("before\n"+tableBegins+"old\n"+tableEnds+"after\n"), 0o600))
	for range 2 {
		require.NoError(t, updateFile(file, "new\n"))
		got, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, "before\n"+tableBegins+"new\n"+tableEnds+"after\n", string(got))
	}
	require.NoError(t, os.WriteFile(file, []byte("nothing to be found here\n"), 0o600))
	require.ErrorIs(t, updateFile(file, "new\n"), errNoMarkers)
}

func TestThePageHasThePlaceOfTheTable(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", table))
	require.NoError(t, err)
	require.Contains(t, string(page), tableBegins)
	require.Contains(t, string(page), tableEnds)
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		require.Equal(t, want, number(n))
	}
	require.Equal(t, "0.13 ms", millis(130*time.Microsecond))
	require.Equal(t, "14.2 ms", millis(14200*time.Microsecond))
	require.Equal(t, "151 ms", millis(151*time.Millisecond))
	require.Equal(t, 3, median([]int{5, 1, 3}))
}

// TestCrowdIsThereAtOnce: no answer is given before every caller has asked.
func TestCrowdIsThereAtOnce(t *testing.T) {
	const callers = 100
	c := newCrowd(callers)
	require.Equal(t, callers, c.sockets)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.waiting(r.Context(), 20*time.Second)
		if c.written.Load() < callers {
			w.WriteHeader(http.StatusTooEarly)
		}
	}))
	defer server.Close()
	statuses := c.send(t.Context(), callers, func(ctx context.Context, _ int) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
	})
	require.Equal(t, map[int]int{http.StatusOK: callers}, statuses)
	require.Equal(t, "100 × 200", statusCounts(statuses))
}

func TestLabReportsWhatAServerFailsFor(t *testing.T) {
	program, err := servers.NewProgram("nexus-bench-test")
	require.NoError(t, err)
	l := &lab{Program: program}
	closed := 0
	l.Cleanup(func() { closed++ })
	_, err = l.guard(func() ([]row, error) { l.Fatalf("no %s", "server"); return nil, nil })
	require.EqualError(t, err, "no server")
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	require.Equal(t, 1, closed)
}

func TestUpdateWantsTheWholeTable(t *testing.T) {
	for _, args := range [][]string{{"-update", "-short"}, {"-update", "-only", "warm"}, {"surplus"}, {"-only", "("}} {
		_, err := parseOptions(args, t.Output())
		require.Error(t, err, args)
	}
}

// TestGeneratedIDs: the database gives a row the same id as the program.
func TestGeneratedIDs(t *testing.T) {
	require.Equal(t, "9e3779b1-0000-4000-8000-000000000001", generatedID(1, connectionKind).String())
	conn, err := pgx.Connect(t.Context(), servers.Postgres(t))
	require.NoError(t, err)
	defer conn.Close(context.Background())
	for _, n := range []int{1, 2, 10_000, 999_999, 1_000_000} {
		var got uuid.UUID
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT "+idSQL("$1::bigint", providerKind), n).Scan(&got))
		require.Equal(t, generatedID(n, providerKind), got)
	}
}
