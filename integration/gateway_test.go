package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/engine"
)

// program builds spookgw once per test run, with the race detector when the tests have it, and
// gives its path.
func program(t testing.TB) string {
	t.Helper()
	if raceEnabled {
		return built(t, racy)
	}
	return built(t, plain)
}

// plainProgram is spookgw as it ships, for tests of memory.
func plainProgram(t testing.TB) string { t.Helper(); return built(t, plain) }

var (
	plain = sync.OnceValues(func() (string, error) { return build("test") })
	racy  = sync.OnceValues(func() (string, error) { return build("test-race", "-race") })
)

func built(t testing.TB, b func() (string, error)) string {
	t.Helper()
	path, err := b()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func build(dir string, flags ...string) (string, error) {
	path, err := filepath.Abs(filepath.Join("..", "bin", dir, "spookgw"))
	if err != nil {
		return "", err
	}
	args := append([]string{"build", "-o", path}, flags...)
	out, err := exec.Command("go", append(args, "../gateway/spookgw")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// A spookgw is a gateway with its files in a directory of its own. It can be started again after
// it has ended, on the same ports and data.
type spookgw struct {
	*process
	t        testing.TB
	program  string
	limit    int // of open files, 0: as inherited
	dir      string
	data     string // where it keeps its state
	wrappers string // the rest of its configuration
	socket   string
	web      int // port of health and metrics
	http     int // ports for the wrappers, whichever way they stand
	mqtt     int
}

// newGateway prepares a gateway whose configuration is what wrappers says, with $http and $mqtt
// replaced by its ports, beside the usual rest, and whose only mapping is mapping.
func newGateway(t testing.TB, wrappers, mapping string) *spookgw {
	t.Helper()
	g := &spookgw{t: t, program: program(t), dir: t.TempDir(), web: freePort(t), http: freePort(t), mqtt: freePort(t)}
	// Sockets have short names, test directories long ones.
	run, err := os.MkdirTemp("", "sg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	g.socket = filepath.Join(run, "s")
	g.data = filepath.Join(g.dir, "data")
	g.configure(wrappers)
	g.mapping(mapping)
	return g
}

func (g *spookgw) configure(wrappers string) {
	g.t.Helper()
	g.wrappers = wrappers
	wrappers = strings.NewReplacer("$http", strconv.Itoa(g.http), "$mqtt", strconv.Itoa(g.mqtt)).Replace(wrappers)
	writeFile(g.t, g.config(), fmt.Sprintf(`
data = %q
daemon {
  socket    = %q
  websocket = "127.0.0.1:%d"
}
%s`, g.data, g.socket, g.web, wrappers))
}

func (g *spookgw) mapping(text string) {
	g.t.Helper()
	writeFile(g.t, filepath.Join(g.dir, "mappings.d", "plant.hcl"), text)
}

func (g *spookgw) config() string   { return filepath.Join(g.dir, "gateway.hcl") }
func (g *spookgw) httpURL() string  { return "http://" + loopback(g.http) }
func (g *spookgw) mqttAddr() string { return loopback(g.mqtt) }

// launch starts the process and returns at once.
func (g *spookgw) launch() {
	g.t.Helper()
	cmd := exec.Command(g.program, "run", "--config", g.config())
	if g.limit > 0 {
		cmd = exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, g.limit), g.program, "run", "--config", g.config())
	}
	if g.process != nil {
		g.process.past = true
	}
	g.process = startProcess(g.t, "spookgw", cmd)
}

// start launches it and returns when it is ready.
func (g *spookgw) start() *spookgw {
	g.t.Helper()
	g.launch()
	g.untilReady()
	return g
}

func (g *spookgw) untilReady() {
	g.t.Helper()
	url := fmt.Sprintf("http://127.0.0.1:%d/readyz", g.web)
	eventually(g.t, url+" says ready", func() bool {
		select {
		case <-g.done:
			g.t.Fatalf("spookgw ended before it was ready: %v", g.err)
		default:
		}
		resp, err := oneShot.Get(url)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// oneShot is an HTTP client that keeps no connection, so that none goes stale over a restart.
var oneShot = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

// cli runs a verb against this gateway; it must succeed.
func (g *spookgw) cli(args ...string) string {
	g.t.Helper()
	out, errs, code := g.try(args...)
	if code != 0 {
		g.t.Fatalf("spookgw %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// try runs a verb against this gateway, of the program as it ships.
func (g *spookgw) try(args ...string) (stdout, stderr string, code int) {
	g.t.Helper()
	return run(g.t, "", plainProgram(g.t), append(args, "--socket", g.socket)...)
}

// state is an application's view of the gateway, over the daemon socket.
func (g *spookgw) state() engine.State {
	g.t.Helper()
	c, err := daemonclient.Dial(g.t.Context(), g.socket)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	return c
}

// read gives a register's committed value as JSON, "" if it does not exist.
func (g *spookgw) read(register string) string {
	g.t.Helper()
	s := g.state()
	defer s.Close()
	return readRegister(g.t, s, register)
}

func readRegister(t testing.TB, s engine.State, register string) string {
	t.Helper()
	b, err := s.ReadState(t.Context(), register)
	if err != nil {
		t.Fatalf("%s: %v", register, err)
	}
	if !b.Exists {
		return ""
	}
	return string(b.Value.AppendJSON(nil))
}

// becomes waits until the register has that value.
func (g *spookgw) becomes(register, want string) {
	g.t.Helper()
	s := g.state()
	defer s.Close()
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	now, err := s.Cursor(ctx)
	if err != nil {
		g.t.Fatal(err)
	}
	got := readRegister(g.t, s, register)
	if got == want {
		return
	}
	for d, err := range s.Observe(ctx, engine.Filter{Name: register}, now) {
		if err != nil {
			break
		}
		got = ""
		if d.After.Exists {
			got = string(d.After.Value.AppendJSON(nil))
		}
		if got == want {
			return
		}
	}
	g.t.Fatalf("register %s: got %s, want %s", register, got, want)
}

// history lists what became of a register, oldest first.
func (g *spookgw) history(register string) []engine.QDelta {
	g.t.Helper()
	s := g.state()
	defer s.Close()
	var all []engine.QDelta
	q := engine.HistoryQuery{Register: register, Limit: 1000}
	for {
		n := 0
		for d, err := range s.History(g.t.Context(), q) {
			if err != nil {
				g.t.Fatalf("history of %s: %v", register, err)
			}
			all = append(all, d)
			q.Before = d.Cursor.Ordinal
			n++
		}
		if n < q.Limit {
			break
		}
	}
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	return all
}

// wantHistory checks the number of a register's history entries, and shows them if it differs.
func (g *spookgw) wantHistory(register string, want int) {
	g.t.Helper()
	all := g.history(register)
	if len(all) == want {
		return
	}
	for _, d := range all[max(0, len(all)-100):] {
		g.t.Logf("%s %v %s by %s %s %s", d.Cursor, d.Changed, d.After.Value, d.Cause.Protocol, d.Cause.Wrapper, d.Cause.Peer)
	}
	g.t.Errorf("register %s: got %d history entries, want %d", register, len(all), want)
}

// metrics reads /metrics: the sum over all label sets of each name, and each sample by its full text.
func (g *spookgw) metrics() map[string]float64 {
	g.t.Helper()
	resp, err := oneShot.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", g.web))
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	all := map[string]float64{}
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		line := sc.Text()
		cut := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || cut < 0 {
			continue
		}
		v, err := strconv.ParseFloat(line[cut+1:], 64)
		if err != nil {
			continue
		}
		sample := line[:cut]
		name, _, labelled := strings.Cut(sample, "{")
		all[name] += v
		if labelled {
			all[sample] = v
		}
	}
	return all
}

// events gives all counters of wrapper events, to compare two moments.
func (g *spookgw) events() map[string]float64 {
	g.t.Helper()
	all := g.metrics()
	for sample := range all {
		if !strings.Contains(sample, "{") || !strings.HasPrefix(sample, "spookgw_") {
			delete(all, sample)
		}
	}
	return all
}

// isCounterOfTrouble tells counters of things that go wrong from those that always move.
func isCounterOfTrouble(sample string) bool {
	for _, word := range []string{"error", "refused", "oversized", "malformed", "garbage", "dropped", "slow", "full", "lost", "failed", "upstream", "down", "timeouts", "behind", "too_large", "backoff", "gaps", "panics", "stopped"} {
		if strings.Contains(sample, word) {
			return true
		}
	}
	return false
}

// status is what `spookgw status --json` prints.
func (g *spookgw) status() map[string]any {
	g.t.Helper()
	var st map[string]any
	if err := json.Unmarshal([]byte(g.cli("status", "--json")), &st); err != nil {
		g.t.Fatalf("status --json: %v", err)
	}
	return st
}

// request does one HTTP request and gives status, header and body.
func request(t testing.TB, c *http.Client, method, url, body string, header ...string) (int, http.Header, string) {
	t.Helper()
	status, h, got, err := tryRequest(t.Context(), c, method, url, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return status, h, got
}

func tryRequest(ctx context.Context, c *http.Client, method, url, body string, header ...string) (int, http.Header, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, "", err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(b), err
}

// keepAlive is an HTTP client with one connection at a time, as an application has it.
func keepAlive(t testing.TB) *http.Client {
	tr := &http.Transport{MaxConnsPerHost: 1}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// took runs f and gives how long it took.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}
