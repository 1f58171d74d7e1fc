// Command report runs `go test -json` over the module and says what came of it: a line for each
// package, the output of what failed, everything that was skipped with its reason, and last
//
//	N passed, N failed, N skipped
//
// It exits with 1 if anything failed, and with CI=true in the environment also if anything was
// skipped: there, every peer has to be present. What doesn't apply (a reason that begins with
// "n/a: ") is listed and no matter.
//
// The race detector is used where it can be, and counts as skipped where it cannot. Tests that can
// only be run without it ("… without the race detector") have a turn of their own.
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
	} else {
		// A cached success says nothing about the peers of today.
		args = append(args, "-count=1")
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	results := newResults(os.Stdout)
	var err error
	if why := noRaceDetector(); why != "" {
		err = run(ctx, results, slices.Concat(args, packages))
		results.skips = append(results.skips, skip{name: "the race detector", reason: why})
	} else {
		err = run(ctx, results, slices.Concat(args, []string{"-race"}, packages))
		if names, in := results.takeRaceless(); err == nil && len(names) > 0 {
			pattern := "^(" + strings.Join(names, "|") + ")$"
			err = run(ctx, results, slices.Concat(args, []string{"-run", pattern}, in))
		}
	}
	strict := os.Getenv("CI") == "true"
	results.summarise(os.Stdout, strict)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	if err != nil || !results.good(strict) {
		os.Exit(1)
	}
}

// run starts go with these arguments and adds its events to the results until it ends. The error
// is about go itself: failed tests are in the results.
func run(ctx context.Context, r *results, args []string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if slices.Contains(args, "-race") {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := r.read(stdout)
	waitErr := cmd.Wait()
	r.end()
	switch {
	case readErr != nil:
		return readErr
	case waitErr != nil && r.good(false):
		// Nothing in the events explains it: a broken go.mod, a pattern without packages, a signal.
		return fmt.Errorf("go test: %w", waitErr)
	}
	return nil
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
