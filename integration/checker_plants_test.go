package integration

import (
	"fmt"
	"strings"
	"testing"
)

// A bookPlay writes a siteBook from a script, one event a line:
//
//	a put x 1      site a begins to write 1 to x, and acknowledges it ("x,y": a batch)
//	a begin x 1    it begins to, and never acknowledges
//	a delete x 2   the delete has a number of its own
//	a shows x=1    at one moment; "a rests": at the end
func bookPlay(t *testing.T, script string) *siteBook {
	t.Helper()
	b := &siteBook{}
	for line := range strings.Lines(script) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		site := int(f[0][0] - 'a')
		switch f[1] {
		case "put", "begin", "delete":
			n, acked := b.begins(site, f[1] == "delete", strings.Split(f[2], ",")...)
			if fmt.Sprint(n) != f[3] {
				t.Fatalf("%s: that is write %d", line, n)
			}
			if f[1] != "begin" {
				acked()
			}
		case "shows", "rests":
			shown := map[string]int{}
			for _, s := range f[2:] {
				var n int
				r, v, _ := strings.Cut(s, "=")
				if _, err := fmt.Sscan(v, &n); err != nil {
					t.Fatal(err)
				}
				shown[r] = n
			}
			b.looks(site, "", f[1] == "rests")(shown)
		default:
			t.Fatalf("%q", line)
		}
	}
	return b
}

// TestSiteChecker: what is planted is found and called by its name, and what may be is not.
func TestSiteChecker(t *testing.T) {
	for _, test := range []struct{ name, script, want string }{
		{"nothing", ``, ""},
		{"one write", "a put x 1\na shows x=1\nb shows\nb shows x=1\na rests x=1\nb rests x=1", ""},
		{"an acknowledged write is not there", "a put x 1\na shows", "lost"},
		{"nor at the end, at the other site", "a put x 1\na rests x=1\nb rests", "lost"},
		{"a later one is gone", "a put x 1\na put x 2\na shows x=1", "lost"},
		{"one that was shown is gone", "a put x 1\nb shows x=1\nb shows", "lost"},
		{"one that was never acknowledged may be missing", "a begin x 1\na rests\nb rests", ""},
		{"or be there", "a begin x 1\na rests x=1\nb rests x=1", ""},
		{"but not be there and gone", "a begin x 1\na shows x=1\na shows", "lost"},
		{"both at once: either", "a put x 1\nb put x 2\na rests x=1\nb rests x=1", ""},
		{"both at once: the other", "a put x 1\nb put x 2\na rests x=2\nb rests x=2", ""},
		{"both at once, neither", "a put x 1\nb put x 2\na rests", "lost"},
		{"who knew of it wins", "a put x 1\nb shows x=1\nb put x 2\na rests x=1", "lost"},
		{"deleted", "a put x 1\na delete x 2\na shows\na rests\nb rests", ""},
		{"deleted and back", "a put x 1\na delete x 2\na shows x=1", "resurrected"},
		{"back at the other", "a put x 1\nb shows x=1\nb delete x 2\na rests x=1", "resurrected"},
		{"back after it was gone everywhere", "a put x 1\na delete x 2\nb put y 3\na shows y=3\nb rests x=1 y=3", "resurrected"},
		{"a delete that did not know of a write", "a put x 1\nb shows x=1\na put x 2\nb delete x 3\na rests x=2\nb rests x=2", ""},
		{"a write that a delete did not know of brings all back", "b put x 1\na put x 2\na delete x 3\nb rests x=2\na rests x=2", ""},
		{"one that another delete knew of does not", "b put x 1\na put x 2\na delete x 3\nb delete x 4\nb rests x=2", "resurrected"},
		{"a write after the delete is lost", "a put x 1\na delete x 2\na put x 3\na shows", "lost"},
		{"an effect without its cause", "a put x 1\na put y 2\nb shows y=2", "order"},
		{"with a cause that is too old", "a put x 1\nb shows x=1\na put x 2\na put y 3\nb shows x=1 y=3", "order"},
		{"by way of a third site", "a put x 1\nb shows x=1\nb put y 2\nc shows y=2\n", "order"},
		{"an effect with its cause", "a put x 1\na put y 2\nb shows x=1 y=2", ""},
		{"a cause without its effect", "a put x 1\na put y 2\nb shows x=1", ""},
		{"a batch", "a put x,y 1\nb shows\nb shows x=1 y=1", ""},
		{"a batch in part", "a put x,y 1\nb shows x=1", "torn"},
		{"a batch over another, in part", "a put x,y 1\na put x,y 2\nb shows x=2 y=1", "torn"},
		{"two batches at once may mix where each is newer", "a put x,y 1\nb put x,y 2\na rests x=2 y=1", ""},
		{"a value from nowhere", "a put x 1\na shows x=7", "invented"},
		{"a value from elsewhere", "a put x 1\na put y 2\na shows x=2 y=2", "invented"},
		{"a delete's number as a value", "a put x 1\na delete x 2\na shows x=2", "invented"},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := bookPlay(t, test.script).faults()
			switch {
			case test.want == "" && len(found) > 0:
				t.Errorf("found %v where nothing is wrong", found)
			case test.want != "" && (len(found) == 0 || found[0].kind != test.want):
				t.Errorf("found %v, want first of all something %q", found, test.want)
			}
		})
	}
}
