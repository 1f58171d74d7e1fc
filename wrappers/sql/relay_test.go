package sql

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

func dialWith(t testing.TB, addr, database, more string) (*pgconn.PgConn, error) {
	t.Helper()
	return dialHearing(t, addr, database, more, nil)
}

// dialHearing is dialWith for who wants to hear the server's notices.
func dialHearing(t testing.TB, addr, database, more string, hear pgconn.NoticeHandler) (*pgconn.PgConn, error) {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%s dbname=%s %s", host, port, database, more))
	if err != nil {
		t.Fatal(err)
	}
	config.OnNotice = hear
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := pgconn.ConnectConfig(ctx, config)
	if err == nil {
		t.Cleanup(func() { c.Close(context.Background()) })
	}
	return c, err
}

// TestTLS: the listener ends it, refuses clients without, and lets passwords through; without a listener's TLS the
// client's wish is the server's to answer.
func TestTLS(t *testing.T) {
	p, database := newDatabase(t, contractSchema+"GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC; DROP ROLE IF EXISTS joe; CREATE ROLE joe LOGIN PASSWORD 'secret'")
	link := newLink()
	addr, _ := startWrapper(t, link, p, database, true, func(c *wrappers.Config) {
		c.TLS = &tls.Config{Certificates: []tls.Certificate{wrappertest.SelfSigned(t)}}
	})
	if _, err := dialWith(t, addr, database, "user=postgres sslmode=disable"); sqlState(err) != stateNotAuthorized {
		t.Errorf("without TLS: got %v", err)
	}
	for _, mode := range []string{"", " sslnegotiation=direct"} {
		c, err := dialWith(t, addr, database, "user=joe password=secret sslmode=require"+mode)
		if err != nil {
			t.Fatal(err)
		}
		must(t, c, "INSERT INTO other VALUES ('tls"+mode+"', 1)")
	}
	if _, err := dialWith(t, addr, database, "user=joe password=wrong sslmode=require"); sqlState(err) != "28P01" {
		t.Errorf("wrong password: got %v", err)
	}

	plain := newLink()
	addr, _ = startWrapper(t, plain, p, database, true, func(c *wrappers.Config) { c.Options["slot"] = "plain_" + database })
	c, err := dialWith(t, addr, database, "user=joe password=secret sslmode=prefer")
	if err != nil {
		t.Fatal(err)
	}
	must(t, c, "INSERT INTO other VALUES ('plain', 1)")
	if n := plain.Counted("blind_sessions"); n != 0 {
		t.Errorf("%d sessions pass unseen, though the server has no TLS", n)
	}
}

// TestCancel: a cancel request reaches the server that runs the statement, over a connection of its own.
func TestCancel(t *testing.T) {
	p, database := newDatabase(t, contractSchema)
	for name, tune := range map[string]func(*wrappers.Config){"plain": nil, "TLS": func(c *wrappers.Config) {
		c.TLS = &tls.Config{Certificates: []tls.Certificate{wrappertest.SelfSigned(t)}}
		c.Options["slot"] = "tls_" + database
	}} {
		t.Run(name, func(t *testing.T) {
			addr, _ := startWrapper(t, newLink(), p, database, true, tune)
			mode := "disable"
			if tune != nil {
				mode = "require"
			}
			runs := make(chan struct{}, 1)
			c, err := dialHearing(t, addr, database, "user=postgres sslmode="+mode, func(*pgconn.PgConn, *pgconn.Notice) { runs <- struct{}{} })
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := query(context.Background(), c, "DO $$ BEGIN RAISE NOTICE 'it runs'; PERFORM pg_sleep(60); END $$")
				done <- err
			}()
			<-runs
			if err := c.CancelRequest(context.Background()); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-done:
				if sqlState(err) != "57014" {
					t.Errorf("got %v, want 57014", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("it was not cancelled")
			}
			must(t, c, "SELECT 1")
		})
	}
}

// TestTransparent: COPY both ways, LISTEN, prepared statements, pipelines and large messages pass.
func TestTransparent(t *testing.T) {
	p, database := newDatabase(t, contractSchema)
	link := newLink()
	addr, _ := startWrapper(t, link, p, database, true, func(c *wrappers.Config) { c.Limits.Frame = 64 << 20 })
	ctx := context.Background()
	heard := make(chan string, 1)
	host, port, _ := net.SplitHostPort(addr)
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%s user=postgres dbname=%s sslmode=disable", host, port, database))
	if err != nil {
		t.Fatal(err)
	}
	cfg.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { heard <- n.Payload }
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	var in bytes.Buffer
	for i := range 5000 {
		fmt.Fprintf(&in, "c%d\t%d\t%s\n", i, i, strings.Repeat("x", i%300))
	}
	if _, err := c.CopyFrom(ctx, bytes.NewReader(in.Bytes()), "COPY sensors FROM STDIN"); err != nil {
		t.Fatal(err)
	}
	if n := len(link.Candidates(wrappertest.ViaSeen)); n != 5000 {
		t.Errorf("capture = sync: %d of 5,000 rows are there when COPY is over", n)
	}
	var out bytes.Buffer
	if _, err := c.CopyTo(ctx, &out, "COPY (SELECT * FROM sensors ORDER BY v) TO STDOUT"); err != nil || !bytes.Equal(out.Bytes(), in.Bytes()) {
		t.Errorf("COPY TO: %v, %d bytes of %d", err, out.Len(), in.Len())
	}
	must(t, c, "LISTEN news")
	must(t, open(t, p.addr(), database), "NOTIFY news, 'hello'")
	for len(heard) == 0 {
		must(t, c, "SELECT 1")
	}
	if got := <-heard; got != "hello" {
		t.Errorf("heard %q", got)
	}
	large := strings.Repeat("y", 10<<20)
	if r := c.ExecParams(ctx, "INSERT INTO sensors VALUES ('large', 1, $1)", [][]byte{[]byte(large)}, nil, nil, nil).Read(); r.Err != nil {
		t.Fatal(r.Err)
	}
	if r := c.ExecParams(ctx, "SELECT t FROM sensors WHERE k = 'large'", nil, nil, nil, nil).Read(); r.Err != nil || string(r.Rows[0][0]) != large {
		t.Errorf("a large value: %v", r.Err)
	}
	if _, err := c.Prepare(ctx, "s", "UPDATE sensors SET v = $1 WHERE k = $2", nil); err != nil {
		t.Fatal(err)
	}
	pipe := c.StartPipeline(ctx)
	for i := range 100 {
		pipe.SendQueryPrepared("s", [][]byte{fmt.Append(nil, i), []byte("c7")}, nil, nil)
		if err := pipe.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if err := pipe.Close(); err != nil {
		t.Fatal(err)
	}
	if raw, _ := link.Register("", "public.sensors?k=c7"); true {
		if r, err := decodeRow(raw); err != nil || r["v"] != int64(99) {
			t.Errorf("after the pipeline: %v, %v", r, err)
		}
	}
}

// TestNothingIsLeft: sessions that end, in whichever way, leave none behind at the server.
func TestNothingIsLeft(t *testing.T) {
	p, database := newDatabase(t, contractSchema)
	addr, _ := startWrapper(t, newLink(), p, database, true, nil)
	for i := range 30 {
		c, err := dialServer(context.Background(), addr, database)
		if err != nil {
			t.Fatal(err)
		}
		switch i % 3 {
		case 0:
			c.Close(context.Background())
		case 1:
			c.Conn().Close()
		case 2:
			must(t, c, "BEGIN")
			c.Conn().Close()
		}
	}
	c := open(t, p.addr(), database)
	deadline := time.Now().Add(10 * time.Second)
	for {
		n := lines(must(t, c, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'test' AND datname = current_database()"))
		if n == "2\n" { // this one, and the one that made the schema
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("sessions at the server: %s", n)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestWho: a row is its session's, as far as that can be known; who only read, failed or changed nothing is not taken for it.
func TestWho(t *testing.T) {
	p, database := newDatabase(t, contractSchema+"GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC; DROP ROLE IF EXISTS joe; CREATE ROLE joe LOGIN PASSWORD 'secret'")
	link := newLink()
	addr, _ := startWrapper(t, link, p, database, true, nil)
	ann, err := dialWith(t, addr, database, "user=postgres sslmode=disable application_name=ann's")
	if err != nil {
		t.Fatal(err)
	}
	joe, err := dialWith(t, addr, database, "user=joe password=secret sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	must(t, joe, "SELECT * FROM sensors; UPDATE sensors SET v = 1 WHERE k = 'nobody'")
	must(t, joe, "BEGIN; DELETE FROM sensors; ROLLBACK")
	if _, err := query(context.Background(), joe, "INSERT INTO sensors VALUES ('x', 'no number')"); err == nil {
		t.Fatal("no error")
	}
	must(t, joe, "BEGIN")
	must(t, joe, "SELECT * FROM sensors")
	must(t, ann, "INSERT INTO sensors VALUES ('a', 1)")
	must(t, open(t, p.addr(), database), "INSERT INTO sensors VALUES ('behind', 1)")
	link.Await(t, "both", func() bool { return len(link.Observations()) == 2 })
	o := link.Observations()
	if w := o[0].Who; w.Principal != "sql/erp:postgres" || w.Peer == "" || w.Verified || o[0].Payload.Meta["application"] != "ann's" ||
		o[0].Payload.Meta["statement"] != "INSERT INTO sensors VALUES ('a', 1)" {
		t.Errorf("got %+v %v", w, o[0].Payload.Meta)
	}
	if w := o[1].Who; w != (wrappers.Who{}) {
		t.Errorf("behind the gateway's back: got %+v", w)
	}
	// Two at once: of one user it is known who, of two it is not.
	must(t, joe, "UPDATE sensors SET v = v WHERE k = 'behind'")
	must(t, ann, "UPDATE sensors SET v = 2 WHERE k = 'a'")
	must(t, joe, "COMMIT")
	link.Await(t, "all", func() bool { return len(link.Observations()) == 4 })
	if w := link.Observations()[2].Who; w != (wrappers.Who{}) {
		t.Errorf("of two: got %+v, want nobody", w)
	}
}
