package trial

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spooksystems/gateway/gateway"
	"github.com/spooksystems/gateway/mapping/recording"
	"github.com/spooksystems/gateway/wrappers"
)

// Became is what came of a recorded operation.
type Became string

// What an operation may become.
const (
	Mapped   Became = "mapped"   // registers changed
	Unmoved  Became = "unmoved"  // a bind maps it, and nothing changed
	Answered Became = "answered" // a question
	Unmapped Became = "unmapped" // no bind maps it
	Refused  Became = "refused"
	Parked   Became = "parked" // the server took it, and no register could
	Skipped  Became = "skipped"
)

// A Replayed is a recorded operation and what became of it.
type Replayed struct {
	Line      int           `json:"line"` // of the recording
	Time      time.Time     `json:"time"`
	Protocol  string        `json:"protocol"`
	Wrapper   string        `json:"wrapper"`
	Verb      string        `json:"verb"`
	Server    string        `json:"server,omitempty"`
	Address   string        `json:"address"`
	Became    Became        `json:"became"`
	Reason    string        `json:"reason,omitempty"` // of Refused, Parked, Skipped
	Registers []NowRegister `json:"registers,omitempty"`
	Told      []NowTold     `json:"told,omitempty"`
	Dropped   int           `json:"dropped,omitempty"` // members that no field takes
}

// A NowRegister is a register that changed.
type NowRegister struct {
	Register string          `json:"register"`
	Value    json.RawMessage `json:"value,omitempty"` // absent: it is gone, or it waits
	Waiting  int             `json:"waiting,omitempty"`
}

// A NowTold is an address that was told.
type NowTold struct {
	Protocol string  `json:"protocol"`
	Wrapper  string  `json:"wrapper"`
	Server   string  `json:"server,omitempty"`
	Address  string  `json:"address"`
	Text     *string `json:"text,omitempty"`
	Base64   *string `json:"base64,omitempty"` // instead of Text where it is not UTF-8
	Gone     bool    `json:"gone,omitempty"`
}

// Replay performs a recorded operation, at the time it was made.
func (t *Trial) Replay(ctx context.Context, line int, o *recording.Operation) (Replayed, error) {
	out := Replayed{Line: line, Time: o.Time, Protocol: o.Protocol, Wrapper: o.Wrapper, Verb: o.Verb, Server: o.Server, Address: o.Address}
	info, why := t.wrapperFor(o)
	op := o.Op()
	switch {
	case why != "":
	case o.Omitted:
		why = "the payload was not recorded"
	case o.Outcome == recording.NoNews:
		why = "it was no news"
	case o.Outcome == recording.NotTaken:
		why = "its server did not take it"
	case op.Verb == wrappers.List:
		why = "a listing"
	}
	if why != "" {
		out.Became, out.Reason = Skipped, why
		return out, nil
	}
	out.Wrapper = info.Name
	t.resolve(info, &op)
	t.mu.Lock()
	ahead := o.Time.Sub(t.now)
	t.mu.Unlock()
	var passed Outcome
	var err error
	if ahead > 0 {
		if passed, err = t.Pass(ctx, ahead); err != nil {
			return out, err
		}
	}
	got, err := t.Do(ctx, info.Name, op)
	if err != nil {
		return out, err
	}
	got.Deltas, got.Told = append(passed.Deltas, got.Deltas...), append(passed.Told, got.Told...)
	out.Dropped = got.Dropped
	for i := range got.Deltas {
		d := &got.Deltas[i]
		n := NowRegister{Register: d.After.Register, Waiting: d.After.Waiting}
		if d.After.Exists && !d.Pending {
			n.Value = d.After.Value.AppendJSON(nil)
		}
		out.Registers = append(out.Registers, n)
	}
	for _, told := range got.Told {
		if !told.Echo {
			out.Told = append(out.Told, nowTold(&told))
		}
	}
	switch {
	case errors.Is(got.Err, wrappers.ErrUnmapped), got.Passed:
		out.Became = Unmapped
	case errors.Is(got.Err, wrappers.ErrNotFound) && (op.Verb == wrappers.Read || op.Verb == wrappers.Delete):
		// What was there before the recording is not here.
		out.Became, out.Reason = Answered, wrappers.Reason(got.Err)
	case got.Err != nil:
		out.Became, out.Reason = Refused, wrappers.Reason(got.Err)
	case len(got.Parked) > 0:
		out.Became, out.Reason = Parked, got.Parked[0].Reason
	case !op.Verb.Writes() && len(op.Parts) == 0:
		out.Became = Answered
	case len(got.Deltas) > 0:
		out.Became = Mapped
	default:
		out.Became = Unmoved
	}
	return out, nil
}

func nowTold(told *Told) NowTold {
	n := NowTold{Protocol: told.Protocol, Wrapper: told.Wrapper, Server: told.Server, Address: told.Address, Gone: told.Gone}
	switch raw := told.Payload.Raw; {
	case told.Gone:
	case utf8.Valid(raw):
		s := string(raw)
		n.Text = &s
	default:
		s := base64.StdEncoding.EncodeToString(raw)
		n.Base64 = &s
	}
	return n
}

// wrapperFor finds who has an operation: the wrapper of that name, or else the only one that speaks the protocol.
func (t *Trial) wrapperFor(o *recording.Operation) (*gateway.LinkInfo, string) {
	var only *gateway.LinkInfo
	n := 0
	for i := range t.o.Wrappers {
		w := &t.o.Wrappers[i]
		if w.Protocol.Name != o.Protocol {
			continue
		}
		if w.Name == o.Wrapper {
			return w, ""
		}
		only = w
		n++
	}
	switch n {
	case 0:
		return nil, fmt.Sprintf("no wrapper speaks %s", o.Protocol)
	case 1:
		return only, ""
	}
	return nil, fmt.Sprintf("no wrapper is called %q, and %d speak %s", o.Wrapper, n, o.Protocol)
}

// resolve drops a query that no bind looks at: without one it is none of the address.
func (t *Trial) resolve(info *gateway.LinkInfo, op *wrappers.Operation) {
	path, _, found := strings.Cut(op.Address, "?")
	if found && info.Protocol.Syntax.Query && !t.set().Maps(info.Name, op.Verb, op.Server, op.Address) {
		op.Address = path
	}
}
