package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/gateway"
)

func runVerb(a *app) *cobra.Command {
	config := gateway.DefaultFile
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway",
		Long: `Runs the gateway until SIGTERM or Ctrl-C, which drains it: nothing new is taken, what is in
flight is finished within the configuration's "drain". A second signal ends it at once.
SIGHUP reads the configuration again, as "spookgw reload" does.`,
		Args: cobra.NoArgs,
	}
	c.Flags().StringVarP(&config, "config", "c", config, "the configuration")
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx := c.Context()
		g, found, err := gateway.Start(ctx, gateway.Options{
			Load:    gateway.LoadRequest{File: config, Protocols: protocols},
			Version: versionText(),
			Socket:  a.socket,
		})
		if err := a.findings(found); len(found) > 0 && err != nil {
			return err
		}
		if errors.Is(err, gateway.ErrConfig) {
			a.say("spookgw: %s: nothing was started", err)
			return told
		}
		if err != nil {
			return err
		}
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)
		ended := make(chan struct{})
		defer close(ended)
		go func() {
			for {
				select {
				case <-hup:
					if _, found, _ := g.Reload(ctx, ""); len(found) > 0 {
						_ = found.WriteText(a.errs, false, 0)
					}
				case <-ended:
					return
				}
			}
		}()
		if err := g.Wait(ctx); err != nil {
			return err // the engine can't go on: draining would only pretend
		}
		again := make(chan os.Signal, 1)
		signal.Notify(again, os.Interrupt, syscall.SIGTERM)
		go func() {
			<-again
			a.say("spookgw: ended at once")
			os.Exit(exitError)
		}()
		return g.Stop()
	}
	return c
}
