package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"time"
)

// Scripts for wrk (Lua). A mapped PUT changes one of 1,024 registers at each request.
const (
	postScript = `wrk.method = "POST"
wrk.body = string.rep("x", 1024)
`
	putScript = `local id, n = 0, 0
function setup(thread) thread:set("id", id); id = id + 1 end
function request()
  n = n + 1
  return wrk.format("PUT", "/v1/bench/s" .. (id * 512 + n % 512), nil, '{"value":' .. n .. '}')
end
`
)

// httpRelay compares ways to reach one nginx.
func httpRelay(l *lab, o options) (*table, error) {
	t := &table{title: "HTTP relay", columns: []string{"direct", "nginx", "haproxy", "spookgw"}}
	server, err := l.nginxServer()
	if err != nil {
		return t, err
	}
	nginx, err := l.nginxProxy(server.addr)
	if err != nil {
		return t, err
	}
	haproxy, err := l.haproxy("http", server.addr)
	if err != nil {
		return t, err
	}
	gateway, err := l.spookgw("http", "http://"+server.addr)
	if err != nil {
		return t, err
	}
	direct, own := contender{"direct", nil, server.addr}, contender{"spookgw", gateway, gateway.addr}
	viaNginx, viaHaproxy := contender{"nginx", nginx, nginx.addr}, contender{"haproxy", haproxy, haproxy.addr}

	for _, load := range []struct{ name, path, script string }{
		{"GET 1 KiB, 64 connections", "/1k", ""},
		{"POST 1 KiB, 64 connections", "/post", postScript},
	} {
		f, err := compare(o.rounds, []contender{direct, viaNginx, viaHaproxy, own}, wrk(l, o, 64, load.path, load.script))
		if err != nil {
			return t, fmt.Errorf("%s: %w", load.name, err)
		}
		rate, cpu := f.rows(t, load.name, "req/s")
		r := f.ratio("spookgw", "nginx")
		rate.mark, rate.verdict = fmt.Sprintf("%.2f of nginx, at least 0.9", r), atLeast(r, 0.9)
		cpu.mark, cpu.verdict, cpu.gates = "at most 25", atMost(f.micros("spookgw"), 25), true
	}

	f, err := compare(o.rounds, []contender{direct, viaHaproxy, own}, wrk(l, o, 8, "/1m", ""))
	if err != nil {
		return t, fmt.Errorf("GET 1 MiB: %w", err)
	}
	rate, cpu := f.rows(t, "GET 1 MiB, 8 connections", "req/s")
	r := f.ratio("spookgw", "haproxy")
	rate.mark, rate.verdict = fmt.Sprintf("%.2f of haproxy, at least 0.9", r), atLeast(r, 0.9)
	c := ratio(f.micros("spookgw"), f.micros("haproxy"))
	cpu.mark, cpu.verdict, cpu.gates = fmt.Sprintf("%.2f of haproxy, at most 1.1", c), atMost(c, 1/0.9), true

	f, err = compare(o.rounds, []contender{direct, own}, wrk(l, o, 64, "/v1/", putScript))
	if err != nil {
		return t, fmt.Errorf("mapped PUT: %w", err)
	}
	rate, _ = f.rows(t, "PUT mapped, 64 connections", "req/s")
	rate.mark = "durable each: reported"
	return t, nil
}

var (
	wrkTotal  = regexp.MustCompile(`(\d+) requests in ([\d.]+)(ms|s|m)`)
	wrkErrors = regexp.MustCompile(`(?m)^\s*(Socket errors: .*|Non-2xx or 3xx responses: .*)$`)
)

// wrk gives a measurement of requests over kept connections.
func wrk(l *lab, o options, connections int, path, script string) func(contender) (sample, error) {
	return func(c contender) (sample, error) {
		threads := min(2, runtime.NumCPU())
		args := []string{"-t" + strconv.Itoa(threads), "-c" + strconv.Itoa(connections), "-d" + strconv.Itoa(max(1, int(o.length.Seconds()))) + "s"}
		if script != "" {
			file := filepath.Join(l.dir, "load.lua")
			if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
				return sample{}, err
			}
			args = append(args, "-s", file)
		}
		var before time.Duration
		if c.proc != nil {
			before = c.proc.cpu()
		}
		out, err := exec.CommandContext(l.ctx, "wrk", append(args, "http://"+c.addr+path)...).CombinedOutput()
		if err != nil {
			return sample{}, fmt.Errorf("wrk: %w: %s", err, out)
		}
		n, took, err := parseWrk(string(out))
		if err != nil {
			return sample{}, err
		}
		s := sample{rate: float64(n) / took.Seconds()}
		if c.proc != nil {
			s.cpu = (c.proc.cpu() - before) / time.Duration(n)
		}
		return s, nil
	}
}

// parseWrk reads wrk's summary. A load with errors is none.
func parseWrk(out string) (requests int, took time.Duration, err error) {
	if m := wrkErrors.FindStringSubmatch(out); m != nil {
		return 0, 0, fmt.Errorf("wrk: %s", m[1])
	}
	m := wrkTotal.FindStringSubmatch(out)
	if m == nil {
		return 0, 0, fmt.Errorf("wrk: got %q, want a summary", out)
	}
	requests, err = strconv.Atoi(m[1])
	if err != nil {
		return 0, 0, err
	}
	if took, err = time.ParseDuration(m[2] + m[3]); err != nil {
		return 0, 0, err
	}
	if requests == 0 || took == 0 {
		return 0, 0, fmt.Errorf("wrk: no request was answered")
	}
	return requests, took, nil
}
