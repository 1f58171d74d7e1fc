package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/gateway"
)

func validateVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "validate [FILE…]",
		Short: "Check configuration and mappings",
		Long: `Checks gateway.hcl, or the one named, with all its mappings, without opening anything. Given
mapping files, it checks those: under the gateway.hcl beside them or above, or else as if every
protocol had a wrapper. All mistakes are shown at once; the exit code is 1 if there is an error.`,
		Example: "  spookgw validate\n  spookgw validate mappings.d/*.hcl",
		RunE: func(_ *cobra.Command, args []string) error {
			req, err := whatToLoad(args)
			if err != nil {
				return err
			}
			config, found := gateway.LoadConfig(req)
			if err := a.findings(found); err != nil {
				return err
			}
			if len(found) > 0 && !a.json {
				a.say("\n`spookgw explain-code %s` tells more of a finding.", found[0].Code)
			}
			if config == nil {
				return told
			}
			if !a.json {
				a.say("%d wrappers and %d mapping files are in order (hash %s)", len(config.Wrappers), len(config.Mappings), config.Hash)
			}
			return nil
		},
	}
}

// ofConfig recognises gateway.hcl under another name by what only it has.
var ofConfig = regexp.MustCompile(`(?m)^\s*(?:(?:wrapper|daemon|user|log|access)\b[^=\n]*\{|(?:data|domains|mappings|drain|min_free)\s*=)`)

// whatToLoad sorts the files given into a configuration and mappings.
func whatToLoad(args []string) (gateway.LoadRequest, error) {
	req := gateway.LoadRequest{Protocols: protocols}
	if len(args) == 0 {
		req.File = gateway.DefaultFile
		return req, nil
	}
	for _, path := range args {
		src, err := gateway.Disk{}.ReadFile(path)
		if err != nil {
			return req, err
		}
		switch {
		case filepath.Base(path) != gateway.DefaultFile && !ofConfig.Match(src):
			req.Mappings = append(req.Mappings, path)
		case req.File != "":
			return req, usage("%s and %s are both configurations: validate one at a time", req.File, path)
		default:
			req.File = path
		}
	}
	if req.File != "" {
		return req, nil
	}
	for dir := filepath.Dir(req.Mappings[0]); ; dir = filepath.Join(dir, "..") {
		near := filepath.Join(dir, gateway.DefaultFile)
		if _, err := os.Stat(near); err == nil {
			req.File = near
			return req, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return req, err
		}
		if dir != filepath.Dir(req.Mappings[0]) {
			break
		}
	}
	req.Implied = true
	return req, nil
}
