package sim

import (
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A gatedFS is a crashable file system whose write-ahead log can be held still: what is written to it waits in front of
// the gate. So a crash between sequencing and sync leaves what the world's seed says, and not what pebble's own
// goroutines had come to.
type gatedFS struct {
	*vfs.MemFS
	mu     sync.Mutex
	cond   sync.Cond
	shut   bool
	passes int    // syncs that go through before it shuts
	armed  bool   // it shuts when passes are used up
	stuck  []byte // of the write that waits
	name   string // of its file
	offset int64  // where it would go
}

func newGatedFS(fs *vfs.MemFS) *gatedFS {
	g := &gatedFS{MemFS: fs}
	g.cond.L = &g.mu
	return g
}

// close shuts the gate, after so many syncs.
func (g *gatedFS) close(after int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passes, g.armed, g.shut = after, after > 0, after == 0
	g.stuck, g.name = nil, ""
}

func (g *gatedFS) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut, g.armed = false, false
	g.cond.Broadcast()
}

// wait waits until somebody stands before the shut gate, or done is closed.
func (g *gatedFS) wait(done <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if done != nil {
		go func() {
			<-done
			g.mu.Lock()
			defer g.mu.Unlock()
			g.cond.Broadcast()
		}()
	}
	for g.stuck == nil {
		select {
		case <-done:
			return
		default:
		}
		g.cond.Wait()
	}
}

// pass lets a write through, or has it wait.
func (g *gatedFS) pass(name string, at int64, data []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.shut {
		if g.stuck == nil {
			g.stuck, g.name, g.offset = append([]byte{}, data...), name, at
			g.cond.Broadcast()
		}
		g.cond.Wait()
	}
}

func (g *gatedFS) synced() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.armed {
		if g.passes--; g.passes <= 0 {
			g.armed, g.shut = false, true
		}
	}
}

func (g *gatedFS) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return &gatedFile{File: f, g: g, name: name}, nil
}

func (g *gatedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.MemFS.Create(name, c)
	return g.wrap(name, f, err)
}

func (g *gatedFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.MemFS.ReuseForWrite(oldname, newname, c)
	return g.wrap(newname, f, err)
}

type gatedFile struct {
	vfs.File
	g    *gatedFS
	name string
	at   int64
}

func (f *gatedFile) Write(b []byte) (int, error) {
	f.g.pass(f.name, f.at, b)
	n, err := f.File.Write(b)
	f.at += int64(n)
	return n, err
}

func (f *gatedFile) Sync() error {
	defer f.g.synced()
	return f.File.Sync()
}

func (f *gatedFile) SyncData() error {
	defer f.g.synced()
	return f.File.SyncData()
}

// crash gives what a power cut leaves: what was synced, and the first bytes of what waits at the gate.
func (g *gatedFS) crash(torn int) *vfs.MemFS {
	out := g.MemFS.CrashClone(vfs.CrashCloneCfg{})
	g.mu.Lock()
	defer g.mu.Unlock()
	if torn > 0 && g.stuck != nil {
		g.tear(out, g.stuck[:min(torn, len(g.stuck))])
	}
	return out
}

// tear appends to the log's file.
func (g *gatedFS) tear(fs *vfs.MemFS, data []byte) {
	f, err := fs.OpenReadWrite(g.name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return // the file itself was not synced yet
	}
	info, err := f.Stat()
	if err == nil && info.Size() == g.offset {
		if _, err = f.WriteAt(append([]byte{}, data...), g.offset); err == nil {
			err = f.Sync()
		}
	}
	if err != nil {
		panic(err)
	}
	_ = f.Close()
}
