// Command report runs `go test -json` over the module and says what came of it: a line for each
// package, the output of what failed, everything that was skipped with its reason, and last
//
//	N passed, N failed, N skipped
//
// It exits with 1 if anything failed, and with CI=true in the environment also if anything was
// skipped: there, every peer has to be present. The race detector is used where it can be, and
// counts as skipped where it cannot.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

func main() {
	short := flag.Bool("short", false, "run the short tests only")
	timeout := flag.String("timeout", "15m", "of one package")
	flag.Parse()
	packages := flag.Args()
	if len(packages) == 0 {
		packages = []string{"./..."}
	}

	args := []string{"test", "-json", "-timeout", *timeout}
	if *short {
		args = append(args, "-short")
	}
	var absent []skip
	if why := noRaceDetector(); why != "" {
		absent = append(absent, skip{name: "race detector", reason: why})
	} else {
		args = append(args, "-race")
	}
	if !*short {
		// A cached success says nothing about the peers of today.
		args = append(args, "-count=1")
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	results, err := run(ctx, append(args, packages...))
	results.skips = append(absent, results.skips...)
	strict := os.Getenv("CI") == "true"
	results.summarise(os.Stdout, strict)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	if err != nil || !results.good(strict) {
		os.Exit(1)
	}
}

// run starts go with these arguments and reads its events until it ends. The error is about go
// itself: failed tests are in the results.
func run(ctx context.Context, args []string) (*results, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if slices.Contains(args, "-race") {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	cmd.Stderr = os.Stderr
	r := newResults(os.Stdout)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	if err := cmd.Start(); err != nil {
		return r, err
	}
	readErr := r.read(stdout)
	waitErr := cmd.Wait()
	r.end()
	switch {
	case readErr != nil:
		return r, readErr
	case waitErr != nil && r.good(false):
		// Nothing in the events explains it: a broken go.mod, a pattern without packages, a signal.
		return r, fmt.Errorf("go test: %w", waitErr)
	}
	return r, nil
}

// noRaceDetector says why -race can't be used here, or nothing.
func noRaceDetector() string {
	has := []string{
		"linux/amd64", "linux/arm64", "linux/ppc64le", "linux/s390x", "linux/loong64", "linux/riscv64",
		"darwin/amd64", "darwin/arm64", "windows/amd64", "freebsd/amd64", "netbsd/amd64",
	}
	if here := runtime.GOOS + "/" + runtime.GOARCH; !slices.Contains(has, here) {
		return "Go has none for " + here
	}
	out, err := exec.Command("go", "env", "CC").Output()
	if err != nil {
		return "go env CC: " + err.Error()
	}
	cc, _, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if _, err := exec.LookPath(cc); err != nil {
		return "it needs a C compiler, and " + cc + " is not installed"
	}
	return ""
}
