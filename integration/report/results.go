package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// keepOutput bounds what is kept of one test's output, in bytes; of more, the end is shown.
const keepOutput = 64 << 10

// An event is one line of `go test -json` (go doc test2json), or of `go build -json`.
type event struct {
	Action      string
	Package     string
	ImportPath  string // build-output, build-fail
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

// A skip is a test that was not run. Outside of tests pkg is empty.
type skip struct {
	pkg    string // import path
	test   string
	name   string // for people
	reason string
}

// applies tells whether the test would have had something to say here.
func (s skip) applies() bool { return !strings.HasPrefix(s.reason, "n/a: ") }

// A testRun is one test or subtest, or with an empty name the package itself.
type testRun struct {
	name     string
	output   []byte
	verdict  string // pass, fail, skip; "" while it runs
	children bool
	badChild bool
}

type packageRun struct {
	path                    string
	tests                   map[string]*testRun
	order                   []string
	passed, failed, skipped int
}

type failure struct {
	name   string
	output string
}

// results gathers what a run of go test says. Tests with subtests count by their subtests.
type results struct {
	out            io.Writer // a line for each finished package
	packages       map[string]*packageRun
	builds         map[string]string // output of failed builds by import path
	loose          []string          // lines that are no events
	failures       []failure
	skips          []skip
	passed, failed int
}

func newResults(out io.Writer) *results {
	return &results{out: out, packages: map[string]*packageRun{}, builds: map[string]string{}}
}

// read takes events until the stream ends.
func (r *results) read(stream io.Reader) error {
	in := bufio.NewReader(stream)
	for {
		line, err := in.ReadString('\n')
		if text := strings.TrimSpace(line); text != "" {
			var e event
			if json.Unmarshal([]byte(text), &e) == nil && e.Action != "" {
				r.take(e)
			} else {
				r.loose = append(r.loose, text)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *results) take(e event) {
	switch e.Action {
	case "build-output":
		r.builds[e.ImportPath] += e.Output
		return
	case "build-fail":
		return
	}
	p := r.packages[e.Package]
	if p == nil {
		p = &packageRun{path: e.Package, tests: map[string]*testRun{}}
		r.packages[e.Package] = p
	}
	t := p.test(e.Test)
	switch e.Action {
	case "output":
		t.output = append(t.output, e.Output...)
		if len(t.output) > 2*keepOutput {
			t.output = append([]byte("…\n"), t.output[len(t.output)-keepOutput:]...)
		}
	case "pass", "fail", "skip":
		t.verdict = e.Action
		if e.Test == "" {
			r.finish(p, e)
		}
	}
}

// test gives the run of that name and makes known to its parents that it exists.
func (p *packageRun) test(name string) *testRun {
	t := p.tests[name]
	if t == nil {
		t = &testRun{name: name}
		p.tests[name] = t
		p.order = append(p.order, name)
		if parent := p.parent(name); parent != nil {
			parent.children = true
		}
	}
	return t
}

func (p *packageRun) parent(name string) *testRun {
	if at := strings.LastIndexByte(name, '/'); at > 0 {
		return p.tests[name[:at]]
	}
	return nil
}

// finish counts a package's tests and prints its line. A test without a verdict was cut off.
func (r *results) finish(p *packageRun, e event) {
	failures := len(r.failures)
	// Children were seen after their parents: backwards, each tells its parent before that is counted.
	for _, name := range slices.Backward(p.order) {
		t := p.tests[name]
		if name == "" {
			continue
		}
		failed := t.verdict == "fail" || t.verdict == "" && e.Action == "fail"
		if parent := p.parent(name); parent != nil && (failed || t.badChild) {
			parent.badChild = true
		}
		switch {
		case failed && !t.badChild:
			p.failed++
			text := string(t.output)
			if t.verdict == "" {
				text += "(it had not ended when its package failed)\n"
			}
			r.failures = append(r.failures, failure{p.short() + " " + name, text})
		case failed:
		case t.verdict == "skip":
			p.skipped++
			r.skips = append(r.skips, skip{p.path, name, p.short() + " " + name, skipReason(t.output)})
		case !t.children:
			p.passed++
		}
	}
	slices.Reverse(r.failures[failures:])
	if e.Action == "fail" && (p.failed == 0 || cutOff(p)) {
		// A build that failed, a panic, a timeout, or trouble outside of any test.
		text := r.builds[e.FailedBuild] + string(p.tests[""].output)
		if p.failed == 0 {
			p.failed++
		}
		r.failures = append(r.failures, failure{p.short(), text})
	}
	r.passed += p.passed
	r.failed += p.failed

	took := time.Duration(e.Elapsed * float64(time.Second)).Round(100 * time.Millisecond)
	switch {
	case e.Action == "skip":
		// No test files: nothing to say.
	case p.failed > 0:
		fmt.Fprintf(r.out, "FAIL  %-34s %4d passed, %d failed, %d skipped  %s\n", p.short(), p.passed, p.failed, p.skipped, took)
	case p.skipped > 0:
		fmt.Fprintf(r.out, "ok    %-34s %4d passed, %d skipped  %s\n", p.short(), p.passed, p.skipped, took)
	default:
		fmt.Fprintf(r.out, "ok    %-34s %4d passed  %s\n", p.short(), p.passed, took)
	}
	delete(r.packages, p.path) // it may have a second turn
}

func cutOff(p *packageRun) bool {
	for name, t := range p.tests {
		if name != "" && t.verdict == "" {
			return true
		}
	}
	return false
}

// end accounts for packages that were started and never finished.
func (r *results) end() {
	for _, path := range slices.Sorted(maps.Keys(r.packages)) {
		p := r.packages[path]
		p.test("")
		r.finish(p, event{Action: "fail", Package: path})
	}
}

// takeRaceless takes out of the skips the tests that can only be run without the race detector.
func (r *results) takeRaceless() (names, packages []string) {
	r.skips = slices.DeleteFunc(r.skips, func(s skip) bool {
		if s.pkg == "" || strings.Contains(s.test, "/") || !strings.Contains(s.reason, "without the race detector") {
			return false
		}
		names = append(names, regexp.QuoteMeta(s.test))
		if !slices.Contains(packages, s.pkg) {
			packages = append(packages, s.pkg)
		}
		return true
	})
	return names, packages
}

// good tells whether the run counts as a success.
func (r *results) good(strict bool) bool {
	return r.failed == 0 && r.passed > 0 && (!strict || !slices.ContainsFunc(r.skips, skip.applies))
}

func (r *results) summarise(out io.Writer, strict bool) {
	for _, f := range r.failures {
		fmt.Fprintf(out, "\n--- failed: %s\n%s", f.name, f.output)
		if !strings.HasSuffix(f.output, "\n") {
			fmt.Fprintln(out)
		}
	}
	if r.failed > 0 || r.passed == 0 {
		for _, line := range r.loose {
			fmt.Fprintln(out, line)
		}
	}
	fmt.Fprintln(out)
	if len(r.failures) > 0 {
		fmt.Fprintln(out, "Failed:")
		for _, f := range r.failures {
			fmt.Fprintf(out, "  %s\n", f.name)
		}
	}
	if len(r.skips) > 0 {
		if strict && slices.ContainsFunc(r.skips, skip.applies) {
			fmt.Fprintln(out, "Skipped, which fails the run because CI=true (but for n/a):")
		} else {
			fmt.Fprintln(out, "Skipped:")
		}
		for _, s := range r.skips {
			fmt.Fprintf(out, "  %s: %s\n", s.name, s.reason)
		}
	}
	if r.passed == 0 && r.failed == 0 {
		fmt.Fprintln(out, "No test ran.")
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skips))
}

func (p *packageRun) short() string {
	const module = "github.com/spooksystems/gateway/"
	if p.path+"/" == module {
		return "."
	}
	return strings.TrimPrefix(p.path, module)
}

var placed = regexp.MustCompile(`^\s*\S+\.go:\d+: (.*)$`)

// skipReason finds what t.Skip was called with in a skipped test's output.
func skipReason(output []byte) string {
	var reason []string
	for line := range strings.Lines(string(output)) {
		if m := placed.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			reason = append(reason, strings.TrimSpace(m[1]))
		}
	}
	if len(reason) == 0 {
		return "no reason given"
	}
	return strings.Join(reason, "; ")
}
