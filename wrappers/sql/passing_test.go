package sql

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// passedRows are the rows that were shown without concerning a register, a line each.
func passedRows(t testing.TB, link *wrappertest.Link) []string {
	t.Helper()
	var out []string
	for _, tap := range link.Taps() {
		line := fmt.Sprintf("%s %s", tap.Op.Verb, tap.Op.Address)
		if len(tap.Op.Payload.Raw) > 0 {
			r, err := decodeRow(tap.Op.Payload.Raw)
			if err != nil {
				t.Fatal(err)
			}
			names := make([]string, 0, len(r))
			for n := range r {
				names = append(names, n)
			}
			slices.Sort(names)
			for _, n := range names {
				line += fmt.Sprintf(" %s=%v", n, r[n])
			}
		}
		out = append(out, line)
	}
	return out
}

// TestPassing: while somebody records, rows of tables that no bind maps are shown from the first statement on, whatever wrote them.
func TestPassing(t *testing.T) {
	p, database := newDatabase(t, contractSchema+`
		CREATE TABLE "odd.Name" (id serial PRIMARY KEY, "a ""col" numeric(9,2), b bool, ts timestamptz, bs bytea, l int[], j jsonb, c char(4));
		CREATE TABLE parts (day date, n int, v text, PRIMARY KEY (day, n)) PARTITION BY RANGE (day);
		CREATE TABLE parts_26 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
		CREATE TABLE keyless (x int);
		CREATE FUNCTION bump() RETURNS void LANGUAGE sql AS $$ UPDATE other SET v = v + 1 $$`)
	link := newLink()
	addr, _ := startWrapper(t, link, p, database, true, nil)
	c := open(t, addr, database)
	must(t, c, "INSERT INTO other VALUES ('before', 1, 'x')")
	link.Record()
	must(t, c, "INSERT INTO other VALUES ('a', 1, 'it''s')")
	must(t, c, `INSERT INTO "odd.Name" ("a ""col", b, ts, bs, l, j, c) VALUES (1.50, true, '2026-01-02 03:04:05+01', '\x00ff', '{1,2}', '{"k": [1]}', 'ab')`)
	must(t, c, "INSERT INTO parts VALUES ('2026-03-04', 1, NULL)")
	must(t, c, "BEGIN; INSERT INTO other VALUES ('lost', 1, 'x'); ROLLBACK")
	must(t, c, "DELETE FROM other WHERE k = 'before'; SELECT bump()")
	must(t, c, "UPDATE other SET k = 'b'")
	must(t, c, "INSERT INTO sensors VALUES ('mapped', 1, 'x')")
	must(t, c, "INSERT INTO keyless VALUES (7)")
	if _, err := c.CopyFrom(t.Context(), strings.NewReader("c\t3\t\\N\n"), "COPY other FROM STDIN"); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"put public.other?k=a k=a t=it's v=1",
		"put public.odd%2EName?id=1 a \"col=15e-1 b=true bs=[0 255] c=ab id=1 j=map[k:[1]] l=[1 2] ts=2026-01-02T02:04:05Z",
		"put public.parts?day=2026-03-04&n=1 day=2026-03-04 n=1 v=<nil>",
		"delete public.other?k=before",
		"put public.other?k=a k=a t=it's v=2",
		"delete public.other?k=a",
		"put public.other?k=b k=b t=it's v=2",
		"put public.keyless x=7",
		"put public.other?k=c k=c t=<nil> v=3",
	}
	without := func(lines []string) []string { // what the schema's own triggers write
		return slices.DeleteFunc(lines, func(s string) bool { return strings.HasPrefix(s, "put public.writes") })
	}
	link.Await(t, "the rows", func() bool { return len(without(passedRows(t, link))) >= len(want) })
	got := without(passedRows(t, link))
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Errorf("rows:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			break
		}
	}
	tap := link.Taps()[0]
	if tap.Op.Who.Principal != "sql/erp:postgres" || tap.Outcome != "passed" {
		t.Errorf("got %+v, %q", tap.Op, tap.Outcome)
	}
}

func TestParseDecoded(t *testing.T) {
	for _, line := range []string{
		"BEGIN", "COMMIT", `message: transactional: 1 prefix: spookgw, sz: 3 content:a:b`,
		"table public.a: TRUNCATE: (no-flags)", "table public.a, public.b: TRUNCATE: restart_seqs cascade",
		`table public.a: INSERT: id[integer]:1 s[character varying(3)]:'a''b' n[numeric]:null`,
		`table "S.x"."t""y": UPDATE: old-key: "a[b"[integer[]]:'{1,2}' new-tuple: "a[b"[integer[]]:'{3}' t[text]:unchanged-toast-datum`,
		`table public.a: DELETE: (no-tuple-data)`, `table public.a: INSERT: (no-tuple-data)`, `table public.a: DELETE: b[bit(3)]:B'101' f[double precision]:-Infinity`,
	} {
		if _, err := parseDecoded(line); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	e, err := parseDecoded(`table "S.x"."t""y": UPDATE: old-key: "a[b"[integer[]]:'{1,2}' new-tuple: "a[b"[integer[]]:'{3}' t[text]:unchanged-toast-datum n["odd]"]:'x new-tuple: '`)
	if err != nil || e.table != (tableName{"S.x", `t"y`}) || len(e.old) != 1 || len(e.row) != 3 || e.row[0].name != "a[b" || string(e.row[0].cell.text) != "{3}" ||
		e.row[1].cell.kind != cellUnchanged || string(e.row[2].cell.text) != "x new-tuple: " {
		t.Errorf("got %+v, %v", e, err)
	}
	for _, line := range []string{"table a", "table public.a: INSERT: id[integer]:", "table public.a: INSERT: id[integer:1", "table public.a: MOVE: x", `table public.a: INSERT: s[text]:'a`, "table public.a: UPDATE: old-key: a[text]:'x'"} {
		if e, err := parseDecoded(line); err == nil {
			t.Errorf("%s: got %+v, want an error", line, e)
		}
	}
}

func FuzzParseDecoded(f *testing.F) {
	f.Add(`table public.a: UPDATE: old-key: id[integer]:1 new-tuple: id[integer]:2 s[text]:'a''b' n[numeric]:null`)
	f.Add(`table "S.x"."t""y": DELETE: "a[b"[integer[]]:'{1,2}'`)
	f.Fuzz(func(t *testing.T, line string) {
		e, err := parseDecoded(line)
		if err == nil && e.kind != decodedOther && e.kind != decodedCommit && e.table == (tableName{}) {
			t.Errorf("%q: a row of no table", line)
		}
	})
}
