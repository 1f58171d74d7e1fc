package integration

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A pgServer is a real PostgreSQL with a directory of its own. It can be started again.
type pgServer struct {
	*process
	t    testing.TB
	bin  string
	dir  string
	port int
	psql string
}

// newPostgres makes a cluster and starts it.
func newPostgres(t testing.TB) *pgServer {
	t.Helper()
	// A directory that somebody else may enter: the server refuses to run as root.
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return newPostgresIn(t, dir)
}

// newPostgresIn makes a cluster in a directory that everybody may enter, and starts it.
func newPostgresIn(t testing.TB, dir string) *pgServer {
	t.Helper()
	s := &pgServer{t: t, port: freePort(t), psql: peer(t, "psql", "postgresql-client")}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // Debian keeps it out of the path
	if len(found) > 0 {
		s.bin = filepath.Dir(slices.Max(found))
	} else {
		s.bin = filepath.Dir(peer(t, "postgres", "postgresql"))
	}
	s.dir = dir
	initdb := s.command("initdb", "-D", filepath.Join(dir, "data"), "-U", "postgres", "-A", "trust", "-N", "--locale=C.UTF-8", "-E", "UTF8")
	if c := initdb.SysProcAttr; c != nil {
		if err := os.Chown(dir, int(c.Credential.Uid), int(c.Credential.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	writeFile(t, filepath.Join(dir, "data", "postgresql.auto.conf"), fmt.Sprintf(`
port = %d
listen_addresses = '127.0.0.1'
unix_socket_directories = '%s'
wal_level = logical
max_prepared_transactions = 10
max_slot_wal_keep_size = '1GB'
wal_sender_timeout = 10s
`, s.port, dir))
	s.up()
	return s
}

func (s *pgServer) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	if os.Getuid() != 0 {
		return cmd
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			s.t.Fatal(err)
		}
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	cmd.Env = append(os.Environ(), "HOME=/tmp")
	return cmd
}

func (s *pgServer) up() {
	s.t.Helper()
	if s.process != nil {
		s.process.past = true
	}
	s.process = startProcess(s.t, "postgres", s.command("postgres", "-D", filepath.Join(s.dir, "data")))
	eventually(s.t, "postgres answers", func() bool {
		_, _, code := run(s.t, "", s.psql, "-h", "127.0.0.1", "-p", fmt.Sprint(s.port), "-U", "postgres", "-Atc", "select 1")
		return code == 0
	})
}

// halt ends it in good order, whoever is connected.
func (s *pgServer) halt() {
	s.t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGINT)
	s.wait(s.t)
}

// try runs statements by psql, here or through a gateway.
func (s *pgServer) try(port int, sql string) (out string, err error) {
	s.t.Helper()
	stdout, stderr, code := run(s.t, sql, s.psql, "-h", "127.0.0.1", "-p", fmt.Sprint(port), "-U", "postgres", "-d", "plant", "-AtqX", "-v", "ON_ERROR_STOP=1", "-f", "-")
	if code != 0 {
		return stdout, fmt.Errorf("psql: exit %d: %s", code, stderr)
	}
	return strings.TrimSuffix(stdout, "\n"), nil
}

// sql runs statements straight at the server.
func (s *pgServer) sql(statements string) string { s.t.Helper(); return s.through(s.port, statements) }

// through runs statements through whoever listens on a port.
func (s *pgServer) through(port int, statements string) string {
	s.t.Helper()
	out, err := s.try(port, statements)
	if err != nil {
		s.t.Fatalf("%s\n%v", statements, err)
	}
	return out
}
