package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/gateway"
	"github.com/spooksystems/gateway/mapping/recording"
)

func recordVerb(a *app) *cobra.Command {
	var protocol, wrapper string
	var lasts time.Duration
	var count int
	var force bool
	c := &cobra.Command{
		Use:   "record FILE",
		Short: "Write operations into a file as they pass",
		Long: `Writes each operation that passes the running gateway into FILE, whole, until Ctrl-C: what is mapped,
what no bind maps, what is refused, and what servers show. "replay" tries the file on mappings, "init
--from-traffic" proposes mappings by it. "-" is the standard output.

Passwords, tokens, cookies and whatever else has the name of a secret are replaced by *** within the
gateway. All other content is in the file as it passed: it is made readable for its owner alone.`,
		Example: "  spookgw record --for 1m traffic.jsonl\n  spookgw record --count 100 --protocol mqtt traffic.jsonl",
		Args:    cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&protocol, "protocol", "", "only of this protocol")
	c.Flags().StringVar(&wrapper, "wrapper", "", "only of this wrapper")
	c.Flags().DurationVar(&lasts, "for", 0, "end after so long, as in 1m (default: Ctrl-C)")
	c.Flags().IntVar(&count, "count", 0, "end after so many operations")
	c.Flags().BoolVar(&force, "force", false, "replace FILE if it is there")
	c.RunE = func(c *cobra.Command, args []string) error {
		switch {
		case lasts < 0:
			return usage("--for is below zero")
		case count < 0:
			return usage("--count is below zero")
		}
		return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
			out, err := a.recordingFile(args[0], force)
			if err != nil {
				return err
			}
			ctx, end := context.WithCancel(ctx)
			defer end()
			t := tape{app: a, out: out, name: args[0], most: count}
			if lasts > 0 {
				t.begun = func() { time.AfterFunc(lasts, end) }
			}
			err = t.run(ctx, client.Subscribe(ctx, "record", "record", map[string]any{"protocol": protocol, "wrapper": wrapper}))
			err = errors.Join(err, out.Close())
			if err != nil {
				return fmt.Errorf("after %d operations: %w", t.operations, err)
			}
			return t.end()
		})
	}
	return c
}

// recordingFile makes the file, for its owner alone.
func (a *app) recordingFile(name string, force bool) (io.WriteCloser, error) {
	if name == "-" {
		return stays{a.out}, nil
	}
	flag := os.O_EXCL
	if force {
		flag = os.O_TRUNC
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|flag, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s is there already; --force replaces it", name)
	}
	return f, err
}

// stays is an output that others use after it.
type stays struct{ io.Writer }

func (stays) Close() error { return nil }

// A tape writes what the gateway sends into a file.
type tape struct {
	app        *app
	out        io.Writer
	name       string
	most       int    // operations; 0: no end
	begun      func() // the gateway records; nil: nobody needs to know
	operations int
	masked     int
	lost       uint64

	writer *recording.Writer
	pieces []byte // of an operation that is longer than a message
}

// maxPieces bounds what a gateway may have this program put together.
const maxPieces = 8 * recording.MaxPayload

func (t *tape) run(ctx context.Context, messages func(func(json.RawMessage, error) bool)) error {
	for raw, err := range messages {
		if interrupted(ctx, err) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.take(raw); err != nil {
			return err
		}
		if t.most > 0 && t.operations >= t.most {
			return nil
		}
	}
	return nil
}

func (t *tape) take(raw json.RawMessage) error {
	var m gateway.RecordForm
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	switch {
	case m.Header != nil:
		if m.Header.Version != recording.Version {
			return fmt.Errorf("the gateway records in version %d, this program in %d", m.Header.Version, recording.Version)
		}
		var err error
		t.writer, err = recording.NewWriter(t.out, *m.Header)
		if err == nil {
			t.app.say("Recording into %s; Ctrl-C ends", t.name)
			if t.begun != nil {
				t.begun()
			}
		}
		return err
	case m.Operation != nil:
		return t.write(m.Operation)
	}
	if len(t.pieces)+len(m.Piece) > maxPieces {
		return fmt.Errorf("an operation of more than %d bytes", maxPieces)
	}
	if t.pieces = append(t.pieces, m.Piece...); m.More {
		return nil
	}
	var op recording.Operation
	err := json.Unmarshal(t.pieces, &op)
	t.pieces = nil
	if err != nil {
		return err
	}
	return t.write(&op)
}

func (t *tape) write(op *recording.Operation) error {
	if t.writer == nil {
		return errors.New("the gateway sent an operation before the header")
	}
	if op.Lost > 0 {
		t.lost += op.Lost
		t.app.say("%d operations passed too fast to be recorded", op.Lost)
	}
	if op.Masked {
		t.masked++
	}
	t.operations++
	return t.writer.Write(op)
}

// end says what was recorded.
func (t *tape) end() error {
	if t.app.json && t.name != "-" {
		return t.app.print(map[string]any{"file": t.name, "operations": t.operations, "masked": t.masked, "lost": t.lost})
	}
	text := fmt.Sprintf("%d operations recorded", t.operations)
	if t.masked > 0 {
		text += fmt.Sprintf(", %d with something masked", t.masked)
	}
	if t.lost > 0 {
		text += fmt.Sprintf(", %d lost", t.lost)
	}
	t.app.say("%s", text)
	return nil
}
