package gateway

import (
	"log/slog"
	"time"
)

// String gives the word that `tap` and the log use.
func (k EventKind) String() string {
	switch k {
	case In:
		return "in"
	case Asked:
		return "asked"
	case Out:
		return "out"
	case Passed:
		return "passed"
	case Set:
		return "set"
	}
	return "invalid"
}

// An EventForm is an Event as `tap` sends it.
type EventForm struct {
	Time      time.Time `json:"time"`
	Kind      string    `json:"kind"`
	Protocol  string    `json:"protocol"`
	Wrapper   string    `json:"wrapper,omitempty"`
	Verb      string    `json:"verb"`
	Server    string    `json:"server,omitempty"`
	Address   string    `json:"address,omitempty"`
	Domain    string    `json:"domain,omitempty"`
	Registers []string  `json:"registers,omitempty"`
	Principal string    `json:"principal,omitempty"`
	Peer      string    `json:"peer,omitempty"`
	Source    string    `json:"source,omitempty"`
	Cursor    string    `json:"cursor,omitempty"`
	TookMS    float64   `json:"took_ms"`
	Size      int       `json:"size"`
	Outcome   string    `json:"outcome"` // "" is success
	Text      string    `json:"text,omitempty"`
}

func (e Event) form() EventForm {
	f := EventForm{
		Time: e.Time, Kind: e.Kind.String(), Protocol: e.Protocol, Wrapper: e.Wrapper, Verb: e.Verb.String(),
		Server: e.Server, Address: e.Address, Domain: e.Domain, Registers: e.Registers, Principal: e.Principal, Peer: e.Peer,
		Source: e.Source, TookMS: float64(e.Took.Microseconds()) / 1000, Size: e.Size, Outcome: e.Outcome, Text: e.Text,
	}
	if e.Cursor.Log != 0 {
		f.Cursor = e.Cursor.String()
	}
	return f
}

// attrs are the keys of a log line.
func (e Event) attrs() []any {
	a := []any{
		"kind", e.Kind.String(), "protocol", e.Protocol, "wrapper", e.Wrapper, "verb", e.Verb.String(), "address", e.Address,
		"principal", e.Principal, "peer", e.Peer, "took", e.Took,
	}
	if len(e.Registers) == 1 {
		a = append(a, "register", e.Registers[0])
	} else if len(e.Registers) > 1 {
		a = append(a, "register", e.Registers)
	}
	if e.Outcome != "" {
		a = append(a, slog.String("outcome", e.Outcome))
	}
	return a
}
