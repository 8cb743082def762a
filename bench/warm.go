package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// warmCredentials runs the Go benchmark of package credentials on one core and on two.
func warmCredentials(ctx context.Context, l *lab) ([]row, error) {
	out, err := output(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkGetWarm$", "-benchtime", l.benchTime,
		"-count", strconv.Itoa(l.benchRuns), "-cpu", "1,2", "./internal/credentials")
	if err != nil {
		return nil, err
	}
	all := parseBenchmarks(out)
	const name = "BenchmarkGetWarm/providers=10000"
	one, parallel1, parallel2 := all[name], all[name+"/parallel"], all[name+"/parallel-2"]
	if len(one) == 0 || len(parallel1) == 0 || len(parallel2) == 0 {
		return nil, fmt.Errorf("go test -bench: %w: %s", errOutput, oneLine(out))
	}
	took := func(runs []benchmark) time.Duration { return median(each(runs, benchmark.perOp)) }
	allocs, bytes := median(each(one, benchmark.allocsPerOp)), median(each(one, benchmark.bytesPerOp))
	speedup := float64(took(parallel1)) / float64(took(parallel2))
	small := took(all["BenchmarkGetWarm/providers=1"])
	return []row{
		{"credentials, warm, 10,000 providers", "≤ 300 ns", fmt.Sprintf("%d ns (one provider: %d ns)", took(one), small),
			metIf(took(one) <= 300)},
		{"the same, heap", "nothing beyond the returned strings", fmt.Sprintf("%d allocations, %d B", allocs, bytes),
			metIf(allocs == 0)},
		{"the same, on 2 cores", "scales with cores (here: ≥ 1.6 ×)", fmt.Sprintf("%.2f × the calls of one core (%d ns a call, %d ns on one)",
			speedup, took(parallel2), took(parallel1)), metIf(speedup >= 1.6)},
	}, nil
}

// benchmark is one line that "go test -bench -benchmem" prints.
type benchmark struct {
	nanoseconds   float64
	bytes, allocs int
}

func (b benchmark) perOp() time.Duration { return time.Duration(b.nanoseconds + 0.5) }
func (b benchmark) bytesPerOp() int      { return b.bytes }
func (b benchmark) allocsPerOp() int     { return b.allocs }

var benchmarkLine = regexp.MustCompile(`(?m)^(Benchmark\S+)\s+\d+\s+([0-9.]+) ns/op\s+(\d+) B/op\s+(\d+) allocs/op`)

// parseBenchmarks returns the runs of each benchmark by name, which ends in "-2" for
// two cores.
func parseBenchmarks(out string) map[string][]benchmark {
	all := map[string][]benchmark{}
	for _, m := range benchmarkLine.FindAllStringSubmatch(out, -1) {
		var b benchmark
		b.nanoseconds, _ = strconv.ParseFloat(m[2], 64) // the pattern lets numbers only through
		b.bytes, _ = strconv.Atoi(m[3])
		b.allocs, _ = strconv.Atoi(m[4])
		all[m[1]] = append(all[m[1]], b)
	}
	return all
}
