// Package sim runs the engine's own code in a world made of a seed: nodes with wrong clocks, a network that loses, repeats,
// delays and reorders, disks that crash, are copied and restored. It holds what the nodes show against what must be true
// of them. The same seed is the same history to the byte.
package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// A Mutant is a mistake that the world makes on purpose, to see that it would be noticed.
type Mutant uint8

// The mutants. None is the world as it is meant.
const (
	None                 Mutant = iota
	ReuseIncarnation            // a restored node goes on under the incarnation that its data have
	JoinWithoutContext          // states are joined as if nobody had removed anything
	MarkerWithoutVector         // a marker settles what its receiver holds
	IgnoreDeps                  // candidates are applied as they come
	AckBeforeSync               // a write is acknowledged when it is sequenced
	CursorBeforeEffect          // a peer is taken to have what was sent to it
	DeleteWhole                 // a delete takes the fields with it
	FoldBeforeRetirement        // an earlier run's sums are taken over before everybody has them
	TrimUnchecked               // a peer is served from the log though it lacks what was trimmed
)

// Kind says what a history drives.
type Kind uint8

// The kinds of history.
const (
	Drawn Kind = iota // by the seed
	Core              // lattice.Core with registers in maps
	Full              // engine.Engine on a disk in memory
)

// FullShare is one in how many histories drives the whole engine, where the seed says.
const FullShare = 5

// Options say which history to run.
type Options struct {
	Seed   uint64
	Kind   Kind
	Mutant Mutant
	Trace  io.Writer // gets one line for each step; nil: nobody
}

// A Violation is something that must never be true.
type Violation struct {
	Invariant string // one of the constants
	Step      int
	Text      string
}

// Error is the violation in one line.
func (v *Violation) Error() string {
	return fmt.Sprintf("step %d: %s: %s", v.Step, v.Invariant, v.Text)
}

// The invariants.
const (
	Durable      = "what was acknowledged is durable"
	VectorsRise  = "vectors never go back"
	RanksRise    = "ranks never go back"
	BatchesWhole = "a batch is whole or absent"
	SyncedOnly   = "readers see only what is synced"
	HistoryEnds  = "history ends with the state"
	Live         = "nodes that hear of each other come to rest"
	VectorsEqual = "vectors are equal at rest"
	RootsEqual   = "roots are equal at rest"
	DumpsEqual   = "registers are equal at rest"
	ValuesEqual  = "values are equal at rest"
	AsOracle     = "registers are what the candidates say, in no order"
	Resurrection = "what was removed stays removed"
	Digests      = "digests are equal where the same entries live, and nowhere else"
	NothingLost  = "nothing acknowledged is lost"
	Sums         = "a sum is the sum of what was added"
	WholeRecord  = "a record is never a fragment"
	InProportion = "what is sent is in proportion to the difference"
	NoDivergence = "no finding of divergence"
	CloneFound   = "clones are found, and nothing else is taken for one"
	NoRefusal    = "no candidate is refused"
	NoError      = "nothing fails"
)

// A Result is what became of a history.
type Result struct {
	Full       bool
	Hash       string // over all that happened
	Steps      int
	Candidates int
	Joins      int
	Violation  *Violation
}

type world struct {
	o         Options
	full      bool
	rng       *rand.Rand
	nodes     []*node
	queue     []message
	cutOff    map[[2]int]bool // links that carry nothing, one way each
	now       time.Duration
	templates []template
	rules     []engine.Declaration
	step      int
	count     int // of values that are used once
	joins     int
	hash      hash.Hash

	candidates map[engine.Dot]*lattice.QCandidate
	known      engine.QStateVector // of candidates
	acked      map[engine.Dot]bool
	adds       map[engine.Dot]int64 // to sum/0
	exempt     map[engine.Dot]bool  // acknowledged, and lost with a disk that was set back
	digests    map[string]map[[16]byte]string
	lives      map[string]map[string][16]byte

	restored, cloned bool
	resting          bool
	may              struct{ restore, clone, trim, wild bool }
}

type node struct {
	i           int
	r           replica // nil: it is down
	disk        disk
	clock       clock
	random      *source
	old         disk // a backup, or an image of the disk
	oldIs       engine.QStateVector
	vector      engine.QStateVector
	ranks       map[string]uint64
	saw         map[string]engine.StateBlock
	captured    engine.Cursor
	wrote       int // newest record acknowledged
	records     map[int]engine.Dot
	twin        bool         // it was cloned, or is a clone
	life        int          // starts so far
	mine        []engine.Dot // acknowledged here, by the disk that is in use
	checkedLife int
	serial      int // of records
}

// A source is the randomness of a node's identities.
type source struct {
	*rand.Rand
	reuse bool
	last  [16]byte
	known bool
}

func (s *source) fill(b []byte) {
	for i := range b {
		b[i] = byte(s.Uint32())
	}
}

func (s *source) incarnation(b []byte) {
	if s.reuse && s.known {
		copy(b, s.last[:])
		return
	}
	s.fill(b)
	copy(s.last[:], b)
	s.known = true
}

// Read implements io.Reader for the engine: of all it draws, an incarnation alone has 16 bytes.
func (s *source) Read(b []byte) (int, error) {
	if len(b) == len(s.last) {
		s.incarnation(b)
	} else {
		s.fill(b)
	}
	return len(b), nil
}

// fail ends the history.
func (w *world) fail(invariant, format string, args ...any) {
	panic(&Violation{invariant, w.step, fmt.Sprintf(format, args...)})
}

// must is for what can't fail.
func (w *world) must(err error) {
	if err != nil {
		w.fail(NoError, "%v", err)
	}
}

func (w *world) tell(format string, args ...any) {
	fmt.Fprintf(w.hash, format, args...)
	w.hash.Write([]byte{'\n'})
	if w.o.Trace != nil {
		fmt.Fprintf(w.o.Trace, "%4d  %s\n", w.step, fmt.Sprintf(format, args...))
	}
}

// Run runs one history.
func Run(o Options) (r Result) {
	w := &world{
		o: o, rng: rand.New(rand.NewPCG(o.Seed, 0x5eed)), hash: sha256.New(), cutOff: map[[2]int]bool{},
		candidates: map[engine.Dot]*lattice.QCandidate{}, acked: map[engine.Dot]bool{}, adds: map[engine.Dot]int64{}, exempt: map[engine.Dot]bool{},
		digests: map[string]map[[16]byte]string{}, lives: map[string]map[string][16]byte{},
	}
	w.full = w.rng.IntN(FullShare) == 0
	if o.Kind != Drawn {
		w.full = o.Kind == Full
	}
	defer func() {
		r.Full, r.Hash, r.Steps, r.Candidates, r.Joins = w.full, hex.EncodeToString(w.hash.Sum(nil)[:8]), w.step, len(w.candidates), w.joins
		for _, n := range w.nodes {
			if n.r != nil {
				_, _ = n.r.stop()
			}
		}
		switch p := recover().(type) {
		case nil:
		case *Violation:
			r.Violation = p
			w.tell("VIOLATED: %v", p)
		default:
			panic(p)
		}
	}()
	w.begin()
	steps := 20 + w.rng.IntN(100)
	for w.step = 1; w.step <= steps; w.step++ {
		w.act()
	}
	w.rest()
	return r
}

func (w *world) begin() {
	w.may.restore = w.rng.IntN(4) == 0
	w.may.clone = w.rng.IntN(8) == 0
	w.may.trim = w.rng.IntN(2) == 0
	w.may.wild = w.rng.IntN(3) == 0
	switch w.o.Mutant {
	case ReuseIncarnation, FoldBeforeRetirement:
		w.may.restore, w.may.clone = true, false
	case TrimUnchecked, JoinWithoutContext:
		w.may.trim = true
	}
	all := slices.Clone(templates)
	w.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	w.templates = all[:1+w.rng.IntN(4)]
	switch w.o.Mutant {
	case DeleteWhole:
		w.templates = []template{templates[1]}
	case FoldBeforeRetirement:
		w.templates = []template{templates[2]}
	case MarkerWithoutVector:
		w.templates = []template{templates[10]}
	}
	for i := range w.templates {
		if t := &w.templates[i]; !t.undeclared() {
			w.rules = append(w.rules, t.declaration(t.rule))
		}
	}
	for i := range 2 + w.rng.IntN(3) {
		n := w.add(i, nil)
		if w.may.wild {
			n.clock.offset = time.Duration(w.rng.Int64N(int64(20*365*24*time.Hour))) - 10*365*24*time.Hour
		} else {
			n.clock.offset = time.Duration(w.rng.Int64N(int64(2 * time.Second)))
		}
		w.start(n)
	}
	for _, n := range w.nodes {
		w.must(n.r.setMembers(w.endpoints()))
	}
	if len(w.rules) > 0 {
		for i, n := range w.nodes {
			if i == 0 || !w.full || w.rng.IntN(3) == 0 {
				w.must(n.r.declare(w.rules))
				w.after(n)
			}
		}
	}
	w.tell("%d nodes, whole %v, may %+v", len(w.nodes), w.full, w.may)
}

func (w *world) add(i int, d disk) *node {
	n := &node{i: i, disk: d, random: &source{Rand: rand.New(rand.NewPCG(w.o.Seed, uint64(1000+i)))}}
	n.clock.world = &w.now
	w.nodes = append(w.nodes, n)
	n.forget()
	return n
}

// forget drops what was noted of a disk that is there no longer.
func (n *node) forget() {
	n.vector, n.mine, n.ranks, n.saw, n.records, n.wrote = nil, nil, map[string]uint64{}, map[string]engine.StateBlock{}, map[int]engine.Dot{}, 0
}

func (w *world) endpoints() (ids []engine.EndpointID) {
	for _, n := range w.nodes {
		if n.r != nil {
			ids = append(ids, n.r.endpoint())
		}
	}
	return ids
}

// start starts a node from its disk.
func (w *world) start(n *node) {
	o := settings{clock: &n.clock, random: n.random, historyAge: 30 * 24 * time.Hour, purgeAfter: time.Minute, mutant: w.o.Mutant}
	if w.may.trim {
		o.historyAge = 30 * time.Second
	}
	var err error
	if w.full {
		n.r, err = startFull(n.disk, o)
	} else {
		n.r, err = startCore(n.disk, o)
	}
	w.must(err)
	n.life++
	w.tell("node %d runs for the %d. time", n.i, n.life)
	n.captured = engine.Cursor{}
	if c, ok := n.r.(*coreNode); ok {
		w.must(c.declare(w.rules))
	}
	w.after(n)
}

// after looks at a node that has done something.
func (w *world) after(n *node) {
	w.capture(n)
	w.check(n)
}

// capture notes the candidates that a node has and nobody had before.
func (w *world) capture(n *node) {
	list, err := n.r.candidates(w.known, n.captured)
	if errors.Is(err, engine.ErrTrimmed) {
		w.fail(NoError, "node %d trimmed what it never showed", n.i)
	}
	w.must(err)
	for i := range list {
		c := &list[i]
		q, err := lattice.ParseCandidate(c.Raw)
		w.must(err)
		if w.candidates[c.Dot] == nil {
			w.candidates[c.Dot] = q
			w.known = w.known.With(c.Dot)
			w.tell("node %d has %s", n.i, w.short(c.Dot))
		}
		n.captured = c.Place
	}
}

// short is a dot as a trace has it.
func (w *world) short(d engine.Dot) string {
	return fmt.Sprintf("%s.%d", hex.EncodeToString(d.Origin[:2]), d.Seq)
}

// covers says whether a node has applied a candidate.
func (w *world) covers(n *node, v engine.QStateVector, d engine.Dot) bool {
	if v.Covers(d) {
		return true
	}
	b, err := n.r.read(lattice.OriginPrefix + d.Origin.String())
	return err == nil && b.Exists && uint64(b.Value.Int()) >= d.Seq
}

// act is one step.
func (w *world) act() {
	w.now += time.Duration(w.rng.Int64N(int64(3 * time.Second)))
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	if n.r == nil {
		if w.rng.IntN(4) == 0 {
			w.tell("node %d starts", n.i)
			w.start(n)
		}
		w.deliver()
		return
	}
	switch p := w.rng.IntN(1000); {
	case p < 330:
		w.client(n)
	case p < 380:
		w.burst(n)
	case p < 640:
		w.deliver()
	case p < 820:
		w.greet(n)
	case p < 850:
		w.tell("node %d tends", n.i)
		w.must(n.r.tend())
		w.after(n)
		w.history(n)
	case p < 870:
		w.settle(n)
	case p < 890:
		w.revert(n)
	case p < 915:
		w.crash(n)
	case p < 925:
		w.tell("node %d stops", n.i)
		d, err := n.r.stop()
		w.must(err)
		n.disk, n.r = d, nil
		if w.rng.IntN(2) == 0 {
			w.start(n)
		}
	case p < 945:
		w.link()
	case p < 960:
		w.wrongClock(n)
	case p < 970:
		w.declare(n)
	case p < 985:
		w.save(n)
	default:
		w.disaster(n)
	}
}

// client has somebody write.
func (w *world) client(n *node) {
	x := w.write(n)
	w.look(n, x.Ops)
	w.submit(n, x, true)
}

// look lets a client read, for a write much later.
func (w *world) look(n *node, ops []engine.Op) {
	for i := range ops {
		if name := ops[i].Register; w.rng.IntN(3) == 0 {
			b, err := n.r.read(name)
			w.must(err)
			if b.Exists {
				n.saw[name] = b
			}
		}
	}
}

// A pending write was sequenced and not acknowledged.
type pending struct {
	dot  engine.Dot
	wait func() (engine.Receipt, error)
	n    int // of its record
	add  int64
}

func (w *world) sequence(n *node, x engine.Write) (p pending, ok bool) {
	n.serial++
	p.n = n.serial
	x.Keep = []engine.Record{{Table: "sim", Key: "wrote", Value: fmt.Appendf(nil, "%d", p.n)}}
	var err error
	p.dot, p.wait, err = n.r.submit(x)
	switch {
	case errors.Is(err, engine.ErrInvalid):
		w.tell("node %d refuses: %v", n.i, err)
		return p, false
	case err != nil:
		w.fail(NoError, "write at node %d: %v", n.i, err)
	}
	if p.dot.IsZero() {
		_, err := p.wait()
		w.must(err)
		return p, false
	}
	n.records[p.n] = p.dot
	for i := range x.Ops {
		if op := &x.Ops[i]; op.Kind == engine.OpAdd && op.Register == "sum/0" {
			p.add += op.Value.Int()
		}
	}
	w.adds[p.dot] = p.add
	w.tell("node %d writes %s: %s", n.i, w.short(p.dot), describe(x.Ops))
	return p, true
}

// acknowledge tells the client.
func (w *world) acknowledge(n *node, p *pending) {
	w.acked[p.dot] = true
	n.mine = append(n.mine, p.dot)
	n.wrote = p.n
}

func describe(ops []engine.Op) string {
	var b strings.Builder
	for i := range ops {
		op := &ops[i]
		fmt.Fprintf(&b, "%s.%s %d %s", op.Register, op.Field, op.Kind, op.Value)
		if op.Base {
			fmt.Fprintf(&b, " on %d", len(op.Seen))
		}
		b.WriteString("; ")
	}
	return b.String()
}

func (w *world) submit(n *node, x engine.Write, ack bool) {
	p, ok := w.sequence(n, x)
	if !ok {
		return
	}
	_, err := p.wait()
	w.must(err)
	if ack {
		w.acknowledge(n, &p)
	}
	w.after(n)
}

// burst has several write, and lets the power fail between sequencing and sync, or before anybody is told.
func (w *world) burst(n *node) {
	put := func() engine.Write {
		w.count++
		return engine.Write{Ops: []engine.Op{{Register: fmt.Sprintf("plain/%d", w.rng.IntN(6)), Kind: engine.OpPut, Field: "x", Value: lattice.Int(int64(w.count))}}}
	}
	before, behind := w.rng.IntN(3), 1+w.rng.IntN(3)
	fails := w.rng.IntN(2) == 0
	for range before {
		w.submit(n, put(), !fails)
	}
	full, _ := n.r.(*fullNode)
	var place engine.Cursor
	if full != nil {
		place = full.place()
		w.must(full.sync())
		full.fs.close(0)
	}
	var list []pending
	var was []engine.StateBlock
	for i := range behind {
		x := put()
		if full != nil {
			b, err := n.r.read(x.Ops[0].Register)
			w.must(err)
			was = append(was, b)
		}
		p, ok := w.sequence(n, x)
		if !ok {
			w.fail(NoError, "node %d refuses a plain write", n.i)
		}
		if w.o.Mutant == AckBeforeSync {
			w.acknowledge(n, &p)
		}
		list = append(list, p)
		if full != nil && i == 0 {
			full.fs.wait(nil)
		}
	}
	if full != nil {
		for _, b := range was {
			now, err := n.r.read(b.Register)
			w.must(err)
			if now.ID != b.ID || !now.Value.Equal(b.Value) {
				w.fail(SyncedOnly, "node %d shows %s of %s, which is not synced", n.i, now.Value, now.Register)
			}
			if told, ok, err := n.r.told(b.Register); err == nil && ok && told.ID != b.ID {
				w.fail(SyncedOnly, "history of %s at node %d shows what is not synced", b.Register, n.i)
			}
		}
		if at := full.place(); at != place {
			w.fail(SyncedOnly, "node %d stands at %s before it is synced", n.i, at)
		}
		for _, p := range list {
			full.waits = append(full.waits, p.wait)
		}
	}
	if !fails {
		if full != nil {
			full.fs.open()
			full.waits = nil
		}
		for _, p := range list {
			_, err := p.wait()
			w.must(err)
			w.acknowledge(n, &p)
		}
		w.after(n)
		return
	}
	c := cut{whole: w.rng.IntN(behind + 1), torn: []int{0, 1, 7, 19, 60, 1 << 20}[w.rng.IntN(6)]}
	w.tell("node %d loses power while it writes, %+v", n.i, c)
	w.down(n, n.r.crash(c))
}

// down notes that a node has crashed, and starts it again, or later.
func (w *world) down(n *node, d disk) {
	n.disk, n.r = d, nil
	if w.rng.IntN(3) > 0 {
		w.start(n)
	}
}

// crash cuts the power, at rest or in the middle of something.
func (w *world) crash(n *node) {
	full, _ := n.r.(*fullNode)
	if full == nil || w.rng.IntN(3) == 0 {
		w.tell("node %d loses power", n.i)
		w.down(n, n.r.crash(cut{}))
		return
	}
	torn := 0
	what, f := "tends", func() { _ = full.tend() }
	if m := w.take(func(m *message) bool { return m.to == n.i && m.kind == candidatesMessage && w.valid(m) }); m != nil {
		torn = []int{0, 1, 7, 19, 60}[w.rng.IntN(5)] // less than the first record, which alone is sure to be there
		what, f = "receives", func() { _, _ = full.receive(m.raw) }
	}
	left := full.during(0, torn, f)
	w.tell("node %d loses power while it %s", n.i, what)
	w.down(n, left)
}

// settle collapses what waits.
func (w *world) settle(n *node) {
	for _, t := range w.templates {
		if t.decl.Commit.Waits() {
			name := t.register(w.rng.IntN(t.count))
			w.tell("node %d collapses %s", n.i, name)
			w.must(n.r.collapse(name))
			w.after(n)
		}
	}
}

func (w *world) revert(n *node) {
	for _, name := range slices.Sorted(maps.Keys(n.saw)) {
		t, _, _ := strings.Cut(name, "/")
		if t == "doc" || t == "sum" || t == "batch" || w.rng.IntN(2) == 0 {
			continue
		}
		err := n.r.revert(name, n.saw[name].ID)
		w.tell("node %d puts %s of %s back: %v", n.i, n.saw[name].Value, name, err)
		if err != nil && !errors.Is(err, engine.ErrNotFound) && !errors.Is(err, engine.ErrInvalid) {
			w.must(err)
		}
		w.after(n)
		return
	}
}

func (w *world) link() {
	if w.rng.IntN(3) == 0 {
		w.tell("all links are up")
		clear(w.cutOff)
		return
	}
	a, b := w.rng.IntN(len(w.nodes)), w.rng.IntN(len(w.nodes))
	w.cutOff[[2]int{a, b}] = true
	if w.rng.IntN(2) == 0 {
		w.cutOff[[2]int{b, a}] = true
	}
	w.tell("links cut: %d", len(w.cutOff))
}

func (w *world) wrongClock(n *node) {
	switch w.rng.IntN(3) {
	case 0:
		n.clock.frozen, n.clock.at = !n.clock.frozen, w.now
	case 1:
		n.clock.offset += time.Duration(w.rng.Int64N(int64(20*time.Second))) - 10*time.Second
	default:
		w.now += 2 * time.Minute
	}
	if w.may.wild && w.rng.IntN(2) == 0 {
		n.clock.offset = time.Duration(w.rng.Int64N(int64(20*365*24*time.Hour))) - 10*365*24*time.Hour
	}
	w.tell("clock of node %d: %v", n.i, n.clock.offset)
}

// declare changes a rule of which nothing is claimed.
func (w *world) declare(n *node) {
	rules := slices.Clone(w.rules)
	for i := range rules {
		t, _, _ := strings.Cut(rules[i].Template, "/")
		if i := slices.IndexFunc(w.templates, func(x template) bool { return x.name == t }); i < 0 || !w.templates[i].free {
			continue
		}
		rule := otherRules[w.rng.IntN(len(otherRules))]
		rules[i].Value, rules[i].Fields = rule, map[string]lattice.Rule{"x": rule}
	}
	if len(rules) == 0 {
		return
	}
	err := n.r.declare(rules)
	w.tell("node %d declares: %v", n.i, err)
	if !errors.Is(err, engine.ErrInvalid) { // registers that exist don't come into a group
		w.must(err)
	}
	w.after(n)
}

// save makes a backup, or an image of the disk.
func (w *world) save(n *node) {
	if !w.may.restore && !w.may.clone {
		return
	}
	s, err := n.r.summary()
	w.must(err)
	n.oldIs = s.Vector
	if w.rng.IntN(2) == 0 {
		w.tell("node %d is backed up", n.i)
		n.old, err = n.r.backup()
		w.must(err)
		return
	}
	w.tell("an image is made of node %d", n.i)
	n.old = n.r.image()
}

// disaster sets a node back, or runs it twice.
func (w *world) disaster(n *node) {
	switch {
	case w.may.restore && n.old != nil && !n.twin:
		w.tell("node %d is restored", n.i)
		n.r.crash(cut{})
		n.r = nil
		w.restored = true
		n.disk, n.old = n.old, nil
		n.forget()
		n.random.reuse = w.o.Mutant == ReuseIncarnation
		w.start(n)
		n.random.reuse = false
		w.lose(n)
	case w.may.clone && !w.cloned && len(w.nodes) < 5:
		w.tell("node %d is cloned", n.i)
		w.cloned = true
		m := w.add(len(w.nodes), n.r.image())
		m.clock.offset = n.clock.offset
		n.twin, m.twin, m.serial = true, true, n.serial
		w.start(m)
	}
}

// lose exempts what only a disk had that was set back.
func (w *world) lose(n *node) {
	for d := range w.acked {
		if w.exempt[d] {
			continue
		}
		had := false
		for _, m := range w.nodes {
			if m.r == nil {
				// What it had is known from when it was looked at last.
				had = had || m.vector.Covers(d)
				continue
			}
			s, err := m.r.summary()
			w.must(err)
			had = had || w.covers(m, s.Vector, d)
		}
		if !had {
			w.exempt[d] = true
		}
	}
}
