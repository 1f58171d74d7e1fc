package link

import (
	"os"
	"strings"
	"testing"
)

// finding waits until an engine has a finding of a code.
func finding(t *testing.T, st *station, code string) string {
	t.Helper()
	var text string
	until(t, "a finding "+code, func() bool {
		s, err := st.e.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range s.Findings {
			if f.Code == code {
				text = f.Text
			}
		}
		return text != ""
	})
	return text
}

// A data directory that was copied and runs twice: the second is refused, and all three know.
func TestCloneIsRefused(t *testing.T) {
	a, b := newStation(t), newStation(t)
	join(t, a, b, a.addr)
	b.put("x", 1)
	until(t, "equal roots", func() bool { return a.root() == b.root() })
	b.stop()
	clone := &station{t: t, dir: t.TempDir() + "/copy", addr: "127.0.0.1:0"}
	if err := os.CopyFS(clone.dir, os.DirFS(b.dir)); err != nil {
		t.Fatal(err)
	}
	b.start()
	until(t, "entangled", func() bool { return a.status().State == Entangled })
	before := a.status().Figures
	clone.start()
	t.Cleanup(clone.stop)
	for i, st := range []*station{a, b, clone} {
		if text := finding(t, st, "clone"); !strings.Contains(text, "runs twice") {
			t.Errorf("node %d says %q", i, text)
		}
	}
	// The first goes on.
	b.put("y", 2)
	until(t, "equal roots", func() bool { return a.root() == b.root() })
	if s := a.status(); s.State != Entangled || s.Figures.CandidatesIn <= before.CandidatesIn {
		t.Errorf("the pair is %+v", s)
	}
	until(t, "the clone says why", func() bool { return strings.Contains(clone.status().Failure, "twice") })
}

// A data directory that was put back from an older copy goes on by itself, and gets back what it had lost.
func TestRestoredGetsItsOwnBack(t *testing.T) {
	a, b := newStation(t), newStation(t)
	join(t, a, b, a.addr)
	b.put("kept", 1)
	until(t, "equal roots", func() bool { return a.root() == b.root() })
	b.stop()
	old := t.TempDir() + "/old"
	if err := os.CopyFS(old, os.DirFS(b.dir)); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.put("lost", 2)
	until(t, "equal roots", func() bool { return a.root() == b.root() })
	b.stop()
	b.dir = old
	b.start()
	b.put("later", 3)
	until(t, "equal roots", func() bool { return a.root() == b.root() })
	until(t, "what was lost is back", func() bool {
		s, err := b.e.ReadState(t.Context(), "lost")
		return err == nil && s.Exists
	})
}
