package sim

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

type messageKind uint8

const (
	summaryMessage    messageKind = iota
	candidatesMessage             // what a summary was answered with
	trimmedMessage                // likewise: there is no log for it, take the state
	wantMessage                   // the registers of the shards that differ
	stateMessage                  // the registers that differ
)

// A message is on its way. Sessions are between two starts of two nodes: what is of another one is not read.
type message struct {
	kind      messageKind
	from, to  int
	lives     [2]int // starts of from and to
	summary   engine.Summary
	raw       [][]byte
	registers map[string]string // want: hash by name of the wanted shards
	shards    [256]bool
	state     *export
}

func (w *world) valid(m *message) bool {
	to, from := w.nodes[m.to], w.nodes[m.from]
	if m.kind == candidatesMessage { // a candidate is one whoever brings it
		return to.r != nil
	}
	return to.r != nil && from.r != nil && from.life == m.lives[0] && to.life == m.lives[1]
}

func (w *world) send(m message) {
	m.lives = [2]int{w.nodes[m.from].life, w.nodes[m.to].life}
	if w.cutOff[[2]int{m.from, m.to}] {
		return
	}
	if len(w.queue) > 100 {
		w.queue = slices.Delete(w.queue, 0, 50)
	}
	w.queue = append(w.queue, m)
}

// take takes one that fits out of the queue.
func (w *world) take(fits func(*message) bool) *message {
	for i := range w.queue {
		if fits(&w.queue[i]) {
			m := w.queue[i]
			w.queue = slices.Delete(w.queue, i, i+1)
			return &m
		}
	}
	return nil
}

// deliver delivers any message, loses it, or delivers it and keeps it for another time.
func (w *world) deliver() {
	if len(w.queue) == 0 {
		return
	}
	i := w.rng.IntN(len(w.queue))
	m := w.queue[i]
	switch p := w.rng.IntN(20); {
	case p == 0:
		w.tell("a message is lost")
		w.queue = slices.Delete(w.queue, i, i+1)
		return
	case p == 1: // it comes again
	default:
		w.queue = slices.Delete(w.queue, i, i+1)
	}
	w.handle(&m)
}

// greet sends a summary to somebody.
func (w *world) greet(n *node) {
	to := w.rng.IntN(len(w.nodes))
	if to == n.i {
		return
	}
	s, err := n.r.summary()
	w.must(err)
	w.send(message{kind: summaryMessage, from: n.i, to: to, summary: s})
}

func (w *world) handle(m *message) {
	if !w.valid(m) {
		return
	}
	n := w.nodes[m.to]
	w.tell("node %d gets message %d of %d", m.to, m.kind, m.from)
	switch m.kind {
	case summaryMessage:
		for _, reply := range w.answer(n, m.from, &m.summary) {
			w.send(reply)
		}
	case candidatesMessage:
		w.receive(n, m.raw)
	case trimmedMessage:
		if reply, ok := w.want(n, m); ok {
			w.send(reply)
		}
	case wantMessage:
		w.send(w.give(n, m))
	case stateMessage:
		w.join(n, m)
	}
}

// receive hands candidates to a node, in any order.
func (w *world) receive(n *node, raw [][]byte) {
	if w.rng.IntN(3) == 0 {
		raw = slices.Clone(raw)
		w.rng.Shuffle(len(raw), func(i, j int) { raw[i], raw[j] = raw[j], raw[i] })
	}
	r, err := n.r.receive(raw)
	w.must(err)
	w.tell("node %d: applied %d, known %d, held %d, refused %d", n.i, r.Applied, r.Known, r.Held, r.Refused)
	if r.Refused > 0 {
		w.fail(NoRefusal, "node %d refuses %d candidates", n.i, r.Refused)
	}
	w.after(n)
}

// A peer is what a node keeps of another: how far into its own log that one has everything, and what that one said then.
type peer struct {
	behind engine.Cursor
	vector engine.QStateVector
}

func peerKey(s *engine.Summary) string { return "peer/" + s.Endpoint.String() }

func (p *peer) encode() []byte {
	var b strings.Builder
	b.WriteString(p.behind.String())
	for _, d := range p.vector {
		b.WriteByte(' ')
		b.WriteString(d.String())
	}
	return []byte(b.String())
}

func parsePeer(raw []byte) (p peer, err error) {
	words := strings.Fields(string(raw))
	if len(words) == 0 {
		return p, nil
	}
	if p.behind, err = engine.ParseCursor(words[0]); err != nil {
		return p, err
	}
	for _, word := range words[1:] {
		d, err := lattice.ParseDot(word)
		if err != nil {
			return p, err
		}
		p.vector = append(p.vector, d)
	}
	return p, nil
}

// answer is what a node does about a peer's summary. What it sends begins behind the cursor that it keeps for that peer,
// which moves when the peer has said that it has what is before it.
func (w *world) answer(n *node, to int, s *engine.Summary) (replies []message) {
	w.must(n.r.meet(*s))
	if err := n.r.heard(engine.Member{Endpoint: s.Endpoint, Vector: s.Vector, Heard: s.Heard}); err != nil && !errors.Is(err, engine.ErrNotFound) {
		w.must(err)
	}
	w.divergence(n)
	raw, err := n.r.kept(peerKey(s))
	w.must(err)
	p, err := parsePeer(raw)
	w.must(err)
	for _, d := range p.vector {
		// It was set back, or an origin has left its vector. Which of the two it is this node can't tell, and need not:
		// Candidates knows what of a retired origin is had.
		if !s.Vector.Covers(d) && w.o.Mutant != CursorBeforeEffect {
			p = peer{}
			break
		}
	}
	all := n.r.place()
	list, err := n.r.candidates(s.Vector, p.behind)
	if errors.Is(err, engine.ErrTrimmed) {
		own, err := n.r.summary()
		w.must(err)
		x, err := n.r.export()
		w.must(err)
		return []message{{kind: trimmedMessage, from: n.i, to: to, summary: own, state: x}}
	}
	w.must(err)
	behind := all
	if len(list) > 0 {
		behind = engine.Cursor{Log: all.Log, Ordinal: list[0].Place.Ordinal - 1}
		if w.o.Mutant == CursorBeforeEffect {
			behind = list[len(list)-1].Place
		}
	}
	if behind.Log != p.behind.Log || behind.Ordinal > p.behind.Ordinal {
		next := peer{behind, s.Vector}
		w.must(n.r.keep(peerKey(s), next.encode()))
	}
	for len(list) > 0 {
		k := len(list)
		if !w.resting {
			k = 1 + w.rng.IntN(k)
		}
		m := message{kind: candidatesMessage, from: n.i, to: to}
		for _, c := range list[:k] {
			m.raw = append(m.raw, c.Raw)
		}
		list = list[k:]
		replies = append(replies, m)
	}
	return replies
}

// want is what a node asks for of a peer whose log does not reach back far enough.
func (w *world) want(n *node, m *message) (reply message, ok bool) {
	own, err := n.r.summary()
	w.must(err)
	reply = message{kind: wantMessage, from: n.i, to: m.from, state: m.state, registers: map[string]string{}}
	for i := range own.Shards {
		reply.shards[i] = own.Shards[i] != m.summary.Shards[i]
	}
	x, err := n.r.export()
	w.must(err)
	for name, raw := range x.registers {
		if reply.shards[engine.ShardOf(name)] {
			reply.registers[name] = string(raw)
		}
	}
	return reply, true
}

// give is the registers that differ.
func (w *world) give(n *node, m *message) message {
	x := m.state // what it was when it said how its shards are
	out := &export{snapshot: x.snapshot, registers: map[string][]byte{}}
	for name, raw := range x.registers {
		if m.shards[engine.ShardOf(name)] && m.registers[name] != string(raw) {
			out.registers[name] = raw
		}
	}
	for name := range m.registers {
		if x.registers[name] == nil {
			out.registers[name] = nil
		}
	}
	return message{kind: stateMessage, from: n.i, to: m.from, state: out}
}

func (w *world) join(n *node, m *message) {
	w.joins++
	w.tell("node %d joins %d registers: %v", n.i, len(m.state.registers), slices.Sorted(maps.Keys(m.state.registers)))
	if full, ok := n.r.(*fullNode); ok && !w.resting && w.rng.IntN(6) == 0 {
		left := full.during(1, 0, func() { _ = full.join(m.state) })
		w.tell("node %d loses power while it joins", n.i)
		w.down(n, left)
		return
	}
	w.must(n.r.join(m.state))
	w.after(n)
}
