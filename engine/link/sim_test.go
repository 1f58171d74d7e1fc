package link

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

var (
	simSeeds = flag.Int("link.seeds", 30, "how many seeds the simulation runs")
	simSeed  = flag.Uint64("link.seed", 0, "run this seed alone")
	simTell  = flag.Bool("link.tell", false, "tell every step of the simulation")
)

// A world is some nodes, lines between them, and one random source that decides everything.
type world struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	now   *time.Time
	nodes []*simNode
	lines []*line
	n     uint64         // writes so far
	made  map[string]int // by register: who wrote it
	stats struct{ cuts, crashes, restores, trims, states, late int }
}

type simNode struct {
	*node
	i     int
	image *vfs.MemFS // an older state of its disk
}

// A line is between two nodes: up, with a session at each end and frames on their way, or down.
type line struct {
	ends  [2]int
	up    bool
	s     [2]*Session
	queue [2][][]byte // to each end
	late  [2][][]byte // of connections that are gone
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), now: start(), made: map[string]int{}}
	count := 2 + w.rng.IntN(3)
	for i := range count {
		n := newNode(t, w.now, seed*16+uint64(i), func(o *engine.Options) {
			o.HistoryAge, o.PurgeAfter = 2*time.Minute, time.Minute
			o.CacheBytes, o.MemTableBytes, o.RecentBytes, o.FeedBytes = 64<<10, 1<<20, 64<<10, 16<<10
		})
		w.nodes = append(w.nodes, &simNode{node: n, i: i})
	}
	for i := 1; i < count; i++ { // a tree, and in half of the worlds a circle
		w.lines = append(w.lines, &line{ends: [2]int{w.rng.IntN(i), i}})
	}
	if count > 2 && w.rng.IntN(2) == 0 {
		w.lines = append(w.lines, &line{ends: [2]int{0, count - 1}})
	}
	w.members()
	return w
}

// members makes everybody a member: what is purged is decided by all, whoever is in a pair with whom.
func (w *world) members() {
	var all []engine.EndpointID
	for _, n := range w.nodes {
		all = append(all, n.endpoint())
	}
	for _, n := range w.nodes {
		w.must(n.e.SetMembers(context.Background(), all...))
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.fail("%v", err)
	}
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d: "+format, append([]any{w.seed}, args...)...)
}

func (w *world) tell(format string, args ...any) {
	if *simTell {
		w.t.Logf(format, args...)
	}
}

// drop ends a connection. Its frames may come late.
func (w *world) drop(l *line, why error) {
	if !l.up {
		return
	}
	w.tell("line %v goes down: %v", l.ends, why)
	for i, s := range l.s {
		if w.nodes[l.ends[i]].e != nil {
			w.must(s.Close())
		}
		if w.rng.IntN(2) == 0 {
			l.late[i] = append(l.late[i], l.queue[i]...)
			l.late[i] = l.late[i][max(0, len(l.late[i])-20):]
		}
		l.queue[i] = nil
		w.stats.states += int(s.count.States)
	}
	l.up = false
}

// ended looks at why a session ended: honest nodes never call each other wrong.
func (w *world) ended(l *line, err error) {
	var r *refusal
	if errors.Is(err, engine.ErrInvalid) || errors.Is(err, ErrProtocol) || errors.As(err, &r) {
		w.fail("line %v: %v", l.ends, err)
	}
	w.drop(l, err)
}

func (w *world) raise(l *line) {
	if l.up {
		return
	}
	w.tell("line %v comes up", l.ends)
	a, b := w.nodes[l.ends[0]], w.nodes[l.ends[1]]
	l.s = [2]*Session{a.session(true, b.endpoint()), b.session(false, engine.EndpointID{})}
	l.up = true
}

// say lets one end say its next frame.
func (w *world) say(l *line, i int) bool {
	raw, err := l.s[i].Next(context.Background())
	if err != nil {
		w.ended(l, err)
		return true
	}
	if raw != nil {
		l.queue[1-i] = append(l.queue[1-i], raw)
	}
	return raw != nil
}

// hear lets one end hear the next frame that is for it.
func (w *world) hear(l *line, i int) bool {
	if !l.up || len(l.queue[i]) == 0 {
		return false
	}
	raw := l.queue[i][0]
	l.queue[i] = l.queue[i][1:]
	if err := l.s[i].Handle(context.Background(), raw); err != nil {
		w.ended(l, err)
	}
	return true
}

// comeLate delivers a frame of an earlier connection.
func (w *world) comeLate(l *line, i int) {
	if !l.up || len(l.late[i]) == 0 {
		return
	}
	if s := l.s[i]; s.phase == greetingPhase && !s.o.caller {
		return // a hello that is late is a call that nobody waits at the other end of: the silence ends it
	}
	raw := l.late[i][0]
	l.late[i] = l.late[i][1:]
	if f, err := parseFrame(raw); err == nil && f.kind == kindHello && !l.s[i].o.caller {
		return // likewise
	}
	w.stats.late++
	if err := l.s[i].Handle(context.Background(), raw); err != nil {
		w.fail("a late frame is taken for one of this connection: %v", err)
	}
}

func (w *world) write(n *simNode) {
	ctx := context.Background()
	w.n++
	var ops []engine.Op
	switch w.rng.IntN(6) {
	case 0:
		ops = []engine.Op{{Register: fmt.Sprint("shared/", w.rng.IntN(8)), Kind: engine.OpDelete}}
	case 1, 2:
		name := fmt.Sprint("own/", w.n)
		ops = []engine.Op{{Register: name, Kind: engine.OpPut, Field: "v", Value: lattice.Int(int64(w.n))}}
		w.made[name] = n.i
	default:
		for range 1 + w.rng.IntN(3) {
			ops = append(ops, engine.Op{Register: fmt.Sprint("shared/", w.rng.IntN(8)), Kind: engine.OpPut, Field: string(rune('a' + w.rng.IntN(3))), Value: lattice.Int(int64(w.n))})
		}
	}
	_, err := n.e.WriteState(ctx, engine.Write{Ops: ops})
	w.must(err)
}

// stop takes a node's lines down with it.
func (w *world) stop(n *simNode) {
	for _, l := range w.lines {
		if l.ends[0] == n.i || l.ends[1] == n.i {
			w.drop(l, errors.New("a node stops"))
		}
	}
}

// crash cuts the power.
func (w *world) crash(n *simNode) {
	w.stop(n)
	w.stats.crashes++
	w.tell("node %d loses power", n.i)
	left := n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[w.rng.IntN(3)], RNG: w.rng})
	_ = n.e.Close()
	n.fs = left
	w.begin(n)
}

func (w *world) begin(n *simNode) {
	n.open.FS = n.fs
	n.start()
	w.members()
}

// restore puts an older state of the disk back. What nobody else has of what was written since is lost, as it is with backups.
func (w *world) restore(n *simNode) {
	if n.image == nil {
		n.image = n.fs.CrashClone(vfs.CrashCloneCfg{})
		return
	}
	w.stop(n)
	w.stats.restores++
	w.tell("node %d is restored", n.i)
	_ = n.e.Close()
	n.fs, n.image = n.image, nil
	w.begin(n)
	for name := range w.made {
		if !w.had(name) {
			delete(w.made, name)
		}
	}
}

// had says whether any node has a register.
func (w *world) had(name string) bool {
	for _, n := range w.nodes {
		s, err := n.e.ReadState(context.Background(), name)
		w.must(err)
		if s.Exists {
			return true
		}
	}
	return false
}

func (w *world) step() {
	l := w.lines[w.rng.IntN(len(w.lines))]
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	i := w.rng.IntN(2)
	switch p := w.rng.IntN(1000); {
	case p < 300:
		w.write(n)
	case p < 560 && l.up:
		w.say(l, i)
	case p < 850 && l.up:
		w.hear(l, i)
	case p < 870:
		w.comeLate(l, i)
	case p < 950:
		w.raise(l)
	case p < 965:
		w.stats.cuts++
		w.drop(l, errors.New("the line is cut"))
	case p < 985:
		*w.now = w.now.Add(time.Duration(w.rng.IntN(4000)) * time.Millisecond)
		for _, l := range w.lines {
			for i := range 2 {
				if l.up {
					if err := l.s[i].Tick(context.Background()); err != nil {
						w.ended(l, err)
					}
				}
			}
		}
	case p < 990:
		*w.now = w.now.Add(3 * time.Minute)
		w.stats.trims++
		w.must(n.e.Tend(context.Background()))
		for _, l := range w.lines { // so long a silence ends what was up
			w.drop(l, ErrSilent)
		}
	case p < 995:
		w.crash(n)
	default:
		w.restore(n)
	}
}

// rest heals everything and waits until nobody says anything.
func (w *world) rest() {
	for round := 0; ; round++ {
		if round == 200 {
			for _, l := range w.lines {
				for i, s := range l.s {
					if s != nil {
						s.mu.Lock()
						w.t.Logf("line %v end %d: phase %d mode %d flight %d lost %v has %v theirs %v", l.ends, i, s.phase, s.out.mode, len(s.out.flight), s.out.lost, s.knows.has, s.knows.theirs)
						s.mu.Unlock()
					}
				}
			}
			w.fail("no rest")
		}
		*w.now = w.now.Add(time.Second)
		moved := false
		for _, l := range w.lines {
			w.raise(l)
			for i := range 2 {
				if l.up {
					if err := l.s[i].Tick(context.Background()); err != nil {
						w.ended(l, err)
					}
				}
			}
			for again := true; again && l.up; {
				again = false
				for i := range 2 {
					again = l.up && w.say(l, i) || again
					again = w.hear(l, i) || again
				}
				moved = moved || again
			}
		}
		if !moved && w.equal() {
			return
		}
	}
}

func (w *world) equal() bool {
	var first engine.Summary
	for i, n := range w.nodes {
		s, err := n.e.Summary(context.Background())
		w.must(err)
		if i == 0 {
			first = s
		} else if s.Root != first.Root {
			return false
		}
	}
	return true
}

func (w *world) check() {
	for _, n := range w.nodes {
		if got, want := n.dump(), w.nodes[0].dump(); got != want {
			w.fail("node %d holds\n%s\nnode 0\n%s", n.i, got, want)
		}
		for name := range w.made {
			s, err := n.e.ReadState(context.Background(), name)
			w.must(err)
			if !s.Exists {
				w.fail("node %d has lost %s, which node %d acknowledged", n.i, name, w.made[name])
			}
		}
		st, err := n.e.Status(context.Background())
		w.must(err)
		for _, f := range st.Findings {
			if f.Code == "divergence" || f.Code == "fork" {
				w.fail("node %d: %s: %s", n.i, f.Code, f.Text)
			}
		}
	}
}

func TestSimulation(t *testing.T) {
	var total struct{ cuts, crashes, restores, trims, states, late int }
	run := func(seed uint64) {
		w := newWorld(t, seed)
		for range 3 {
			for range 400 {
				w.step()
			}
			w.rest()
			w.check()
		}
		for _, l := range w.lines {
			w.drop(l, nil)
		}
		total.cuts += w.stats.cuts
		total.crashes += w.stats.crashes
		total.restores += w.stats.restores
		total.trims += w.stats.trims
		total.states += w.stats.states
		total.late += w.stats.late
		for _, n := range w.nodes {
			_ = n.e.Close()
		}
	}
	if *simSeed != 0 {
		run(*simSeed)
		return
	}
	first := uint64(time.Now().UnixNano())
	t.Logf("seeds from %d", first)
	for i := range *simSeeds {
		run(first + uint64(i))
	}
	t.Logf("%+v", total)
	if *simSeeds >= 30 && (total.cuts == 0 || total.crashes == 0 || total.restores == 0 || total.states == 0 || total.late == 0) {
		t.Error("the simulation did not do everything it should")
	}
}
