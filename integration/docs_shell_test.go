//go:build unix

package integration_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Each document's commands are run, in order, in one directory against one demo. In a block
// marked `sh`:
//
//	command            # prints: what it prints, … for anything
//	command            # until Ctrl-C
//
// `# prints:` may stand on a line below its command, several times; the text must occur in what
// was printed since the last one, in order. A command with `# until Ctrl-C` runs until the
// document ends, and must end well when interrupted; what it prints may come at any time. Lines
// with make are not run: TestDocumentsMakeTargets looks after them.
func TestDocumentsCommands(t *testing.T) {
	byFile := map[string][]block{}
	var files []string
	for _, b := range documentBlocks(t) {
		if b.lang == "sh" {
			if byFile[b.file] == nil {
				files = append(files, b.file)
			}
			byFile[b.file] = append(byFile[b.file], b)
		}
	}
	if len(files) == 0 {
		t.Fatal("no document shows any command; this test sees nothing")
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			for _, b := range byFile[file] {
				needPeers(t, b.text)
			}
			s := newShell(t)
			for _, b := range byFile[file] {
				s.runBlock(b)
			}
			s.end()
		})
	}
}

// needPeers skips the test, by name, when a program that the commands use is not installed.
func needPeers(t *testing.T, text string) {
	t.Helper()
	for _, name := range []string{"curl", "mosquitto", "mosquitto_pub", "mosquitto_sub", "nginx"} {
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(text) {
			continue
		}
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(name + " not installed")
		}
	}
}

// A shell is what the commands of one document run in.
type shell struct {
	t          *testing.T
	dir        string
	env        []string
	ports      map[string]string // port as written, to port as it is
	background []*background
}

type background struct {
	place   string
	cmd     *exec.Cmd
	out     *lockedBuffer
	expects []expectation
	done    chan error
}

type expectation struct {
	place string
	text  string
}

// newShell starts a demo and gives a shell to run commands against it.
func newShell(t *testing.T) *shell {
	t.Helper()
	s := &shell{t: t, dir: t.TempDir(), ports: map[string]string{}}
	bin := filepath.Join(s.dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(spookgw(t), filepath.Join(bin, "spookgw")); err != nil {
		t.Fatal(err)
	}
	// A socket's path is short: at most 104 bytes on some systems.
	sockets, err := os.MkdirTemp("", "spk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	s.env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"),
		"SPOOKGW_SOCKET="+filepath.Join(sockets, "demo"), "XDG_RUNTIME_DIR="+sockets, "HOME="+s.dir)
	demo := s.start("the demo", "exec spookgw demo --any-port --data "+filepath.Join(s.dir, "demo-data"))
	s.await("the demo's ports", demo, func() bool {
		text := demo.out.String()
		http, mqtt := regexp.MustCompile(`http://127\.0\.0\.1:(\d+)`).FindStringSubmatch(text), regexp.MustCompile(`-p (\d+)`).FindStringSubmatch(text)
		if http == nil || mqtt == nil {
			return false
		}
		s.ports["10080"], s.ports["11883"] = http[1], mqtt[1]
		return true
	})
	return s
}

func (s *shell) runBlock(b block) {
	t := s.t
	t.Helper()
	for _, step := range stepsOf(b) {
		script := s.withPorts(step.script)
		if !step.background {
			s.run(step, script)
			continue
		}
		isGateway := regexp.MustCompile(`^(bin/)?spookgw run\b`).MatchString(script)
		if isGateway {
			s.ownGateway()
			script = s.withPorts(step.script)
		}
		p := s.start(step.place, "exec "+script)
		p.expects = step.expects
		if isGateway {
			s.await("the gateway to be ready", p, func() bool {
				cmd := exec.CommandContext(t.Context(), spookgw(t), "status")
				cmd.Env, cmd.Dir = s.env, s.dir
				return cmd.Run() == nil
			})
		}
	}
}

// run runs one script to its end and holds what it prints against what is expected.
func (s *shell) run(step step, script string) {
	t := s.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-e")
	cmd.Stdin = strings.NewReader(script)
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s\nprinted:\n%s\nthe demo said:\n%s", step.place, err, script, out, s.background[0].out.String())
	}
	for _, e := range step.expects {
		if !printed(string(out), e.text) {
			t.Errorf("%s: got\n%s\nwant %s", e.place, out, e.text)
		}
	}
}

// ownGateway prepares for a gateway beside the demo: a socket and ports of its own.
func (s *shell) ownGateway() {
	t := s.t
	t.Helper()
	for i, v := range s.env {
		if path, ok := strings.CutPrefix(v, "SPOOKGW_SOCKET="); ok {
			s.env[i] = "SPOOKGW_SOCKET=" + path + "-own"
		}
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "*.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	listens := regexp.MustCompile(`((?:listen|websocket)\s*=\s*)"[^"]*:(\d+)"`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		write(t, file, listens.ReplaceAllStringFunc(string(text), func(match string) string {
			m := listens.FindStringSubmatch(match)
			s.ports[m[2]] = freePort(t)
			return m[1] + `"127.0.0.1:` + s.ports[m[2]] + `"`
		}))
	}
}

func (s *shell) withPorts(script string) string {
	return regexp.MustCompile(`\b\d{4,5}\b`).ReplaceAllStringFunc(script, func(port string) string {
		if now, ok := s.ports[port]; ok {
			return now
		}
		return port
	})
}

// start runs a command until the document ends.
func (s *shell) start(place, script string) *background {
	t := s.t
	t.Helper()
	p := &background{place: place, out: &lockedBuffer{}, done: make(chan error, 1)}
	p.cmd = exec.Command("sh", "-c", script)
	p.cmd.Dir, p.cmd.Env = s.dir, s.env
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("%s: %v", place, err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) })
	s.background = append(s.background, p)
	return p
}

// await asks until it is so: a process gives no event to wait for.
func (s *shell) await(what string, p *background, so func() bool) {
	t := s.t
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for !so() {
		select {
		case err := <-p.done:
			p.done <- err
			if so() {
				return
			}
			t.Fatalf("%s ended (%v) before %s:\n%s", p.place, err, what, p.out.String())
		case <-limit:
			t.Fatalf("waited in vain for %s:\n%s", what, p.out.String())
		case <-tick.C:
		}
	}
}

// end interrupts what still runs, last first, and checks what it printed.
func (s *shell) end() {
	t := s.t
	t.Helper()
	for _, p := range slices.Backward(s.background) {
		for _, e := range p.expects {
			s.await(fmt.Sprintf("%s to print %s", e.place, e.text), p, func() bool { return printed(p.out.String(), e.text) })
		}
		if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Errorf("%s: interrupt: %v", p.place, err)
		}
		select {
		case err := <-p.done:
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
				err = nil // a client that dies of the interrupt, as curl does
			}
			if err != nil {
				t.Errorf("%s: after Ctrl-C: %v\n%s", p.place, err, p.out.String())
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%s: still runs 30 s after Ctrl-C:\n%s", p.place, p.out.String())
		}
	}
}

// A step is a part of a block that is run as one script.
type step struct {
	place      string
	script     string
	expects    []expectation
	background bool
}

var (
	printsComment = regexp.MustCompile(`\s*# prints: (.*)$`)
	untilComment  = regexp.MustCompile(`\s*# until Ctrl-C\s*$`)
)

// stepsOf cuts a block behind what it says about a command.
func stepsOf(b block) []step {
	var steps []step
	current := step{}
	lines := strings.Split(strings.TrimRight(b.text, "\n"), "\n")
	flush := func() {
		if strings.TrimSpace(current.script) != "" {
			steps = append(steps, current)
		}
		current = step{}
	}
	for n, line := range lines {
		place := b.file + ":" + itoa(b.line+n)
		expects := printsComment.FindStringSubmatch(line)
		line = printsComment.ReplaceAllString(line, "")
		until := untilComment.MatchString(line)
		line = untilComment.ReplaceAllString(line, "")
		blank := strings.TrimSpace(line) == ""
		if strings.HasPrefix(strings.TrimSpace(line), "make ") {
			continue
		}
		if !blank {
			// Whatever was expected of the command before has been said.
			if len(current.expects) > 0 || until || current.background {
				flush()
			}
			if current.place == "" {
				current.place = place
			}
			current.script += line + "\n"
			current.background = until
		}
		if expects != nil {
			current.expects = append(current.expects, expectation{place, strings.TrimSpace(expects[1])})
		}
	}
	flush()
	return steps
}

// printed tells whether text, in which … stands for anything, occurs in out.
func printed(out, text string) bool {
	at := 0
	for part := range strings.SplitSeq(text, "…") {
		i := strings.Index(out[at:], part)
		if i < 0 {
			return false
		}
		at += i + len(part)
	}
	return true
}

func TestStepsOf(t *testing.T) {
	b := block{file: "x.md", line: 10, text: "make build\n" +
		"spookgw run   # until Ctrl-C\n" +
		"# prints: ready\n" +
		"cd a\n" +
		"curl \\\n" +
		"  http://x   # prints: 21.5\n" +
		"\n" +
		"echo done # of it\n"}
	want := []step{
		{place: "x.md:11", script: "spookgw run\n", background: true, expects: []expectation{{"x.md:12", "ready"}}},
		{place: "x.md:13", script: "cd a\ncurl \\\n  http://x\n", expects: []expectation{{"x.md:15", "21.5"}}},
		{place: "x.md:17", script: "echo done # of it\n"},
	}
	if got := stepsOf(b); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// A lockedBuffer keeps the first MiB of what is written to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

var _ io.Writer = (*lockedBuffer)(nil)

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() < 1<<20 {
		l.b.Write(p)
	}
	return len(p), nil
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
