package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/gateway"
)

func accessVerb(a *app) *cobra.Command {
	var read, write bool
	c := &cobra.Command{
		Use:   "access WHO REGISTER",
		Short: "Say whether somebody may read and write a register, and which line says so",
		Long: `WHO is a user, "protocol/wrapper" for those who come through it without a name, or
"protocol/wrapper:name" for whom the server behind it knows by that name. Ends with 0 if they may
both read and write, else with 1; --read and --write ask for one of the two.`,
		Example: "  spookgw access ann site/berlin/oven-3\n  spookgw access --write mqtt/floor site/berlin/oven-3",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
				var answer gateway.AccessAnswer
				if err := client.Call(ctx, "access", map[string]any{"who": args[0], "register": args[1]}, &answer); err != nil {
					return err
				}
				var err error
				if a.json {
					err = a.print(answer)
				} else {
					err = writeAccess(a.out, &answer)
				}
				both := read == write
				if err == nil && ((read || both) && !answer.Read.May || (write || both) && !answer.Write.May) {
					return told
				}
				return err
			})
		},
	}
	c.Flags().BoolVar(&read, "read", false, "the exit code is about reading")
	c.Flags().BoolVar(&write, "write", false, "the exit code is about writing")
	return c
}

func writeAccess(out io.Writer, a *gateway.AccessAnswer) error {
	line := func(verb string, v gateway.AccessVerdict) {
		may := "may"
		if !v.May {
			may = "may not"
		}
		source := ""
		if v.Source != "" {
			source = " (" + v.Source + ")"
		}
		fmt.Fprintf(out, "%s %s %s %s: %s%s\n", a.Who, may, verb, a.Register, v.Why, source)
	}
	line("read", a.Read)
	line("write", a.Write)
	for _, x := range a.Except {
		fmt.Fprintf(out, "  but not %s at %s: %s (%s)\n", x.Verb, x.Address, x.Why, x.Bind)
	}
	return nil
}
