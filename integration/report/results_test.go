package main

import (
	"io"
	"strings"
	"testing"
)

const mod = "github.com/spooksystems/gateway/"

func feed(t *testing.T, lines ...string) (*results, string) {
	t.Helper()
	var out strings.Builder
	r := newResults(&out)
	if err := r.read(strings.NewReader(strings.ReplaceAll(strings.Join(lines, "\n"), "M/", mod))); err != nil {
		t.Fatal(err)
	}
	r.end()
	return r, out.String()
}

func TestResults(t *testing.T) {
	tests := []struct {
		name                    string
		lines                   []string
		passed, failed, skipped int
		good, goodInCI          bool
		says                    []string
	}{
		{
			name: "tests with subtests count by their subtests",
			lines: []string{
				`{"Action":"start","Package":"M/a"}`,
				`{"Action":"run","Package":"M/a","Test":"TestX"}`,
				`{"Action":"run","Package":"M/a","Test":"TestX/one"}`,
				`{"Action":"run","Package":"M/a","Test":"TestX/two"}`,
				`{"Action":"pass","Package":"M/a","Test":"TestX/one"}`,
				`{"Action":"pass","Package":"M/a","Test":"TestX/two"}`,
				`{"Action":"pass","Package":"M/a","Test":"TestX"}`,
				`{"Action":"pass","Package":"M/a","Elapsed":1.25}`,
			},
			passed: 2, good: true, goodInCI: true,
			says: []string{"ok    a", "2 passed", "1.3s"},
		},
		{
			name: "a failed subtest is one failure, shown with its output",
			lines: []string{
				`{"Action":"run","Package":"M/a","Test":"TestX"}`,
				`{"Action":"run","Package":"M/a","Test":"TestX/one"}`,
				`{"Action":"output","Package":"M/a","Test":"TestX/one","Output":"    a_test.go:7: got 1, want 2\n"}`,
				`{"Action":"fail","Package":"M/a","Test":"TestX/one"}`,
				`{"Action":"fail","Package":"M/a","Test":"TestX"}`,
				`{"Action":"fail","Package":"M/a"}`,
			},
			failed: 1,
			says:   []string{"FAIL  a", "--- failed: a TestX/one\n    a_test.go:7: got 1, want 2"},
		},
		{
			name: "a skip is listed with its reason, and fails the run in CI only",
			lines: []string{
				`{"Action":"run","Package":"M/a","Test":"TestX"}`,
				`{"Action":"output","Package":"M/a","Test":"TestX","Output":"=== RUN   TestX\n"}`,
				`{"Action":"output","Package":"M/a","Test":"TestX","Output":"    a_test.go:7: mosquitto not installed\n"}`,
				`{"Action":"skip","Package":"M/a","Test":"TestX"}`,
				`{"Action":"run","Package":"M/a","Test":"TestY"}`,
				`{"Action":"pass","Package":"M/a","Test":"TestY"}`,
				`{"Action":"pass","Package":"M/a"}`,
			},
			passed: 1, skipped: 1, good: true,
			says: []string{"  a TestX: mosquitto not installed\n", "1 passed, 0 failed, 1 skipped\n"},
		},
		{
			name: "what does not apply fails no run",
			lines: []string{
				`{"Action":"run","Package":"M/a","Test":"TestX"}`,
				`{"Action":"output","Package":"M/a","Test":"TestX","Output":"    a_test.go:7: n/a: refuses nothing\n"}`,
				`{"Action":"skip","Package":"M/a","Test":"TestX"}`,
				`{"Action":"run","Package":"M/a","Test":"TestY"}`,
				`{"Action":"pass","Package":"M/a","Test":"TestY"}`,
				`{"Action":"pass","Package":"M/a"}`,
			},
			passed: 1, skipped: 1, good: true, goodInCI: true,
			says: []string{"  a TestX: n/a: refuses nothing\n"},
		},
		{
			name: "a package that does not build is a failure",
			lines: []string{
				`{"ImportPath":"M/a [M/a.test]","Action":"build-output","Output":"a.go:3: undefined: x\n"}`,
				`{"ImportPath":"M/a [M/a.test]","Action":"build-fail"}`,
				`{"Action":"fail","Package":"M/a","FailedBuild":"M/a [M/a.test]"}`,
			},
			failed: 1,
			says:   []string{"undefined: x"},
		},
		{
			name: "a test that a panic or a timeout cut off is a failure",
			lines: []string{
				`{"Action":"run","Package":"M/a","Test":"TestX"}`,
				`{"Action":"output","Package":"M/a","Output":"panic: test timed out after 1s\n"}`,
				`{"Action":"fail","Package":"M/a"}`,
			},
			failed: 1,
			says:   []string{"panic: test timed out", "a TestX", "had not ended"},
		},
		{
			name: "a package without an end is a failure",
			lines: []string{
				`{"Action":"start","Package":"M/a"}`,
			},
			failed: 1,
			says:   []string{"FAIL  a"},
		},
		{
			name:  "a run without tests is no success",
			lines: []string{`go: no such tool`, `{"Action":"skip","Package":"M/a"}`},
			says:  []string{"go: no such tool", "No test ran."},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, out := feed(t, test.lines...)
			var sum strings.Builder
			r.summarise(&sum, false)
			out += sum.String()
			if r.passed != test.passed || r.failed != test.failed || len(r.skips) != test.skipped {
				t.Errorf("got %d passed, %d failed, %d skipped; want %d, %d, %d",
					r.passed, r.failed, len(r.skips), test.passed, test.failed, test.skipped)
			}
			if got := r.good(false); got != test.good {
				t.Errorf("good: got %v, want %v", got, test.good)
			}
			if got := r.good(true); got != test.goodInCI {
				t.Errorf("good in CI: got %v, want %v", got, test.goodInCI)
			}
			for _, want := range test.says {
				if !strings.Contains(out, want) {
					t.Errorf("output lacks %q:\n%s", want, out)
				}
			}
		})
	}
}

func TestRacelessHaveATurn(t *testing.T) {
	r, _ := feed(t,
		`{"Action":"output","Package":"M/a","Test":"TestAllocs","Output":"    a_test.go:7: counted without the race detector\n"}`,
		`{"Action":"skip","Package":"M/a","Test":"TestAllocs"}`,
		`{"Action":"output","Package":"M/a","Test":"TestPeer","Output":"    a_test.go:9: nginx not installed\n"}`,
		`{"Action":"skip","Package":"M/a","Test":"TestPeer"}`,
		`{"Action":"pass","Package":"M/a"}`,
	)
	names, packages := r.takeRaceless()
	if got := strings.Join(names, " ") + " in " + strings.Join(packages, " "); got != "TestAllocs in "+mod+"a" {
		t.Errorf("got %s", got)
	}
	if err := r.read(strings.NewReader(`{"Action":"pass","Package":"` + mod + `a","Test":"TestAllocs"}` + "\n" +
		`{"Action":"pass","Package":"` + mod + `a"}`)); err != nil {
		t.Fatal(err)
	}
	if r.passed != 1 || len(r.skips) != 1 || r.skips[0].test != "TestPeer" {
		t.Errorf("got %d passed and skips %+v, want TestAllocs passed, TestPeer skipped", r.passed, r.skips)
	}
}

func TestOutputIsBounded(t *testing.T) {
	r := newResults(io.Discard)
	line := strings.Repeat("x", 1000) + "\n"
	for range 1000 {
		r.take(event{Action: "output", Package: mod + "a", Test: "TestX", Output: line})
	}
	r.take(event{Action: "output", Package: mod + "a", Test: "TestX", Output: "the end\n"})
	r.take(event{Action: "fail", Package: mod + "a", Test: "TestX"})
	r.take(event{Action: "fail", Package: mod + "a"})
	if got := len(r.failures[0].output); got > 3*keepOutput {
		t.Errorf("kept %d bytes", got)
	}
	if !strings.HasSuffix(r.failures[0].output, "the end\n") {
		t.Error("the end of the output is lost")
	}
}
