package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/engine"
)

func TestExitCodes(t *testing.T) {
	t.Setenv("SPOOKGW_SOCKET", t.TempDir()+"/none")
	for args, want := range map[string]int{
		"version":                    exitOK,
		"validate none.hcl":          exitError,
		"nothing":                    exitUsage,
		"get":                        exitUsage,
		"get --no-such-flag x":       exitUsage,
		"set x":                      exitUsage,
		"set x {":                    exitUsage,
		"watch --exact":              exitUsage,
		"get site/a/b":               exitUnreachable,
		"status --json":              exitUnreachable,
		"set x 1 --if what":          exitUsage,
		"history x --limit 0":        exitUsage,
		"list --limit -1":            exitUsage,
		"retry --all some":           exitUsage,
		"delete x --if none":         exitUsage,
		"validate --socket x n.hcl":  exitError,
		"history x --at noon":        exitUsage,
		"history x --at 5 --oldest":  exitUsage,
		"revert x":                   exitUsage,
		"revert x --to 2h":           exitUsage,
		"revert x --to 5":            exitUnreachable,
		"pending --limit 0":          exitUsage,
		"pending":                    exitUnreachable,
		"collapse":                   exitUsage,
		"explain x":                  exitUnreachable,
		"backup":                     exitUsage,
		"backup b":                   exitUnreachable,
		"restore b":                  exitUsage,
		"restore none --data d":      exitNotFound,
		"set x --add what":           exitUsage,
		"set x --add n=1":            exitUnreachable,
		"completion zsh":             exitOK,
		"explain-code":               exitOK,
		"explain-code map101":        exitOK,
		"explain-code MAP999":        exitNotFound,
		"explain-code MAP101 MAP100": exitUsage,
		"run --config none.hcl":      exitError,
		"reload --socket /nowhere/s": exitUnreachable,
	} {
		var out, errs bytes.Buffer
		a := &app{in: strings.NewReader(""), out: &out, errs: &errs}
		if got := a.run(strings.Fields(args)); got != want {
			t.Errorf("%s: got %d, want %d\n%s", args, got, want, errs.String())
		}
		if want != exitOK && errs.Len() == 0 {
			t.Errorf("%s: exit %d without a word", args, want)
		}
	}
	for err, want := range map[error]int{
		fmt.Errorf("x: %w", engine.ErrNotFound): exitNotFound,
		fmt.Errorf("x: %w", engine.ErrConflict): exitConflict,
		fmt.Errorf("x: %w", engine.ErrDenied):   exitDenied,
		errors.New("x"):                         exitError,
		context.Canceled:                        exitError,
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: got %d, want %d", err, got, want)
		}
	}
}
