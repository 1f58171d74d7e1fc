package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/spooksystems/gateway/daemonclient"
	registers "github.com/spooksystems/gateway/engine"
)

// sqlFeed measures how long a row takes to become a register, and what it costs that transactions say whose they are.
func sqlFeed(l *lab, o options) (*table, error) {
	t := &table{title: "SQL feed", columns: []string{"p50", "p99"}}
	server, err := l.postgres()
	if err != nil {
		return t, err
	}
	gateway, err := l.feeding(server, "")
	if err != nil {
		return t, err
	}
	for _, way := range []struct{ name, addr string }{{"through the gateway", gateway.addr}, {"behind its back", server.addr}} {
		took, err := rowToRegister(l.ctx, way.addr, filepath.Join(gateway.cmd.Dir, "socket"), o.length*time.Duration(o.rounds))
		if err != nil {
			return t, fmt.Errorf("row to register, %s: %w", way.name, err)
		}
		at := func(share float64) time.Duration { return took[int(float64(len(took)-1)*share)] }
		t.add(row{
			name:  "UPDATE sent to observer told, " + way.name,
			cells: []string{at(0.5).Round(10 * time.Microsecond).String(), at(0.99).Round(10 * time.Microsecond).String()},
			mark:  fmt.Sprintf("p50 at most 5ms, of %d", len(took)), verdict: atMost(at(0.5).Seconds(), 0.005), gates: true,
		})
	}
	return t, nil
}

// sqlExact compares pgbench with one of its tables mapped: whose a transaction is being guessed, and written into it.
func sqlExact(l *lab, o options) (*table, error) {
	t := &table{title: "SQL relay: who did it", columns: []string{"probable", "exact"}}
	server, err := l.postgres()
	if err != nil {
		return t, err
	}
	probable, err := l.feeding(server, `slot = "probable"`)
	if err != nil {
		return t, err
	}
	exact, err := l.feeding(server, "slot = \"exact\"\nattribute = \"exact\"")
	if err != nil {
		return t, err
	}
	all := []contender{{"probable", probable, probable.addr}, {"exact", exact, exact.addr}}
	for _, load := range []struct {
		name    string
		clients int
		args    []string
	}{
		{"TPC-B, simple", 1, []string{"-M", "simple"}},
		{"TPC-B, prepared", 1, []string{"-M", "prepared"}},
		{"TPC-B, prepared", 16, []string{"-M", "prepared"}},
		{"select, prepared", 16, []string{"-S", "-M", "prepared"}},
	} {
		name := fmt.Sprintf("%s, %d", load.name, load.clients)
		f, err := compare(o.rounds, all, pgbench(l, o, load.clients, load.args))
		if err != nil {
			return t, fmt.Errorf("%s: %w", name, err)
		}
		rate, _ := f.rows(t, name, "tps")
		rate.mark = "reported"
	}
	return t, nil
}

// feeding is a gateway with pgbench's accounts mapped, whose first contact is over.
func (l *lab) feeding(server *process, more string) (*process, error) {
	p, err := l.spookgwWith("sql", "postgres://postgres@"+server.addr+"/bench", "register \"account/{id}\" {\n  fields = { abalance = number }\n  bind \"sql\" \"pgbench_accounts\" {\n    key = { id = payload.aid }\n  }\n}\n", more)
	if err != nil {
		return nil, err
	}
	return p, l.quiet(p, "feed stands")
}

// rowToRegister updates one row after the other, each when the last was heard of, and gives how long that took, sorted.
func rowToRegister(ctx context.Context, addr, socket string, length time.Duration) ([]time.Duration, error) {
	host, port, _ := strings.Cut(addr, ":")
	// A server sends what it has written to its log: with synchronous_commit = off that is wal_writer_delay (200 ms) later.
	c, err := pgconn.Connect(ctx, fmt.Sprintf("host=%s port=%s user=postgres dbname=bench sslmode=disable options='-c synchronous_commit=on'", host, port))
	if err != nil {
		return nil, err
	}
	defer c.Close(ctx)
	d, err := daemonclient.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	now, err := d.Cursor(ctx)
	if err != nil {
		return nil, err
	}
	watch, stop := context.WithCancel(ctx)
	defer stop()
	heard := make(chan error, 1)
	go func() {
		for _, err := range d.Observe(watch, registers.Filter{Name: "account/7"}, now) {
			heard <- err
			if err != nil {
				return
			}
		}
	}()
	var took []time.Duration
	for end := time.Now().Add(length); time.Now().Before(end) || len(took) < 100; {
		began := time.Now()
		if _, err := c.Exec(ctx, fmt.Sprintf("UPDATE pgbench_accounts SET abalance = %d WHERE aid = 7", began.UnixNano()%1_000_000_000)).ReadAll(); err != nil {
			return nil, err
		}
		select {
		case err := <-heard:
			if err != nil {
				return nil, err
			}
		case <-time.After(10 * time.Second):
			return nil, fmt.Errorf("nothing was heard of update %d", len(took)+1)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, nil
}
