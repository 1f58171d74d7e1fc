package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/engine"
)

func restoreVerb(a *app) *cobra.Command {
	var data string
	c := &cobra.Command{
		Use:   "restore BACKUP --data DIR",
		Short: "Make a data directory of a backup",
		Long: `Copies what "spookgw backup" made into DIR, which must be empty or not there, and returns when it
is on the disk. No gateway is asked: afterwards one is started on DIR. It knows that it was
restored, and never uses a number again that the original may have used since.`,
		Example: "  spookgw restore /var/backups/spookgw/monday --data /var/lib/spookgw",
		Args:    cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&data, "data", "", "the data directory to make")
	c.RunE = func(_ *cobra.Command, args []string) error {
		if data == "" {
			return usage("--data says where the data are to be")
		}
		backup, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		to, err := filepath.Abs(data)
		if err != nil {
			return err
		}
		if err := mayRestore(backup, to); err != nil {
			return err
		}
		if err := engine.Restore(backup, to); err != nil {
			return fmt.Errorf("%s: %w", backup, err)
		}
		if a.json {
			return a.print(map[string]any{"backup": backup, "data": to})
		}
		_, err = fmt.Fprintln(a.out, to)
		return err
	}
	return c
}

// mayRestore refuses what can't be meant, before anything is made.
func mayRestore(backup, data string) error {
	info, err := os.Stat(backup)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s", engine.ErrNotFound, backup)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a backup: it is no directory", backup)
	}
	if within, err := filepath.Rel(backup, data); err == nil && within != ".." && !strings.HasPrefix(within, ".."+string(filepath.Separator)) {
		return fmt.Errorf("%s is in the backup itself", data)
	}
	entries, err := os.ReadDir(data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty: nothing was restored", data)
	}
	return nil
}
