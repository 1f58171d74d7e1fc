package link

import (
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/spooksystems/gateway/engine"
)

// State mode: a peer whose vector the log doesn't reach back to takes the registers that differ, then the vector. The
// same questions and answers compare two nodes without taking anything.

// A giving is a state that this node shows to the peer, as of one moment.
type giving struct {
	number  uint64
	compare bool
	export  *engine.Export
	set     index
	wanted  *want
	next    func() (engine.RegisterHash, error, bool)
	stop    func()
}

func (g *giving) close() error {
	if g.stop != nil {
		g.stop()
	}
	return g.export.Close()
}

// maxShown bounds the states that are held for one peer at once.
const maxShown = 4

// show takes a state to be shown.
func (s *Session) show(ctx context.Context, number uint64, compare bool) (*offer, error) {
	x, err := s.e.Export(ctx)
	if err != nil {
		return nil, err
	}
	set, err := indexOf(ctx, x)
	if err != nil {
		return nil, errors.Join(err, x.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil || len(s.give) >= maxShown {
		return nil, errors.Join(s.over, x.Close())
	}
	s.give[number] = &giving{number: number, compare: compare, export: x, set: set}
	o := &offer{Number: number, Compare: compare, Top: set.look("")}
	if !compare {
		o.Snapshot = x.Snapshot()
	}
	return o, nil
}

// makeOffer begins to give the state instead of candidates. Offers have even numbers, comparisons, which the other side
// begins, odd ones.
func (s *Session) makeOffer(ctx context.Context) (*frame, error) {
	s.mu.Lock()
	s.out.offer += 2
	number := s.out.offer
	s.out.mode, s.out.flight, s.out.bytes = stateMode, nil, 0
	s.mu.Unlock()
	o, err := s.show(ctx, number, false)
	if err != nil {
		return nil, err
	}
	if o == nil {
		s.mu.Lock()
		s.out.again = s.o.now().Add(busyPause)
		s.mu.Unlock()
		return nil, nil
	}
	return &frame{kind: kindOffer, offer: o}, nil
}

// dropOffer lets go of a state. It is closed by who reads it: the next call of Next. The caller holds s.mu.
func (s *Session) dropOffer(number uint64) {
	if g := s.give[number]; g != nil {
		s.dropped = append(s.dropped, g)
		delete(s.give, number)
	}
}

// closeDropped closes the states that were let go of.
func (s *Session) closeDropped() error {
	s.mu.Lock()
	dropped := s.dropped
	s.dropped = nil
	s.mu.Unlock()
	var err error
	for _, g := range dropped {
		err = errors.Join(err, g.close())
	}
	return err
}

// compared shows the state to a peer that wants to compare.
func (s *Session) compared(ctx context.Context, number uint64) error {
	if number%2 == 0 {
		return invalid("comparison %d", number)
	}
	s.mu.Lock()
	s.dropOffer(number)
	s.mu.Unlock()
	o, err := s.show(ctx, number, true)
	if err != nil {
		return err
	}
	if o == nil {
		return invalid("more than %d comparisons at once", maxShown)
	}
	s.send(&frame{kind: kindOffer, offer: o})
	return nil
}

func (s *Session) giving(number uint64) *giving {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.give[number]
}

// asked answers what there is in some ranges.
func (s *Session) asked(a *ask) error {
	g := s.giving(a.Number)
	if g == nil {
		return nil // it was taken back
	}
	out := &answer{Number: a.Number}
	for _, p := range a.At {
		out.Looks = append(out.Looks, g.set.look(p))
	}
	s.send(&frame{kind: kindAnswer, answer: out})
	return nil
}

// wanted notes what the peer wants of a state.
func (s *Session) wanted(w *want) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.give[w.Number]
	if g == nil {
		return nil
	}
	if g.wanted != nil {
		return invalid("a second want of one state")
	}
	g.wanted = w
	g.next, g.stop = iter.Pull2(g.export.Hashes(context.Background(), func(byte) bool { return true }))
	return nil
}

// nextRegisters gives registers that the peer wants.
func (s *Session) nextRegisters(context.Context) (*frame, error) {
	s.mu.Lock()
	var g *giving
	for _, one := range s.give {
		if one.wanted != nil && (g == nil || one.number < g.number) {
			g = one
		}
	}
	room := s.out.bytes < s.out.window
	s.mu.Unlock()
	if g == nil || !room {
		return nil, nil
	}
	f := &registersFrame{Number: g.number}
	size := 0
	for size < batchBytes {
		h, err, more := g.next()
		if err != nil {
			return nil, err
		}
		if f.Last = !more; f.Last {
			break
		}
		if !pick(item(h.Hash[:16]), g.wanted.All, index(g.wanted.Items)) {
			continue
		}
		reg := register{Name: h.Name}
		if !g.wanted.Names {
			if reg.Raw, err = g.export.Register(h.Name); err != nil {
				return nil, err
			}
		}
		f.Registers = append(f.Registers, reg)
		size += sizeOf(&reg)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.number++
	f.Batch = s.out.number
	s.out.flight = append(s.out.flight, flight{number: f.Batch, bytes: uint64(size)})
	s.out.bytes += uint64(size)
	s.count.RegistersOut += uint64(len(f.Registers))
	if f.Last {
		s.dropOffer(g.number)
	}
	return &frame{kind: kindRegisters, registers: f}, nil
}

// A taking is a peer's state that this node takes, or compares itself with.
type taking struct {
	number  uint64
	export  *engine.Export // the own state, of when it began
	diff    difference
	wanted  bool
	join    *engine.Join // of one that is taken
	release func()
	result  *Comparison // of one that is compared
	done    func(*Comparison, error)
}

func (t *taking) close(why error) error {
	var err error
	if t.join != nil {
		err = t.join.Abort()
		t.join = nil
	}
	if t.export != nil {
		err = errors.Join(err, t.export.Close())
		t.export = nil
	}
	if t.release != nil {
		t.release()
		t.release = nil
	}
	if t.done != nil {
		t.done(nil, why)
		t.done = nil
	}
	return err
}

// A Comparison says which registers two nodes hold differently.
type Comparison struct {
	Here, There, Both []string // held by this node alone, by the peer alone, by both and differently
	Root, Peer        [32]byte // the hashes over all registers
	Level             bool     // both know the same candidates: what differs then is a bug or damage
}

// Equal says that nothing differs.
func (c *Comparison) Equal() bool { return len(c.Here)+len(c.There)+len(c.Both) == 0 }

// offered begins to take the peer's state, or to compare.
func (s *Session) offered(ctx context.Context, o *offer) error {
	if o.Top.prefix != "" {
		return invalid("an offer of a part")
	}
	s.mu.Lock()
	t := s.take[o.Number]
	s.mu.Unlock()
	switch {
	case o.Compare && t == nil:
		return nil // nobody waits for it any more
	case !o.Compare && t != nil:
		return invalid("offer %d a second time", o.Number)
	case !o.Compare:
		if !s.o.joins.TryLock() {
			s.mu.Lock()
			s.in.flags |= flagBusy
			s.in.due = true
			s.mu.Unlock()
			return nil
		}
		t = &taking{number: o.Number, release: s.o.joins.Unlock}
		var err error
		if t.join, err = s.e.BeginJoin(ctx, o.Snapshot); err != nil {
			return errors.Join(err, t.close(err))
		}
	}
	var err error
	if t.export, err = s.e.Export(ctx); err == nil {
		t.diff.own, err = indexOf(ctx, t.export)
	}
	if err != nil {
		return errors.Join(err, t.close(err))
	}
	s.mu.Lock()
	if s.over != nil {
		s.mu.Unlock()
		return errors.Join(s.over, t.close(s.over))
	}
	s.take[t.number] = t
	s.mu.Unlock()
	if t.diff.own.part() != (sumOf(&o.Top)) {
		if len(t.diff.own) == 0 {
			t.diff.all = []prefix{""}
		} else {
			t.diff.see(&o.Top)
		}
	}
	return s.goOn(ctx, t)
}

// sumOf is what a look amounts to.
func sumOf(l *look) part {
	if l.parts == nil {
		return index(l.items).part()
	}
	var all part
	for _, p := range l.parts {
		all.count += p.count
		all.sum.join(p.sum)
	}
	return all
}

// answered takes what there is in some ranges of the peer's state.
func (s *Session) answered(a *answer) error {
	s.mu.Lock()
	t := s.take[a.Number]
	s.mu.Unlock()
	if t == nil || t.export == nil {
		return nil
	}
	if t.diff.open -= len(a.Looks); t.diff.open < 0 || t.wanted {
		return invalid("answers to what was not asked")
	}
	for i := range a.Looks {
		t.diff.see(&a.Looks[i])
	}
	return s.goOn(context.Background(), t)
}

// goOn asks what is to be asked next, or for the registers themselves.
func (s *Session) goOn(ctx context.Context, t *taking) error {
	for len(t.diff.ask) > 0 && t.diff.open < 4*maxAsk {
		s.send(&frame{kind: kindAsk, ask: &ask{Number: t.number, At: t.diff.next()}})
	}
	if !t.diff.done() || t.wanted {
		return nil
	}
	t.wanted = true
	if err := s.alone(ctx, t); err != nil {
		return err
	}
	w := &want{Number: t.number, Names: t.join == nil, All: t.diff.all, Items: sortedItems(t.diff.want)}
	s.send(&frame{kind: kindWant, want: w})
	return nil
}

// alone names what this node holds otherwise than the peer, or alone. In a join the peer holds nothing of it, unless it
// comes with the registers that are wanted.
func (s *Session) alone(ctx context.Context, t *taking) error {
	lost := sortedItems(t.diff.lost)
	if len(lost) == 0 && len(t.diff.mine) == 0 {
		return nil
	}
	for h, err := range t.export.Hashes(ctx, func(byte) bool { return true }) {
		if err != nil {
			return err
		}
		if !pick(item(h.Hash[:16]), t.diff.mine, lost) {
			continue
		}
		if t.join == nil {
			t.result.Here = append(t.result.Here, h.Name)
		} else if err := t.join.Add(h.Name, nil); err != nil {
			return err
		}
	}
	return nil
}

// joined takes registers of the peer's state.
func (s *Session) joined(ctx context.Context, g *registersFrame) error {
	s.mu.Lock()
	t := s.take[g.Number]
	if g.Batch <= s.in.taken {
		s.mu.Unlock()
		return invalid("batch %d behind %d", g.Batch, s.in.taken)
	}
	s.in.taken, s.in.due = g.Batch, true
	s.count.RegistersIn += uint64(len(g.Registers))
	s.mu.Unlock()
	switch {
	case t == nil:
		return nil
	case !t.wanted:
		return invalid("registers that nobody asked for")
	}
	if err := s.room(ctx); err != nil {
		return err
	}
	for i := range g.Registers {
		reg := &g.Registers[i]
		if t.join == nil {
			t.result.There = append(t.result.There, reg.Name)
			continue
		}
		if len(reg.Raw) == 0 {
			return invalid("register %q without its content", reg.Name)
		}
		if err := t.join.Add(reg.Name, reg.Raw); err != nil {
			return err
		}
	}
	if !g.Last {
		return nil
	}
	s.mu.Lock()
	delete(s.take, t.number)
	s.mu.Unlock()
	if t.join == nil {
		return s.compareDone(ctx, t)
	}
	err := t.join.Commit(ctx)
	t.join = nil
	if err = errors.Join(err, t.close(err)); err != nil {
		return err
	}
	s.mu.Lock()
	s.count.States++
	s.in.flags |= flagJoined
	s.mu.Unlock()
	return s.askChunks(ctx, false)
}

// Compare asks the peer for its state and tells which registers differ. done is called once, from Handle or Close.
func (s *Session) Compare(done func(*Comparison, error)) error {
	s.mu.Lock()
	if s.phase != catchingPhase && s.phase != levelPhase {
		s.mu.Unlock()
		return engine.ErrUnavailable
	}
	if len(s.take) >= maxShown {
		s.mu.Unlock()
		return ErrBusy
	}
	number := uint64(1)
	for s.take[number] != nil {
		number += 2
	}
	s.take[number] = &taking{number: number, result: &Comparison{}, done: done}
	s.mu.Unlock()
	s.send(&frame{kind: kindCompare, number: number})
	return nil
}

// compareDone tells what was found.
func (s *Session) compareDone(ctx context.Context, t *taking) error {
	own, err := s.e.Summary(ctx)
	if err != nil {
		return errors.Join(err, t.close(err))
	}
	c := t.result
	slices.Sort(c.Here)
	slices.Sort(c.There)
	c.Here, c.There, c.Both = apart(c.Here, c.There)
	s.mu.Lock()
	c.Root, c.Peer = own.Root, s.knows.root
	c.Level = s.knows.theirs.Equal(own.Vector)
	s.mu.Unlock()
	done := t.done
	t.done = nil
	err = t.close(nil)
	done(c, err)
	return err
}

// apart divides two sorted lists into what only one has, only the other, and both.
func apart(a, b []string) (onlyA, onlyB, both []string) {
	for _, name := range a {
		if _, found := slices.BinarySearch(b, name); found {
			both = append(both, name)
		} else {
			onlyA = append(onlyA, name)
		}
	}
	for _, name := range b {
		if _, found := slices.BinarySearch(a, name); !found {
			onlyB = append(onlyB, name)
		}
	}
	return onlyA, onlyB, both
}
