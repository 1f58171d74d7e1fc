// Package gateway is the running process: it gives each wrapper a link to shared state, starts
// and drains them, and answers the operator. Read link.go first: it is one operation's whole path.
package gateway

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// Store is what the gateway needs of an engine.
type Store interface {
	engine.State
	engine.Keeper
	engine.Submitter
	// Own tells whether an origin is this node's, of this run or an earlier one.
	Own(engine.OriginID) bool
}

// A Generation is one configuration in force. Operations end under the one they began with.
type Generation struct {
	Number uint64
	Hash   string
	Set    *mapping.Set
	Access *Policy // nil: whoever has logged on may
}

// Links are the doors of all wrappers to one Store.
type Links struct {
	store Store
	log   *slog.Logger
	emit  func(Event) // never nil, never blocks
	count func(wrapper, event string, n int)
	now   func() time.Time
	paced bool
	site  string
	gen   atomic.Pointer[Generation]
	// recorders get operations whole; nil: nobody can record.
	recorders *recorderHub
	linkSet
}

// LinksOptions are what Links are made of.
type LinksOptions struct {
	Store Store
	Log   *slog.Logger
	Emit  func(Event)
	Count func(wrapper, event string, n int)
	Now   func() time.Time // what expressions know as `now`; nil: the wall clock
	// Unpaced tells at once what `every` holds back: for trials, whose clock is not that of the wall.
	Unpaced bool

	// Site is what the gateway is called among those of its domains.
	Site string

	recorders *recorderHub
}

// A LinkInfo is what a link knows of its wrapper block.
type LinkInfo struct {
	Protocol wrappers.Protocol
	Name     string
	Relay    bool // listen and upstream
	Attached bool // upstream alone
	// Feed names the gateway that attends to the server, of several that could; "": this one.
	Feed string
	// CaptureWait bounds how long a relay's peer waits for the feed.
	CaptureWait time.Duration
	// Access of peers nobody authenticated, in a virtual wrapper; AnonymousSet: the users decide otherwise.
	Anonymous wrappers.Access
}

// A ParkedItem is an operation that could not be applied.
type ParkedItem struct {
	ID       string    `json:"id"`
	Wrapper  string    `json:"wrapper"`
	Protocol string    `json:"protocol"`
	Way      string    `json:"way"` // "in" or "out"
	Server   string    `json:"server,omitempty"`
	Address  string    `json:"address"`
	Register string    `json:"register,omitempty"`
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
	Tries    int       `json:"tries"`
	Retrying bool      `json:"retrying"` // transient: tried again by itself
	Unknown  bool      `json:"unknown"`  // outcome unknown: a write whose answer never came
}

// ContactStatus is the state of one bind's first contact.
type ContactStatus struct {
	Wrapper   string   `json:"wrapper"`
	Bind      string   `json:"bind"`  // file:line
	State     string   `json:"state"` // "waiting" for the server's listing, "settling", "conflict"
	Conflicts []string `json:"conflicts,omitempty"`
	Detail    string   `json:"detail,omitempty"`
}

// LagStatus is how far a wrapper's write-back is behind.
type LagStatus struct {
	Wrapper string `json:"wrapper"`
	Behind  uint64 `json:"behind"`  // commits not looked at yet
	Waiting int    `json:"waiting"` // addresses with an unsettled change
}
