package main

import (
	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/gateway"
	mappings "github.com/spooksystems/gateway/mappings.d"
)

func demoVerb(a *app) *cobra.Command {
	o := gateway.DemoOptions{Protocols: protocols, Mappings: mappings.FS, Out: a.out, Errors: a.errs}
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show it: every protocol, on loopback, over shipped mappings",
		Long: `Starts every protocol on loopback, over the mappings that ship with the program, and prints a
line to copy for each client, all about the same register. Each write is shown as it happens.
Ctrl-C ends it.`,
		Args: cobra.NoArgs,
	}
	c.Flags().StringVar(&o.Data, "data", "", "keep the data in this directory (default: a temporary one)")
	c.Flags().BoolVar(&o.AnyPort, "any-port", false, "listen on whatever ports are free")
	c.RunE = func(c *cobra.Command, _ []string) error {
		o.Socket, o.Version = a.socket, versionText()
		if a.json {
			o.Event = func(d gateway.DemoDelta) error { return a.printLine(d) }
		}
		return gateway.Demo(c.Context(), o)
	}
	return c
}
