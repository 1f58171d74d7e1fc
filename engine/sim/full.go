package sim

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
)

// A fullNode is the whole engine on a disk in memory.
type fullNode struct {
	o     settings
	e     *engine.Engine
	fs    *gatedFS
	log   uint64
	waits []func() (engine.Receipt, error) // of what was submitted while the gate is shut
}

const dataDir = "data"

var ctx = context.Background()

func startFull(from disk, o settings) (*fullNode, error) {
	fs, _ := from.(*vfs.MemFS)
	if fs == nil {
		fs = vfs.NewCrashableMem()
	}
	n := &fullNode{o: o, fs: newGatedFS(fs)}
	var err error
	n.e, err = engine.Open(engine.Options{
		Dir: dataDir, FS: n.fs, Now: o.clock.now, Random: o.random, Passive: true, MinFree: 1,
		CacheBytes: 64 << 10, MemTableBytes: 4 << 20, RecentBytes: 64 << 10, FeedBytes: 16 << 10,
		HistoryAge: o.historyAge, PurgeAfter: o.purgeAfter, Fatal: func(error) {},
	})
	if err != nil {
		return nil, err
	}
	c, err := n.e.Cursor(ctx)
	n.log = c.Log
	return n, err
}

func (n *fullNode) endpoint() engine.EndpointID {
	s, _ := n.e.Status(ctx)
	return s.Endpoint
}

func (n *fullNode) submit(w engine.Write) (engine.Dot, func() (engine.Receipt, error), error) {
	if n.o.mutant == DeleteWhole {
		w.Ops = removeAll(n, w.Ops)
	}
	return n.e.Submit(ctx, w)
}

func (n *fullNode) collapse(register string) error {
	_, err := n.e.Collapse(ctx, register, engine.Cause{})
	return err
}

func (n *fullNode) revert(register string, to engine.StateID) error {
	_, err := n.e.Revert(ctx, register, engine.Moment{ID: to}, engine.Cause{})
	return err
}

func (n *fullNode) declare(list []engine.Declaration) error { return n.e.Declare(ctx, list) }
func (n *fullNode) tend() error                             { return n.e.Tend(ctx) }

func (n *fullNode) read(register string) (engine.StateBlock, error) {
	return n.e.ReadState(ctx, register)
}

func (n *fullNode) told(register string) (b engine.StateBlock, ok bool, err error) {
	for d, err := range n.e.History(ctx, engine.HistoryQuery{Register: register, Limit: 1}) {
		return d.After, err == nil, err
	}
	return b, false, nil
}

func (n *fullNode) receive(raw [][]byte) (engine.Reception, error) { return n.e.Receive(ctx, raw...) }
func (n *fullNode) summary() (engine.Summary, error)               { return n.e.Summary(ctx) }
func (n *fullNode) meet(peer engine.Summary) error                 { return n.e.Meet(ctx, peer) }

func (n *fullNode) vector() (engine.QStateVector, error) {
	s, err := n.e.Summary(ctx)
	return s.Vector, err
}

func (n *fullNode) setMembers(ids []engine.EndpointID) error { return n.e.SetMembers(ctx, ids...) }
func (n *fullNode) heard(m engine.Member) error              { return n.e.Heard(ctx, m) }

func (n *fullNode) candidates(has engine.QStateVector, behind engine.Cursor) (out []engine.Candidate, err error) {
	for c, err := range n.e.Candidates(ctx, has, behind) {
		if err != nil {
			return out, err
		}
		out = append(out, c)
	}
	return out, nil
}

func (n *fullNode) place() engine.Cursor {
	c, _ := n.e.Cursor(ctx)
	return c
}

func (n *fullNode) export() (*export, error) {
	x, err := n.e.Export(ctx)
	if err != nil {
		return nil, err
	}
	defer x.Close()
	out := &export{snapshot: slices.Clone(x.Snapshot()), registers: map[string][]byte{}}
	for h, err := range x.Hashes(ctx, func(byte) bool { return true }) {
		if err != nil {
			return nil, err
		}
		if out.registers[h.Name], err = x.Register(h.Name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (n *fullNode) join(x *export) error {
	j, err := n.e.BeginJoin(ctx, x.snapshot.([]byte))
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(x.registers)) {
		if err := j.Add(name, x.registers[name]); err != nil {
			return errors.Join(err, j.Abort())
		}
	}
	return j.Commit(ctx)
}

func (n *fullNode) keep(key string, value []byte) error {
	return n.e.KeepRecords(ctx, true, engine.Record{Table: "sim", Key: key, Value: value})
}

func (n *fullNode) kept(key string) ([]byte, error) { return n.e.Kept("sim", key) }
func (n *fullNode) status() (engine.Status, error)  { return n.e.Status(ctx) }

func (n *fullNode) backup() (disk, error) {
	if err := n.fs.RemoveAll("backup"); err != nil { // of one that was cut short
		return nil, err
	}
	if _, err := n.e.Backup(ctx, "backup"); err != nil {
		return nil, err
	}
	out := vfs.NewCrashableMem()
	if _, err := vfs.Clone(n.fs.MemFS, out, "backup", dataDir, vfs.CloneSync); err != nil {
		return nil, err
	}
	if d, err := out.OpenDir(""); err == nil {
		_ = errors.Join(d.Sync(), d.Close())
	}
	return out, n.fs.RemoveAll("backup")
}

func (n *fullNode) image() disk { return n.fs.MemFS.CrashClone(vfs.CrashCloneCfg{}) }

// crash cuts the power. What happens to the engine behind it happens on a disk that nobody will see.
func (n *fullNode) crash(c cut) disk {
	left := n.fs.crash(c.torn)
	n.fs.open()
	for _, wait := range n.waits {
		_, _ = wait()
	}
	n.waits = nil
	_ = n.e.Close()
	return left
}

func (n *fullNode) stop() (disk, error) {
	err := n.e.Close()
	return n.fs.MemFS, err
}

// sync makes durable what was stored and need not be: what stands before the gate is then only what comes behind it.
func (n *fullNode) sync() error { return n.keep("sync", []byte{1}) }

// during runs f with the gate shut after so many syncs, and cuts the power when something stands before it, or f has
// returned. Which of the two is left to pebble, and makes no difference to what is on the disk.
func (n *fullNode) during(syncs int, torn int, f func()) disk {
	if n.sync() != nil {
		return n.fs.crash(0)
	}
	n.fs.close(syncs)
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		f()
	}()
	n.fs.wait(returned)
	left := n.fs.crash(torn)
	n.fs.open()
	<-returned
	_ = n.e.Close()
	return left
}

var _ replica = (*fullNode)(nil)
