package sql

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

const contractSchema = `CREATE TABLE sensors (k text PRIMARY KEY, v int, t text CHECK (t <> 'refuse'));
	CREATE TABLE other (k text PRIMARY KEY, v int, t text);
	CREATE TABLE writes (k text, n int);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		-- An upsert of a row that is there is first an insert, then an update.
		IF current_setting('application_name') <> 'rig' AND NOT (TG_OP = 'INSERT' AND EXISTS (SELECT 1 FROM sensors s WHERE s.k = NEW.k)) THEN
			INSERT INTO writes VALUES (coalesce(NEW.k, OLD.k), 1);
		END IF;
		IF EXISTS (SELECT 1 FROM refuse) AND current_setting('application_name') <> 'rig' THEN
			IF nextval('refusals') = 1 THEN RAISE EXCEPTION 'as asked' USING ERRCODE = (SELECT code FROM refuse); END IF;
		END IF;
		RETURN coalesce(NEW, OLD); END $$;
	CREATE TABLE refuse (code text);
	CREATE SEQUENCE refusals;
	CREATE TRIGGER note BEFORE INSERT OR UPDATE OR DELETE ON sensors FOR EACH ROW EXECUTE FUNCTION note();`

func sensorPatterns() []wrappers.Pattern {
	literal := func(s string) wrappers.Segment { return wrappers.Segment{Kind: wrappers.LiteralSegment, Literal: s} }
	return []wrappers.Pattern{{
		Bind: "b1", Hash: "h1", Segments: []wrappers.Segment{literal("public"), literal("sensors")}, Suffix: "?k={}", In: true, Out: true,
		Options: wrappers.Options{}, Members: []wrappers.Member{{Name: "k", Key: true, In: true, Out: true}, {Name: "v", In: true, Out: true}, {Name: "t", In: true, Out: true}},
	}}
}

func newLink() *wrappertest.Link {
	l := wrappertest.NewLink()
	prepare(l)
	return l
}

func prepare(l *wrappertest.Link) {
	l.SetPatterns(sensorPatterns()...)
	l.MapIf(func(_ wrappers.Verb, _, address string) bool { return strings.HasPrefix(address, "public.sensors?k=") })
	// A change is laid over the row: what it doesn't speak of stays.
	l.LayOnto(func(doc, pay wrappers.Payload) (wrappers.Payload, error) {
		have, err := decodeRow(doc.Raw)
		if err != nil {
			return doc, err
		}
		want, err := decodeRow(pay.Raw)
		if err != nil {
			return doc, err
		}
		for k, v := range want {
			have[k] = v
		}
		raw, err := have.encode()
		return wrappers.Payload{Raw: raw, Type: rowType}, err
	})
}

func testLog() *slog.Logger {
	if os.Getenv("SQL_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// startWrapper runs a wrapper in front of (or inside) a database.
func startWrapper(t testing.TB, link *wrappertest.Link, p *postgres, database string, relay bool, tune func(*wrappers.Config)) (addr string, stop func() error) {
	t.Helper()
	cfg := wrappers.Config{
		Protocol: "sql", Name: "erp", Endpoint: "spookgw/local/0123456789abcdef", Drain: 5 * time.Second, Log: testLog(),
		Upstreams: []wrappers.Upstream{{Scheme: "postgres", Addr: p.addr(), Path: "/" + database, User: "postgres"}},
		Options:   wrappers.Options{"capture": "sync", "slot": "s_" + database, "capture_wait_ms": int64(20_000)},
	}
	if relay {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listener, addr = ln, ln.Addr().String()
	}
	if tune != nil {
		tune(&cfg)
	}
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop = wrappertest.Serve(t, w, link)
	link.Await(t, "the feed to stand", func() bool { return link.Counted("feed_up")+link.Counted("reader_up") > 0 })
	return addr, stop
}

// rigServer is the database seen from behind the gateway.
type rigServer struct {
	t  testing.TB
	mu sync.Mutex
	c  *pgconn.PgConn
}

func (s *rigServer) query(sql string) [][]field {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows, err := query(context.Background(), s.c, sql)
	if err != nil {
		s.t.Errorf("%s: %v", sql, err)
	}
	return rows
}

func split(address string) (table, key string) {
	name, k, err := parseAddress(address)
	if err != nil {
		panic(err)
	}
	return name.quoted(), quoteLiteral(k[0].value)
}

func (s *rigServer) Value(address string) ([]byte, bool) {
	table, key := split(address)
	rows := s.query("SELECT v, t FROM " + table + " WHERE k = " + key)
	if len(rows) == 0 {
		return nil, false
	}
	return document(rows[0][0].text, rows[0][1]), true
}

func document(v string, t field) []byte {
	r := row{}
	if v != "" {
		r["v"] = number(v)
	}
	if !t.null {
		r["t"] = t.text
	}
	raw, err := r.encode()
	if err != nil {
		panic(err)
	}
	return raw
}

func upsert(address string, payload []byte) string {
	table, key := split(address)
	v, text := "NULL", "NULL"
	if r, err := decodeRow(payload); err == nil {
		if n, ok := r["v"].(int64); ok {
			v = fmt.Sprint(n)
		}
	} else {
		text = quoteLiteral(string(payload)) // the suite's oversized one is JSON
	}
	return fmt.Sprintf("INSERT INTO %s (k, v, t) VALUES (%s, %s, %s) ON CONFLICT (k) DO UPDATE SET v = excluded.v, t = excluded.t", table, key, v, text)
}

func (s *rigServer) Set(address string, payload []byte) { s.query(upsert(address, payload)) }
func (s *rigServer) Remove(address string) {
	table, key := split(address)
	s.query("DELETE FROM " + table + " WHERE k = " + key)
}

func (s *rigServer) Writes(address string) int {
	_, key := split(address)
	rows := s.query("SELECT count(*) FROM writes WHERE k = " + key)
	var n int
	fmt.Sscan(rows[0][0].text, &n)
	return n
}

func (s *rigServer) Fail(how wrappertest.Failure) bool {
	code := map[wrappertest.Failure]string{wrappertest.RefuseForGood: "23514", wrappertest.RefuseForNow: "40001"}[how]
	if code == "" {
		return false
	}
	s.query("SELECT setval('refusals', 1, false); DELETE FROM refuse; INSERT INTO refuse VALUES ('" + code + "')")
	return true
}

// rigClient is a client of the relay.
type rigClient struct{ c *pgconn.PgConn }

func (c rigClient) Write(address string, payload []byte) error {
	_, err := query(context.Background(), c.c, upsert(address, payload))
	return err
}

func (c rigClient) Read(address string) ([]byte, error) {
	table, key := split(address)
	rows, err := query(context.Background(), c.c, "SELECT v, t FROM "+table+" WHERE k = "+key)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, wrappertest.ErrAbsent
	}
	return document(rows[0][0].text, rows[0][1]), nil
}

func (c rigClient) Delete(address string) error {
	table, key := split(address)
	_, err := query(context.Background(), c.c, "DELETE FROM "+table+" WHERE k = "+key)
	return err
}
func (c rigClient) Subscribe(string) (<-chan []byte, error) { panic("not in a relay") }
func (c rigClient) Close()                                  { c.c.Close(context.Background()) }

func TestContract(t *testing.T) {
	rig := func(relay bool) func(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) wrappertest.Rig {
		return func(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) wrappertest.Rig {
			p, database := newDatabase(t, contractSchema)
			prepare(link)
			addr, stop := startWrapper(t, link, p, database, relay, tune)
			c, err := pgconn.Connect(context.Background(), fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=%s sslmode=disable application_name=rig", p.port, database))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close(context.Background()) })
			r := wrappertest.Rig{Addr: addr, Server: &rigServer{t: t, c: c}, Stop: stop}
			if relay {
				r.Dial = func(t *testing.T) wrappertest.Client { return rigClient{open(t, addr, database)} }
			}
			return r
		}
	}
	wrappertest.Run(t, wrappertest.Suite{
		Address:  func(n int) string { return fmt.Sprintf("public.sensors?k=a%d", n) },
		Unmapped: "public.other?k=x",
		Document: func(n int) []byte { return document(fmt.Sprint(n), field{null: true}) },
		Same: func(a, b []byte) bool {
			x, err1 := decodeRow(a)
			y, err2 := decodeRow(b)
			return err1 == nil && err2 == nil && sameValue(x["v"], y["v"]) && sameValue(x["t"], y["t"])
		},
		Relay: rig(true), Attached: rig(false), RelayHolds: wrappertest.CallSeen, Deletes: true,
		Garbage: []byte("GET / HTTP/1.1\r\n\r\n"),
	})
}
