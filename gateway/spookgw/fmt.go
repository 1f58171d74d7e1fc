package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/gateway"
)

func fmtVerb(a *app) *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:   "fmt [FILE…]",
		Short: "Bring HCL files into canonical layout",
		Long: `Rewrites files in canonical layout and prints the names of those it changed. Without files:
gateway.hcl and mappings.d/*.hcl here. "-" formats stdin to stdout.`,
		Args: cobra.ArbitraryArgs,
	}
	c.Flags().BoolVar(&check, "check", false, "change nothing; exit 1 if a file would change")
	c.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 1 && args[0] == "-" {
			src, err := io.ReadAll(a.in)
			if err != nil {
				return err
			}
			out, found := gateway.FormatHCL("stdin", src)
			if found.HasErrors() {
				_ = a.findings(found)
				return told
			}
			_, err = a.out.Write(out)
			return err
		}
		if len(args) == 0 {
			args, _ = filepath.Glob("mappings.d/*.hcl")
			if _, err := os.Stat(gateway.DefaultFile); err == nil {
				args = append([]string{gateway.DefaultFile}, args...)
			}
			if len(args) == 0 {
				return usage("neither gateway.hcl nor mappings.d/*.hcl is here")
			}
		}
		changed := []string{}
		bad := false
		for _, path := range args {
			differs, ok, err := a.formatFile(path, check)
			if err != nil {
				return err
			}
			bad = bad || !ok
			if differs {
				changed = append(changed, path)
			}
		}
		if a.json {
			if err := a.print(map[string]any{"changed": changed}); err != nil {
				return err
			}
		} else {
			for _, path := range changed {
				fmt.Fprintln(a.out, path)
			}
		}
		if bad || check && len(changed) > 0 {
			return told
		}
		return nil
	}
	return c
}

// formatFile tells whether the layout differs, and whether the file is HCL at all.
func (a *app) formatFile(path string, check bool) (differs, ok bool, err error) {
	src, err := gateway.Disk{}.ReadFile(path)
	if err != nil {
		return false, false, err
	}
	out, found := gateway.FormatHCL(path, src)
	if found.HasErrors() {
		return false, false, found.WriteText(a.errs, false, 0)
	}
	if bytes.Equal(src, out) {
		return false, true, nil
	}
	if check {
		return true, true, nil
	}
	return true, true, replaceFile(path, out)
}

// replaceFile puts the new text in place of the old in one step, so that a gateway that reloads at
// this moment reads one of the two.
func replaceFile(path string, text []byte) error {
	mode := os.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".fmt-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(mode)
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
