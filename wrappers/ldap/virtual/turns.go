package virtual

import "sync"

// turns has those who read an entry and then write it come one after the other, so that clients of this server never make each
// other begin anew; what other protocols write shows by the version.
type turns struct {
	mu   sync.Mutex
	open map[string]*turn // by key of the entry
}

type turn struct {
	mu    sync.Mutex
	users int
}

// take waits for the entry; done must be called once.
func (t *turns) take(key string) (done func()) {
	t.mu.Lock()
	if t.open == nil {
		t.open = map[string]*turn{}
	}
	one := t.open[key]
	if one == nil {
		one = &turn{}
		t.open[key] = one
	}
	one.users++
	t.mu.Unlock()
	one.mu.Lock()
	return func() {
		one.mu.Unlock()
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(t.open, key)
		}
	}
}
