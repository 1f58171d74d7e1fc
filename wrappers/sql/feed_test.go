package sql

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// logged collects what a wrapper says.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) says(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

func shown(t testing.TB, link *wrappertest.Link, address string) row {
	t.Helper()
	raw, ok := link.Register("", address)
	if !ok {
		return nil
	}
	r, err := decodeRow(raw)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestUnchangedTOAST: a value that is kept outside of the row, and that an update did not change, stays what it was.
func TestUnchangedTOAST(t *testing.T) {
	for _, identity := range []string{"DEFAULT", "FULL"} {
		t.Run(identity, func(t *testing.T) {
			p, database := newDatabase(t, contractSchema+"ALTER TABLE sensors ALTER t SET STORAGE EXTERNAL; ALTER TABLE sensors REPLICA IDENTITY "+identity)
			link := newLink()
			startWrapper(t, link, p, database, false, nil)
			c := open(t, p.addr(), database)
			must(t, c, "INSERT INTO sensors VALUES ('a', 1, repeat('x', 100000))")
			link.Await(t, "the row", func() bool { return shown(t, link, "public.sensors?k=a") != nil })
			must(t, c, "UPDATE sensors SET v = 2")
			link.Await(t, "the update", func() bool { return len(link.Observations()) == 2 })
			o := link.Observations()[1]
			r, err := decodeRow(o.Payload.Raw)
			if err != nil {
				t.Fatal(err)
			}
			text, spoken := r["t"]
			switch {
			case identity == "DEFAULT" && (spoken || o.Verb != wrappers.Merge):
				t.Errorf("got %s with t of %d bytes, want a merge that does not speak of it", o.Verb, len(fmt.Sprint(text)))
			case identity == "FULL" && (text != strings.Repeat("x", 100000) || o.Verb != wrappers.Put):
				t.Errorf("got %s with t of %d bytes, want the whole row", o.Verb, len(fmt.Sprint(text)))
			}
		})
	}
}

// TestSchemaChanges: the feed goes on when columns come and go.
func TestSchemaChanges(t *testing.T) {
	p, database := newDatabase(t, contractSchema)
	link := newLink()
	var out logged
	startWrapper(t, link, p, database, false, func(c *wrappers.Config) { c.Log = slog.New(slog.NewTextHandler(&out, nil)) })
	c := open(t, p.addr(), database)
	must(t, c, "INSERT INTO sensors VALUES ('a', 1, 'text'); ALTER TABLE sensors ADD more int DEFAULT 5; INSERT INTO sensors VALUES ('b', 1, 'text', 7)")
	link.Await(t, "the row with a new column", func() bool { return shown(t, link, "public.sensors?k=b") != nil })
	must(t, c, "ALTER TABLE sensors DROP t; UPDATE sensors SET v = 2 WHERE k = 'a'")
	link.Await(t, "the row without a column", func() bool { r := shown(t, link, "public.sensors?k=a"); return r != nil && r["v"] == int64(2) })
	all := link.Observations()
	if o := all[len(all)-1]; o.Verb != wrappers.Merge {
		t.Errorf("got %s, want a merge: the field of a dropped column stays", o.Verb)
	}
	if !out.says(`there is no column \"t\"`) {
		t.Error("nothing is said of it")
	}
	// What is to be written into it is parked, in words that say why.
	link.PushPut("public.sensors?k=z", string(mustEncode(t, row{"v": int64(1), "t": "gone"})))
	link.Await(t, "the refusal", func() bool {
		for _, s := range link.Settlements() {
			if s.Change.Address == "public.sensors?k=z" && s.Effect.Outcome == wrappers.Parked {
				return strings.Contains(s.Effect.Err.Error(), `no column "t"`)
			}
		}
		return false
	})
	must(t, c, "ALTER TABLE sensors ALTER v TYPE text; UPDATE sensors SET v = 'five' WHERE k = 'b'")
	link.Await(t, "another type", func() bool { r := shown(t, link, "public.sensors?k=b"); return r != nil && r["v"] == "five" })
}

func mustEncode(t testing.TB, r row) []byte {
	t.Helper()
	raw, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestTroubles: what the server lacks is said with the statement that helps, and when that was run the feed stands.
func TestTroubles(t *testing.T) {
	for _, test := range []struct{ name, schema, says, cure string }{
		{"no such table", "SELECT 1", "there is no such table", "CREATE TABLE sensors (k text PRIMARY KEY, v int, t text)"},
		{"no key", "CREATE TABLE sensors (k text NOT NULL, v int, t text)", `ALTER TABLE \"public\".\"sensors\" ADD PRIMARY KEY (\"k\")`, `ALTER TABLE "public"."sensors" ADD PRIMARY KEY ("k")`},
		{"identity of another key", "CREATE TABLE sensors (id serial PRIMARY KEY, k text UNIQUE, v int, t text)",
			`ALTER TABLE \"public\".\"sensors\" REPLICA IDENTITY FULL`, `ALTER TABLE "public"."sensors" REPLICA IDENTITY FULL`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p, database := newDatabase(t, test.schema)
			link := newLink()
			var out logged
			startWrapper(t, link, p, database, false, func(c *wrappers.Config) { c.Log = slog.New(slog.NewTextHandler(&out, nil)) })
			if !out.says(test.says) {
				t.Fatalf("it is not said how to mend it:\n%s", out.b.String())
			}
			c := open(t, p.addr(), database)
			must(t, c, test.cure)
			must(t, c, "INSERT INTO sensors (k, v) VALUES ('a', 1)")
			link.Await(t, "the row", func() bool { return shown(t, link, "public.sensors?k=a") != nil })
			must(t, c, "DELETE FROM sensors")
			link.Await(t, "the delete", func() bool { return shown(t, link, "public.sensors?k=a") == nil })
		})
	}
	t.Run("rights", func(t *testing.T) {
		p, database := newDatabase(t, contractSchema+"DROP ROLE IF EXISTS poor; CREATE ROLE poor LOGIN")
		var out logged
		link := newLink()
		link.Count("feed_up", 1) // it will not come
		startWrapper(t, link, p, database, false, func(c *wrappers.Config) {
			c.Log = slog.New(slog.NewTextHandler(&out, nil))
			c.Upstreams[0].User = "poor"
		})
		link.Await(t, "the complaint", func() bool { return link.Counted("feed_down") > 0 })
		link.Await(t, "the remedy", func() bool { link.Count("look", 1); return out.says(`ALTER ROLE \"poor\" REPLICATION`) })
		must(t, open(t, p.addr(), database), "ALTER ROLE poor REPLICATION")
		link.Await(t, "the next remedy", func() bool {
			link.Count("look", 1)
			return out.says(`Have their owner run: CREATE PUBLICATION`)
		})
		must(t, open(t, p.addr(), database), "DROP ROLE poor")
	})
}

// TestGoesOn: after a stop the feed goes on behind what was reported, and what the server sends again is passed over.
func TestGoesOn(t *testing.T) {
	p, database := newDatabase(t, contractSchema)
	link := newLink()
	c := open(t, p.addr(), database)
	for round := range 3 {
		_, stop := startWrapper(t, link, p, database, false, nil)
		for i := range 20 {
			must(t, c, fmt.Sprintf("INSERT INTO sensors VALUES ('a', %d), ('b%d', 1) ON CONFLICT (k) DO UPDATE SET v = excluded.v", round*100+i, i))
		}
		link.Await(t, "the last", func() bool {
			r := shown(t, link, "public.sensors?k=a")
			return r != nil && r["v"] == int64(round*100+19)
		})
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		link.Count("feed_up", -link.Counted("feed_up"))
	}
	last := int64(-1)
	for _, o := range link.Observations() {
		if o.Address != "public.sensors?k=a" {
			continue
		}
		r, err := decodeRow(o.Payload.Raw)
		if err != nil {
			t.Fatal(err)
		}
		if v := r["v"].(int64); v <= last {
			t.Errorf("%d comes after %d", v, last)
		} else {
			last = v
		}
	}
}

// TestTransactionIsOne: what a transaction did is reported as one, and a key that it changed as a rename.
func TestTransactionIsOne(t *testing.T) {
	p, database := newDatabase(t, contractSchema+"ALTER TABLE sensors ALTER t SET STORAGE EXTERNAL")
	link := newLink()
	startWrapper(t, link, p, database, false, nil)
	c := open(t, p.addr(), database)
	must(t, c, "INSERT INTO sensors VALUES ('alone', 0)")
	must(t, c, "BEGIN; INSERT INTO sensors SELECT 'k' || i, i FROM generate_series(1, 2000) i; UPDATE sensors SET k = 'moved' WHERE k = 'k7'; DELETE FROM sensors WHERE k = 'k8'; COMMIT")
	must(t, c, "INSERT INTO sensors VALUES ('long', 1, repeat('x', 100000))")
	must(t, c, "UPDATE sensors SET k = 'longer', v = 2 WHERE k = 'long'")
	must(t, c, "BEGIN; INSERT INTO sensors VALUES ('late', 1); TRUNCATE sensors; INSERT INTO sensors VALUES ('after', 1); COMMIT")
	link.Await(t, "the last row", func() bool { return shown(t, link, "public.sensors?k=after") != nil })
	const key = "public.sensors?k="
	var runs [][]wrappers.Observation
	var run []wrappers.Observation
	for _, o := range link.Observations() {
		if run = append(run, o); !o.More {
			runs, run = append(runs, run), nil
		}
	}
	if len(runs) != 5 || run != nil {
		t.Fatalf("got %d transactions, want 5", len(runs))
	}
	if n := len(runs[1]); n != 2002 {
		t.Errorf("got %d observations of the large one, want 2002", n)
	}
	if o := runs[1][2000]; o.Verb != wrappers.Rename || o.Address != key+"k7" || o.To != key+"moved" || len(o.Payload.Raw) == 0 {
		t.Errorf("of the key that changed: got %+v", o)
	}
	if r := runs[3]; len(r) != 2 || r[0].Verb != wrappers.Rename || len(r[0].Payload.Raw) != 0 || r[1].Verb != wrappers.Merge || r[1].Address != key+"longer" {
		t.Errorf("of a row of which a part was not sent: got %+v", r)
	}
	if r := runs[4]; len(r) != 2002+3-1 {
		t.Errorf("of what was truncated: got %d observations", len(r))
	}
	if r, ok := shown(t, link, key+"longer")["t"]; ok {
		t.Errorf("it is gone, and has %v", r)
	}
	left := 0
	for rec, err := range link.Kept(t.Context(), rowKey) {
		if err != nil {
			t.Fatal(err)
		}
		if left++; rec.Key != rowKey+key+"after" {
			t.Errorf("%s is listed", rec.Key)
		}
	}
	if left != 1 {
		t.Errorf("%d rows are listed, want 1", left)
	}
	for i, r := range runs {
		places := 0
		for _, o := range r {
			for _, k := range o.Keep {
				if k.Key == atKey {
					places++
				}
			}
		}
		if places != 1 {
			t.Errorf("transaction %d has %d places in the feed, want 1", i, places)
		}
	}
}
