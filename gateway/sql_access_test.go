package gateway

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/sql"
)

// TestSQLAccess: a table has the rows that a user may read, and takes what the user may write.
func TestSQLAccess(t *testing.T) {
	users := &userTable{}
	users.use([]User{{Name: "ann", Password: NewSecret("a")}, {Name: "dora", Password: NewSecret("d")}})
	w, other, addr := sqlWorld(t, func(c *wrappers.Config) {
		c.Logon, c.Anonymous = users.logon("sql"), wrappers.NoAccess
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	w.put("count/open", "n", "1")
	w.put("count/shut", "n", "2")
	w.guard(tables, nil,
		AccessBlock{Register: "count/{name}", Read: []string{"ann"}, Write: []string{"dora", "docs/docs"}, Source: "gateway.hcl:3"},
		AccessBlock{Register: "count/shut", Read: []string{}, Write: []string{"dora", "docs/docs"}, Source: "gateway.hcl:4"})
	as := func(who string) *pgx.Conn {
		c, err := pgx.Connect(ctx, "postgres://"+who+"@"+addr+"/plant?sslmode=disable")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(context.Background()) })
		return c
	}
	ann, dora := as("ann:a"), as("dora:d")
	names := func(c *pgx.Conn) []string {
		rows, err := c.Query(ctx, "SELECT name FROM counts ORDER BY name")
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := names(ann); !slices.Equal(got, []string{"open"}) {
		t.Errorf("ann sees %q", got)
	}
	if got := names(dora); !slices.Equal(got, []string{"open", "shut"}) {
		t.Errorf("dora sees %q", got)
	}
	var n int
	if err := ann.QueryRow(ctx, "SELECT count(*) FROM counts WHERE name = 'shut'").Scan(&n); err == nil && n > 0 || err != nil && !isState(err, "42501") {
		t.Errorf("ann finds the row by its key: %d, %v", n, err)
	}
	for _, q := range []string{"UPDATE counts SET n = 5", "INSERT INTO counts (name, n) VALUES ('new', 1)", "DELETE FROM counts WHERE name = 'open'"} {
		if _, err := ann.Exec(ctx, q); !isState(err, "42501") {
			t.Errorf("ann: %s: %v", q, err)
		}
	}
	if tag, err := dora.Exec(ctx, "UPDATE counts SET n = n + 5"); err != nil || tag.RowsAffected() != 2 {
		t.Errorf("dora: %v, %v", tag, err)
	}

	// Who listens hears of the same rows.
	if _, err := ann.Exec(ctx, "LISTEN counts"); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"/count/shut", "/count/open"} {
		if _, err := other.Do(ctx, doc(wrappers.Put, a, `{"n":9}`)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := ann.WaitForNotification(ctx); err != nil || n.Payload != `{"op": "put", "key": {"name": "open"}, "row": {"at": null, "n": 9}}` {
		t.Errorf("ann hears %+v, %v", n, err)
	}
}

// TestJointScan: a table whose rows are of two domains is scanned as one.
func TestJointScan(t *testing.T) {
	const src = `
register "site/{site}" {
  bind "sql" "public.sites?kind=plant" {
    key     = { site = payload.site }
    columns = ["n numeric"]
  }
}
register "site/{site}" {
  domain = "second"
  bind "sql" "public.sites?kind=office" {
    key     = { site = payload.site }
    columns = ["n numeric"]
  }
}
`
	_, j, _ := jointWorldOf(t, src, LinkInfo{Protocol: sql.Protocol, Name: "sql", Anonymous: wrappers.WriteAccess})
	ctx := t.Context()
	for _, a := range []string{"public.sites?kind=plant&site=a", "public.sites?kind=office&site=b"} {
		if _, err := j.Do(ctx, wrappers.Operation{Verb: wrappers.Put, Address: a, Payload: wrappers.Payload{Raw: []byte("\xa1\x61n\x05")}}); err != nil {
			t.Fatal(a, err)
		}
	}
	var got []string
	for item, err := range j.Scan(ctx, wrappers.Operation{Verb: wrappers.List, Address: "public.sites?"}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, item.Address)
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"public.sites?kind=office&site=b", "public.sites?kind=plant&site=a"}) {
		t.Errorf("got %q", got)
	}
	for _, err := range j.Scan(ctx, wrappers.Operation{Verb: wrappers.List, Address: "public.nothing?"}) {
		if wrappers.Kind(err) != wrappers.ErrUnmapped {
			t.Errorf("no such table: %v", err)
		}
	}
}
