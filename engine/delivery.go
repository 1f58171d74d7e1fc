package engine

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// A delivery is a commit while it is composed. Nothing outside of its batch changes before submit. There is one at a
// time, in the sequencer's room.
type delivery struct {
	e          *Engine
	c          *commit
	dot        Dot
	at         Stamp
	cause      Cause
	tag        uint64
	rules      *ruleTable
	registers  uint64 // that exist
	candidates uint64
	clock      Stamp
	names      []string
	shards     []movedShard
	learned    []StateBlock // of rulesPrefix
	waiting    []waitingUnit
	found      []Finding
	stubs      bool // registers have come into a group
}

type movedShard struct {
	n   byte
	sum lattice.Tally
}

// waitingUnit is a register with candidates that wait, or that no longer has any.
type waitingUnit struct {
	name  string
	mode  CommitMode
	had   bool  // something waited before
	since Stamp // 0: none waits any more
}

// begin begins a commit.
func (e *Engine) begin(c *commit, dot Dot, at Stamp, cause Cause, tag uint64) *delivery {
	c.ordinal, c.dot, c.at, c.batch = e.seqr.ordinal+1, dot, at, e.store.NewBatch()
	c.deltas, c.versions = c.one.deltas[:0], c.one.versions[:0]
	d := &e.seqr.delivery
	names, shards := d.names, d.shards
	clear(names)
	*d = delivery{
		e: e, c: c, dot: dot, at: at, cause: cause, tag: tag, rules: e.rules.Load(),
		registers: e.seqr.registers, candidates: e.seqr.candidates, clock: e.seqr.core.Clock(),
	}
	d.names, d.shards = names[:0], shards[:0]
	return d
}

// change takes one register's next state.
func (d *delivery) change(ch *lattice.Change, mine bool) error {
	e, b := d.e, d.c.batch
	base, err := e.newest(ch.Name)
	if err != nil {
		return err
	}
	rank, at := base.rank+1, d.at
	if ch.Held { // readers see what was there before
		rank, at = base.rank, base.at
	}
	v := newVersion(base.name, d.c.ordinal, rank, at, ch.After, 0)
	if ch.Held {
		v.id = base.id
	}
	var encoding []byte
	e.seqr.out, encoding = appendRegister(e.seqr.out[:0], v)
	size := len(e.seqr.out)
	if mine && (len(v.reg.Fields) > MaxFields || size > MaxRegister) {
		return tooLarge("register %q would have %d fields and %d bytes; the limits are %d and %d", ch.Name, len(v.reg.Fields), size, MaxFields, MaxRegister)
	}
	v.hash = v.reg.Hash(v.name, encoding)
	v.size = 3*size + 512
	v.prev.Store(base)
	err = b.Set(store.Register(v.name), e.seqr.out)
	d.move(v.name, base.hash, v.hash)
	d.c.versions = append(d.c.versions, v)
	err = errors.Join(err, d.notePending(base, v))
	if strings.HasPrefix(v.name, lattice.UnitPrefix) {
		return errors.Join(err, d.group(base, v))
	}
	before := e.sight(base)
	if before.decl != nil && before.decl.Unit != "" {
		return err // readers see the group
	}
	after := e.look(v, d.rules, before.decl)
	if strings.HasPrefix(v.name, rulesPrefix) {
		d.learned = append(d.learned, after.block)
		err = errors.Join(err, d.noteRules(&before.block, &after.block))
	}
	if after.block.Opaque && !before.block.Opaque {
		d.found = append(d.found, Finding{Code: "opaque", Subject: v.name, Text: fmt.Sprintf("register %q holds operations of a newer program than this one. They are kept and passed on; its value is shown without them, and writes are refused. Update this program.", v.name)})
	}
	if after.block.Incoming {
		err = errors.Join(err, b.Set(store.Internal(incomingTable, v.name), nil))
	}
	if !ch.Held {
		was := !before.block.Exists && base.reg != nil && len(base.reg.Fields) > 0
		is := !after.block.Exists && len(v.reg.Fields) > 0
		err = errors.Join(err, d.hide(base, was, is))
	}
	return errors.Join(err, d.tell(&before.block, &after.block, ch.Held))
}

// hide keeps up which registers have fields that a delete hides, and which candidates every member has to have before those
// may go: all that came while it was hidden, since any of them may be the delete. None are noted where they are not
// known, of a state that was joined: then it is all that this node has.
func (d *delivery) hide(base *version, was, is bool) (err error) {
	var dots QStateVector
	known := !d.dot.IsZero()
	if was {
		found := false
		found, err = d.e.get(store.Hidden(base.at, base.name), func(value []byte) error {
			r := lattice.NewReader(value)
			dots = readVector(r)
			return r.End()
		})
		known = known && found && len(dots) > 0
		err = errors.Join(err, d.c.batch.Delete(store.Hidden(base.at, base.name)))
	}
	if !is {
		return err
	}
	if dots = dots.With(d.dot); !known {
		dots = nil
	}
	return errors.Join(err, d.c.batch.Set(store.Hidden(d.at, base.name), appendVector(nil, dots)))
}

// group tells what a group's change is to each of its registers.
func (d *delivery) group(base, v *version) error {
	before, after := base.reg.Members(), v.reg.Members()
	var err error
	for _, name := range after {
		if _, was := slices.BinarySearch(before, name); was {
			continue
		}
		// What was written to it by a node that did not know of the group stays, and is not shown.
		if own, failed := d.e.newest(name); failed != nil || own.ordinal != 0 && own.unit == "" {
			err = errors.Join(err, failed)
		} else {
			err = errors.Join(err, d.c.batch.Set(store.Register(name), appendStub(nil, d.c.ordinal, v.name)))
			d.stubs = true
		}
	}
	names := slices.Concat(before, after)
	slices.Sort(names)
	names = slices.Compact(names)
	var same []func() error
	told := false
	for _, name := range names {
		was, is := d.e.member(name, base), d.e.member(name, v)
		if was.Exists == is.Exists && was.Value.Equal(is.Value) {
			same = append(same, func() error { return d.tell(&was, &is, false) })
			continue
		}
		told = true
		err = errors.Join(err, d.tell(&was, &is, false))
	}
	if !told { // an equal value was written to one of them, and which is not known
		for _, tell := range same {
			err = errors.Join(err, tell())
		}
	}
	return err
}

// tell adds what observers and history learn of one register.
func (d *delivery) tell(before, after *StateBlock, waits bool) error {
	delta := QDelta{
		Cursor: Cursor{d.e.log, d.c.ordinal}, Part: len(d.c.deltas), Before: before.ID, After: *after,
		Changed: changes(before, after), Created: !before.Exists && after.Exists, Deleted: before.Exists && !after.Exists,
		Dot: d.dot, Cause: d.cause, Tag: d.tag, Pending: waits,
	}
	if !reservedName(after.Register) {
		if delta.Created {
			d.registers++
		}
		if delta.Deleted {
			d.registers--
		}
	}
	d.c.deltas, d.names = append(d.c.deltas, delta), append(d.names, after.Register)
	return nil
}

// reservedName says whether a register is the domain's own: it shows only to those who ask for it by name or prefix.
func reservedName(name string) bool {
	if name == "" || name[0] != '_' { // most are not
		return false
	}
	return strings.HasPrefix(name, rulesPrefix) || strings.HasPrefix(name, lattice.UnitPrefix) || strings.HasPrefix(name, lattice.OriginPrefix)
}

// shardOf is the shard of a register.
func shardOf(name string) byte {
	h := fnv.New32a()
	h.Write([]byte(name))
	n := h.Sum32()
	return byte(n ^ n>>8 ^ n>>16 ^ n>>24)
}

// move keeps up the hash over all registers.
func (d *delivery) move(name string, from, to lattice.Hash) {
	n := shardOf(name)
	i := slices.IndexFunc(d.shards, func(m movedShard) bool { return m.n == n })
	if i < 0 {
		i = len(d.shards)
		d.shards = append(d.shards, movedShard{n, d.e.seqr.shards[n]})
	}
	d.shards[i].sum.Remove(from)
	d.shards[i].sum.Add(to)
}

// notePending keeps up which registers have candidates that wait.
func (d *delivery) notePending(base, v *version) error {
	if base.reg == nil && len(v.reg.Waiting) == 0 || base.reg != nil && len(base.reg.Waiting)+len(v.reg.Waiting) == 0 {
		return nil
	}
	oldest := oldestWaiting(v.reg)
	d.waiting = append(d.waiting, waitingUnit{v.name, d.e.sight(base).decl.Mode(), oldestWaiting(base.reg) != 0, oldest})
	if oldest == 0 {
		return d.c.batch.Delete(store.Pending(v.name))
	}
	return d.c.batch.Set(store.Pending(v.name), lattice.AppendUint(nil, uint64(oldest)))
}

// oldestWaiting is since when candidates wait for a marker, 0 if none does.
func oldestWaiting(g *lattice.Register) (oldest Stamp) {
	if g == nil {
		return 0
	}
	for i := range g.Waiting {
		if w := &g.Waiting[i]; w.Held && (oldest == 0 || w.Time < oldest) {
			oldest = w.Time
		}
	}
	return oldest
}

// noteRules has the registers of a declaration that changed looked through: what they show may be another value now.
func (d *delivery) noteRules(before, after *StateBlock) error {
	var task []byte
	for _, b := range [...]*StateBlock{before, after} {
		prefix, _ := b.Value.Member("prefix")
		pattern, _ := b.Value.Member("pattern")
		task = lattice.AppendText(lattice.AppendText(task, prefix.Text()), pattern.Text())
	}
	return d.c.batch.Set(store.Internal(reprojectTable, after.Register), task)
}

// submit hands the commit to the storage. Candidates counts those that it adds.
func (d *delivery) submit(records []Record, erased [][]byte) error {
	e, c, s := d.e, d.c, &d.e.seqr
	for i := range c.deltas {
		c.deltas[i].Of = len(c.deltas)
	}
	b := c.batch
	var err error
	for i := range c.deltas {
		s.out = appendDelta(s.out[:0], &c.deltas[i])
		c.size += len(s.out)
		err = errors.Join(err, b.Set(store.History(c.deltas[i].After.Register, c.ordinal), s.out))
	}
	for _, m := range d.shards {
		h := m.sum.Hash()
		err = errors.Join(err, b.Set(store.Shard(m.n), h[:]))
	}
	record := commitRecord{dot: d.dot, clock: d.clock, registers: d.registers, candidates: d.candidates, names: d.names}
	s.out = record.append(s.out[:0])
	err = errors.Join(err, b.Set(store.Commit(c.ordinal), s.out), keep(b, records), erase(b, erased))
	if err != nil {
		return err
	}
	c.size = 3*c.size + 512
	s.ordinal, s.registers, s.candidates = c.ordinal, d.registers, d.candidates
	for _, m := range d.shards {
		s.shards[m.n] = m.sum
	}
	published := e.feed.published.Load()
	for _, v := range c.versions {
		e.recent.put(v.name, v, published)
	}
	for i := range d.learned {
		e.learn(d.learned[i])
	}
	for _, f := range d.found {
		e.find(f)
	}
	for _, w := range d.waiting {
		e.windows.note(w.name, w.mode, w.had, w.since)
	}
	e.feed.await(c)
	for i := range c.deltas {
		if a := &c.deltas[i].After; !a.ID.IsZero() && a.ID.Rank%trimStep == 0 {
			e.trimming.note(a.Register)
		}
	}
	if err := e.submit(c); err != nil || !d.stubs {
		return err
	}
	// Stubs are not among the recent registers, so the next write must find them on the disk.
	if err := e.store.Settle(); err != nil {
		return e.fail(fmt.Errorf("write of the log: %w", err))
	}
	e.recent.passBy()
	return nil
}

func erase(b store.Batch, keys [][]byte) error {
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// Root is the hash over all registers.
func (s *sequencer) root() lattice.Hash {
	var sum lattice.Tally
	for i := range s.shards {
		sum.Join(s.shards[i])
	}
	return sum.Hash()
}
