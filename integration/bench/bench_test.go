package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestParseWrk(t *testing.T) {
	const good = `Running 2s test @ http://127.0.0.1:1/1k
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
  145319 requests in 2.10s, 178.92MB read
Requests/sec:  69199.52
`
	n, took, err := parseWrk(good)
	if n != 145319 || took != 2100*time.Millisecond || err != nil {
		t.Errorf("got %d in %v, %v; want 145319 in 2.1s", n, took, err)
	}
	for name, out := range map[string]string{
		"refused":    good + "  Non-2xx or 3xx responses: 7\n",
		"broken off": strings.Replace(good, "Requests/sec", "  Socket errors: connect 0, read 3, write 0, timeout 0\nRequests/sec", 1),
		"nothing":    "unable to connect",
		"no answers": "  0 requests in 2.00s, 0B read\n",
	} {
		if _, _, err := parseWrk(out); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestParseGoBench(t *testing.T) {
	got := parseGoBench(`goos: linux
BenchmarkCommit/writers=16-2   	   12000	     98765 ns/op	         0.21 fsyncs/commit	     512 B/op	       7 allocs/op
BenchmarkPlain 	 1000000	       24.5 ns/op
BenchmarkBroken-2 --- FAIL
PASS
`)
	if v := got["Commit/writers=16"]; v["ns/op"] != 98765 || v["fsyncs/commit"] != 0.21 || v["allocs/op"] != 7 {
		t.Errorf("got %v", v)
	}
	if v := got["Plain"]; v["ns/op"] != 24.5 {
		t.Errorf("got %v", v)
	}
	if len(got) != 2 {
		t.Errorf("got %d benchmarks, want 2: %v", len(got), got)
	}
}

func TestVerdicts(t *testing.T) {
	for _, test := range []struct {
		got, want verdict
	}{
		{atLeast(0.95, 0.9), ok},
		{atLeast(0.82, 0.9), near},
		{atLeast(0.80, 0.9), miss},
		{atMost(24, 25), ok},
		{atMost(27, 25), near},
		{atMost(28, 25), miss},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func TestMedianOfRounds(t *testing.T) {
	// The machine was twice as slow in the second round: the ratio does not see it.
	f := figures{samples: map[string][]sample{
		"direct":  {{rate: 100}, {rate: 50}, {rate: 100}},
		"spookgw": {{rate: 60}, {rate: 30}, {rate: 90}},
	}}
	if got := f.ratio("spookgw", "direct"); got != 0.6 {
		t.Errorf("ratio: got %v, want 0.6", got)
	}
	if got := f.rate("direct"); got != 100 {
		t.Errorf("rate: got %v, want 100", got)
	}
	if got := median([]float64{1, 2, 3, 10}); got != 2.5 {
		t.Errorf("median of four: got %v, want 2.5", got)
	}
}

func TestTableGates(t *testing.T) {
	for _, test := range []struct {
		row  row
		want bool
	}{
		{row{verdict: miss, gates: true}, true},
		{row{verdict: near, gates: true}, false},
		{row{verdict: miss}, false},
	} {
		tab := table{rows: []*row{&test.row}}
		if got := tab.failed(); got != test.want {
			t.Errorf("%+v: got %v, want %v", test.row, got, test.want)
		}
	}
}

func TestTableWrite(t *testing.T) {
	tab := table{title: "Relay", columns: []string{"direct", "spookgw"}}
	f := &figures{contenders: []contender{{name: "direct"}, {name: "spookgw", proc: &process{}}}, samples: map[string][]sample{
		"direct": {{rate: 1000}}, "spookgw": {{rate: 700, cpu: 20500 * time.Nanosecond}},
	}}
	rate, cpu := f.rows(&tab, "GET", "req/s")
	rate.mark, rate.verdict = "at least 0.9", miss
	cpu.mark, cpu.verdict = "at most 25", ok
	var out strings.Builder
	tab.write(&out)
	want := `Relay                direct  spookgw
  GET            1000 req/s     0.70  MISS  at least 0.9
    CPU µs each                 20.5  ok    at most 25

`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestReadStat(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("/proc not mounted")
	}
	s, err := readStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if s.parent != os.Getppid() {
		t.Errorf("parent: got %d, want %d", s.parent, os.Getppid())
	}
}

func TestCommitKeys(t *testing.T) {
	const size = 700
	total := 0
	for _, s := range commitKeys(7, size, make([]byte, size)) {
		total += len(s.key) + len(s.value)
	}
	if total != size {
		t.Errorf("got %d bytes, want %d", total, size)
	}
}

func TestAppendTxn(t *testing.T) {
	got := appendTxn(nil, []keyValue{{[]byte("k"), []byte("val")}})
	const want = "\x12\x0a" + "\x12\x08" + "\x0a\x01k" + "\x12\x03val"
	if string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAppendCommand(t *testing.T) {
	const want = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
	if got := appendCommand(nil, []byte("GET"), []byte("k")); string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
