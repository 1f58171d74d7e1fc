package virtual

import (
	"bytes"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/relay"
	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// everything is a table with a column of each type.
func everything(t testing.TB) *table {
	named := []string{"id int8", "a text", "b numeric", "c bool", "d bytea", "e timestamptz", "f jsonb", "g float8", "h int4", "i uuid", "j date"}
	p := wrappers.Pattern{In: true, Out: true, Open: true, Suffix: "?id={}", Options: wrappers.Options{ColumnsOption: named},
		Segments: []wrappers.Segment{{Kind: wrappers.LiteralSegment, Literal: "public"}, {Kind: wrappers.LiteralSegment, Literal: "all"}},
		Members:  []wrappers.Member{{Name: "id", Type: "string", Key: true, In: true, Out: true}}}
	s := tablesOf([]wrappers.Pattern{p}, func(table, why string) { t.Fatal(table, why) })
	return s.tables[0]
}

func TestRowsComeBack(t *testing.T) {
	tab := everything(t)
	texts := []string{"7", "Zoë, 50% {x}/#&=", "-12345678901234567890.125", "t", `\x00ff`, "2026-01-31 23:59:58.5+00", `{"a": [1, null, "x"], "b": {}}`, "0.1", "-5",
		"00112233-4455-6677-8899-aabbccddeeff", "2026-02-28"}
	row := make([]pgsql.Value, len(texts))
	for i, text := range texts {
		var err error
		if row[i], err = pgsql.ParseText(text, tab.Columns[i].Type, time.UTC); err != nil {
			t.Fatal(err)
		}
	}
	address, ok := tab.addressOf(row)
	if !ok || address != "public.all?id=7" {
		t.Errorf("got %s", address)
	}
	raw, err := tab.encodeRow(row, func(int) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	back := make([]pgsql.Value, len(row))
	bad, err := tab.decodeRow(raw, back)
	if !tab.parseKey(address, back) || bad != 0 || err != nil {
		t.Error(bad, err)
	}
	if !slices.Equal(row, back) {
		t.Errorf("got  %v\nwant %v", back, row)
	}
}

// TestUnshowable: what a column can't hold is null there, and counted; a key that it can't hold is no row.
func TestUnshowable(t *testing.T) {
	tab := everything(t)
	row := make([]pgsql.Value, len(tab.Columns))
	// {"b": "hot", "c": 1, "a": 5}
	bad, err := tab.decodeRow([]byte{0xa3, 0x61, 'b', 0x63, 'h', 'o', 't', 0x61, 'c', 0x01, 0x61, 'a', 0x05}, row)
	if bad != 2 || err != nil || row[1].Str != "5" || !row[2].IsNull() || !row[3].IsNull() {
		t.Error(bad, err, row)
	}
	for address, ok := range map[string]bool{"public.all?id=7": true, "public.all?id=07": false, "public.all?id=x": false, "public.all?id=7&x=1": false, "public.alles?id=7": false} {
		if tab.parseKey(address, row) != ok {
			t.Errorf("%s: want %v", address, ok)
		}
	}
}

func TestTablesOfBinds(t *testing.T) {
	literal := func(s string) wrappers.Segment { return wrappers.Segment{Kind: wrappers.LiteralSegment, Literal: s} }
	member := func(name, kind string, key bool) wrappers.Member {
		return wrappers.Member{Name: name, Type: kind, Key: key, In: true, Out: true}
	}
	var told []string
	s := tablesOf([]wrappers.Pattern{
		{Segments: []wrappers.Segment{literal("public"), literal("a")}, In: true, Members: []wrappers.Member{member("k", "string", true), member("x", "number", false), member("l", "list", false)}},
		{Segments: []wrappers.Segment{literal("public"), literal("a")}, In: true, Members: []wrappers.Member{member("k", "string", true), member("y", "time", false), member("X", "bool", false)}},
		{Segments: []wrappers.Segment{literal("public"), {Kind: wrappers.OneSegment}}, Members: []wrappers.Member{member("k", "string", true)}},
		{Segments: []wrappers.Segment{literal("pg_catalog"), literal("pg_class")}, Members: []wrappers.Member{member("k", "string", true)}},
		{Segments: []wrappers.Segment{literal("public"), literal("open")}, Open: true, Members: []wrappers.Member{member("k", "string", true)}},
	}, func(table, why string) { told = append(told, table+": "+why) })
	if len(s.tables) != 2 || len(told) != 4 {
		t.Errorf("%d tables, %q", len(s.tables), told)
	}
	var names []string
	for _, c := range s.tables[0].Columns {
		names = append(names, c.Name+" "+pgsql.TypeOf(c.Type).Name)
	}
	if want := []string{"k text", "x numeric", "l jsonb", "y timestamptz"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
}

// TestSavepoints: going back leaves what was there.
func TestSavepoints(t *testing.T) {
	tab := everything(t)
	x := newTx(nil, wrappers.Who{})
	row := func(n int64) []pgsql.Value {
		r := make([]pgsql.Value, len(tab.Columns))
		r[0], r[2] = pgsql.IntValue(n), pgsql.IntValue(n)
		return r
	}
	stage := func(a string, base wrappers.Version, r []pgsql.Value) {
		if err := x.stage(tab, a, base, r, nil); err != nil {
			t.Fatal(err)
		}
	}
	stage("a", "1", row(1))
	mark := x.mark()
	stage("a", "1", nil)
	stage("b", "", row(2))
	stage("b", "", row(3))
	stage("c", "9", nil)
	x.back(mark)
	op, err := x.operation()
	if err != nil || op.Address != "a" || op.Verb != wrappers.Put || len(op.Parts) != 0 {
		t.Errorf("%+v, %v", op, err)
	}
	stage("a", "1", nil)
	stage("a", "1", row(4))
	stage("d", "", row(5))
	stage("d", "", nil)
	op, err = x.operation()
	if err != nil || op.Address != "a" || op.Verb != wrappers.Put || !slices.Equal(op.If.Match, []wrappers.Version{"1"}) {
		t.Errorf("%+v, %v", op, err)
	}
}

// FuzzDecodeRow: whatever stands in a payload, a row comes of it or an error; what comes can be written.
func FuzzDecodeRow(f *testing.F) {
	tab := everything(f)
	f.Add([]byte{0xa1, 0x61, 'a', 0x05})
	f.Add([]byte{0xa2, 0x61, 'b', 0xc4, 0x82, 0x20, 0x18, 0xd7, 0x61, 'f', 0x82, 0x01, 0xa1, 0x61, 'x', 0xf6})
	f.Add([]byte{0xa1, 0x61, 'b', 0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0xa1, 0x61, 'g', 0xfb, 0x3f, 0xb9, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9a})
	f.Fuzz(func(t *testing.T, raw []byte) {
		row := make([]pgsql.Value, len(tab.Columns))
		if _, err := tab.decodeRow(raw, row); err != nil {
			return
		}
		row[0] = pgsql.IntValue(1)
		out, err := tab.encodeRow(row, func(int) bool { return true })
		if err != nil {
			return // infinite, say
		}
		back := make([]pgsql.Value, len(tab.Columns))
		back[0] = row[0]
		if bad, err := tab.decodeRow(out, back); bad != 0 || err != nil {
			t.Fatalf("%x became %x: %d, %v", raw, out, bad, err)
		}
	})
}

// FuzzCopy: lines are the same however their bytes are cut, and what is written reads back.
func FuzzCopy(f *testing.F) {
	f.Add("a\tb\n\\N\tc\\td\n\\.\nx", false, uint8(3))
	f.Add("\"a \"\"q\"\"\nb\",c\r\n,\"\"\n", true, uint8(5))
	f.Fuzz(func(t *testing.T, text string, csv bool, step uint8) {
		form := &pgsql.CopyForm{CSV: csv, Delimiter: '\t', Null: `\N`, Quote: '"', Escape: '"'}
		if csv {
			form.Delimiter, form.Null = ',', ""
		}
		read := func(step int) (lines [][]field, err error) {
			r := &lineReader{form: form, most: 1 << 20}
			take := func(fs []field) error { lines = append(lines, slices.Clone(fs)); return nil }
			for rest := []byte(text); len(rest) > 0 && err == nil; {
				n := min(step, len(rest))
				err = r.feed(rest[:n], take)
				rest = rest[n:]
			}
			if err == nil {
				err = r.finish(take)
			}
			return lines, err
		}
		whole, err := read(max(len(text), 1))
		parts, err2 := read(int(step)%7 + 1)
		if (err == nil) != (err2 == nil) || !slices.EqualFunc(whole, parts, slices.Equal) {
			t.Fatalf("%q: %v, %v in pieces (%v, %v)", text, whole, parts, err, err2)
		}
		for _, fields := range whole {
			var line []byte
			for i, fd := range fields {
				if i > 0 {
					line = append(line, form.Delimiter)
				}
				if fd.null {
					line = append(line, form.Null...)
				} else {
					line = appendField(line, fd.text, form)
				}
			}
			if bytes.HasSuffix(line, []byte{'\r'}) {
				continue // would be a part of the line's end
			}
			r := &lineReader{form: form, most: 1 << 20}
			var back []field
			if err := r.feed(append(line, '\n'), func(fs []field) error { back = slices.Clone(fs); return nil }); err != nil || !r.ended && !slices.Equal(back, fields) {
				t.Fatalf("%v became %q: %v, %v", fields, line, back, err)
			}
		}
	})
}

func FuzzStartup(f *testing.F) {
	f.Add([]byte("user\x00a\x00database\x00b\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if p, ok := startupParameters(body); ok && len(p) > len(body) {
			t.Fatal("more parameters than bytes")
		}
	})
}

// FuzzInbox: whatever a client sends, messages come of it or an error.
func FuzzInbox(f *testing.F) {
	f.Add([]byte("Q\x00\x00\x00\x0dSELECT 1\x00S\x00\x00\x00\x04X\x00\x00\x00\x04"))
	f.Add([]byte("P\x00\x00\x00\x10\x00SELECT $1\x00\x00\x00B\x00\x00\x00\x14\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01x\x00\x00"))
	f.Add([]byte("Q\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		client, server := net.Pipe()
		defer server.Close()
		go func() {
			_, _ = client.Write(sent)
			client.Close()
		}()
		in := inbox{relay.NewWindow(server), 1 << 16}
		for n := 0; ; n++ {
			if _, err := in.receive(); err != nil {
				return
			}
			if n > len(sent)/5 {
				t.Fatalf("%d messages of %d bytes", n, len(sent))
			}
		}
	})
}
