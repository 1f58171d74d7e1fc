package hub

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/link"
	"github.com/spooksystems/gateway/engine/link/hub/embedded"
)

// A centre is a NATS server that can be stopped, started again at the same address, and wiped.
type centre struct {
	t    testing.TB
	dir  string
	addr string
	s    *embedded.Server
}

func newCentre(t testing.TB) *centre {
	t.Helper()
	c := &centre{t: t, dir: t.TempDir(), addr: "127.0.0.1:0"}
	c.start()
	t.Cleanup(c.stop)
	return c
}

func (c *centre) start() {
	c.t.Helper()
	s, err := embedded.Start(embedded.Options{Dir: c.dir, Listen: c.addr})
	if err != nil {
		c.t.Fatal(err)
	}
	c.s, c.addr = s, s.Addr().String()
}

func (c *centre) stop() {
	if c.s != nil {
		_ = c.s.Close()
		c.s = nil
	}
}

func (c *centre) wipe() {
	c.t.Helper()
	c.stop()
	if err := os.RemoveAll(filepath.Join(c.dir, "jetstream")); err != nil {
		c.t.Fatal(err)
	}
	c.start()
}

// A station is one node of the domain.
type station struct {
	t      testing.TB
	name   string
	centre *centre
	open   engine.Options
	e      *engine.Engine
	site   *link.Site
	hub    *Hub
	change func(*Options)
}

func testLog(t testing.TB) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func newStation(t testing.TB, c *centre, name string, change func(*engine.Options)) *station {
	t.Helper()
	st := &station{t: t, name: name, centre: c, open: engine.Options{Dir: filepath.Join(t.TempDir(), "data")}}
	if change != nil {
		change(&st.open)
	}
	st.start()
	t.Cleanup(st.stop)
	return st
}

func (st *station) start() {
	st.t.Helper()
	st.startEngine()
	st.join()
}

func (st *station) startEngine() {
	st.t.Helper()
	var err error
	if st.e, err = engine.Open(st.open); err != nil {
		st.t.Fatal(err)
	}
	known, err := Known(st.e)
	if err != nil {
		st.t.Fatal(err)
	}
	if st.site, err = link.Open(link.Options{Engine: st.e, Domain: "plant.7", Log: testLog(st.t), Others: known}); err != nil {
		st.t.Fatal(err)
	}
}

func (st *station) join() {
	st.t.Helper()
	o := Options{Engine: st.e, Site: st.site, Domain: "plant.7", Name: st.name, URLs: []string{"nats://" + st.centre.addr}, Log: testLog(st.t).With("node", st.name), Now: st.open.Now}
	if st.change != nil {
		st.change(&o)
	}
	var err error
	if st.hub, err = Open(st.t.Context(), o); err != nil {
		st.t.Fatal(err)
	}
}

// leave takes the node off the hub; it goes on.
func (st *station) leave() {
	if st.hub != nil {
		if err := st.hub.Close(); err != nil {
			st.t.Errorf("%s leaves: %v", st.name, err)
		}
		st.hub = nil
	}
}

func (st *station) stop() {
	if st.e == nil {
		return
	}
	st.leave()
	if err := errors.Join(st.site.Close(), st.e.Close()); err != nil {
		st.t.Errorf("%s stops: %v", st.name, err)
	}
	st.e = nil
}

func (st *station) put(register string, value int64) {
	st.t.Helper()
	if _, err := st.e.WriteState(st.t.Context(), engine.Write{Ops: []engine.Op{{Register: register, Kind: engine.OpPut, Value: lattice.Int(value)}}}); err != nil {
		st.t.Fatal(err)
	}
}

func (st *station) remove(register string) {
	st.t.Helper()
	if _, err := st.e.WriteState(st.t.Context(), engine.Write{Ops: []engine.Op{{Register: register, Kind: engine.OpDelete}}}); err != nil {
		st.t.Fatal(err)
	}
}

func (st *station) has(register string, value int64) bool {
	b, err := st.e.ReadState(st.t.Context(), register)
	return err == nil && b.Value.Equal(lattice.Int(value))
}

func (st *station) dump() []byte {
	st.t.Helper()
	raw, err := st.e.Dump(st.t.Context())
	if err != nil {
		st.t.Fatal(err)
	}
	return raw
}

func (st *station) findings(code string) (texts []string) {
	s, err := st.e.Status(st.t.Context())
	if err != nil {
		st.t.Fatal(err)
	}
	for _, f := range s.Findings {
		if f.Code == code {
			texts = append(texts, f.Text)
		}
	}
	return texts
}

// until waits for what is true in the end.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within 60 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func equal(list ...*station) bool {
	first, err := list[0].e.Summary(list[0].t.Context())
	if err != nil {
		list[0].t.Fatal(err)
	}
	for _, st := range list[1:] {
		s, err := st.e.Summary(st.t.Context())
		if err != nil {
			st.t.Fatal(err)
		}
		if s.Root != first.Root || !s.Vector.Equal(first.Vector) {
			return false
		}
	}
	return true
}

func converge(t testing.TB, what string, list ...*station) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !equal(list...); {
		if time.Now().After(end) {
			for _, st := range list {
				s, _ := st.e.Status(t.Context())
				t.Logf("%s: root %.16s, %+v, hub %+v", st.name, s.Root, s, st.hub.State())
				members, _ := st.hub.Status(t.Context())
				for _, m := range members {
					t.Logf("  %s %s there %d here %d: %s", m.Name, m.State, m.LacksThere, m.LacksHere, m.Failure)
				}
			}
			t.Fatalf("not equal within 60 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, st := range list[1:] {
		if !bytes.Equal(st.dump(), list[0].dump()) {
			t.Fatalf("%s: equal roots, and %s holds other registers than %s", what, st.name, list[0].name)
		}
	}
	for _, st := range list {
		if f := st.findings("divergence"); len(f) > 0 {
			t.Fatalf("%s: %s", st.name, f[0])
		}
	}
}

func stations(t testing.TB, c *centre, n int, change func(*engine.Options)) (list []*station) {
	for i := range n {
		list = append(list, newStation(t, c, fmt.Sprintf("gw-%c", 'a'+i), change))
	}
	return list
}

func TestTwoNodesOnAHub(t *testing.T) {
	c := newCentre(t)
	list := stations(t, c, 2, nil)
	a, b := list[0], list[1]
	a.put("site/a/oven", 1)
	b.put("site/b/oven", 2)
	converge(t, "two nodes", a, b)
	if !a.has("site/b/oven", 2) || !b.has("site/a/oven", 1) {
		t.Fatal("equal, and without what was written")
	}
	until(t, "both say entangled", func() bool {
		x, err := a.hub.Status(t.Context())
		y, err2 := b.hub.Status(t.Context())
		return err == nil && err2 == nil && len(x) == 1 && len(y) == 1 && x[0].State == link.Entangled && y[0].State == link.Entangled && x[0].Level && y[0].Name == "gw-a"
	})
	v, err := a.hub.Compare(t.Context(), "gw-b")
	if err != nil || !v.Equal() || v.Root != v.Peer {
		t.Fatalf("compared: %+v, %v", v, err)
	}
	b.leave()
	until(t, "gw-b is gone", func() bool {
		x, err := a.hub.Status(t.Context())
		return err == nil && x[0].State == link.Decohered
	})
	for i := range 100 {
		a.put(fmt.Sprintf("site/a/%d", i), int64(i))
	}
	x, err := a.hub.Status(t.Context())
	if err != nil || x[0].LacksThere < 100 {
		t.Fatalf("%d wait for gw-b, %v", x[0].LacksThere, err)
	}
	b.put("site/b/offline", 5)
	b.join()
	converge(t, "after an absence", a, b)
}

// Five nodes write all the while: the hub is stopped and started, then it loses its disk, then a member comes back for
// whom nobody's log reaches back far enough.
func TestFiveNodesAndAHubThatLoses(t *testing.T) {
	c := newCentre(t)
	var ahead atomic.Int64
	list := stations(t, c, 5, func(o *engine.Options) {
		o.HistoryAge, o.Passive = time.Hour, true
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	wrote := map[string]int64{}
	n := int64(0)
	write := func(who ...*station) {
		for _, st := range who {
			for range 20 {
				n++
				name := fmt.Sprintf("site/%s/%d", st.name, n%50)
				st.put(name, n)
				wrote[name] = n
			}
			st.put("site/common", n)
		}
	}
	write(list...)
	converge(t, "at first", list...)
	for range 3 {
		write(list...)
		c.stop()
		write(list...)
		c.start()
		write(list...)
		converge(t, "after the hub was started again", list...)
	}
	write(list...)
	c.wipe()
	write(list...)
	converge(t, "after the hub lost its disk", list...)
	list[1].stop()
	write(list[0], list[2])
	c.wipe() // what they told it is gone, and they don't say it again for those who have it
	list[1].start()
	converge(t, "a node that was away while the hub lost its disk", list...)

	e := list[4]
	e.leave()
	e.put("site/gw-e/offline", 77)
	list[0].remove("site/gw-a/1")
	delete(wrote, "site/gw-a/1")
	write(list[:4]...)
	converge(t, "without the fifth", list[:4]...)
	ahead.Add(int64(365 * 24 * time.Hour))
	c.wipe()
	for _, st := range list[:4] {
		if err := st.e.Tend(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(st.e.Trimmed()) == 0 {
			t.Fatal("nothing was trimmed")
		}
	}
	write(list[:4]...)
	e.join()
	converge(t, "after a year", list...)
	status, err := e.hub.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(status, func(s link.Status) bool { return s.Figures.States > 0 }) {
		t.Error("no state was taken: the test did not do what it says")
	}
	wrote["site/gw-e/offline"] = 77
	for name, value := range wrote {
		for _, st := range list {
			if !st.has(name, value) {
				t.Fatalf("%s: %s is not %d", st.name, name, value)
			}
		}
	}
}

// copyDir copies a data directory, as an operator would who makes a clone of a machine.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(to, "LOCK"))
}

func TestACloneIsRefusedAndBothAreTold(t *testing.T) {
	c := newCentre(t)
	list := stations(t, c, 2, nil)
	a, b := list[0], list[1]
	a.put("site/a", 1)
	converge(t, "before", a, b)
	a.stop()
	clone := &station{t: t, name: "clone", centre: c, open: engine.Options{Dir: filepath.Join(t.TempDir(), "data")}}
	copyDir(t, a.open.Dir, clone.open.Dir)
	a.start()
	a.put("site/a", 2)
	converge(t, "started again", a, b)
	clone.start()
	t.Cleanup(clone.stop)
	until(t, "the clone is refused", func() bool { return strings.Contains(clone.hub.State().Failure, ErrTwin.Error()) })
	until(t, "both are told", func() bool { return len(a.findings("clone")) > 0 && len(clone.findings("clone")) > 0 })
	clone.put("site/clone", 3)
	a.put("site/a", 4)
	until(t, "the other goes on", func() bool { return b.has("site/a", 4) })
	if b.has("site/clone", 3) || clone.hub.State().State != link.Decohered {
		t.Error("the clone was let in")
	}
	// The original is stopped for good: the copy is who it was, and comes in by itself.
	a.stop()
	until(t, "the clone comes in", func() bool { return b.has("site/clone", 3) && clone.has("site/a", 4) })
	converge(t, "without the original", clone, b)
}

// A clone that was not seen when it came is refused by the number of the last message.
func TestACloneThatGotInIsFound(t *testing.T) {
	c := newCentre(t)
	a := newStation(t, c, "gw-a", nil)
	a.put("site/a", 1)
	until(t, "told", func() bool { return a.hub.State().Figures.CandidatesOut > 0 })
	// What a clone would publish, by whom nobody was asked.
	conn := a.hub.conn
	a.hub.mu.Lock()
	r := a.hub.round
	a.hub.mu.Unlock()
	other := newStation(t, newCentre(t), "gw-x", nil)
	other.put("site/x", 1)
	var raw []byte
	for c, err := range other.e.Candidates(t.Context(), nil, engine.Cursor{}) {
		if err != nil {
			t.Fatal(err)
		}
		raw = c.Raw
		break
	}
	q, err := lattice.ParseCandidate(raw)
	if err != nil {
		t.Fatal(err)
	}
	b := &batch{origin: q.Dot.Origin, first: q.Dot.Seq, last: q.Dot.Seq, from: "another", chain: link.HashOf(raw), raw: [][]byte{raw}}
	if err := conn.PublishMsg(b.message(a.hub.names.batches + tokenOf(a.hub.endpoint))); err != nil {
		t.Fatal(err)
	}
	a.put("site/a", 2)
	until(t, "another round", func() bool {
		a.hub.mu.Lock()
		defer a.hub.mu.Unlock()
		return a.hub.round != nil && a.hub.round != r
	})
	a.put("site/a", 3)
	n := newStation(t, c, "gw-n", nil)
	until(t, "what was refused is told", func() bool { return n.has("site/a", 3) })
}

func TestALongCandidateGoesInParts(t *testing.T) {
	c := newCentre(t)
	list := stations(t, c, 2, nil)
	a, b := list[0], list[1]
	var ops []engine.Op
	for i := range 3000 {
		ops = append(ops, engine.Op{Register: fmt.Sprintf("bulk/%d", i), Kind: engine.OpPut, Value: lattice.String(strings.Repeat("x", 400))})
	}
	if _, err := a.e.WriteState(t.Context(), engine.Write{Ops: ops, Bulk: true}); err != nil {
		t.Fatal(err)
	}
	converge(t, "a long candidate", a, b)
	status, err := b.hub.Status(t.Context())
	if err != nil || len(status) != 1 || b.hub.State().Figures.CandidatesIn == 0 || status[0].Figures.BytesIn > 0 {
		t.Errorf("it did not come through the stream: %+v, %+v, %v", b.hub.State().Figures, status, err)
	}
}

func TestChunksAreAskedFor(t *testing.T) {
	c := newCentre(t)
	list := stations(t, c, 3, nil)
	a := list[0]
	large := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	v, err := a.e.PutBlob(t.Context(), bytes.NewReader(large), "text/plain")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.e.WriteState(t.Context(), engine.Write{Ops: []engine.Op{{Register: "file", Kind: engine.OpPut, Field: "content", Value: v}}}); err != nil {
		t.Fatal(err)
	}
	for _, st := range list[1:] {
		until(t, st.name+" has the file", func() bool {
			b, err := st.e.ReadState(t.Context(), "file")
			if err != nil {
				return false
			}
			value, there := b.Value.Member("content")
			if !there {
				return false
			}
			missing, err := st.e.MissingChunks(value)
			return err == nil && len(missing) == 0
		})
	}
	converge(t, "a large value", list...)
}

// A member whose clock is ten years ahead wins over nobody who saw its value, and holds up nobody.
func TestAClockTenYearsAhead(t *testing.T) {
	c := newCentre(t)
	wild := newStation(t, c, "wild", func(o *engine.Options) {
		o.Now = func() time.Time { return time.Now().Add(10 * 365 * 24 * time.Hour) }
	})
	list := stations(t, c, 2, nil)
	a, b := list[0], list[1]
	wild.put("oven", 1)
	until(t, "all have it", func() bool { return a.has("oven", 1) && b.has("oven", 1) })
	a.put("oven", 2)
	converge(t, "a writer who saw it", wild, a, b)
	if !wild.has("oven", 2) || !b.has("oven", 2) {
		t.Fatal("the clock has won over a writer who had seen its value")
	}
	for i := range 50 {
		b.put("oven", int64(10+i))
		wild.put("other", int64(i))
	}
	converge(t, "all go on", wild, a, b)
	if !a.has("oven", 59) {
		t.Fatal("the others were held up")
	}
	until(t, "an alarm", func() bool { return len(a.findings("clock")) > 0 })
	until(t, "the others' clocks stay", func() bool {
		s, err := a.e.Summary(t.Context())
		return err == nil && s.Heard.Time().Before(time.Now().Add(2*time.Minute))
	})
	until(t, "it is said who is ahead", func() bool {
		status, err := a.hub.Status(t.Context())
		return err == nil && slices.ContainsFunc(status, func(s link.Status) bool { return s.Name == "wild" && s.Skew > 9*365*24*time.Hour })
	})
}

// A node that was set back to an older state takes what it told before it goes on telling.
func TestARestoredNodeTakesBeforeItGives(t *testing.T) {
	c := newCentre(t)
	list := stations(t, c, 2, nil)
	a, b := list[0], list[1]
	a.put("before", 1)
	converge(t, "before", a, b)
	a.stop()
	saved := filepath.Join(t.TempDir(), "saved")
	copyDir(t, a.open.Dir, saved)
	a.start()
	a.put("lost", 2)
	converge(t, "then", a, b)
	a.stop()
	if err := os.RemoveAll(a.open.Dir); err != nil {
		t.Fatal(err)
	}
	copyDir(t, saved, a.open.Dir)
	a.start()
	a.put("after", 3)
	converge(t, "restored", a, b)
	if !a.has("lost", 2) || !b.has("after", 3) {
		t.Fatal("what was told before is gone")
	}
}

// writes is how many entries the history of a register has.
func (st *station) writes(register string) (n int) {
	st.t.Helper()
	for _, err := range st.e.History(st.t.Context(), engine.HistoryQuery{Register: register}) {
		if err != nil {
			st.t.Fatal(err)
		}
		n++
	}
	return n
}
