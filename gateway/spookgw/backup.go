package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/gateway"
)

func backupVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "backup DIR",
		Short: "Copy everything while the gateway runs",
		Long: `Makes DIR, a new directory on the gateway's machine, and copies registers, history and what the
gateway knows of its servers into it, as of one commit, while everything goes on. The gateway's
user makes it. "spookgw restore" makes a data directory of it.`,
		Example: "  spookgw backup /var/backups/spookgw/monday",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
				b, err := client.Backup(ctx, dir)
				if err != nil {
					return err
				}
				if a.json {
					return a.print(wire.FromBackup(b))
				}
				_, err = fmt.Fprintf(a.out, "%s\tcommit %s\t%s\n", b.Dir, b.Cursor, gateway.FormatSize(b.Bytes))
				return err
			})
		},
	}
}
