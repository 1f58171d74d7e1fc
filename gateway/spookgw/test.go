package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/gateway"
	"github.com/spooksystems/gateway/gateway/trial"
)

// testAnswer is what `test --json` prints.
type testAnswer struct {
	Tests   []trial.Verdict `json:"tests"`
	Passed  int             `json:"passed"`
	Failed  int             `json:"failed"`
	Skipped int             `json:"skipped"`
}

func testVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "test [FILE…]",
		Short: "Run the tests that stand in mappings",
		Long: `Runs the test blocks of the mappings of gateway.hcl, or of the files given, as validate finds
them. Each runs in a gateway of its own in memory: nothing listens, nothing is dialled, no disk is
touched. The exit code is 1 if one fails or a file has a mistake.`,
		Example: "  spookgw test\n  spookgw test mappings.d/sensors.hcl",
		RunE: func(c *cobra.Command, args []string) error {
			req, err := whatToLoad(args)
			if err != nil {
				return err
			}
			config, found := gateway.LoadConfig(req)
			if config == nil {
				if err := a.findings(found); err != nil {
					return err
				}
				return told
			}
			answer := testAnswer{Tests: []trial.Verdict{}}
			for _, t := range config.Set.Tests() {
				v, err := trial.Run(c.Context(), config.Set, config.Links(), t)
				if err != nil {
					return fmt.Errorf("%s: test %q: %w", t.Source, t.Name, err)
				}
				answer.Tests = append(answer.Tests, v)
				switch {
				case v.Skipped != "":
					answer.Skipped++
				case len(v.Failed) > 0:
					answer.Failed++
				default:
					answer.Passed++
				}
				if !a.json {
					a.verdict(&v)
				}
			}
			if a.json {
				if err := a.print(answer); err != nil {
					return err
				}
			} else {
				a.say("%d passed, %d failed, %d skipped", answer.Passed, answer.Failed, answer.Skipped)
			}
			if answer.Failed > 0 {
				return told
			}
			return nil
		},
	}
}

// verdict shows a test that did not pass: what was wanted, what came.
func (a *app) verdict(v *trial.Verdict) {
	paint := a.paint(a.out)
	switch {
	case v.Skipped != "":
		fmt.Fprintf(a.out, "%s %s: %q: %s\n", paint("33", "skip"), v.Source, v.Test, v.Skipped)
	case len(v.Failed) > 0:
		fmt.Fprintf(a.out, "%s %s: %q\n", paint("31", "FAIL"), v.Source, v.Test)
		for _, f := range v.Failed {
			fmt.Fprintf(a.out, "  %s: %s\n    %s\n    %s\n", f.Source, f.What, paint("32", "want "+f.Want), paint("31", "got  "+f.Got))
		}
	default:
		fmt.Fprintf(a.out, "%s   %s: %q\n", paint("32", "ok"), v.Source, v.Test)
	}
}
