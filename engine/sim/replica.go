package sim

import (
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// A replica is a node's engine as the world drives it: the whole one on a disk that can crash, or the pure core with
// registers in maps. It runs on one goroutine.
type replica interface {
	endpoint() engine.EndpointID
	// submit sequences a write; it is acknowledged when wait returns.
	submit(w engine.Write) (dot engine.Dot, wait func() (engine.Receipt, error), err error)
	collapse(register string) error
	revert(register string, to engine.StateID) error
	declare(list []engine.Declaration) error
	tend() error
	read(register string) (engine.StateBlock, error)
	// told is the newest entry of a register's history; ok is false where there is none.
	told(register string) (block engine.StateBlock, ok bool, err error)

	receive(raw [][]byte) (engine.Reception, error)
	summary() (engine.Summary, error)
	vector() (engine.QStateVector, error)
	meet(peer engine.Summary) error
	setMembers(ids []engine.EndpointID) error
	heard(m engine.Member) error
	candidates(has engine.QStateVector, behind engine.Cursor) ([]engine.Candidate, error)
	place() engine.Cursor
	// export gives the state as it is: what joins need to know, and each register's encoding.
	export() (*export, error)
	join(x *export) error

	keep(key string, value []byte) error
	kept(key string) ([]byte, error)
	status() (engine.Status, error)

	// backup makes a copy that knows that it is one.
	backup() (disk, error)
	// image is the disk as a copy of its blocks would have it, now.
	image() disk
	// crash ends the node at once and gives what is left. cut is what becomes of what was not synced.
	crash(cut cut) disk
	// stop ends it in order.
	stop() (disk, error)
}

// A disk is what a replica starts from; nil is an empty one.
type disk any

// An export is the state of a replica at one moment, as it travels.
type export struct {
	snapshot  any // []byte of the whole engine, *lattice.Snapshot of the core
	registers map[string][]byte
}

// A cut says what a crash leaves of what was sequenced and not synced.
type cut struct {
	whole int // of what was sequenced one after the other, so many from the first are on disk
	torn  int // bytes of the next one that are there too
}

// A clock is a node's wall clock. It may be wrong in any way.
type clock struct {
	world  *time.Duration
	offset time.Duration
	frozen bool
	at     time.Duration // while it is frozen
}

var epoch = time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)

func (c *clock) now() time.Time {
	if c.frozen {
		return epoch.Add(c.at + c.offset)
	}
	return epoch.Add(*c.world + c.offset)
}

// settings are how a replica is run.
type settings struct {
	clock      *clock
	random     *source
	historyAge time.Duration
	purgeAfter time.Duration
	mutant     Mutant
}

// live lists the entries that live in a register, in order.
func live(g *lattice.Register) string {
	var b []byte
	if g != nil {
		for _, f := range g.Fields {
			b = append(b, f.Name...)
			b = append(b, 0)
			for _, e := range f.Entries {
				b = append(b, e.Dot.Origin[:]...)
				b = lattice.AppendUint(b, e.Dot.Seq)
			}
			b = append(b, 1)
		}
	}
	return string(b)
}

// removeAll has each delete take the fields with it, as a delete must not.
func removeAll(r replica, ops []engine.Op) (out []engine.Op) {
	for _, op := range ops {
		if op.Kind == engine.OpDelete {
			b, err := r.read(op.Register)
			if err == nil && b.Exists && b.Value.Kind() == lattice.ObjectKind {
				for _, m := range b.Value.Members() {
					out = append(out, engine.Op{Register: op.Register, Kind: engine.OpRemove, Field: m.Name})
				}
			}
		}
		out = append(out, op)
	}
	return out
}
