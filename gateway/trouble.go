package gateway

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// A TroubleStatus is what keeps a wrapper from a part of its work, as the wrapper itself says it.
type TroubleStatus struct {
	Wrapper string    `json:"wrapper"`
	About   string    `json:"about"` // a table, "feed", …
	Text    string    `json:"text"`  // with what helps, where that is known
	Since   time.Time `json:"since"`
}

// troubles are those of one wrapper.
type troubles struct {
	mu  sync.Mutex
	all []TroubleStatus
}

// Trouble implements wrappers.Link.
func (l *link) Trouble(about, text string) {
	t := &l.troubles
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.all, func(s TroubleStatus) bool { return s.About == about })
	switch {
	case i < 0 && text != "":
		t.all = append(t.all, TroubleStatus{Wrapper: l.name, About: about, Text: text, Since: l.now()})
	case i >= 0 && text == "":
		t.all = slices.Delete(t.all, i, i+1)
	case i >= 0:
		t.all[i].Text = text
	}
}

// Trouble implements wrappers.Link.
func (j *joint) Trouble(about, text string) { j.links[0].Trouble(about, text) }

// troubles lists what the wrappers say of themselves, by wrapper and subject.
func (ds *domains) troubles() []TroubleStatus {
	out := []TroubleStatus{}
	for _, d := range ds.list {
		d.links.mu.Lock()
		for _, on := range d.links.byName {
			on.troubles.mu.Lock()
			out = append(out, on.troubles.all...)
			on.troubles.mu.Unlock()
		}
		d.links.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b TroubleStatus) int {
		if c := strings.Compare(a.Wrapper, b.Wrapper); c != 0 {
			return c
		}
		return strings.Compare(a.About, b.About)
	})
	return out
}
