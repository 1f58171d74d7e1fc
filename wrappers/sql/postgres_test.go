package sql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// A postgres is a real server of the tests' own, one for all of them; each test has a database.
type postgres struct {
	port int
	dir  string
	cmd  *exec.Cmd
}

var (
	serverOnce sync.Once
	server     *postgres
	serverErr  error
	databases  atomic.Int64
)

func TestMain(m *testing.M) {
	lookEvery = 300 * time.Millisecond
	code := m.Run()
	if server != nil {
		server.stop()
	}
	os.Exit(code)
}

// binaries finds the server's programs, which Debian keeps out of the path.
func binaries() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) > 0 {
		return filepath.Dir(slices.Max(found)), nil
	}
	path, err := exec.LookPath("postgres")
	return filepath.Dir(path), err
}

var errNoServer = errors.New("PostgreSQL is not installed")

// asServer has a command run as somebody the server runs as: it refuses root.
func asServer(cmd *exec.Cmd) error {
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return err
		}
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	cmd.Env = append(os.Environ(), "HOME=/tmp")
	return errors.Join(err1, err2)
}

func startPostgres() (*postgres, error) {
	bin, err := binaries()
	if err != nil {
		return nil, errNoServer
	}
	dir, err := os.MkdirTemp("", "sqltest")
	if err != nil {
		return nil, err
	}
	p := &postgres{dir: dir}
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", filepath.Join(dir, "data"), "-U", "postgres", "-A", "trust", "-N", "--locale=C.UTF-8", "-E", "UTF8")
	if err := asServer(initdb); err != nil {
		return nil, err
	}
	if c := initdb.SysProcAttr; c != nil {
		if err := os.Chown(dir, int(c.Credential.Uid), int(c.Credential.Gid)); err != nil {
			return nil, err
		}
	}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	// joe has a password; everybody else is trusted.
	hba := filepath.Join(dir, "data", "pg_hba.conf")
	rest, err := os.ReadFile(hba)
	if err == nil {
		err = os.WriteFile(hba, append([]byte("host all joe 127.0.0.1/32 scram-sha-256\n"), rest...), 0o600)
	}
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p.port = ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	p.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", filepath.Join(dir, "data"), "-p", strconv.Itoa(p.port), "-k", dir, "-h", "127.0.0.1", "-F",
		"-c", "wal_level=logical", "-c", "max_replication_slots=100", "-c", "max_wal_senders=100", "-c", "max_connections=200", "-c", "max_prepared_transactions=10",
		"-c", "max_slot_wal_keep_size=1GB", "-c", "log_min_messages=fatal")
	if err := asServer(p.cmd); err != nil {
		return nil, err
	}
	if os.Getenv("SQL_TEST_LOG") != "" {
		p.cmd.Stderr = os.Stderr
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for range 300 {
		c, err := p.connect(context.Background(), "postgres")
		if err == nil {
			c.Close(context.Background())
			return p, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.stop()
	return nil, errors.New("postgres does not answer")
}

func (p *postgres) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGQUIT)
	_ = p.cmd.Wait()
	_ = os.RemoveAll(p.dir)
}

func (p *postgres) addr() string { return fmt.Sprintf("127.0.0.1:%d", p.port) }

func (p *postgres) connect(ctx context.Context, database string) (*pgconn.PgConn, error) {
	return dialServer(ctx, p.addr(), database)
}

func dialServer(ctx context.Context, addr, database string) (*pgconn.PgConn, error) {
	host, port, _ := net.SplitHostPort(addr)
	return pgconn.Connect(ctx, fmt.Sprintf("host=%s port=%s user=postgres dbname=%s sslmode=disable application_name=test", host, port, database))
}

// newDatabase gives a test a database of its own on the real server.
func newDatabase(t testing.TB, schema string) (*postgres, string) {
	t.Helper()
	serverOnce.Do(func() { server, serverErr = startPostgres() })
	if errors.Is(serverErr, errNoServer) {
		t.Skip(serverErr)
	}
	if serverErr != nil {
		t.Fatal(serverErr)
	}
	name := fmt.Sprintf("t%d", databases.Add(1))
	c, err := server.connect(context.Background(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	must(t, c, "CREATE DATABASE "+name+" STRATEGY = file_copy")
	t.Cleanup(func() {
		c, err := server.connect(context.Background(), "postgres")
		if err != nil {
			return
		}
		defer c.Close(context.Background())
		for _, sql := range []string{
			"SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active AND database = '" + name + "'", // waits until it has ended
			"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '" + name + "'",
			"DROP DATABASE " + name + " WITH (FORCE)",
		} {
			if _, err := query(context.Background(), c, sql); err != nil {
				t.Errorf("%s: %v", sql, err)
			}
		}
	})
	db := open(t, server.addr(), name)
	must(t, db, schema)
	return server, name
}

// open connects to a server, or to a gateway in front of it.
func open(t testing.TB, addr, database string) *pgconn.PgConn {
	t.Helper()
	c, err := dialServer(context.Background(), addr, database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.Close(ctx)
	})
	return c
}

func must(t testing.TB, c *pgconn.PgConn, sql string) [][]field {
	t.Helper()
	rows, err := query(context.Background(), c, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return rows
}

// table gives a query's rows as lines.
func lines(rows [][]field) string {
	var b strings.Builder
	for _, r := range rows {
		for i, f := range r {
			if i > 0 {
				b.WriteByte('|')
			}
			if f.null {
				b.WriteString("NULL")
			}
			b.WriteString(f.text)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
