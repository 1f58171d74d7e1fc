// Package mapping turns HCL files into a Set that says which address in each protocol is which
// register, and translates both ways: an Operation into Effects on registers, a register's state
// into the Payload at an address. It does no I/O after Load and is safe for concurrent use.
package mapping

import (
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

// A WrapperInfo is what Load must know of one wrapper block.
type WrapperInfo struct {
	Protocol wrappers.Protocol
	Name     string
	Base     string   // binds are relative to it
	Servers  []string // keys of its upstreams, when there are several
	Upstream bool     // relay or attached
	Listens  bool     // relay or virtual
	Implied  bool     // stands for one of any kind, where no gateway.hcl says of which
	// Reaches names the servers behind it, as host:port and path: what one wrapper writes to a server, another that reaches it
	// hears from there.
	Reaches []string
}

// A Target is the place an address means.
type Target struct {
	Bind     *Bind
	Register string
	// Address is the place itself, as Places gives it: without a query that the bind doesn't
	// name, and with one that it does in the bind's own order.
	Address string
	// Document is set where the address holds a document of many registers; then Register is "".
	Document *Document
}

// A Place is an address at which a register appears.
type Place struct {
	Bind    *Bind
	Wrapper string // "" where the bind has only one
	Server  string
	Address string
}

// A FieldValue is one field as an operation or a server gives it. An absent Value clears the field.
type FieldValue struct {
	Field string // "" for a register that is one value
	Value engine.Value
	Add   bool // by(): the field grows by the value, of which its writer need not have seen anything
}

// An Effect is what one operation means for one register.
type Effect struct {
	Bind     *Bind
	Register string
	Fields   []FieldValue // in field order, each at most once
	Whole    bool         // fields that the bind maps and Fields doesn't name are cleared
	Delete   bool         // the address is gone; what that means is Bind.OnDelete's to say
	Absent   bool         // the address is gone, and Fields say what that means
	Marked   bool         // with Delete: the document is there, and says that its register is gone
	Dropped  int          // members that no field takes
	// Document, without a Register: the address holds a whole document, and what it says of each of its registers stands
	// in effects of their own. With Whole those that neither they nor Passed name are gone from it; with Delete all are.
	Document *Document
	Passed   []string // registers of rows that `when` passed by
}

// An Env is what expressions may know beyond the operation itself.
type Env struct {
	Now      time.Time
	New      func() string                               // what new() gives next; nil: a UUID of version 7
	Register func(name string) (engine.StateBlock, bool) // for reg("…"); nil: none exist
}

// An Under narrows a listing: registers with this prefix may have addresses below the one asked for.
type Under struct {
	Bind           *Bind
	RegisterPrefix string
}
