package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sqlRelay compares ways to reach one PostgreSQL: straight, through pgbouncer in session mode, and
// through the gateway, whose mapping is of another table (pass), or of the table that is
// written (mapped).
func sqlRelay(l *lab, o options) (*table, error) {
	t := &table{title: "SQL relay", columns: []string{"direct", "pgbouncer", "pass", "mapped"}}
	server, err := l.postgres()
	if err != nil {
		return t, err
	}
	bouncer, err := l.pgbouncer(server.addr)
	if err != nil {
		return t, err
	}
	upstream := "postgres://postgres@" + server.addr + "/bench"
	pass, err := l.spookgwWith("sql", upstream, "register \"other/{id}\" {\n  bind \"sql\" \"pgbench_tellers_of_nobody\" {\n    key = { id = payload.id }\n  }\n}\n")
	if err != nil {
		return t, err
	}
	mapped, err := l.feeding(server, "")
	if err != nil {
		return t, err
	}
	all := []contender{{"direct", nil, server.addr}, {"pgbouncer", bouncer, bouncer.addr}, {"pass", pass, pass.addr}, {"mapped", mapped, mapped.addr}}
	for _, clients := range []int{1, 16} {
		for _, load := range []struct {
			name string
			args []string
		}{
			{"select, simple", []string{"-S", "-M", "simple"}},
			{"select, extended", []string{"-S", "-M", "extended"}},
			{"select, prepared", []string{"-S", "-M", "prepared"}},
			{"TPC-B, prepared", []string{"-M", "prepared"}},
		} {
			name := fmt.Sprintf("%s, %d", load.name, clients)
			f, err := compare(o.rounds, all, pgbench(l, o, clients, load.args))
			if err != nil {
				return t, fmt.Errorf("%s: %w", name, err)
			}
			rate, cpu := f.rows(t, name, "tps")
			r, least := f.ratio("pass", "pgbouncer"), 0.8
			if clients > 1 {
				least = 1
			}
			rate.mark, rate.verdict = fmt.Sprintf("%.2f of pgbouncer, at least %.1f", r, least), atLeast(r, least)
			if strings.HasPrefix(load.name, "TPC-B") {
				more := f.micros("mapped") - f.micros("pass")
				cpu.mark = fmt.Sprintf("%.0f more for a captured row, at most 60", more)
				cpu.verdict, cpu.gates = atMost(more, 60), true
			}
		}
	}
	return t, nil
}

var pgbenchRate = regexp.MustCompile(`tps = ([\d.]+) \(without initial connection time\)`)

// pgbench gives a measurement of transactions.
func pgbench(l *lab, o options, clients int, args []string) func(contender) (sample, error) {
	return func(c contender) (sample, error) {
		host, port, _ := strings.Cut(c.addr, ":")
		all := append(slices.Clone(args), "-n", "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(2, clients)), "-T", strconv.Itoa(max(1, int(o.length.Seconds()))),
			"-h", host, "-p", port, "-U", "postgres", "bench")
		var before time.Duration
		if c.proc != nil {
			before = c.proc.cpu()
		}
		began := time.Now()
		out, err := exec.CommandContext(l.ctx, "pgbench", all...).CombinedOutput()
		if err != nil {
			return sample{}, fmt.Errorf("pgbench: %w: %s", err, out)
		}
		m := pgbenchRate.FindSubmatch(out)
		if m == nil {
			return sample{}, fmt.Errorf("pgbench: got %q, want a summary", out)
		}
		rate, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return sample{}, err
		}
		s := sample{rate: rate}
		if n := rate * min(o.length, time.Since(began)).Seconds(); c.proc != nil && n > 0 {
			s.cpu = time.Duration(float64(c.proc.cpu()-before) / n)
		}
		return s, nil
	}
}

// postgres is a server whose disk is not what is measured, with pgbench's tables.
func (l *lab) postgres() (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(addr, ":")
	bin := ""
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin"); len(found) > 0 {
		bin = slices.Max(found) + "/"
	}
	dir, err := l.place("postgres", "note", "")
	if err != nil {
		return nil, err
	}
	as := []string{}
	if os.Geteuid() == 0 { // the server refuses root
		if out, err := exec.Command("chown", "postgres", dir).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("chown: %w: %s", err, out)
		}
		as = []string{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"}
	}
	command := func(args ...string) []string { return append(slices.Clone(as), args...) }
	initdb := command(bin+"initdb", "-D", filepath.Join(dir, "data"), "-U", "postgres", "-A", "trust", "-N", "--locale=C.UTF-8", "-E", "UTF8")
	cmd := exec.Command(initdb[0], initdb[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	args := command(bin+"postgres", "-D", filepath.Join(dir, "data"), "-h", host, "-p", port, "-k", dir, "-c", "wal_level=logical", "-c", "fsync=off",
		"-c", "synchronous_commit=off", "-c", "max_connections=100", "-c", "max_slot_wal_keep_size=4GB", "-c", "log_min_messages=fatal")
	p, err := l.keep(start(l.ctx, "postgres", addr, dir, listens(addr), args[0], args[1:]...))
	if err != nil {
		return nil, err
	}
	for _, c := range [][]string{
		{"psql", "-h", host, "-p", port, "-U", "postgres", "-qc", "CREATE DATABASE bench"},
		{"pgbench", "-h", host, "-p", port, "-U", "postgres", "-i", "-q", "bench"},
	} {
		var out []byte
		for range 100 { // it listens before it answers
			if out, err = exec.CommandContext(l.ctx, c[0], c[1:]...).CombinedOutput(); err == nil || !strings.Contains(string(out), "starting up") {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %s", c[0], err, out)
		}
	}
	return p, nil
}

// pgbouncer gives each client a server connection of its own, as the gateway does.
func (l *lab) pgbouncer(upstream string) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(addr, ":")
	uhost, uport, _ := strings.Cut(upstream, ":")
	as := ""
	if os.Geteuid() == 0 {
		as = "user = postgres\n"
	}
	dir, err := l.place("pgbouncer", "pgbouncer.ini", fmt.Sprintf(`[databases]
bench = host=%s port=%s user=postgres
[pgbouncer]
listen_addr = %s
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = session
default_pool_size = 100
%s`, uhost, uport, host, port, as))
	if err != nil {
		return nil, err
	}
	return l.keep(start(l.ctx, "pgbouncer", addr, dir, listens(addr), "pgbouncer", "-q", "pgbouncer.ini"))
}

// sleepingPostgres lets everybody in and answers every query with nothing: a thousand real sessions are a thousand
// processes, and it is not the server whose memory is measured.
func sleepingPostgres() (net.Listener, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				ready := "Z\x00\x00\x00\x05I"
				_, err := readFrame(conn, 4)
				for answer := "R\x00\x00\x00\x08\x00\x00\x00\x00" + ready; err == nil; answer = "C\x00\x00\x00\x0aDONE0\x00" + ready {
					if _, err = io.WriteString(conn, answer); err == nil {
						_, err = readFrame(conn, 5)
					}
				}
			}()
		}
	}()
	return ln, nil
}

// readFrame reads a frame whose head, with a length at its end, has so many bytes, and gives its first.
func readFrame(r io.Reader, head int) (first byte, err error) {
	b := make([]byte, head)
	if _, err := io.ReadFull(r, b); err != nil {
		return 0, err
	}
	n := int64(binary.BigEndian.Uint32(b[head-4:])) - 4
	if n < 0 || n > 1<<20 {
		return 0, fmt.Errorf("a frame of %d bytes", n)
	}
	_, err = io.CopyN(io.Discard, r, n)
	return b[0], err
}

func openSQL(addr string, _ int) (io.Closer, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	err = conn.SetDeadline(time.Now().Add(5 * time.Second))
	params := "user\x00idle\x00database\x00bench\x00\x00"
	start := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(8+len(params))), 3<<16)
	for _, say := range []string{string(start) + params, "Q\x00\x00\x00\x0dSELECT 1\x00"} {
		if err == nil {
			_, err = io.WriteString(conn, say)
		}
		for kind := byte(0); err == nil && kind != 'Z'; {
			kind, err = readFrame(conn, 5)
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, conn.SetDeadline(time.Time{})
}
