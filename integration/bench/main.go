// Command bench measures the gateway beside what it is compared with, in one run on one machine:
// nginx, haproxy and pgbouncer as proxies, raw pebble, Redis and etcd as stores, the server without anything
// between. Contenders take turns, figures are medians of the rounds, rates are ratios to the first column. Absolute figures
// don't carry over to another machine; ratios roughly do.
//
// A mark that is missed by no more than the noise is called near. It exits with 1 if a figure
// that gates misses its mark: CPU time for each operation, memory, durable rates.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

type options struct {
	rounds int
	length time.Duration // of one contender's turn
}

// A part is one table. It gives what it has when it fails.
type part struct {
	name  string
	needs []string // programs
	run   func(*lab, options) (*table, error)
}

var parts = []part{
	{"engine", nil, engine},
	{"flat", nil, flat},
	{"scale", nil, scale},
	{"mapping", nil, mapping},
	{"durable", nil, durable},
	{"sites", nil, sites},
	{"http", []string{"nginx", "haproxy", "wrk"}, httpRelay},
	{"mqtt", []string{"mosquitto", "haproxy"}, mqttRelay},
	{"sql", []string{"pgbench", "psql"}, sqlFeed},
	{"ldap", []string{"slapd", "haproxy"}, ldapRelay},
	{"directory", []string{"slapd"}, ldapVirtual},
	{"sql", []string{"pgbench", "pgbouncer", "psql"}, sqlRelay},
	{"sql", []string{"pgbench", "psql"}, sqlExact},
	{"idle", []string{"nginx", "mosquitto", "haproxy"}, idle},
}

func main() {
	var o options
	only := flag.String("only", "", "of engine, flat, scale, mapping, durable, sites, http, mqtt, ldap, directory, sql, idle: those, with commas")
	gateway := flag.String("gateway", "", "the program to measure; without it, one built from this tree")
	flag.IntVar(&o.rounds, "rounds", 3, "turns of each contender")
	flag.DurationVar(&o.length, "length", 2*time.Second, "of one turn")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	good, err := bench(ctx, o, *gateway, *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	if err != nil || !good {
		stop()
		os.Exit(1)
	}
}

func bench(ctx context.Context, o options, gateway, only string) (good bool, err error) {
	// Debian keeps servers where the PATH of ordinary users does not look.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin"); err != nil {
		return false, err
	}
	if err := raiseFiles(); err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "spookgw-bench-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return false, err
	}

	if gateway == "" {
		gateway, err = build(ctx, dir)
	} else {
		gateway, err = filepath.Abs(gateway)
	}
	if err != nil {
		return false, err
	}

	began := time.Now()
	fmt.Printf("%s/%s, %d CPUs, %s; %d rounds of %v, medians; rates as ratios to the first column\n\n",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), o.rounds, o.length)
	good = true
	var failed []string
	for _, p := range parts {
		if only != "" && !strings.Contains(","+only+",", ","+p.name+",") {
			continue
		}
		if missing := missingOf(p.needs); missing != "" {
			fmt.Printf("%s: skipped, %s is not installed\n\n", p.name, missing)
			continue
		}
		l := &lab{ctx: ctx, dir: dir, gateway: gateway}
		t, err := p.run(l, o)
		said := l.close()
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if t != nil && len(t.rows) > 0 {
			t.write(os.Stdout)
			good = good && !t.failed()
		}
		if err != nil {
			failed = append(failed, p.name)
			fmt.Printf("%s: %v\n%s\n", p.name, err, said)
		}
	}
	fmt.Printf("took %v\n", time.Since(began).Round(time.Second))
	if len(failed) > 0 {
		return false, fmt.Errorf("not measured: %s", strings.Join(failed, ", "))
	}
	return good, nil
}

// build makes the program to measure in dir, as make build makes it: a program left in bin may be older than the tree.
func build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "spookgw")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "github.com/spooksystems/gateway/gateway/spookgw")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the gateway: %w\n%s", err, said)
	}
	return path, nil
}

func missingOf(programs []string) string {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return p
		}
	}
	return ""
}
