package engine

import (
	"strings"
	"sync"
)

// lately are registers that readers have loaded from the disk a moment ago. Who writes to one has looked at it before, most
// often, and so does not have to load it again.
//
// A version from here is the newest as long as no write of its register can have been forgotten since: among the recent ones
// each write stays for at least one whole generation.
type lately struct {
	mu    sync.Mutex
	of    map[string]loaded
	bytes int
}

type loaded struct {
	v     *version
	flips uint64 // generations of the recent ones before it was looked for among them
}

// latelyBytes bounds what lately holds: what a reader comes upon may never be written.
const latelyBytes = 4 << 20

// note keeps what was loaded of a register, nil where there is nothing.
func (l *lately) note(name string, v *version, flips uint64) {
	if v == nil {
		v = newVersion(strings.Clone(name), 0, 0, 0, nil, 0)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil || l.bytes > latelyBytes {
		l.of, l.bytes = map[string]loaded{}, 0
	}
	l.of[v.name] = loaded{v, flips}
	l.bytes += v.size
}

// take gives what was loaded of a register that is not among the recent ones, nil if that is not known. It is asked by the
// sequencer, which alone changes flips.
func (l *lately) take(name string, flips uint64) *version {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.of[name]
	if !ok {
		return nil
	}
	delete(l.of, name)
	l.bytes -= n.v.size
	if flips-n.flips > 1 {
		return nil
	}
	return n.v
}
