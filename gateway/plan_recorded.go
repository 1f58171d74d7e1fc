package gateway

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// recordedOp is what a plan needs of a line of a recording: JSON Lines, the first a header, each other one an operation.
type recordedOp struct {
	Kind     string            `json:"kind"`
	Wrapper  string            `json:"wrapper"`
	Verb     string            `json:"verb"`
	Server   string            `json:"server"`
	Address  string            `json:"address"`
	Text     *string           `json:"text"`
	Base64   *string           `json:"base64"`
	Type     string            `json:"type"`
	Meta     map[string]string `json:"meta"`
	Omitted  bool              `json:"omitted"`
	Who      string            `json:"principal"`
	Verified bool              `json:"verified"`
	Peer     string            `json:"peer"`
	Parts    []recordedOp      `json:"parts"`
}

const (
	recordingFormat  = "spookgw-recording"
	recordingVersion = 1
	recordingLine    = 97 << 20 // bytes of one line: 16 MiB of which each byte is escaped
	mostRecorded     = 100_000  // different addresses
)

// recorded holds the operations of a recording against both sets of binds: which of them mean something else. It is told
// beside the plan and is no part of its hash: a reload knows nothing of it. Of several at one address the newest counts.
func (p *planning) recorded(path string) ([]PlanStep, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ops, err := readRecording(f)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", engine.ErrInvalid, path, err)
	}
	steps := []PlanStep{}
	for _, r := range ops {
		op, err := r.operation()
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", engine.ErrInvalid, path, err)
		}
		was, before := p.meaning(p.old, r, &op)
		now, after := p.meaning(p.new, r, &op)
		if was == now {
			continue
		}
		s := PlanStep{Where: "operation", What: "change", Wrapper: r.Wrapper, Server: r.Server, Address: r.Address, Before: planText(was), After: planText(now), Note: r.Verb}
		switch {
		case after == nil:
			s.What, s.bind = "delete", before
		case before == nil:
			s.What, s.bind = "create", after
		default:
			s.bind = after
		}
		if s.bind != nil {
			s.Bind = s.bind.Source()
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// meaning is what an operation says of registers, in words, and the bind that makes it so; nil: it is refused or passes.
func (p *planning) meaning(set *mapping.Set, r *recordedOp, op *wrappers.Operation) (string, *mapping.Bind) {
	if op.Verb == wrappers.Read || op.Verb == wrappers.List {
		t, ok := set.At(r.Wrapper, op.Server, op.Address)
		if !ok {
			return "no bind has it", nil
		}
		return t.Register, t.Bind
	}
	effects, err := set.In(r.Wrapper, op, p.env(&engine.StateBlock{}))
	switch {
	case errors.Is(err, wrappers.ErrUnmapped):
		return "no bind has it", nil
	case err != nil:
		return "refused: " + wrappers.Reason(err), nil
	case len(effects) == 0:
		return "it passes by: `when` is false", nil
	}
	var parts []string
	for _, e := range effects {
		text := e.Register
		if e.Delete {
			text += " goes"
		}
		for _, f := range e.Fields {
			switch name := f.Field; {
			case f.Value.IsAbsent():
				text += " " + name + " cleared"
			case f.Add:
				text += " " + name + "+=" + string(f.Value.AppendJSON(nil))
			default:
				text += " " + name + "=" + string(f.Value.AppendJSON(nil))
			}
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; "), effects[0].Bind
}

// readRecording gives the newest operation of each verb at each address, by wrapper and address.
func readRecording(from io.Reader) ([]*recordedOp, error) {
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 64<<10), recordingLine)
	newest := map[string]*recordedOp{}
	for n := 1; lines.Scan(); n++ {
		if n == 1 {
			var h struct {
				Format  string `json:"format"`
				Version int    `json:"version"`
			}
			if err := json.Unmarshal(lines.Bytes(), &h); err != nil || h.Format != recordingFormat || h.Version > recordingVersion {
				return nil, fmt.Errorf("not a recording that this version reads: make one with `spookgw record`")
			}
			continue
		}
		r := &recordedOp{}
		if err := json.Unmarshal(lines.Bytes(), r); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if r.Omitted {
			continue // nobody can tell what it said
		}
		newest[r.key()] = r
		if len(newest) > mostRecorded {
			return nil, fmt.Errorf("more than %d different addresses: record for a shorter time", mostRecorded)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	out := make([]*recordedOp, 0, len(newest))
	for _, r := range newest {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *recordedOp) int { return strings.Compare(a.key(), b.key()) })
	return out, nil
}

func (r *recordedOp) key() string {
	key := strings.Join([]string{r.Wrapper, r.Server, r.Address, r.Verb}, "\x00")
	for i := range r.Parts {
		key += "\x01" + r.Parts[i].key()
	}
	return key
}

func (r *recordedOp) operation() (wrappers.Operation, error) {
	op := wrappers.Operation{
		Server: r.Server, Address: r.Address, Payload: wrappers.Payload{Type: r.Type, Meta: r.Meta},
		Who: wrappers.Who{Principal: r.Who, Verified: r.Verified, Peer: r.Peer},
	}
	for v := wrappers.Read; v <= wrappers.Message; v++ {
		if v.String() == r.Verb {
			op.Verb = v
		}
	}
	switch {
	case r.Text != nil:
		op.Payload.Raw = []byte(*r.Text)
	case r.Base64 != nil:
		raw, err := base64.StdEncoding.DecodeString(*r.Base64)
		if err != nil {
			return op, err
		}
		op.Payload.Raw = raw
	}
	for i := range r.Parts {
		part, err := r.Parts[i].operation()
		if err != nil {
			return op, err
		}
		op.Parts = append(op.Parts, part)
	}
	return op, nil
}
