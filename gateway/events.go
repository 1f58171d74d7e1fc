package gateway

import (
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

// An Event is one thing that happened on a link, for `spookgw tap`, the demo's live lines, the
// metrics and the log. It never holds a payload's secrets: payloads appear only as Size.
type Event struct {
	Time      time.Time
	Kind      EventKind
	Protocol  string
	Wrapper   string
	Verb      wrappers.Verb
	Server    string
	Address   string
	Domain    string // of the registers
	Registers []string
	Principal string
	Peer      string
	Source    string        // mapping file:line of the bind
	Cursor    engine.Cursor // of the commit it made or tells of
	Took      time.Duration // In: until durable. Out: since the commit it tells of became visible
	Size      int
	Outcome   string // "" is success; else the error for people
	Text      string // what the register became, short, for the demo
}

// EventKind tells what an Event is about.
type EventKind uint8

const (
	In     EventKind = iota + 1 // an operation became a candidate, or was refused
	Asked                       // a read or list was answered
	Out                         // a change was written to a server, or told to subscribers
	Passed                      // an operation passed without concerning a register
	Set                         // a register was written over the daemon socket
)
