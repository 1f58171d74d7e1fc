package sim

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// registers are the names that a history may write.
func (w *world) registers() (names []string) {
	plain := false
	for i := range w.templates {
		t := &w.templates[i]
		plain = plain || t.name == "plain"
		for k := range t.count {
			names = append(names, t.register(k))
		}
	}
	if !plain {
		for k := range templates[0].count {
			names = append(names, templates[0].register(k))
		}
	}
	return names
}

// check holds what a node shows against what must be true at any time.
func (w *world) check(n *node) {
	v, err := n.r.vector()
	w.must(err)
	for _, d := range n.vector {
		if !w.covers(n, v, d) {
			w.fail(VectorsRise, "node %d had %s and has %d", n.i, d, v.Seq(d.Origin))
		}
	}
	n.vector = v
	if n.life != n.checkedLife {
		n.checkedLife = n.life
		for _, d := range n.mine {
			if !w.covers(n, v, d) {
				w.fail(Durable, "node %d acknowledged %s and has %d of it", n.i, w.short(d), v.Seq(d.Origin))
			}
		}
		w.checkRecord(n, v)
	}
	var batch []string
	for _, name := range w.registers() {
		b, err := n.r.read(name)
		w.must(err)
		if was := n.ranks[name]; b.ID.Rank < was && !b.ID.IsZero() && !strings.HasPrefix(name, "group/") {
			// A register of which nothing is left is forgotten; one that comes into a group has the group's rank from there on.
			w.fail(RanksRise, "%s at node %d was at rank %d and is at %d", name, n.i, was, b.ID.Rank)
		}
		n.ranks[name] = b.ID.Rank
		switch t, _, _ := strings.Cut(name, "/"); t {
		case "batch":
			batch = append(batch, b.Value.String())
		case "doc":
			_, hasA := b.Value.Member("a")
			_, hasB := b.Value.Member("b")
			// A node that was set back writes as one that has not confirmed what it had confirmed.
			if b.Exists && !(hasA && hasB) && !w.restored && !w.cloned {
				w.fail(WholeRecord, "%s at node %d is %s", name, n.i, b.Value)
			}
		}
	}
	if len(batch) > 0 && len(slices.Compact(batch)) > 1 {
		w.fail(BatchesWhole, "at node %d the registers of a batch are %s", n.i, batch)
	}
	if c, ok := n.r.(*coreNode); ok {
		for _, s := range c.moved { // since it was looked at last
			for i := range s.changes {
				w.digest(s.changes[i].Name, s.changes[i].After)
			}
		}
		c.moved = c.moved[:0]
	}
}

// checkRecord says that a record is there if and only if the candidate is in whose batch it was stored.
func (w *world) checkRecord(n *node, v engine.QStateVector) {
	raw, err := n.r.kept("wrote")
	w.must(err)
	newest := 0
	if raw != nil {
		if newest, err = strconv.Atoi(string(raw)); err != nil {
			w.fail(BatchesWhole, "record of node %d is %q", n.i, raw)
		}
	}
	if newest < n.wrote {
		w.fail(Durable, "node %d acknowledged record %d and has %d", n.i, n.wrote, newest)
	}
	for k, d := range n.records {
		if has := w.covers(n, v, d); has != (k <= newest) && (k >= n.wrote) {
			w.fail(BatchesWhole, "node %d has candidate %s: %v, and its record %d: the newest is %d, acknowledged %d", n.i, w.short(d), has, k, newest, n.wrote)
		} else if !has {
			delete(n.records, k) // it went with the power
		}
	}
}

// digest holds a register's digest against those of all others that were seen.
func (w *world) digest(name string, g *lattice.Register) {
	d, l := g.Digest(), live(g)
	if w.digests[name] == nil {
		w.digests[name], w.lives[name] = map[[16]byte]string{}, map[string][16]byte{}
	}
	if was, ok := w.digests[name][d]; ok && was != l {
		w.fail(Digests, "%s has digest %x for two sets of entries", name, d)
	}
	if was, ok := w.lives[name][l]; ok && was != d {
		w.fail(Digests, "%s has digests %x and %x for the same entries", name, was, d)
	}
	w.digests[name][d], w.lives[name][l] = l, d
}

// history says that the newest entry of each register's history is what readers see, at a node that has just tended.
func (w *world) history(n *node) {
	for _, name := range w.registers() {
		b, err := n.r.read(name)
		w.must(err)
		told, ok, err := n.r.told(name)
		w.must(err)
		if _, core := n.r.(*coreNode); core {
			return
		}
		inGroup := strings.HasPrefix(name, "group/") // of which one commit tells only what it changes
		if ok && (told.Exists != b.Exists || !told.Value.Equal(b.Value) || told.ID != b.ID && !inGroup) || !ok && b.Exists {
			w.fail(HistoryEnds, "%s at node %d is %s (%s), and history says %s (%s)", name, n.i, b.Value, b.ID, told.Value, told.ID)
		}
	}
}

func (w *world) findings(n *node, code string) (out []engine.Finding) {
	s, err := n.r.status()
	w.must(err)
	for _, f := range s.Findings {
		if f.Code == code {
			out = append(out, f)
		}
	}
	return out
}

func (w *world) divergence(n *node) {
	if f := w.findings(n, "divergence"); len(f) > 0 {
		w.fail(NoDivergence, "node %d: %s", n.i, f[0].Text)
	}
	if f := w.findings(n, "fork"); len(f) > 0 {
		w.fail(CloneFound, "node %d: %s", n.i, f[0].Text)
	}
	if f := w.findings(n, "clone"); len(f) > 0 && !w.cloned && !w.restored {
		w.fail(CloneFound, "node %d: %s", n.i, f[0].Text)
	}
}

// exchange has b give a all that it lacks, over a link that loses nothing.
func (w *world) exchange(a, b *node) {
	s, err := a.r.summary()
	w.must(err)
	// What has left a's vector, by a candidate that b has not heard of or has replaced, can't be told from what a has lost.
	news := slices.ContainsFunc(w.known, func(d engine.Dot) bool {
		name := lattice.OriginPrefix + d.Origin.String()
		one, err := a.r.read(name)
		w.must(err)
		other, err := b.r.read(name)
		w.must(err)
		return one.Exists && one.ID.Digest != other.ID.Digest
	})
	replies := w.answer(b, a.i, &s)
	sent, differ := 0, 0
	for i := range replies {
		m := &replies[i]
		m.lives = [2]int{b.life, a.life}
		switch m.kind {
		case candidatesMessage:
			for _, raw := range m.raw {
				q, err := lattice.ParseCandidate(raw)
				w.must(err)
				sent += len(raw)
				if !w.covers(a, s.Vector, q.Dot) || news && !s.Vector.Covers(q.Dot) {
					differ += len(raw)
				}
			}
			w.receive(a, m.raw)
		case trimmedMessage:
			want, _ := w.want(a, m)
			state := w.give(b, &want)
			w.join(a, &state)
		}
	}
	if sent > differ+256 && !w.cloned { // a clone may have ended the run of its original by mistake, and not everywhere
		w.fail(InProportion, "node %d sends %d bytes to node %d, which lacks %d", b.i, sent, a.i, differ)
	}
}

// quiet exchanges until nothing moves any more.
func (w *world) quiet() {
	for round := range 4 + 3*len(w.nodes) {
		moved := false
		for _, a := range w.nodes {
			for _, b := range w.nodes {
				if a == b {
					continue
				}
				before, held := a.vector, w.held(a)
				w.exchange(a, b)
				moved = moved || !before.Equal(a.vector) || held != w.held(a)
			}
		}
		w.tell("round %d", round)
		if !moved {
			return
		}
	}
	w.fail(Live, "there is no end to what they send")
}

func (w *world) held(n *node) uint64 {
	s, err := n.r.status()
	w.must(err)
	return s.Held
}

// rest heals the world, waits until it is quiet, and looks at all of it.
func (w *world) rest() {
	w.resting = true
	clear(w.cutOff)
	w.queue = nil
	w.tell("all is healed")
	for _, n := range w.nodes {
		if n.r == nil {
			w.start(n)
		}
		n.clock.frozen = false
	}
	if c, ok := w.nodes[0].r.(*coreNode); ok {
		_ = c
		for _, n := range w.nodes {
			w.must(n.r.declare(w.rules))
		}
	}
	w.quiet()
	w.alike()
	for range 2 { // twins that write and hear of each other are seen to be two
		for _, n := range w.nodes {
			if n.twin {
				w.submit(n, engine.Write{Ops: []engine.Op{{Register: "plain/0", Kind: engine.OpPut, Field: "x", Value: lattice.Int(0)}}}, true)
			}
		}
		w.quiet()
	}
	for range 1 + w.rng.IntN(3) {
		w.now += 5 * time.Minute
		for _, n := range w.nodes {
			w.must(n.r.tend())
			w.after(n)
			w.history(n)
		}
		w.quiet()
	}
	for i := 0; ; i++ {
		was := len(w.candidates)
		for _, n := range w.nodes {
			w.must(n.r.tend())
			w.after(n)
		}
		w.quiet()
		if len(w.candidates) == was {
			break
		}
		if i == 4+3*len(w.nodes) {
			w.fail(Live, "there is no end to what is to be tended")
		}
	}
	w.alike()
	w.whole()
}

// alike holds the nodes against each other and against the oracle, when they know the same.
func (w *world) alike() {
	var first engine.Summary
	var dump string
	var x *export
	for i, n := range w.nodes {
		s, err := n.r.summary()
		w.must(err)
		y, err := n.r.export()
		w.must(err)
		var b strings.Builder
		for _, name := range slices.Sorted(maps.Keys(y.registers)) {
			fmt.Fprintf(&b, "%s %s\n", name, hex.EncodeToString(y.registers[name]))
		}
		if w.held(n) > 0 && !w.restored { // what those wait for may be gone with a disk that was set back
			w.fail(Live, "node %d holds %d candidates", n.i, w.held(n))
		}
		if i == 0 {
			first, dump, x = s, b.String(), y
			continue
		}
		if !s.Vector.Equal(first.Vector) {
			w.fail(VectorsEqual, "%s\n%s", w.vector(first.Vector), w.vector(s.Vector))
		}
		if b.String() != dump {
			w.fail(DumpsEqual, "node 0:\n%snode %d:\n%s", dump, n.i, b.String())
		}
		if s.Root != first.Root || s.Shards != first.Shards {
			w.fail(RootsEqual, "%x and %x", first.Root, s.Root)
		}
	}
	w.tell("at rest: %s %x", w.vector(first.Vector), first.Root[:8])
	w.oracle(w.nodes[0], first.Vector, x)
	for name := range x.registers {
		if strings.HasPrefix(name, "_") {
			continue
		}
		one, err := w.nodes[0].r.read(name)
		w.must(err)
		for _, n := range w.nodes[1:] {
			other, err := n.r.read(name)
			w.must(err)
			if one.Exists != other.Exists || !one.Value.Equal(other.Value) {
				w.fail(ValuesEqual, "%s is %s at node 0 and %s at node %d", name, one.Value, other.Value, n.i)
			}
		}
	}
	for name, raw := range x.registers {
		g, err := lattice.ParseRegister(raw)
		w.must(err)
		w.digest(name, g)
	}
}

func (w *world) vector(v engine.QStateVector) string {
	var b strings.Builder
	for _, d := range v {
		fmt.Fprintf(&b, "%s ", w.short(d))
	}
	return b.String()
}

// whole looks at what can only be said of the whole.
func (w *world) whole() {
	n := w.nodes[0]
	for d := range w.acked {
		if !w.exempt[d] && !w.covers(n, n.vector, d) {
			w.fail(NothingLost, "%s was acknowledged and is nowhere", d)
		}
	}
	if slices.ContainsFunc(w.templates, func(t template) bool { return t.name == "sum" }) && !w.cloned {
		want := int64(0)
		for d, by := range w.adds {
			if w.candidates[d] != nil && w.covers(n, n.vector, d) {
				want += by
			}
		}
		b, err := n.r.read("sum/0")
		w.must(err)
		if got, _ := b.Value.Member("x"); got.Int() != want {
			w.fail(Sums, "sum/0 is %s, and %d was added", b.Value, want)
		}
	}
	for _, n := range w.nodes {
		w.divergence(n)
		// Both of the two notice it. Others can't always tell it from a node that was restored from a backup.
		if w.cloned && n.twin && len(w.findings(n, "clone")) == 0 {
			w.fail(CloneFound, "node %d has not noticed that there is a clone", n.i)
		}
	}
}

// oracle folds the candidates that survive without any order, and compares.
func (w *world) oracle(n *node, v engine.QStateVector, x *export) {
	type arrival struct {
		q *lattice.QCandidate
		a lattice.Arrival
	}
	byName := map[string][]arrival{}
	for d, q := range w.candidates {
		if !w.covers(n, v, d) {
			continue
		}
		for name, a := range q.Each {
			byName[name] = append(byName[name], arrival{q, a})
		}
	}
	for name := range x.registers {
		if byName[name] == nil {
			w.fail(AsOracle, "nobody has written %s", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		list := byName[name]
		slices.SortFunc(list, func(a, b arrival) int { return a.a.Dot.Compare(b.a.Dot) })
		var cover []engine.QStateVector
		for i := range list {
			for _, op := range list[i].a.Ops {
				if op.Kind == lattice.Collapse {
					cover = append(cover, op.Seen)
				}
			}
		}
		gone := map[string]map[engine.Dot]bool{}
		want := &lattice.Register{}
		fields := map[string][]lattice.Entry{}
		for i := range list {
			a := &list[i].a
			if a.Held && !slices.ContainsFunc(cover, func(v engine.QStateVector) bool { return v.Covers(a.Dot) }) {
				ops := slices.Clone(a.Ops)
				for j := range ops {
					ops[j].Register = ""
				}
				want.Waiting = append(want.Waiting, lattice.Waiting{Dot: a.Dot, Time: a.Time, By: a.By, Held: true, Ops: ops})
				continue
			}
			for _, op := range a.Ops {
				if op.Kind == lattice.Collapse {
					continue
				}
				if gone[op.Field] == nil {
					gone[op.Field] = map[engine.Dot]bool{}
				}
				for _, d := range op.Seen {
					gone[op.Field][d] = true
				}
				if op.Kind == lattice.Put {
					fields[op.Field] = append(fields[op.Field], lattice.Entry{Dot: a.Dot, Time: a.Time, By: a.By, Value: op.Value})
				}
			}
		}
		for _, field := range slices.Sorted(maps.Keys(fields)) {
			entries := slices.DeleteFunc(fields[field], func(e lattice.Entry) bool { return gone[field][e.Dot] })
			if len(entries) > 0 {
				want.Fields = append(want.Fields, lattice.Field{Name: field, Entries: entries})
			}
		}
		var got *lattice.Register
		if raw := x.registers[name]; raw != nil {
			var err error
			got, err = lattice.ParseRegister(raw)
			w.must(err)
		}
		if want.Empty() && got.Empty() || got != nil && bytes.Equal(want.AppendCBOR(nil), got.AppendCBOR(nil)) {
			continue
		}
		invariant := AsOracle
		if got != nil {
			for _, f := range got.Fields {
				for _, e := range f.Entries {
					if gone[f.Name][e.Dot] {
						invariant = Resurrection
					}
				}
			}
		}
		w.fail(invariant, "%s is\n%s, and should be\n%s", name, story(got), story(want))
	}
}

func story(g *lattice.Register) string {
	var b strings.Builder
	if g != nil {
		for _, f := range g.Fields {
			fmt.Fprintf(&b, "  %q:", f.Name)
			for _, e := range f.Entries {
				fmt.Fprintf(&b, " %s.%d=%s", hex.EncodeToString(e.Dot.Origin[:2]), e.Dot.Seq, e.Value)
			}
			b.WriteString("\n")
		}
		for _, x := range g.Waiting {
			fmt.Fprintf(&b, "  waits: %s.%d\n", hex.EncodeToString(x.Dot.Origin[:2]), x.Dot.Seq)
		}
	}
	return b.String()
}
