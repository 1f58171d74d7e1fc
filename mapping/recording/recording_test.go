package recording

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func some() []Operation {
	put := Of(&wrappers.Operation{
		Verb: wrappers.Put, Address: "/v1/ä", Payload: wrappers.Payload{Raw: []byte("{\"a\":\"<&>\u2028\"}\n"), Type: "application/json", Meta: map[string]string{"if-match": "*"}},
		Who: wrappers.Who{Principal: "ann", Verified: true, Peer: "127.0.0.1:1"},
	})
	put.Kind, put.Outcome, put.Registers, put.Source = Write, "no", []string{"a/b"}, "m.hcl:3"
	raw := Of(&wrappers.Operation{Verb: wrappers.Message, Server: "kiln-1", Address: "t", Payload: wrappers.Payload{Raw: []byte{0xff, 0, 1}}})
	raw.Kind, raw.Lost = Seen, 7
	move := Of(&wrappers.Operation{Verb: wrappers.Rename, Address: "a", To: "b"})
	move.Kind = Passed
	both := Of(&wrappers.Operation{Parts: []wrappers.Operation{{Verb: wrappers.Put, Address: "x", Payload: wrappers.Payload{Raw: []byte("1")}}, {Verb: wrappers.Delete, Address: "y"}}})
	both.Kind = Write
	out := []Operation{put, raw, move, both}
	for i := range out {
		out[i].Time, out[i].Protocol, out[i].Wrapper = noon, "http", "api"
	}
	return out
}

func written(t testing.TB, ops []Operation) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, Header{Began: noon, Server: "test"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range ops {
		if err := w.Write(&ops[i]); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestWrittenIsRead(t *testing.T) {
	want := some()
	file := written(t, want)
	if n := bytes.Count(file, []byte{'\n'}); n != len(want)+1 {
		t.Errorf("got %d lines, want one for the header and each operation, %d", n, len(want)+1)
	}
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if h := r.Header(); h.Format != Format || h.Version != Version || !h.Began.Equal(noon) || h.Server != "test" {
		t.Errorf("header: got %+v", h)
	}
	got, err := r.All(100)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if op := got[1].Op(); op.Verb != wrappers.Message || op.Server != "kiln-1" || !bytes.Equal(op.Payload.Raw, []byte{0xff, 0, 1}) {
		t.Errorf("as an operation: got %+v", op)
	}
	if op := got[3].Op(); len(op.Parts) != 2 || op.Parts[1].Verb != wrappers.Delete || op.Parts[1].Address != "y" {
		t.Errorf("parts: got %+v", op)
	}
}

func TestALongPayloadIsOmitted(t *testing.T) {
	o := Of(&wrappers.Operation{Verb: wrappers.Put, Address: "/a", Payload: wrappers.Payload{Raw: make([]byte, MaxPayload+1)}})
	if !o.Omitted || o.Payload() != nil || o.Size != MaxPayload+1 {
		t.Errorf("omitted %v, size %d", o.Omitted, o.Size)
	}
}

func TestReaderRefuses(t *testing.T) {
	head := `{"format":"spookgw-recording","version":1,"began":"2026-11-25T12:00:00Z"}` + "\n"
	for _, test := range []struct{ name, file, want string }{
		{"nothing", "", "not a recording"},
		{"something else", "a,b\n1,2\n", "not a recording"},
		{"another JSON", `{"format":"har","version":1}` + "\n", "not a recording"},
		{"a later version", `{"format":"spookgw-recording","version":2}` + "\n", "has version 2"},
		{"a long first line", strings.Repeat("x", 100<<10), "line 1 is longer"},
		{"no JSON", head + "\n\nx\n", "line 4: "},
		{"a cut line", head + `{"kind":"write","proto`, "line 2 was cut"},
		{"no kind", head + `{"protocol":"http","wrapper":"api","verb":"put"}` + "\n", `line 2: no "kind"`},
		{"an unknown kind", head + `{"kind":"wrote","protocol":"http","wrapper":"api","verb":"put"}` + "\n", `kind "wrote"`},
		{"no wrapper", head + `{"kind":"write","protocol":"http","verb":"put"}` + "\n", `no "protocol" and "wrapper"`},
		{"an unknown verb", head + `{"kind":"write","protocol":"http","wrapper":"api","verb":"set"}` + "\n", `verb "set"`},
		{"a bad base64", head + `{"kind":"write","protocol":"http","wrapper":"api","verb":"put","base64":"!"}` + "\n", `"base64" is none`},
		{"two payloads", head + `{"kind":"write","protocol":"http","wrapper":"api","verb":"put","base64":"","text":""}` + "\n", `"text" and "base64"`},
		{"a part with parts", head + `{"kind":"write","protocol":"http","wrapper":"api","parts":[{"parts":[{"verb":"put"}]}]}` + "\n", `"parts" in a part`},
		{"a part with no verb", head + `{"kind":"write","protocol":"http","wrapper":"api","parts":[{"verb":"put"},{}]}` + "\n", `part 2: verb ""`},
		{"not UTF-8", head + "{\"kind\":\"\xff\"}\n", "line 2: not UTF-8"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := NewReader(strings.NewReader(test.file))
			if err == nil {
				_, err = r.All(10)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestReaderStops(t *testing.T) {
	r, err := NewReader(bytes.NewReader(written(t, some())))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.All(2); err == nil || len(got) != 2 {
		t.Errorf("got %d operations and %v, want two and an error", len(got), err)
	}
	// The last line needs no end.
	r, err = NewReader(bytes.NewReader(bytes.TrimSpace(written(t, some()))))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.All(100); err != nil || len(got) != 4 {
		t.Errorf("got %d operations and %v", len(got), err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(written(f, some()))
	f.Add([]byte(`{"format":"spookgw-recording","version":1}` + "\n" + `{"kind":"write","protocol":"p","wrapper":"w","verb":"put","meta":{"a":"b"},"lost":1}`))
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := NewReader(bytes.NewReader(file))
		if err != nil {
			return
		}
		var ops []Operation
		for {
			o, err := r.Next()
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				return
			}
			_ = o.Op()
			ops = append(ops, o)
		}
		// What was read can be written, and says the same again.
		again, err := NewReader(bytes.NewReader(written(t, ops)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := again.All(len(ops))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(written(t, got), written(t, ops)) {
			t.Errorf("read and written:\n%s\nand again:\n%s", written(t, ops), written(t, got))
		}
	})
}

func TestInOrder(t *testing.T) {
	var ops []Operation
	for _, n := range []int{0, 2, 1, 1, 5, 3, 4} {
		o := Of(&wrappers.Operation{Verb: wrappers.Put, Address: "/a"})
		o.Time, o.Kind, o.Protocol, o.Wrapper = noon.Add(time.Duration(n)*time.Second), Write, "http", "api"
		ops = append(ops, o)
	}
	file := string(written(t, ops)) + "x\n"
	r, err := NewReader(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	in := InOrder(r)
	var lines []int
	for {
		_, err := in.Next()
		if err != nil {
			if !strings.Contains(err.Error(), "line 9") || in.Line() != 9 {
				t.Errorf("the end: got %v at line %d, want the mistake of line 9", err, in.Line())
			}
			break
		}
		lines = append(lines, in.Line())
	}
	if want := []int{2, 4, 5, 3, 7, 8, 6}; !reflect.DeepEqual(lines, want) {
		t.Errorf("got lines %v, want %v", lines, want)
	}
}

// What waits to be put in order is bounded by its bytes, too.
func TestInOrderIsBounded(t *testing.T) {
	var ops []Operation
	for n := range 8 {
		o := Of(&wrappers.Operation{Verb: wrappers.Put, Address: "/a", Payload: wrappers.Payload{Raw: bytes.Repeat([]byte("x"), 10_000)}})
		o.Time, o.Kind, o.Protocol, o.Wrapper = noon.Add(-time.Duration(n)*time.Second), Write, "http", "api"
		ops = append(ops, o)
	}
	r, err := NewReader(bytes.NewReader(written(t, ops)))
	if err != nil {
		t.Fatal(err)
	}
	in := InOrder(r)
	in.most = 30_000
	if _, err := in.Next(); err != nil || len(in.held) != 2 {
		t.Errorf("%d operations of 10,000 bytes wait (%v)", len(in.held), err)
	}
}
