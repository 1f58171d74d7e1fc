package sql

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

func statements(c *wrappers.Config) {
	c.Options["capture"] = captureStatements
	c.Options["poll_ms"] = int64(60_000)
}

// agree waits until the registers are the rows.
func agree(t *testing.T, link *wrappertest.Link, rows func() string, what string) {
	t.Helper()
	link.Await(t, what, func() bool {
		got := map[string]string{}
		for _, o := range link.Observations() {
			delete(got, o.Address)
			if o.Verb != wrappers.Delete {
				r, err := decodeRow(o.Payload.Raw)
				if err != nil {
					t.Fatal(err)
				}
				got[o.Address] = fmt.Sprint(r["v"])
			}
		}
		want := rows()
		n := strings.Count(want, "\n")
		for line := range strings.Lines(want) {
			k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "|")
			if got["public.sensors?k="+k] != v {
				return false
			}
		}
		return len(got) == n
	})
}

// TestStatements: without a feed registers follow what passes at once, and what does not when it is time.
func TestStatements(t *testing.T) {
	p, database := newDatabase(t, exactSchema+`INSERT INTO sensors SELECT 'old' || i, i FROM generate_series(1, 700) i`)
	link := newLink()
	addr, _ := startWrapper(t, link, p, database, true, statements)
	side := open(t, p.addr(), database)
	rows := func() string { return lines(must(t, side, "SELECT k, v FROM sensors")) }
	agree(t, link, rows, "what was there")
	if !strings.Contains(link.Troubled(aboutCapture), "poll_ms") {
		t.Errorf("it is not said that this is the best that can be done: %q", link.Troubled(aboutCapture))
	}
	c := open(t, addr, database)
	for _, sql := range []string{
		"INSERT INTO sensors VALUES ('a', 1), ('b', 2)",
		"UPDATE sensors SET v = 5 WHERE k = 'a'",
		"DELETE FROM sensors WHERE k = 'b'",
		"UPDATE sensors SET k = 'c' WHERE k = 'a'",
		"BEGIN; DELETE FROM sensors WHERE v > 600; INSERT INTO sensors VALUES ('d', 1); COMMIT",
		"BEGIN; SAVEPOINT s; INSERT INTO sensors VALUES ('never', 1); ROLLBACK TO s; INSERT INTO sensors VALUES ('e', 1); COMMIT",
		"BEGIN; INSERT INTO sensors VALUES ('never', 1); ROLLBACK",
		"TRUNCATE sensors; INSERT INTO sensors VALUES ('f', 1)",
	} {
		must(t, c, sql)
		agree(t, link, rows, sql)
	}
	if _, err := c.CopyFrom(context.Background(), strings.NewReader("g\t1\nh\t2\n"), "COPY sensors (k, v) FROM STDIN"); err != nil {
		t.Fatal(err)
	}
	agree(t, link, rows, "COPY")
	for _, o := range link.Observations() {
		if strings.HasSuffix(o.Address, "never") {
			t.Error("what was rolled back is seen")
		}
		if o.Payload.Meta["capture"] != captureStatements {
			t.Errorf("it is not labelled: %+v", o)
		}
		if o.Address == "public.sensors?k=h" && (o.Who.Principal != "sql/erp:postgres" && o.Who != (wrappers.Who{}) || o.Who.Verified) {
			t.Errorf("who: %+v", o.Who)
		}
	}
	// Straight at the server it is seen with the next statement, or the next poll.
	must(t, side, "INSERT INTO sensors VALUES ('behind', 1); DELETE FROM sensors WHERE k = 'g'")
	must(t, c, "UPDATE sensors SET v = 9 WHERE k = 'h'")
	agree(t, link, rows, "what did not pass, beside what did")
	// All gone, and nobody was seen who did it.
	must(t, side, "DELETE FROM sensors")
	must(t, c, "SELECT 1")
	if n := lines(must(t, side, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()")); n != "0\n" {
		t.Errorf("%s slots", n)
	}
}

// TestStatementsPoll: what does not pass is seen when it is time; a table that is suddenly empty is not believed.
func TestStatementsPoll(t *testing.T) {
	p, database := newDatabase(t, exactSchema+`INSERT INTO sensors SELECT 'old' || i, i FROM generate_series(1, 10) i`)
	link := newLink()
	startWrapper(t, link, p, database, false, func(c *wrappers.Config) { statements(c); c.Options["poll_ms"] = int64(100) })
	side := open(t, p.addr(), database)
	rows := func() string { return lines(must(t, side, "SELECT k, v FROM sensors")) }
	for _, sql := range []string{"UPDATE sensors SET v = 50 WHERE k = 'old1'", "INSERT INTO sensors VALUES ('new', 1)", "DELETE FROM sensors WHERE k = 'old2'", "UPDATE sensors SET k = 'other' WHERE k = 'old3'"} {
		must(t, side, sql)
		agree(t, link, rows, sql)
	}
	must(t, side, "DELETE FROM sensors")
	link.Await(t, "it is refused", func() bool { return link.Counted("mass_deletes_refused") > 0 })
	if got := link.Troubled("public.sensors"); !strings.Contains(got, "max_lost") {
		t.Errorf("said: %q", got)
	}
	must(t, side, "INSERT INTO sensors SELECT 'old' || i, i FROM generate_series(1, 10) i")
	link.Await(t, "it is well again", func() bool { return link.Troubled("public.sensors") == "" })
}

func TestStatementsConfig(t *testing.T) {
	_, err := New(wrappers.Config{Name: "x", Upstreams: []wrappers.Upstream{{Addr: "x", Path: "/d", User: "u"}}, Options: wrappers.Options{"capture": captureStatements, "attribute": "exact"}})
	if err == nil || !strings.Contains(err.Error(), "attribute") {
		t.Errorf("got %v", err)
	}
}
