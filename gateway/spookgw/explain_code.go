package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/mapping/diag"
)

func explainCodeVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "explain-code [CODE]",
		Short: "Tell what a finding's code means",
		Long: `Tells what the code of a finding means, shows a file that has the mistake, and how to put it right.
Without a code: all of them.`,
		Example: "  spookgw explain-code MAP101\n  spookgw explain-code",
		Args:    cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) (out []string, _ cobra.ShellCompDirective) {
			for _, c := range diag.Codes() {
				out = append(out, string(c))
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.explainCode(args[0])
			}
			return a.listCodes()
		},
	}
}

func (a *app) explainCode(code string) error {
	e, err := diag.Explain(code)
	if err != nil {
		return &coded{exitNotFound, err}
	}
	if a.json {
		return a.print(e)
	}
	fmt.Fprintf(a.out, "%s: %s\n\n%s\n", e.Code, e.Title, e.Meaning)
	if e.Example != "" {
		fmt.Fprintf(a.out, "\n    %s\n", strings.ReplaceAll(strings.TrimRight(e.Example, "\n"), "\n", "\n    "))
	}
	_, err = fmt.Fprintf(a.out, "\nRemedy: %s\n", e.Remedy)
	return err
}

func (a *app) listCodes() error {
	all := []diag.Explanation{}
	for _, c := range diag.Codes() {
		e, err := diag.Explain(string(c))
		if err != nil {
			return err
		}
		all = append(all, e)
	}
	if a.json {
		return a.print(all)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, e := range all {
		fmt.Fprintf(w, "%s\t%s\n", e.Code, e.Title)
	}
	return w.Flush()
}
