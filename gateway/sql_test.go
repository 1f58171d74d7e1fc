package gateway

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/sql"
)

var updateSQL = flag.Bool("update-sql", false, "rewrite what psql is wanted to print")

const tables = `
register "site/{site}/{sensor}" {
  bind "sql" "public.sensors" {
    key     = { site = payload.site, sensor = payload.sensor }
    columns = ["value numeric", "unit text", "at timestamptz"]
  }
  bind "docs" "/site/{site}/{sensor}" {}
}
register "order/{id}" {
  fields = { site = string, state = string, details = any, urgent = bool, scan = bytes }
  bind "sql" "plant.orders" {
    key     = { id = payload.id }
    columns = ["id int8", "site text", "state text", "details jsonb", "urgent bool", "scan bytea"]
  }
}
register "count/{name}" {
  fields = { n = number, at = time }
  bind "sql" "public.counts" {
    key = { name = payload.name }
  }
  bind "docs" "/count/{name}" {}
}
`

// sqlServer starts a virtual SQL server over a link, and gives its address.
func sqlServer(t testing.TB, link wrappers.Link, tune func(*wrappers.Config)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	options := wrappers.Options{}
	for _, s := range sql.Protocol.Settings {
		options[s.Name] = s.Default
	}
	cfg := wrappers.Config{Protocol: "sql", Name: "sql", Listener: l, Anonymous: wrappers.WriteAccess, Drain: time.Second, Log: slog.New(slog.DiscardHandler), Options: options}
	if tune != nil {
		tune(&cfg)
	}
	w, err := sql.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Serve(ctx, link) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

// sqlWorld is a world with a virtual SQL server, and links of docs beside it.
func sqlWorld(t *testing.T, tune func(*wrappers.Config)) (*world, wrappers.Link, string) {
	info := LinkInfo{Protocol: sql.Protocol, Name: "sql", Anonymous: wrappers.WriteAccess}
	other := LinkInfo{Protocol: docs, Name: "docs", Anonymous: wrappers.WriteAccess}
	w := newWorld(t, tables, info, other)
	return w, w.Open(other), sqlServer(t, w.Open(info), tune)
}

func pgxTo(t testing.TB, addr string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), "postgres://tester@"+addr+"/plant?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// TestPsqlTour holds what psql prints of a script against what it printed when it was looked at.
func TestPsqlTour(t *testing.T) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("psql is not installed")
	}
	_, _, addr := sqlWorld(t, nil)
	host, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(psql, "-X", "-a", "-q", "-h", host, "-p", port, "-U", "tester", "-d", "plant", "-v", "VERBOSITY=verbose", "-f", filepath.Join("testdata", "sql", "tour.sql"))
	cmd.Env = append(os.Environ(), "PGCONNECT_TIMEOUT=10", "LC_ALL=C", "PAGER=", "TZ=UTC")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := strings.ReplaceAll(string(out), "psql:testdata/sql/tour.sql:", "line ")
	path := filepath.Join("testdata", "sql", "tour.out")
	if *updateSQL {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
		for i := range g {
			if i >= len(w) || g[i] != w[i] {
				t.Fatalf("line %d of the output:\ngot  %s\nwant %s", i+1, g[i], append(w, "")[min(i, len(w))])
			}
		}
		t.Fatal("there is less output than wanted")
	}
}

// TestPgx goes through what pgx does by default: binary formats, described statements, batches, COPY.
func TestPgx(t *testing.T) {
	_, other, addr := sqlWorld(t, nil)
	ctx := t.Context()
	c := pgxTo(t, addr)
	at := time.Date(2026, 1, 31, 12, 0, 0, 123456000, time.UTC)
	if tag, err := c.Exec(ctx, "INSERT INTO sensors (site, sensor, value, unit, at) VALUES ($1, $2, $3, $4, $5)", "berlin", "oven", 21.5, "C", at); err != nil || tag.String() != "INSERT 0 1" {
		t.Fatal(tag, err)
	}
	var value float64
	var unit *string
	var when time.Time
	if err := c.QueryRow(ctx, "SELECT value, unit, at FROM sensors WHERE site = $1 AND sensor = $2", "berlin", "oven").Scan(&value, &unit, &when); err != nil || value != 21.5 || *unit != "C" || !when.Equal(at) {
		t.Error(value, unit, when, err)
	}
	res, err := other.Do(ctx, wrappers.Operation{Verb: wrappers.Read, Address: "/site/berlin/oven"})
	if err != nil || !strings.Contains(string(res.Payload.Raw), `"value":21.5`) {
		t.Errorf("the other protocol reads %s, %v", res.Payload.Raw, err)
	}
	if _, err := c.Exec(ctx, "INSERT INTO plant.orders VALUES ($1, $2, $3, $4, $5, $6)", 7, "x", nil, map[string]any{"a": []int{1}}, true, []byte{0, 255}); err != nil {
		t.Fatal(err)
	}
	var id int64
	var details map[string]any
	var urgent bool
	var scan []byte
	if err := c.QueryRow(ctx, "SELECT id, details, urgent, scan FROM plant.orders WHERE id = $1", int64(7)).Scan(&id, &details, &urgent, &scan); err != nil || id != 7 || len(details) != 1 || !urgent || string(scan) != "\x00\xff" {
		t.Error(id, details, urgent, scan, err)
	}
	batch := &pgx.Batch{}
	for i := range 50 {
		batch.Queue("INSERT INTO counts (name, n) VALUES ($1, $2)", fmt.Sprint("c", i), i)
	}
	if err := c.SendBatch(ctx, batch).Close(); err != nil {
		t.Fatal(err)
	}
	n, err := c.CopyFrom(ctx, pgx.Identifier{"counts"}, []string{"name", "n"}, pgx.CopyFromRows([][]any{{"x", 1}}))
	if err == nil || n != 0 {
		t.Error("binary COPY is said to work")
	}
	var count int
	var total float64
	if err := c.QueryRow(ctx, "SELECT count(*), sum(n) FROM counts WHERE name = ANY($1) OR n < $2", []string{"c49", "c48"}, 10).Scan(&count, &total); err != nil || count != 12 || total != 45+97 {
		t.Error(count, total, err)
	}
	var pgErr *pgconn.PgError
	if _, err := c.Exec(ctx, "INSERT INTO counts (name, n) VALUES ('c1', 1)"); !errors.As(err, &pgErr) || pgErr.Code != "23505" {
		t.Error(err)
	}
	// A portal that is read in steps.
	rows, err := c.Query(ctx, "SELECT name FROM counts ORDER BY n")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(names) != 50 || names[49] != "c49" {
		t.Error(names, err)
	}
}

// TestIncrements counts with many clients at once, in blocks that are tried again and outside of them.
func TestIncrements(t *testing.T) {
	_, other, addr := sqlWorld(t, nil)
	ctx := t.Context()
	if _, err := pgxTo(t, addr).Exec(ctx, "INSERT INTO counts (name, n) VALUES ('a', 0), ('b', 0)"); err != nil {
		t.Fatal(err)
	}
	const clients, each = 6, 25
	var wg sync.WaitGroup
	for range clients {
		c := pgxTo(t, addr)
		wg.Go(func() {
			for range each {
				for { // what is not in a block the server does again, as often as makes sense
					if _, err := c.Exec(ctx, "UPDATE counts SET n = n + 1 WHERE name = 'a'"); err == nil {
						break
					} else if !isState(err, "40001") {
						t.Error(err)
						return
					}
				}
				for {
					err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
						var n int
						if err := tx.QueryRow(ctx, "SELECT n FROM counts WHERE name = 'b' FOR UPDATE").Scan(&n); err != nil {
							return err
						}
						_, err := tx.Exec(ctx, "UPDATE counts SET n = $1 WHERE name = 'b'", n+1)
						return err
					})
					if err == nil {
						break
					}
					if !isState(err, "40001") {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	for _, name := range []string{"a", "b"} {
		res, err := other.Do(ctx, wrappers.Operation{Verb: wrappers.Read, Address: "/count/" + name})
		if want := fmt.Sprintf(`{"n":%d}`, clients*each); err != nil || string(res.Payload.Raw) != want {
			t.Errorf("%s: got %s, want %s (%v)", name, res.Payload.Raw, want, err)
		}
	}
}

func isState(err error, code string) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == code
}

// TestTransactionIsOneWrite: nobody sees a part of a transaction, and a rolled back one leaves nothing.
func TestTransactionIsOneWrite(t *testing.T) {
	w, _, addr := sqlWorld(t, nil)
	ctx := t.Context()
	c := pgxTo(t, addr)
	if _, err := c.Exec(ctx, "INSERT INTO sensors (site, sensor, value) VALUES ('a', 'b', 1)"); err != nil {
		t.Fatal(err)
	}
	before, err := w.store.Cursor(ctx)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := c.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if _, err := tx.Exec(ctx, "INSERT INTO counts (name, n) VALUES ($1, $2)", fmt.Sprint(i), i); err != nil {
			t.Fatal(err)
		}
	}
	if now, _ := w.store.Cursor(ctx); now != before {
		t.Error("something was written before the commit")
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if now, _ := w.store.Cursor(ctx); now.Ordinal != before.Ordinal+1 {
		t.Errorf("%d commits, want 1", now.Ordinal-before.Ordinal)
	}
	tx, err = c.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "DELETE FROM counts"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := c.QueryRow(ctx, "SELECT count(*) FROM counts").Scan(&n); err != nil || n != 100 {
		t.Error(n, err)
	}
}

// TestSerializable: a transaction that only read a row which somebody changed does not commit.
func TestSerializable(t *testing.T) {
	_, _, addr := sqlWorld(t, nil)
	ctx := t.Context()
	a, b := pgxTo(t, addr), pgxTo(t, addr)
	if _, err := a.Exec(ctx, "INSERT INTO counts (name, n) VALUES ('x', 1), ('y', 1)"); err != nil {
		t.Fatal(err)
	}
	for _, level := range []pgx.TxIsoLevel{pgx.Serializable, pgx.ReadCommitted} {
		tx, err := a.BeginTx(ctx, pgx.TxOptions{IsoLevel: level})
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if err := tx.QueryRow(ctx, "SELECT n FROM counts WHERE name = 'x'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Exec(ctx, "UPDATE counts SET n = n + 1 WHERE name = 'x'"); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(ctx, "UPDATE counts SET n = $1 WHERE name = 'y'", n); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(ctx); (level == pgx.Serializable) != isState(err, "40001") {
			t.Errorf("%s: %v", level, err)
		}
	}
}

// TestListen: a change from another protocol and a NOTIFY reach who listens.
func TestListen(t *testing.T) {
	_, other, addr := sqlWorld(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, d := pgxTo(t, addr), pgxTo(t, addr)
	if _, err := c.Exec(ctx, "LISTEN counts; LISTEN chat"); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Do(ctx, doc(wrappers.Put, "/count/z", `{"n":5}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Exec(ctx, "NOTIFY chat, 'hello'"); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for range 2 {
		n, err := c.WaitForNotification(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got[n.Channel] = n.Payload
	}
	if got["chat"] != "hello" || got["counts"] != `{"op": "put", "key": {"name": "z"}, "row": {"at": null, "n": 5}}` {
		t.Errorf("%q", got)
	}
}

// TestCancel: a cancel request ends the statement, and the session goes on.
func TestCancel(t *testing.T) {
	_, _, addr := sqlWorld(t, nil)
	c := pgxTo(t, addr)
	ctx := t.Context()
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, "SELECT pg_sleep(60)")
		done <- err
	}()
	for {
		if err := c.PgConn().CancelRequest(ctx); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if !isState(err, "57014") {
				t.Error(err)
			}
			var one int
			if err := c.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil || one != 1 {
				t.Error(one, err)
			}
			return
		case <-time.After(20 * time.Millisecond): // it came before the statement
		}
	}
}

// TestScram: the gateway's users log on by SCRAM-SHA-256, and it is known who wrote.
func TestScram(t *testing.T) {
	users := &userTable{}
	users.use([]User{{Name: "ann", Password: NewSecret("s3cret"), As: map[string]string{"sql": "ann.sql"}}})
	w, _, addr := sqlWorld(t, func(c *wrappers.Config) {
		c.Logon, c.Anonymous = users.logon("sql"), wrappers.NoAccess
	})
	ctx := t.Context()
	for who, ok := range map[string]bool{"ann.sql:s3cret": true, "ann.sql:wrong": false, "ann:s3cret": false, "nobody:s3cret": false} {
		c, err := pgx.Connect(ctx, "postgres://"+who+"@"+addr+"/plant?sslmode=disable")
		if ok != (err == nil) {
			t.Errorf("%s: %v", who, err)
		}
		if err != nil {
			if !isState(err, "28P01") {
				t.Error(err)
			}
			continue
		}
		if _, err := c.Exec(ctx, "INSERT INTO counts (name, n) VALUES ('u', 1)"); err != nil {
			t.Error(err)
		}
		c.Close(ctx)
	}
	for d, err := range w.store.History(ctx, engine.HistoryQuery{Register: "count/u"}) {
		if err != nil || d.Cause.Principal != "ann" || !d.Cause.Verified {
			t.Errorf("%+v, %v", d.Cause, err)
		}
	}
}

// TestSQLHandshake: TLS that is asked for and TLS that is not, and protocols that are newer than ours.
func TestSQLHandshake(t *testing.T) {
	_, _, plain := sqlWorld(t, nil)
	hello := func(addr string, version uint32, params string) []byte {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		body := binary.BigEndian.AppendUint32(nil, version)
		body = append(body, params...)
		if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		n, _ := c.Read(b)
		return b[:n]
	}
	const user = "user\x00x\x00"
	for _, c := range []struct {
		version uint32
		params  string
		begins  string
	}{
		{3 << 16, user + "\x00", "R\x00\x00\x00\x08\x00\x00\x00\x00S"},
		{3<<16 | 2, user + "\x00", "R\x00\x00\x00\x08\x00\x00\x00\x00S"},
		{3<<16 | 9999, user + "_pq_.x\x001\x00\x00", "v\x00\x00\x00\x13\x00\x03\x00\x02\x00\x00\x00\x01_pq_.x\x00R"},
		{2 << 16, user + "\x00", "E"},
		{3 << 16, "\x00", "E"},
		{80877103, "", "N"},
		{80877104, "", "N"},
	} {
		if got := hello(plain, c.version, c.params); !strings.HasPrefix(string(got), c.begins) {
			t.Errorf("%x %q: got %q", c.version, c.params, got)
		}
	}
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	defer cert.Close()
	_, _, secure := sqlWorld(t, func(c *wrappers.Config) { c.TLS = &tls.Config{Certificates: cert.TLS.Certificates} })
	for mode, ok := range map[string]bool{"sslmode=require": true, "sslmode=require&sslnegotiation=direct": true, "sslmode=disable": false} {
		c, err := pgx.Connect(t.Context(), "postgres://tester@"+secure+"/plant?"+mode)
		if ok != (err == nil) {
			t.Errorf("%s: %v", mode, err)
		}
		if err == nil {
			c.Close(t.Context())
		}
	}
}

// TestManyRows: a scan is not bounded by what one list gives, and with the first part of the key it looks at nothing else.
func TestManyRows(t *testing.T) {
	_, _, addr := sqlWorld(t, nil)
	c := pgxTo(t, addr)
	ctx := t.Context()
	if _, err := c.Exec(ctx, "INSERT INTO sensors (site, sensor, value) SELECT 's' || g % 3, g::text, g FROM generate_series(1, 2500) g"); err != nil {
		t.Fatal(err)
	}
	var n, m int
	if err := c.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE site = 's1') FROM sensors").Scan(&n, &m); err != nil || n != 2500 || m != 834 {
		t.Error(n, m, err)
	}
	if err := c.QueryRow(ctx, "SELECT count(*) FROM sensors WHERE site = 's1'").Scan(&n); err != nil || n != 834 {
		t.Error(n, err)
	}
}

func benchSQL(b *testing.B, f func(ctx context.Context, c *pgx.Conn, i int) error) {
	store, err := engine.Open(engine.Options{Dir: b.TempDir(), Log: slog.New(slog.DiscardHandler), MinFree: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	set, diags := mapping.Load(mapping.Input{Files: []diag.File{{Name: "b.hcl", Bytes: []byte(tables)}},
		Wrappers: []mapping.WrapperInfo{{Protocol: sql.Protocol, Name: "sql", Listens: true}, {Protocol: docs, Name: "docs", Listens: true}}, Domains: []string{"local"}})
	if diags.HasErrors() {
		b.Fatal(diags)
	}
	links := NewLinks(LinksOptions{Store: store})
	links.Use(&Generation{Number: 1, Set: set})
	addr := sqlServer(b, links.Open(LinkInfo{Protocol: sql.Protocol, Name: "sql", Anonymous: wrappers.WriteAccess}), nil)
	if _, err := pgxTo(b, addr).Exec(b.Context(), "INSERT INTO counts (name, n) SELECT g::text, g FROM generate_series(0, 999) g"); err != nil {
		b.Fatal(err)
	}
	const clients = 16
	conns := make([]*pgx.Conn, clients)
	for i := range conns {
		conns[i] = pgxTo(b, addr)
	}
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for k, c := range conns {
		wg.Go(func() {
			for i := k; i < b.N; i += clients {
				if err := f(b.Context(), c, i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

func BenchmarkPointSelect(b *testing.B) {
	benchSQL(b, func(ctx context.Context, c *pgx.Conn, i int) error {
		var n float64
		return c.QueryRow(ctx, "SELECT n FROM counts WHERE name = $1", fmt.Sprint(i%1000)).Scan(&n)
	})
}

func BenchmarkUpsert(b *testing.B) {
	benchSQL(b, func(ctx context.Context, c *pgx.Conn, i int) error {
		_, err := c.Exec(ctx, "INSERT INTO counts (name, n) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET n = excluded.n", fmt.Sprint(i%1000), i)
		return err
	})
}
