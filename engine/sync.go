package engine

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// What a link needs of an engine to say what it knows, and to give what another lacks.

// A Summary says what a node knows, in few bytes.
type Summary struct {
	Endpoint EndpointID
	Origin   OriginID     // of its running incarnation
	Head     lattice.Head // of its running incarnation: the last candidate, and by it all before
	Vector   QStateVector // what is on its disk
	Root     lattice.Hash // over all registers: equal vectors and unequal roots are a bug, never a difference to settle
	Shards   [256]lattice.Hash
	Heard    Stamp // it will never stamp anything earlier any more
}

// Summary says what this node knows. All of it is durable.
func (e *Engine) Summary(ctx context.Context) (Summary, error) {
	if err := e.enter(); err != nil {
		return Summary{}, err
	}
	defer e.leave()
	e.mu.Lock()
	core := e.seqr.core
	s := Summary{Endpoint: e.origin.Endpoint, Origin: e.self, Head: core.Head(e.self), Vector: core.Vector(), Root: e.seqr.root()}
	for i := range s.Shards {
		s.Shards[i] = e.seqr.shards[i].Hash()
	}
	at := e.seqr.ordinal
	s.Heard = max(core.Clock(), 1) // the next stamp is higher, whatever the wall clock says
	e.mu.Unlock()
	return s, e.settleHere(at)
}

// Meet holds what a peer says of itself against what this node knows: whether the peer is a clone of it, whether this
// node was restored from an older state, and whether both hold the same where they say so.
func (e *Engine) Meet(ctx context.Context, peer Summary) error {
	own, err := e.Summary(ctx)
	if err != nil {
		return err
	}
	if peer.Endpoint == own.Endpoint {
		if err := e.Twin(ctx, peer.Origin); err != nil {
			return err
		}
	}
	e.mu.Lock()
	core := e.seqr.core
	for _, d := range peer.Vector {
		if owner, ok := core.Owner(d.Origin); ok && owner.Origin.Endpoint == own.Endpoint && d.Seq > own.Vector.Seq(d.Origin) && !core.Covers(d) {
			defer e.alarm(lattice.Alarm{Kind: lattice.TailAlarm, Dot: d,
				Text: fmt.Sprintf("another node has %s of an earlier run of this one, which has it up to %d: its data are of an older state, a backup or a copy", d, own.Vector.Seq(d.Origin))})
		}
	}
	if h := core.Head(peer.Origin); h.Seq > 0 && h.Seq == peer.Head.Seq && h.Hash != peer.Head.Hash && h.Hash != (lattice.Hash{}) && peer.Head.Hash != (lattice.Hash{}) {
		defer e.alarm(lattice.Alarm{Kind: lattice.ForkAlarm, Dot: Dot{Origin: peer.Origin, Seq: h.Seq},
			Text: fmt.Sprintf("the candidates up to %s.%d are others here than with the one who wrote them, with the hashes %x and %x", peer.Origin, h.Seq, h.Hash[:8], peer.Head.Hash[:8])})
	}
	e.mu.Unlock()
	// What this program does not know waits in the order of its arrival, and says nothing.
	opaque := slices.ContainsFunc(e.findings.all(), func(f Finding) bool { return f.Code == "opaque" })
	if peer.Vector.Equal(own.Vector) && peer.Root != own.Root && !opaque {
		e.find(Finding{Code: "divergence", Subject: peer.Endpoint.String(), Text: fmt.Sprintf("this node and %s know the same candidates and hold different registers (%x and %x): a bug of this program or damage on a disk. Keep both data directories and report it.", peer.Endpoint, own.Root[:8], peer.Root[:8])})
	}
	return nil
}

// Twins notes that two processes run under another endpoint at once, as two incarnations: one is a clone.
func (e *Engine) Twins(ctx context.Context, endpoint EndpointID, a, b OriginID) error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	if a != b {
		e.alarm(lattice.Clone(endpoint, a, b))
	}
	return nil
}

// Twin notes that another process runs under this node's endpoint, as another incarnation: a clone.
func (e *Engine) Twin(ctx context.Context, origin OriginID) error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	if origin == e.self {
		return nil
	}
	e.alarm(lattice.Clone(e.origin.Endpoint, e.self, origin))
	return nil
}

// ErrTrimmed means that the log does not reach back far enough: a peer needs the state instead.
var ErrTrimmed = errors.New("the log was trimmed further than that")

// floor is where the log begins.
type floor struct {
	ordinal    uint64       // of the first commit in it
	candidates uint64       // that were removed from it
	vector     QStateVector // candidates that are not in it, though applied
}

func (e *Engine) loadFloor() error {
	raw, err := e.meta(metaFloor)
	if err != nil || raw == nil {
		return err
	}
	r := lattice.NewReader(raw)
	f := &floor{ordinal: r.Uint(), candidates: r.Uint(), vector: readVector(r)}
	if err := r.End(); err != nil {
		return damaged("where the log begins: %w", err)
	}
	e.floor.Store(f)
	return nil
}

func (f *floor) encode() []byte {
	return appendVector(lattice.AppendUint(lattice.AppendUint(nil, f.ordinal), f.candidates), f.vector)
}

// Candidates yields the candidates behind a place in this node's log that a peer's vector does not cover, in the order
// in which they were applied here, each with the place behind it. It ends with ErrTrimmed where the peer lacks some that
// are not in the log any more. Who keeps such a place for a peer begins anew when the peer's vector no longer covers what it
// said at that place: it was set back, or an origin has been retired, which looks the same.
func (e *Engine) Candidates(ctx context.Context, has QStateVector, behind Cursor) iter.Seq2[Candidate, error] {
	return func(yield func(Candidate, error) bool) {
		f := e.floor.Load()
		p := &peerHas{e: e, vector: has, knows: map[OriginID]bool{}}
		for _, d := range f.vector {
			has, err := p.covers(d)
			if err == nil && !has {
				err = ErrTrimmed
			}
			if err != nil {
				yield(Candidate{}, err)
				return
			}
		}
		after := uint64(0)
		if behind.Log == e.log {
			after = behind.Ordinal
		}
		for {
			list, looked, err := e.candidateChunk(ctx, p, after)
			for i := range list {
				if !yield(list[i], nil) {
					return
				}
			}
			if err != nil {
				yield(Candidate{}, err)
				return
			}
			if looked == after {
				return
			}
			after = looked
		}
	}
}

// A peerHas says what a peer has applied, by its vector. An origin that has been retired is in no vector: the peer has all
// of it if it has the candidate that retired it.
type peerHas struct {
	e      *Engine
	vector QStateVector
	knows  map[OriginID]bool // that an origin is retired
}

func (p *peerHas) covers(d Dot) (bool, error) {
	if p.vector.Covers(d) {
		return true, nil
	}
	if !p.e.retired(d.Origin) {
		return false, nil
	}
	return p.retired(d.Origin)
}

func (p *peerHas) retired(o OriginID) (bool, error) {
	if knows, known := p.knows[o]; known {
		return knows, nil
	}
	p.knows[o] = false // a chain of origins has no circle; should one be made up, it ends here
	if err := p.e.enter(); err != nil {
		return false, err
	}
	v, err := p.e.committed(lattice.OriginPrefix + o.String())
	p.e.leave()
	if err != nil || v == nil {
		return false, err
	}
	for _, entry := range v.reg.Entries("") {
		has, err := p.covers(entry.Dot)
		if err != nil {
			return false, err
		}
		p.knows[o] = p.knows[o] || has
	}
	return p.knows[o], nil
}

// A Candidate is one in its encoding, as it travels.
type Candidate struct {
	Dot   Dot
	Raw   []byte
	Place Cursor // it and all before it were yielded
}

func (e *Engine) candidateChunk(ctx context.Context, p *peerHas, after uint64) (list []Candidate, looked uint64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, after, err
	}
	if err := e.enter(); err != nil {
		return nil, after, err
	}
	defer e.leave()
	looked = after
	var wanted []wantedCandidate
	for row, err := range e.scan(store.Commit(after+1), store.Commit(e.feed.published.Load()+1), false) {
		if err != nil {
			return list, looked, err
		}
		ordinal, _ := store.CommitOrdinal(row.Key)
		c, err := parseCommit(ordinal, row.Value)
		if err != nil {
			return list, looked, err
		}
		has := c.dot.IsZero()
		if !has {
			if has, err = p.covers(c.dot); err != nil {
				return list, looked, err
			}
		}
		if !has {
			wanted = append(wanted, wantedCandidate{c.dot, ordinal})
		}
		if looked = ordinal; len(wanted) >= wantCandidates || looked-after >= lookCommits {
			break
		}
	}
	list, last, err := e.fetch(wanted)
	if last > 0 {
		looked = last
	}
	return list, looked, err
}

// wantCandidates is how many candidates are looked for at once.
const wantCandidates = 2048

type wantedCandidate struct {
	dot     Dot
	ordinal uint64
}

// fetch reads candidates, in their order, until they are enough for one chunk: then last is the ordinal of the last one.
func (e *Engine) fetch(wanted []wantedCandidate) (list []Candidate, last uint64, err error) {
	size := 0
	add := func(w wantedCandidate, value []byte) {
		raw := slices.Clone(value)
		list = append(list, Candidate{w.dot, raw, Cursor{e.log, w.ordinal}})
		size += len(raw)
	}
	for len(wanted) > 0 && size <= takeBytes {
		// What one node wrote in a row stands in a row: a scan is a tenth of the work of looking for each.
		n := 1
		for n < len(wanted) && wanted[n].dot.Origin == wanted[0].dot.Origin && wanted[n].dot.Seq == wanted[n-1].dot.Seq+1 {
			n++
		}
		run := wanted[:n]
		wanted = wanted[n:]
		if n == 1 {
			if _, err := e.get(store.Candidate(run[0].dot), func(value []byte) error {
				add(run[0], value)
				return nil
			}); err != nil {
				return list, 0, err
			}
			last = run[0].ordinal
			continue
		}
		first := run[0].dot.Seq
		for row, err := range e.scan(store.Candidate(run[0].dot), store.Behind(store.Candidate(run[n-1].dot)), false) {
			if err != nil {
				return list, 0, err
			}
			d, ok := store.DotOf(row.Key)
			if !ok || d.Seq-first >= uint64(n) {
				return list, 0, damaged("a candidate's key")
			}
			add(run[d.Seq-first], row.Value)
			if last = run[d.Seq-first].ordinal; size > takeBytes {
				break
			}
		}
		if size <= takeBytes {
			last = run[n-1].ordinal
		}
	}
	if len(wanted) == 0 && size <= takeBytes {
		last = 0 // all of it: what was looked at beyond counts too
	}
	return list, last, nil
}

// A RegisterHash is what a register is, in short.
type RegisterHash struct {
	Name string
	Hash lattice.Hash
}

// ShardOf is the shard of a register.
func ShardOf(name string) byte { return shardOf(name) }

// An Export is this node's state at one moment, for a peer that can't be served from the log. It has to be closed, and
// should be soon: the storage keeps what it needs.
type Export struct {
	e        *Engine
	at       store.Snapshot
	snapshot []byte
}

// Export gives the state as it is. All of it is durable.
func (e *Engine) Export(ctx context.Context) (*Export, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	e.mu.Lock()
	s, ordinal := e.seqr.core.Snapshot(), e.seqr.ordinal
	at, err := e.store.Snapshot()
	e.mu.Unlock()
	if err != nil {
		return nil, e.fail(err)
	}
	x := &Export{e: e, at: at}
	x.snapshot = appendSnapshot(nil, &s)
	e.exports.Add(1)
	if err := e.settleHere(ordinal); err != nil {
		return nil, errors.Join(err, x.Close())
	}
	return x, nil
}

// Close lets go of it.
func (x *Export) Close() error {
	defer x.e.exports.Done()
	return x.at.Close()
}

// Snapshot says under which knowledge its registers are to be joined: for BeginJoin.
func (x *Export) Snapshot() []byte { return x.snapshot }

// Hashes yields the registers of some shards that hold anything, by name: a node compares them with its own, and asks for
// those that differ.
func (x *Export) Hashes(ctx context.Context, shard func(byte) bool) iter.Seq2[RegisterHash, error] {
	return func(yield func(RegisterHash, error) bool) {
		lower := store.Register("")
		for row, err := range x.at.Scan(lower, store.Behind(lower), false) {
			if err = errors.Join(unreadable(err), ctx.Err()); err != nil {
				yield(RegisterHash{}, err)
				return
			}
			name := store.RegisterName(row.Key)
			if !shard(shardOf(name)) {
				continue
			}
			v, err := x.e.parse(name, row.Value)
			if err == nil && (v.unit != "" || v.reg.Empty()) {
				continue
			}
			if err != nil {
				yield(RegisterHash{}, err)
				return
			}
			if !yield(RegisterHash{name, v.hash}, nil) {
				return
			}
		}
	}
}

// Register gives a register's encoding, nil if nothing is left of it.
func (x *Export) Register(name string) (raw []byte, err error) {
	_, err = x.at.Get(store.Register(name), func(value []byte) error {
		v, err := x.e.parse(name, value)
		if err == nil && v.unit == "" && !v.reg.Empty() {
			raw = v.reg.AppendCBOR(nil)
		}
		return err
	})
	return raw, unreadable(err)
}

// Dump writes everything that the registers hold, in a form that is equal to the byte wherever the same candidates are
// known: lines of a name and the register in hexadecimal, by name.
func (e *Engine) Dump(ctx context.Context) ([]byte, error) {
	x, err := e.Export(ctx)
	if err != nil {
		return nil, err
	}
	defer x.Close()
	var out []byte
	for h, err := range x.Hashes(ctx, func(byte) bool { return true }) {
		if err != nil {
			return nil, err
		}
		raw, err := x.Register(h.Name)
		if err != nil {
			return nil, err
		}
		out = fmt.Appendf(out, "%s %s\n", h.Name, hex.EncodeToString(raw))
	}
	return out, nil
}
