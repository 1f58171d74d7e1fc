package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/spooksystems/gateway/integration/bench/mqttload"
)

const (
	idleConnections = 1000
	idleMark        = 20.0 // MB for 1,000 connections
	settle          = time.Second
)

// idle measures what 1,000 connections through a relay, or to a virtual SQL server, cost while nothing passes: each has
// been used once, so both its legs stand.
func idle(l *lab, _ options) (*table, error) {
	t := &table{title: fmt.Sprintf("%d idle connections", idleConnections), columns: []string{"haproxy", "spookgw"}}
	web, err := l.nginxServer()
	if err != nil {
		return t, err
	}
	broker, err := l.mosquitto()
	if err != nil {
		return t, err
	}
	sleeper, err := sleepingPostgres()
	if err != nil {
		return t, err
	}
	defer sleeper.Close()
	for _, p := range []struct {
		protocol, mode, upstream, scheme, path string
		open                                   func(addr string, n int) (io.Closer, error)
	}{
		{"http", "http", web.addr, "http://", "", openHTTP},
		{"mqtt", "tcp", broker.addr, "tcp://", "", openMQTT},
		{"sql", "tcp", sleeper.Addr().String(), "postgres://gateway@", "/bench", openSQL},
	} {
		haproxy, err := l.haproxy(p.mode, p.upstream)
		if err != nil {
			return t, err
		}
		gateway, err := l.spookgw(p.protocol, p.scheme+p.upstream+p.path)
		if err != nil {
			return t, err
		}
		var grown []float64
		for _, via := range []*process{haproxy, gateway} {
			mb, err := growth(l.ctx, via, p.open)
			if err != nil {
				return t, fmt.Errorf("%s via %s: %w", p.protocol, via.name, err)
			}
			grown = append(grown, mb)
		}
		t.add(row{
			name:    p.protocol,
			cells:   []string{fmt.Sprintf("%.1f MB", grown[0]), fmt.Sprintf("%.1f MB", grown[1])},
			mark:    fmt.Sprintf("at most %g MB, aim 10", idleMark),
			verdict: atMost(grown[1], idleMark),
			gates:   true,
		})
	}
	// Where the gateway is the server itself, each has logged on and asked once.
	server, err := l.spookgw("sql", "")
	if err != nil {
		return t, err
	}
	mb, err := growth(l.ctx, server, openSQL)
	if err != nil {
		return t, fmt.Errorf("sql, virtual: %w", err)
	}
	t.add(row{name: "sql, virtual", cells: []string{"", fmt.Sprintf("%.1f MB", mb)}, mark: fmt.Sprintf("at most %g MB", idleMark), verdict: atMost(mb, idleMark), gates: true})
	return t, nil
}

// growth gives by how much a process's resident memory grows with idle connections, in MB (10⁶ bytes).
func growth(ctx context.Context, via *process, open func(string, int) (io.Closer, error)) (float64, error) {
	var mu sync.Mutex
	var conns []io.Closer
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	openAll := func(from, to int) error {
		for n := from; n < to; n++ {
			c, err := open(via.addr, n)
			if err != nil {
				return fmt.Errorf("connection %d: %w", n, err)
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
		return nil
	}
	// What the first connection costs is the program's, not the connection's.
	if err := openAll(0, 1); err != nil {
		return 0, err
	}
	if err := pause(ctx, settle); err != nil {
		return 0, err
	}
	before := via.rss()
	if err := openAll(1, idleConnections+1); err != nil {
		return 0, err
	}
	if err := pause(ctx, settle); err != nil {
		return 0, err
	}
	return float64(via.rss()-before) / 1e6, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func openHTTP(addr string, _ int) (io.Closer, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	if err := getOnce(conn, addr); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func getOnce(conn net.Conn, host string) error {
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "GET /1k HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("got %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

func openMQTT(addr string, n int) (io.Closer, error) {
	return mqttload.Dial(addr, "idle-"+strconv.Itoa(n), "idle/"+strconv.Itoa(n), 0)
}
