package sql

import (
	"fmt"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// BenchmarkCommitToSeen: from a commit at the server until the link has the row.
func BenchmarkCommitToSeen(b *testing.B) {
	p, database := newDatabase(b, contractSchema+"INSERT INTO sensors VALUES ('a', 0)")
	link := newLink()
	startWrapper(b, link, p, database, false, nil)
	c := open(b, p.addr(), database)
	var waited time.Duration
	n := len(link.Observations())
	for i := 0; b.Loop(); i++ {
		must(b, c, fmt.Sprintf("UPDATE sensors SET v = %d", i+1))
		began := time.Now()
		n++
		link.Await(b, "the row", func() bool { return len(link.Observations()) >= n })
		waited += time.Since(began)
	}
	b.ReportMetric(float64(waited.Microseconds())/float64(b.N), "µs/seen")
}

// BenchmarkShow is what a row costs between the server's message and the link.
func BenchmarkShow(b *testing.B) {
	link := newLink()
	d := &database{w: &wrapper{}, link: link, log: testLog(), renders: &renders{link: link}, marks: newMarks("x")}
	f := &feed{d: d, since: map[tableName]lsn{{"public", "sensors"}: 0}, rels: map[uint32]*relation{}}
	f.rels[1] = &relation{name: tableName{"public", "sensors"}, columns: []outColumn{{name: "k"}, {name: "v"}, {name: "t"}},
		types: []colType{{}, {kind: intKind}, {}}, shapes: []keyShape{{[]string{"k"}, []int{0}}}, in: true, bit: 1}
	raw := message('U', 1, byte('N'), uint16(3), []byte("oven-3"), []byte("21"), []byte("some text"))
	for b.Loop() {
		m, err := parseOutput(raw)
		if err != nil {
			b.Fatal(err)
		}
		if err := f.event(b.Context(), m); err != nil {
			b.Fatal(err)
		}
		if len(f.batch) != 1 || f.batch[0].Verb != wrappers.Put {
			b.Fatalf("got %+v", f.batch)
		}
		f.batch = f.batch[:0]
		f.tx.final++
	}
}

// BenchmarkFrames is what the relay does to a client's and a server's bytes.
func BenchmarkFrames(b *testing.B) {
	d := &database{w: &wrapper{}, link: newLink()}
	d.w.cfg.Limits.Frame = 1 << 20
	d.watch.Store(&tableWatch{names: [][]byte{[]byte("sensors")}})
	h := &session{d: d, auth: true}
	h.started.Store(true)
	h.idle.Store(true)
	query := append([]byte{'Q', 0, 0, 0, 47}, "SELECT abalance FROM pgbench_accounts WHERE a\x00"...)
	query[4] = byte(len(query) - 1)
	answer := []byte("T\x00\x00\x00\x04D\x00\x00\x00\x04C\x00\x00\x00\x0dSELECT 1\x00Z\x00\x00\x00\x05I")
	b.ReportAllocs()
	for b.Loop() {
		if st, err := h.FromClient(query); err != nil || st.Pass != len(query) {
			b.Fatalf("%+v %v", st, err)
		}
		if st, err := h.FromServer(answer); err != nil || st.Pass != len(answer) {
			b.Fatalf("%+v %v", st, err)
		}
	}
}
