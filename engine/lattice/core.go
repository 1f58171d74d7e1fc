package lattice

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A Core is what one node knows beside its registers, and the step by which it learns: (state, event) → (state, effects),
// with no goroutine, clock, randomness or I/O in it. Whoever drives it stores the effects, then Accepts them; until then
// nothing of the Core has changed, so that a step can be refused for reasons of the driver's own.
type Core struct {
	self   Origin
	id     OriginID
	before Dot    // the last candidate of the incarnation before, as the first one of this will say
	seq    uint64 // own candidates so far
	head   Hash   // of the last of them
	clock  Clock

	heads   map[OriginID]Head     // of the others, this endpoint's earlier incarnations among them
	retired map[OriginID]uint64   // origins that have left all vectors: their last seq
	owners  map[OriginID]Intro    // whose an origin is
	news    map[OriginID]struct{} // of those in heads, which have moved since the last own candidate
	joining QStateVector          // what a join that is under way will bring: candidates of now depend on it
}

// A Head is the last candidate of an origin that was applied. Equal heads mean equal candidates all the way back, since
// each carries its predecessor's hash.
type Head struct {
	Seq  uint64
	Hash Hash // zero where only the state came, not the candidate
}

// A Knowledge is what a Core begins with.
type Knowledge struct {
	Self    Origin
	Before  Dot // the last own candidate of the incarnation before
	Clock   Stamp
	Heads   map[OriginID]Head
	Retired map[OriginID]uint64
	Owners  map[OriginID]Intro
	Joining QStateVector
}

// NewCore begins an incarnation. It takes the maps over.
func NewCore(k Knowledge) *Core {
	c := &Core{
		self: k.Self, id: k.Self.ID(), before: k.Before, clock: NewClock(k.Clock), joining: k.Joining,
		heads: k.Heads, retired: k.Retired, owners: k.Owners, news: map[OriginID]struct{}{},
	}
	if c.heads == nil {
		c.heads = map[OriginID]Head{}
	}
	if c.retired == nil {
		c.retired = map[OriginID]uint64{}
	}
	if c.owners == nil {
		c.owners = map[OriginID]Intro{}
	}
	for o, seq := range c.retired { // the incarnation before may have been retired by one that a backup does not know of
		if h, ok := c.heads[o]; ok && h.Seq <= seq {
			delete(c.heads, o)
		}
	}
	// The first candidate depends on all that is known, since nobody has been told what this incarnation saw before it.
	for o := range c.heads {
		c.news[o] = struct{}{}
	}
	return c
}

// ID stands for this incarnation.
func (c *Core) ID() OriginID { return c.id }

// Seq counts the own candidates.
func (c *Core) Seq() uint64 { return c.seq }

// Begun says whether this incarnation has written.
func (c *Core) Begun() bool { return c.seq > 0 }

// Clock is the highest stamp given or followed so far.
func (c *Core) Clock() Stamp { return c.clock.last }

// Head is the last candidate of an origin, Seq 0 if none is known.
func (c *Core) Head(o OriginID) Head {
	if o == c.id {
		return Head{c.seq, c.head}
	}
	return c.heads[o]
}

// Covers says whether a candidate was applied.
func (c *Core) Covers(d Dot) bool {
	return d.Seq <= c.Head(d.Origin).Seq || d.Seq <= c.retired[d.Origin]
}

// Owner says whose an origin is.
func (c *Core) Owner(o OriginID) (Intro, bool) {
	if o == c.id {
		return Intro{c.self, c.before}, true
	}
	i, ok := c.owners[o]
	return i, ok
}

// Mine says whether an origin was this node's and is retired: everybody has all of it, so what it had of sums may be
// taken over.
func (c *Core) Mine(o OriginID) bool {
	_, retired := c.retired[o]
	return retired && c.owners[o].Origin.Endpoint == c.self.Endpoint
}

// Retired says whether an origin has left all vectors.
func (c *Core) Retired(o OriginID) bool { _, ok := c.retired[o]; return ok }

// Vector is what was applied.
func (c *Core) Vector() QStateVector {
	v := make(QStateVector, 0, len(c.heads)+1)
	for o, h := range c.heads {
		v = append(v, Dot{o, h.Seq})
	}
	if c.seq > 0 {
		v = append(v, Dot{c.id, c.seq})
	}
	slices.SortFunc(v, Dot.Compare)
	return v
}

// Context is what was applied, with what has left the vector.
func (c *Core) Context() Context {
	ctx := Context{Vector: c.Vector()}
	for o, seq := range c.retired {
		ctx.Retired = append(ctx.Retired, Dot{o, seq})
	}
	slices.SortFunc(ctx.Retired, Dot.Compare)
	return ctx
}

// Registers are a node's, as a step reads them.
type Registers interface {
	Register(name string) (*Register, error)
}

// A Change is what a step makes of one register.
type Change struct {
	Name          string
	Before, After *Register
	Held          bool // a candidate waits there: what readers see is as before
}

// Effects are what comes of a step: to be stored together, or not at all.
type Effects struct {
	Candidate *QCandidate
	Raw       []byte // its encoding
	Changes   []Change
	Retires   []Dot // origins that leave all vectors
	Alarms    []Alarm
	clock     Clock
	hash      Hash
	own       QCandidate // room for Candidate
}

// An AlarmKind is something that can be proven from candidates alone.
type AlarmKind uint8

// The alarms.
const (
	ForkAlarm  AlarmKind = iota + 1 // two candidates have one dot, or one predecessor
	CloneAlarm                      // an endpoint runs twice
	ClockAlarm                      // a stamp is far ahead of the wall clock
	TailAlarm                       // an own earlier incarnation went on behind what this node had of it
)

// An Alarm is one finding.
type Alarm struct {
	Kind  AlarmKind
	Dot   Dot
	Other Dot // Clone: the other incarnation's; Fork: zero
	Text  string
}

// Write makes the candidate of a local write: ops are expanded, in the order of their registers, held names those that
// wait. by is cause.By(). The effects use their room again, and what ops and held are in.
func (c *Core) Write(regs Registers, ops []Op, held []string, cause Cause, by By, wall time.Time, eff *Effects) error {
	eff.clock = c.clock
	eff.own = QCandidate{Dot: Dot{c.id, c.seq + 1}, Prev: c.head, Time: eff.clock.Tick(wall), Ops: ops, Held: held, Cause: cause, Deps: c.deps(), by: by}
	if c.seq == 0 {
		eff.own.Intro = &Intro{c.self, c.before}
	}
	eff.Candidate = &eff.own
	eff.Raw = eff.own.AppendCBOR(eff.Raw[:0])
	eff.hash = sha256.Sum256(eff.Raw)
	eff.Changes, eff.Retires, eff.Alarms = eff.Changes[:0], nil, nil
	return c.fold(regs, eff)
}

func (c *Core) deps() []Dot {
	if len(c.news) == 0 && len(c.joining) == 0 {
		return nil
	}
	deps := make([]Dot, 0, len(c.news)+len(c.joining))
	for o := range c.news {
		deps = append(deps, Dot{o, c.heads[o].Seq})
	}
	slices.SortFunc(deps, Dot.Compare)
	for _, d := range QStateVector(deps).Join(c.joining) {
		if d.Origin != c.id {
			deps = append(deps[:0:0], QStateVector(deps).With(d)...)
		}
	}
	return deps
}

// A Verdict says what became of a candidate that arrived.
type Verdict uint8

// The verdicts.
const (
	Applied Verdict = iota + 1 // it is in the effects
	Known                      // it was applied before, or comes with the join that is under way
	Early                      // it depends on Missing, and has to wait
	Refused                    // it contradicts one that was applied before: see the alarms
)

// Receive takes a candidate from somewhere else. raw is its encoding. known gives the hash of a candidate that was
// applied before, where it is still at hand.
func (c *Core) Receive(regs Registers, q *QCandidate, raw []byte, wall time.Time, known func(Dot) (Hash, bool), eff *Effects) (v Verdict, missing []Dot, err error) {
	*eff = Effects{Candidate: q, Raw: raw, Changes: eff.Changes[:0], clock: c.clock, hash: sha256.Sum256(raw)}
	head := c.Head(q.Dot.Origin)
	retired, isRetired := c.retired[q.Dot.Origin] // one that is has no head
	switch {
	case c.Covers(q.Dot):
		if h, ok := known(q.Dot); ok && h != eff.hash {
			eff.Alarms = append(eff.Alarms, Alarm{Kind: ForkAlarm, Dot: q.Dot, Text: fmt.Sprintf("two candidates are both %s, with the hashes %x and %x", q.Dot, lower(h, eff.hash), higher(h, eff.hash))})
			return Refused, nil, nil
		}
		return Known, nil, nil
	case c.joining.Covers(q.Dot):
		// A register that was joined already has all that comes of it, and may have removed it again.
		return Known, nil, nil
	case q.Dot.Origin == c.id:
		eff.Alarms = append(eff.Alarms, Alarm{Kind: ForkAlarm, Dot: q.Dot, Text: fmt.Sprintf("%s bears this node's own name, and this node has written %d", q.Dot, c.seq)})
		return Refused, nil, nil
	case q.Dot.Seq > max(head.Seq, retired)+1:
		return Early, c.Missing(q), nil
	case head.Hash != (Hash{}) && q.Prev != head.Hash:
		eff.Alarms = append(eff.Alarms, Alarm{Kind: ForkAlarm, Dot: q.Dot, Text: fmt.Sprintf("%s does not continue the candidate %d that is known of its origin: two nodes write under one name", q.Dot, head.Seq)})
		return Refused, nil, nil
	}
	if missing = c.Missing(q); len(missing) > 0 {
		return Early, missing, nil
	}
	if !eff.clock.Follow(q.Time, wall) {
		eff.Alarms = append(eff.Alarms, Alarm{Kind: ClockAlarm, Dot: q.Dot, Text: fmt.Sprintf("%s is stamped %s, which is more than %s ahead of this node's clock", q.Dot, q.Time.Time().Format(time.RFC3339), MaxAhead)})
	}
	if isRetired { // a clone took it for its own past; that it has ended was a mistake
		eff.Alarms = append(eff.Alarms, c.wrongly(q.Dot, retired))
	}
	c.meet(q, eff)
	return Applied, nil, c.fold(regs, eff)
}

// wrongly is the alarm that an origin goes on which has been retired.
func (c *Core) wrongly(d Dot, retired uint64) Alarm {
	for _, o := range slices.SortedFunc(maps.Keys(c.owners), OriginID.Compare) {
		if c.follows(o, d.Origin) {
			return Clone(c.owners[o].Origin.Endpoint, d.Origin, o)
		}
	}
	if c.follows(c.id, d.Origin) {
		return Clone(c.self.Endpoint, d.Origin, c.id)
	}
	// Of the runs between there may be no trace: any other of the endpoint stands for them.
	for _, o := range slices.SortedFunc(maps.Keys(c.owners), OriginID.Compare) {
		if c.owners[o].Origin.Endpoint == c.owners[d.Origin].Origin.Endpoint && o != d.Origin {
			return Clone(c.owners[o].Origin.Endpoint, d.Origin, o)
		}
	}
	return Alarm{Kind: ForkAlarm, Dot: d, Text: fmt.Sprintf("%s is of an origin that ended at %d", d, retired)}
}

// Missing is what a candidate depends on and was not applied yet.
func (c *Core) Missing(q *QCandidate) (missing []Dot) {
	if before := (Dot{q.Dot.Origin, q.Dot.Seq - 1}); !before.IsZero() && !c.Covers(before) {
		missing = append(missing, before)
	}
	for _, d := range q.Deps {
		if !c.Covers(d) {
			missing = append(missing, d)
		}
	}
	return missing
}

func lower(a, b Hash) []byte {
	if slices.Compare(a[:], b[:]) < 0 {
		return a[:8]
	}
	return b[:8]
}

func higher(a, b Hash) []byte {
	if slices.Compare(a[:], b[:]) < 0 {
		return b[:8]
	}
	return a[:8]
}

// meet looks at a candidate's origin for an endpoint that runs twice, and for a past of this node's own.
func (c *Core) meet(q *QCandidate, eff *Effects) {
	if owner, ok := c.owners[q.Dot.Origin]; ok && owner.Origin.Endpoint == c.self.Endpoint && q.Dot.Seq == c.heads[q.Dot.Origin].Seq+1 {
		eff.Alarms = append(eff.Alarms, Alarm{Kind: TailAlarm, Dot: q.Dot, Text: fmt.Sprintf("%s is of an earlier run of this node, and was not in its data: they are of an older state, a backup or a copy", q.Dot)})
	}
	for _, d := range q.Deps {
		if c.follows(d.Origin, q.Dot.Origin) { // it goes on, and has seen one that says that it had ended
			eff.Alarms = append(eff.Alarms, Clone(c.owners[q.Dot.Origin].Origin.Endpoint, q.Dot.Origin, d.Origin))
		}
	}
	if q.Intro == nil {
		return
	}
	if other, ok := c.clone(*q.Intro); ok {
		eff.Alarms = append(eff.Alarms, Clone(q.Intro.Origin.Endpoint, q.Dot.Origin, other))
	}
}

// Clone is the alarm that two incarnations of an endpoint run beside each other: the same on both sides.
func Clone(endpoint EndpointID, a, b OriginID) Alarm {
	if a.Compare(b) > 0 {
		a, b = b, a
	}
	return Alarm{Kind: CloneAlarm, Dot: Dot{Origin: a}, Other: Dot{Origin: b},
		Text: fmt.Sprintf("the endpoint %s runs twice, as %s and as %s: its data directory was copied", endpoint, a, b)}
}

// follows says whether an origin is an incarnation that began when another had ended.
func (c *Core) follows(o, ended OriginID) bool {
	owner, ok := c.Owner(o)
	past, known := c.Owner(ended)
	if !ok || !known || owner.Origin.Endpoint != past.Origin.Endpoint {
		return false
	}
	for n := 0; ok && n <= len(c.owners); n++ {
		if owner.Before.Origin == ended && !owner.Before.IsZero() {
			return true
		}
		owner, ok = c.Owner(owner.Before.Origin)
	}
	return false
}

// clone gives another incarnation of the same endpoint that stands beside a new one: one that continues the same
// predecessor, or this node itself.
func (c *Core) clone(i Intro) (other OriginID, ok bool) {
	if i.Origin.Endpoint == c.self.Endpoint {
		return c.id, i.Origin.ID() != c.id
	}
	found := false
	for o, owner := range c.owners {
		if owner.Origin.Endpoint == i.Origin.Endpoint && owner.Before.Origin == i.Before.Origin && owner.Origin != i.Origin {
			// Of several the lowest, so that a map's order is of no concern.
			if !found || o.Compare(other) < 0 {
				other, found = o, true
			}
		}
	}
	return other, found
}

// fold applies the candidate to the registers that it names.
func (c *Core) fold(regs Registers, eff *Effects) error {
	for name, a := range eff.Candidate.Each {
		before, err := regs.Register(name)
		if err != nil {
			return err
		}
		eff.Changes = append(eff.Changes, Change{name, before, before.Apply(a), a.Held})
		c.retires(name, a, eff)
	}
	return nil
}

// OriginPrefix begins the names of the registers in which origins are retired: the rest is the OriginID, the value the
// last seq.
const OriginPrefix = "_origins/"

// retires notes what a register of OriginPrefix says.
func (c *Core) retires(name string, a Arrival, eff *Effects) {
	d, ok := RetiredOrigin(name, a)
	if ok && d.Origin != c.id && c.heads[d.Origin].Seq == d.Seq {
		eff.Retires = append(eff.Retires, d)
	}
}

// RetiredOrigin is what a candidate says in a register of OriginPrefix.
func RetiredOrigin(name string, a Arrival) (Dot, bool) {
	if len(name) != len(OriginPrefix)+32 || name[:len(OriginPrefix)] != OriginPrefix {
		return Dot{}, false
	}
	for i := range a.Ops {
		if op := &a.Ops[i]; op.Kind == Put && op.Field == "" && op.Value.Int() > 0 {
			d, err := ParseDot(fmt.Sprintf("%s.%d", name[len(OriginPrefix):], op.Value.Int()))
			return d, err == nil
		}
	}
	return Dot{}, false
}

// Accept takes the effects of a step over. The Raw of a later one may use the same memory.
func (c *Core) Accept(eff *Effects) {
	q := eff.Candidate
	c.clock = eff.clock
	if q.Dot.Origin == c.id {
		c.seq, c.head = q.Dot.Seq, eff.hash
		clear(c.news)
	} else {
		c.heads[q.Dot.Origin] = Head{q.Dot.Seq, eff.hash}
		delete(c.retired, q.Dot.Origin)
		c.news[q.Dot.Origin] = struct{}{}
	}
	if q.Intro != nil && q.Dot.Origin != c.id {
		c.owners[q.Dot.Origin] = *q.Intro
	}
	for _, d := range eff.Retires {
		c.Retire(d)
	}
}

// Retire takes an origin out of the vector, unless it is known to have gone on.
func (c *Core) Retire(d Dot) {
	if d.Origin == c.id || c.heads[d.Origin].Seq > d.Seq {
		return
	}
	delete(c.heads, d.Origin)
	delete(c.news, d.Origin)
	c.retired[d.Origin] = max(c.retired[d.Origin], d.Seq)
}

// Clock is the highest stamp given or followed, after the step.
func (e *Effects) Clock() Stamp { return e.clock.last }

// Hash is the applied candidate's.
func (e *Effects) Hash() Hash { return e.hash }

// A Snapshot is what a node that sends its state says of itself: its registers are to be joined under it.
type Snapshot struct {
	Context Context
	Heads   map[OriginID]Head
	Owners  map[OriginID]Intro
}

// Snapshot is what goes before the registers.
func (c *Core) Snapshot() Snapshot {
	s := Snapshot{Context: c.Context(), Heads: maps.Clone(c.heads), Owners: maps.Clone(c.owners)}
	if c.seq > 0 {
		s.Heads[c.id] = Head{c.seq, c.head}
		s.Owners[c.id] = Intro{c.self, c.before}
	}
	return s
}

// BeginJoin says what a join brings, with what has left the vector there: a writer may see it before the whole has come,
// so candidates of now depend on it. A join that has begun is carried to its end.
func (c *Core) BeginJoin(v QStateVector) { c.joining = c.joining.Join(v) }

// EndJoin moves the vector when all registers have been joined.
func (c *Core) EndJoin(s Snapshot) (alarms []Alarm) {
	for o, h := range s.Heads {
		if o != c.id && h.Seq > c.heads[o].Seq && !c.Covers(Dot{o, h.Seq}) {
			c.heads[o] = h
			delete(c.retired, o)
			c.news[o] = struct{}{}
		}
	}
	for _, o := range slices.SortedFunc(maps.Keys(s.Owners), OriginID.Compare) {
		if _, known := c.owners[o]; known || o == c.id {
			continue
		}
		i := s.Owners[o]
		if other, ok := c.clone(i); ok {
			alarms = append(alarms, Clone(i.Origin.Endpoint, o, other))
		}
		c.owners[o] = i
	}
	for _, d := range s.Context.Retired {
		c.Retire(d)
	}
	c.joining = nil
	return alarms
}
