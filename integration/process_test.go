package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything outside this process may take before a test gives it up: long
// enough for a race-enabled program on a busy machine with two cores.
const patience = 30 * time.Second

// A process is a program under test or a real peer. Its output is shown when the test fails.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *transcript
	done chan struct{} // closed when it has ended; then err is set
	err  error
	past bool // a later process took its place: its output is of no interest any more
}

// startProcess runs cmd until it ends by itself or the test does.
func startProcess(t testing.TB, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: name, cmd: cmd, out: newTranscript(), done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = p.out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.out
	}
	endWithParent(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if what := p.out.alarm(); what != "" {
			t.Errorf("%s (pid %d) said %q:\n%s", name, cmd.Process.Pid, what, p.out.tail(20000))
		}
		if t.Failed() && !p.past {
			t.Logf("%s (pid %d) said:\n%s", name, cmd.Process.Pid, p.out.tail(6000))
		}
	})
	return p
}

// kill ends it without a chance to tidy up.
func (p *process) kill() {
	p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.done
}

// stop asks it to end, and waits.
func (p *process) stop(t testing.TB) {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.wait(t)
}

// wait waits for its end.
func (p *process) wait(t testing.TB) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("%s did not end", p.name)
	}
}

// says waits until its output, all of it, satisfies the predicate.
func (p *process) says(t testing.TB, what string, ok func(text string) bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		text, changed := p.out.text()
		if ok(text) {
			return
		}
		select {
		case <-changed:
		case <-p.done:
			if text, _ := p.out.text(); !ok(text) {
				t.Fatalf("%s ended (%v) before it said %s; it said:\n%s", p.name, p.err, what, text)
			}
			return
		case <-deadline:
			t.Fatalf("%s did not say %s; it said:\n%s", p.name, what, text)
		}
	}
}

// saysText waits until its output contains the text.
func (p *process) saysText(t testing.TB, text string) {
	t.Helper()
	p.says(t, strconv.Quote(text), func(all string) bool { return strings.Contains(all, text) })
}

// rss is its resident memory in bytes; the test is skipped where that can't be asked.
func (p *process) rss(t testing.TB) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("no /proc on this system: memory can't be measured")
	}
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatalf("VmRSS: %v", err)
			}
			return kb << 10
		}
	}
	t.Fatalf("no VmRSS of %s", p.name)
	return 0
}

// A transcript collects what a process prints, the last megabyte of it, and wakes who waits for more.
type transcript struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{}
	alarmed string
}

// alarms are what no process may say, whatever else goes well.
var alarms = []string{"WARNING: DATA RACE", "panic", "fatal error:"}

func newTranscript() *transcript { return &transcript{changed: make(chan struct{})} }

func (o *transcript) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(b)
	for _, a := range alarms {
		if bytes.Contains(b, []byte(a)) {
			o.alarmed = a
		}
	}
	if over := o.buf.Len() - 1<<20; over > 0 {
		o.buf.Next(over)
	}
	close(o.changed)
	o.changed = make(chan struct{})
	return len(b), nil
}

func (o *transcript) text() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String(), o.changed
}

func (o *transcript) alarm() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.alarmed
}

func (o *transcript) tail(n int) string {
	s, _ := o.text()
	if len(s) > n {
		s = "…" + s[len(s)-n:]
	}
	return s
}

// peer returns the path of a real client or server, or skips the test by its name.
func peer(t testing.TB, program, pkg string) string {
	t.Helper()
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"} {
		if path := filepath.Join(dir, program); isFile(path) {
			return path
		}
	}
	t.Skip(pkg + " not installed")
	return ""
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// freePort finds a port that nobody listens on, below those that outgoing connections use, so
// that it is still free when a program is started again on it.
func freePort(t testing.TB) int {
	t.Helper()
	for range 200 {
		port := 15000 + rand.IntN(15000)
		if _, used := givenPorts.LoadOrStore(port, true); used {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		l.Close()
		return port
	}
	t.Fatal("no free port")
	return 0
}

var givenPorts sync.Map

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// eventually asks again until ok says so: only for what gives no event of its own.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !within(patience, ok) {
		t.Fatalf("waited %v in vain: %s", patience, what)
	}
}

// within asks again, at first often, until ok says so or the time is over.
func within(limit time.Duration, ok func() bool) bool {
	deadline := time.Now().Add(limit)
	pause := time.Millisecond
	for !ok() {
		if time.Now().After(deadline) {
			return false
		}
		<-time.After(pause)
		pause = min(pause*3/2, 50*time.Millisecond)
	}
	return true
}

// run executes a command to its end and gives what it printed on each stream, and its exit code.
func run(t testing.TB, stdin string, name string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s %s: did not end; it said:\n%s%s", name, strings.Join(args, " "), &out, &errs)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must executes a command that has to succeed and gives its standard output.
func must(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, errs, code := run(t, "", name, args...)
	if code != 0 {
		t.Fatalf("%s %s: exit %d\n%s%s", name, strings.Join(args, " "), code, out, errs)
	}
	return out
}

// drainAll reads until the other side ends, and throws it away.
func drainAll(r io.Reader) { io.Copy(io.Discard, r) }

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// arrives waits for an event, and tells whether it came.
func arrives(event <-chan struct{}) bool {
	select {
	case <-event:
		return true
	case <-time.After(patience):
		return false
	}
}
