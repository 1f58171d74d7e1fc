package sql

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

const doubtSchema = contractSchema + `
	CREATE FUNCTION bump(n text) RETURNS int LANGUAGE sql AS $$ UPDATE sensors SET v = v + 1 WHERE k = n RETURNING v $$;
	CREATE FUNCTION "count"(n text) RETURNS int LANGUAGE sql AS $$ SELECT bump(n) $$;
	INSERT INTO sensors VALUES ('a', 0, 'x');`

func TestDoubts(t *testing.T) {
	p, database := newDatabase(t, doubtSchema+"CREATE EXTENSION IF NOT EXISTS pgcrypto")
	known, err := readHarmless(t.Context(), open(t, p.addr(), database))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"SELECT * FROM sensors WHERE k = $1": false,
		"select count(*), max ( v ) from sensors s where k in ('a', 'b') and (v > 1 or exists (select 1))":                        true, // count is also a user's
		"select max ( v ), lower(t), now() from sensors s where k in ('a', 'b') and (v > 1 or exists (select 1)) group by (t)":    false,
		"SELECT sum(v) FILTER (WHERE v > 1) OVER (PARTITION BY k), row_number() OVER w FROM sensors WINDOW w AS (ORDER BY k)":     false,
		"SELECT cast(v as numeric(9,2)), coalesce(v, 1), pg_catalog.upper(t), digest(t, 'md5') FROM sensors JOIN other USING (k)": false,
		"SELECT * FROM sensors FOR UPDATE": false, "SELECT 1 FOR NO KEY UPDATE": false, "VALUES (1), (2)": false, "SHOW work_mem": false,
		"SELECT bump('a')": true, "SELECT public.bump('a')": true, "SELECT other.max(v) FROM sensors": true, `SELECT "bump" ('a')`: true,
		"SELECT bump/* */('a')": true, "WITH x AS (DELETE FROM sensors RETURNING *) SELECT * FROM x": true, "EXECUTE p": true,
		"EXPLAIN ANALYZE SELECT 1": true, "EXPLAIN UPDATE sensors SET v = 1": true, "SELECT query_to_xml('SELECT bump(1)', true, true, '')": true, "SELECT 1; SELECT BUMP(1)": true,
	} {
		if got := known.doubts([]byte(text)); got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
	text := []byte("SELECT max(v), lower(t) FROM sensors WHERE k IN ('a')")
	if n := testing.AllocsPerRun(100, func() { known.doubts(text) }); n != 0 {
		t.Errorf("got %v allocations", n)
	}
	if !harmless(nil).doubts([]byte("SELECT max(v) FROM sensors")) {
		t.Error("before the server was asked, a function is not known")
	}
}

// TestSelectThatWrites: with capture = "sync" a client hears of a SELECT that wrote when the registers have it; one that only
// reads waits for nothing.
func TestSelectThatWrites(t *testing.T) {
	p, database := newDatabase(t, doubtSchema)
	link := newLink()
	addr, _ := startWrapper(t, link, p, database, true, nil)
	c := open(t, addr, database)
	if _, err := c.Prepare(t.Context(), "bump", "SELECT bump($1)", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Prepare(t.Context(), "plain", "SELECT v FROM sensors WHERE k = $1", nil); err != nil {
		t.Fatal(err)
	}
	must(t, c, "PREPARE bumped AS SELECT bump('a')")
	writes := []func(*pgconn.PgConn) error{
		func(c *pgconn.PgConn) error { return done(c.Exec(t.Context(), "SELECT bump('a')").ReadAll()) },
		func(c *pgconn.PgConn) error {
			return c.ExecParams(t.Context(), `SELECT public."count"($1)`, [][]byte{[]byte("a")}, nil, nil, nil).Read().Err
		},
		func(c *pgconn.PgConn) error {
			return c.ExecPrepared(t.Context(), "bump", [][]byte{[]byte("a")}, nil, nil).Read().Err
		},
		func(c *pgconn.PgConn) error {
			return done(c.Exec(t.Context(), "WITH x AS (UPDATE sensors SET v = v + 1 RETURNING *) SELECT * FROM x").ReadAll())
		},
		func(c *pgconn.PgConn) error { return done(c.Exec(t.Context(), "EXECUTE bumped").ReadAll()) },
		func(c *pgconn.PgConn) error {
			return done(c.Exec(t.Context(), "EXPLAIN ANALYZE UPDATE sensors SET v = v + 1").ReadAll())
		},
	}
	for i, write := range writes {
		if err := write(c); err != nil {
			t.Fatal(err)
		}
		if r := shown(t, link, "public.sensors?k=a"); r["v"] != int64(i+1) {
			t.Errorf("statement %d: the register has %v when the client has heard, want %d", i, r["v"], i+1)
		}
	}
	release := link.Block(wrappertest.CallSeen)
	defer release()
	must(t, open(t, p.addr(), database), "UPDATE sensors SET v = v + 1")
	link.Await(t, "the feed to be held", func() bool { return link.Waiting(wrappertest.CallSeen) > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if r := c.ExecPrepared(ctx, "plain", [][]byte{[]byte("a")}, nil, nil).Read(); r.Err != nil {
		t.Errorf("a select of a plain table waited: %v", r.Err)
	}
	if _, err := c.Exec(ctx, "SELECT lower(t), now() FROM sensors WHERE k IN ('a')").ReadAll(); err != nil {
		t.Errorf("a select of a plain table waited: %v", err)
	}
}

func done[T any](_ T, err error) error { return err }
