package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/gateway"
	"github.com/spooksystems/gateway/mapping/diag"
)

// The exit codes, the same for every verb.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitConflict    = 4
	exitUnreachable = 5
	exitDenied      = 6
)

// An app is one call of the program. What a script needs goes to out, what is said to a person
// to errs.
type app struct {
	in   io.Reader
	out  io.Writer
	errs io.Writer

	json   bool
	socket string
	domain string
}

// A coded error ends the program with its code. A nil error has been told already.
type coded struct {
	code int
	err  error
}

func (c *coded) Error() string {
	if c.err == nil {
		return ""
	}
	return c.err.Error()
}
func (c *coded) Unwrap() error { return c.err }

func usage(format string, args ...any) error {
	return &coded{exitUsage, fmt.Errorf(format, args...)}
}

// told ends the program with exitError when everything has been said.
var told = &coded{exitError, nil}

// run is the whole program, less os.Exit.
func (a *app) run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.errs)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	text := err.Error()
	if text != "" {
		fmt.Fprintf(a.errs, "spookgw: %s\n", text)
	}
	if code == exitUsage && text != "" { // plan has its own 2
		fmt.Fprintf(a.errs, "Try: spookgw help%s\n", verbOf(root, args))
	}
	return code
}

func verbOf(root *cobra.Command, args []string) string {
	if c, _, err := root.Find(args); err == nil && c != root {
		return " " + c.Name()
	}
	return ""
}

func exitCode(err error) int {
	var c *coded
	switch {
	case errors.As(err, &c):
		return c.code
	case errors.Is(err, engine.ErrNotFound):
		return exitNotFound
	case errors.Is(err, engine.ErrConflict):
		return exitConflict
	case errors.Is(err, engine.ErrDenied):
		return exitDenied
	case strings.HasPrefix(err.Error(), "unknown command"):
		return exitUsage
	}
	return exitError
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "spookgw",
		Short: "Legacy clients of different protocols share one durable state",
		Long: `Spook Gateway stands in front of, inside, or in place of servers that old programs talk to,
and keeps what they know of the same thing equal. "spookgw demo" shows it in one command.

Exit codes: 0 done; 1 error; 2 wrong usage, or of plan that something is deleted; 3 not found; 4 a precondition failed (--if);
5 no gateway answers at the socket; 6 not allowed.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON, for scripts")
	root.PersistentFlags().StringVar(&a.socket, "socket", "", "the gateway's socket (default $SPOOKGW_SOCKET, else the usual places)")
	root.PersistentFlags().StringVar(&a.domain, "domain", "", "the domain whose registers are meant (default the gateway's first)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &coded{exitUsage, err} })
	root.AddGroup(&cobra.Group{ID: "run", Title: "The gateway:"}, &cobra.Group{ID: "files", Title: "Configuration:"},
		&cobra.Group{ID: "state", Title: "Registers:"}, &cobra.Group{ID: "operate", Title: "Operation:"})
	verbs := []struct {
		group string
		make  func(*app) *cobra.Command
	}{
		{"run", runVerb}, {"run", demoVerb}, {"run", planVerb}, {"run", reloadVerb},
		{"files", initVerb}, {"files", replayVerb}, {"files", validateVerb}, {"files", testVerb}, {"files", schemaVerb}, {"files", fmtVerb}, {"files", explainCodeVerb},
		{"state", getVerb}, {"state", setVerb}, {"state", deleteVerb}, {"state", listVerb}, {"state", watchVerb}, {"state", historyVerb},
		{"state", explainVerb}, {"state", revertVerb}, {"state", pendingVerb}, {"state", collapseVerb},
		{"operate", statusVerb}, {"operate", tapVerb}, {"operate", recordVerb}, {"operate", parkedVerb}, {"operate", retryVerb}, {"operate", dropVerb},
		{"operate", accessVerb}, {"operate", approveVerb},
		{"operate", pairVerb}, {"operate", sitesVerb}, {"operate", verifyVerb}, {"operate", natsVerb},
		{"operate", backupVerb}, {"operate", restoreVerb},
		{"", versionVerb}, {"", manVerb},
	}
	for _, v := range verbs {
		c := v.make(a)
		c.GroupID = v.group
		if check := c.Args; check != nil {
			c.Args = func(c *cobra.Command, args []string) error {
				if err := check(c, args); err != nil {
					return &coded{exitUsage, err}
				}
				return nil
			}
		}
		root.AddCommand(c)
	}
	return root
}

// dial connects to the running gateway.
func (a *app) dial(ctx context.Context) (*daemonclient.Client, error) {
	path := a.socket
	if path == "" {
		path = gateway.FindSocket()
	}
	c, err := daemonclient.DialDomain(ctx, path, a.domain)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, err
	}
	if err != nil {
		return nil, &coded{exitUnreachable, fmt.Errorf("%w\nStart one with `spookgw run` or `spookgw demo`, or say where it is with --socket", err)}
	}
	return c, nil
}

// withClient runs do with a connection to the gateway.
func (a *app) withClient(c *cobra.Command, do func(ctx context.Context, client *daemonclient.Client) error) error {
	client, err := a.dial(c.Context())
	if err != nil {
		return err
	}
	defer client.Close()
	err = do(c.Context(), client)
	if errors.Is(err, engine.ErrUnavailable) || errors.Is(err, engine.ErrClosed) {
		return &coded{exitUnreachable, err}
	}
	return err
}

// interrupted tells that a verb that runs until Ctrl-C was ended by it: that is no error.
func interrupted(ctx context.Context, err error) bool { return ctx.Err() != nil && err != nil }

// print writes v as indented JSON.
func (a *app) print(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printLine writes v as JSON on one line, for what goes on.
func (a *app) printLine(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// say tells a person something.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.errs, format+"\n", args...) }

// findings shows what is wrong with a configuration: to a person, or as JSON on out.
func (a *app) findings(found diag.Diagnostics) error {
	if a.json {
		if found == nil {
			found = diag.Diagnostics{}
		}
		return a.print(found)
	}
	color, width := colored(a.errs)
	return found.WriteText(a.errs, color, width)
}

// colored tells whether w is a terminal that wants colours, and how wide it is; 0: nobody knows.
func colored(w io.Writer) (color bool, width int) {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		color = os.Getenv("NO_COLOR") == ""
		width, _, _ = term.GetSize(int(f.Fd()))
	}
	return color, width
}

// paint gives what colours text for w, where w shows colours.
func (a *app) paint(w io.Writer) func(code, s string) string {
	if color, _ := colored(w); color {
		return func(code, s string) string { return "\x1b[" + code + "m" + s + "\x1b[0m" }
	}
	return func(_, s string) string { return s }
}

// version is set by the linker; without it the module's or the commit's is told.
var version = ""

func versionText() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}
