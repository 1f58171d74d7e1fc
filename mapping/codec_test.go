package mapping

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// TestCodecLimits: what is too large or too deep is refused by name.
func TestCodecLimits(t *testing.T) {
	s := load(t, `
bind "http" "/json/{x}" {
  register = "json/{x}"
}
bind "http" "/csv/{x}" {
  register = "csv/{x}"
  codec    = csv
}
bind "http" "/xml/{x}" {
  register = "xml/{x}"
  codec    = xml("a")
}
bind "http" "/form/{x}" {
  register = "form/{x}"
  codec    = form
}
bind "http" "/senml/{x}" {
  register = "senml/{x}"
  codec    = senml
}
bind "http" "/cbor/{x}" {
  register = "cbor/{x}"
  codec    = cbor
}`)
	for _, c := range []struct {
		address string
		raw     string
		kind    error
		want    string
	}{
		{"/json/1", strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100), wrappers.ErrInvalid, "64"},
		{"/cbor/1", strings.Repeat("\x81", 100) + "\x01", wrappers.ErrInvalid, "64"},
		{"/xml/1", strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100), wrappers.ErrInvalid, "nested deeper than 64 levels"},
		{"/senml/1", `[{"n":"a","v":1,"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}]", wrappers.ErrInvalid, "64"},
		{"/csv/1", "a,b\n" + strings.Repeat("1234567890,1234567890\n", 50<<20/22), wrappers.ErrTooLarge, "the payload has 50 MiB, at most 16 are read"},
		{"/csv/1", "a\n" + strings.Repeat("1\n", maxRows+1), wrappers.ErrTooLarge, "more than 100000 rows"},
		{"/csv/1", strings.Repeat(",", maxColumns), wrappers.ErrTooLarge, "1001 columns"},
		{"/csv/1", "a,b" + strings.Repeat("\n"+strings.Repeat(",", 900), 1200), wrappers.ErrTooLarge, "1000000 cells"},
		{"/xml/1", "<a>" + strings.Repeat("<b/>", maxCells/2+1) + "</a>", wrappers.ErrTooLarge, "1000000 parts"},
		{"/form/1", strings.Repeat("a&", maxCells+1), wrappers.ErrTooLarge, "1000000 parameters"},
	} {
		_, err := s.In("web", &wrappers.Operation{Verb: wrappers.Put, Address: c.address, Payload: wrappers.Payload{Raw: []byte(c.raw)}}, scriptEnv)
		if wrappers.Kind(err) != c.kind || !strings.Contains(wrappers.Reason(err), c.want) {
			t.Errorf("%s of %d bytes: got %v, want %q", c.address, len(c.raw), err, c.want)
		}
	}
}

// TestXMLDeep: what a document would be refused for isn't written.
func TestXMLDeep(t *testing.T) {
	v := lattice.String("x")
	for range lattice.MaxDepth + 1 {
		v = lattice.Object(lattice.Member{Name: "a", Value: v})
	}
	if _, err := (&xmlForm{"a"}).encode(v, nil); err == nil || !strings.Contains(err.Error(), "deeper") {
		t.Fatal(err)
	}
}

// TestRowsStandAlone: a row that is kept doesn't keep the document in memory.
func TestRowsStandAlone(t *testing.T) {
	raw := []byte("a,b\nx,y\nz,q\n")
	v, err := csvCodec.decode(&wrappers.Payload{Raw: raw}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	want := v.String()
	for i := range raw {
		raw[i] = '!'
	}
	if got := v.String(); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

// TestKeepsCells writes each single change of a file: all other bytes are those that were there.
func TestKeepsCells(t *testing.T) {
	lines := []string{"name;\"value\";unit\n", "a;\"1,50\";mm\r\n", "\n\"b;\";2;\n", "c;\"3\"\n", "\"d\";+4,0;\"\";\n", "e;5;x"}
	c := &csvForm{sep: ';', header: true, comma: true}
	prev := &wrappers.Payload{Raw: []byte(strings.Join(lines, ""))}
	v, err := c.decode(prev, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range v.Len() {
		items := append([]engine.Value(nil), v.Items()...)
		items[i] = setPath(items[i], []string{"value"}, lattice.Int(77))
		out, err := c.encode(lattice.List(items...), prev)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.SplitAfter(string(out.Raw), "\n")
		was := strings.SplitAfter(string(prev.Raw), "\n")
		differ := 0
		for k := range was {
			if k < len(got) && got[k] != was[k] {
				differ++
				if !strings.Contains(got[k], "77") {
					t.Errorf("line %d became %q", k, got[k])
				}
			}
		}
		if differ != 1 || len(got) != len(was) {
			t.Errorf("row %d: %q became %q", i, prev.Raw, out.Raw)
		}
		// Without the row, the others stay.
		gone := append(append([]engine.Value(nil), v.Items()[:i]...), v.Items()[i+1:]...)
		if out, err = c.encode(lattice.List(gone...), prev); err != nil {
			t.Fatal(err)
		}
		want := strings.Join(append(append([]string(nil), lines[:i+1]...), lines[i+2:]...), "")
		if i == v.Len()-1 {
			want = strings.TrimSuffix(want, "\n") // the last line had no end
		}
		if string(out.Raw) != want {
			t.Errorf("without row %d: got %q, want %q", i, out.Raw, want)
		}
	}
}

// TestUUID7: ids sort as they were made, and no two are one.
func TestUUID7(t *testing.T) {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	seen := map[string]bool{}
	last := ""
	for i := range 2000 {
		id := uuid7(at.Add(time.Duration(i) * time.Microsecond))
		if id <= last || len(id) != 36 || id[14] != '7' || !strings.Contains("89ab", id[19:20]) {
			t.Fatalf("%s behind %s", id, last)
		}
		last = id
		again := uuid7(at)
		if seen[again] {
			t.Fatal(again)
		}
		seen[again] = true
	}
	if got, want := strings.ReplaceAll(uuid7(at)[:13], "-", ""), fmt.Sprintf("%012x", at.UnixMilli()); got != want {
		t.Fatalf("got the time %s, want %s", got, want)
	}
}
