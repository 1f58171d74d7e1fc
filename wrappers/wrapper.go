// Package wrappers says what a protocol wrapper is: the operations it reports, the link it
// reports them over, and the changes it carries back to its peers.
//
// A wrapper sees neither the engine nor the mapping language nor another wrapper. All it knows of
// shared state is its Link.
package wrappers

import (
	"context"
	"iter"
	"time"
)

// A Wrapper speaks one protocol to its peers.
type Wrapper interface {
	// Serve works until ctx ends, then drains within Config.Drain and returns nil. Any other
	// return is a failure of the whole wrapper; trouble with one peer ends that peer's session
	// and nothing else.
	Serve(ctx context.Context, link Link) error
}

// A Link is a wrapper's only door to shared state. It is safe for concurrent use.
//
// Errors wrap the sentinels of this package; a wrapper turns them into its protocol's codes in
// errors.go and shows peers nothing of the chain behind them.
type Link interface {
	// Maps tells whether an operation of this verb at this address concerns a register. It
	// allocates nothing, so a relay may ask it of every frame before it keeps a body.
	Maps(verb Verb, server, address string) bool

	// May refuses, with ErrDenied, what a peer may not do at an address: nil, it may, or no bind has the address. Do, Start,
	// Begin and Follow with WriteBack ask by themselves. A wrapper asks before it forwards a write that it does not announce,
	// and before it tells a peer of a Change: Follow with Notify does not know who listens. It is quick.
	May(verb Verb, server, address string, who Who) error

	// Do performs an operation on shared state: for a virtual wrapper. A write is durable when
	// Do returns. ErrUnmapped: no bind has this address.
	Do(ctx context.Context, op Operation) (Result, error)

	// Scan yields the addresses below a prefix with what Read would give for each, in no order of addresses. Where the
	// protocol's Syntax has Keys, the prefix is that of a table's rows, "public.sensors?", behind which some of the
	// columns of the key may stand ("public.sensors?site=berlin"), so that the others need not be looked at; what does not
	// have these values may come nonetheless. Each is as committed when the scan comes to it. Where Who is zero it is the
	// wrapper that looks, for itself, and sees all: it asks May before it tells a peer. ErrUnmapped: no bind has
	// addresses there.
	Scan(ctx context.Context, op Operation) iter.Seq2[Item, error]

	// Start is Do for a write whose caller waits for the disk later, so that a peer's messages keep
	// their order and share syncs: the write has its place, behind all that were started before it,
	// when Start returns, and is durable when wait returns, which must be called once. Payload is
	// the caller's again when Start returns.
	Start(ctx context.Context, op Operation) (wait func() (Result, error), err error)

	// Begin announces a write that a relay is about to forward to its server and for which no
	// feed will speak. The intent is durable and the address belongs to the caller when it
	// returns, so at most one write per address is in flight; a caller holds at most one intent
	// at a time or sorts its addresses. ErrUnmapped: let it pass, nothing was noted.
	Begin(ctx context.Context, op Operation) (Intent, error)

	// Seen reports what a server now says: a feed's events, a poll, a read-back. It returns when
	// all of it is durable together with at.Keep. Observations of one address must be reported
	// in the server's order. What equals the baseline, and what the gateway itself wrote there,
	// is no news and makes no candidate.
	Seen(ctx context.Context, at Position, what []Observation) error

	// Follow yields what changed for the addresses of this wrapper.
	//
	// With WriteBack it resumes at the wrapper's own stored cursor and is level-triggered: it
	// yields an address with the newest state of what its bind maps, never an address that has
	// an unsettled change, and only what differs from what the server last showed. Every such
	// Change must be settled, from any goroutine. A bind with events yields each change, in order.
	//
	// With Notify it yields every committed change in commit order, starting after from (the zero
	// Cursor: after whatever was committed when Follow was called), none of which may be settled.
	// A cursor older than the log is answered by a snapshot, marked as such, then live.
	//
	// The sequence ends with an error when ctx ends or the wrapper is being stopped.
	Follow(ctx context.Context, mode FollowMode, from Cursor) iter.Seq2[Change, error]

	// Settle says what became of a Change yielded by Follow with WriteBack.
	Settle(ctx context.Context, c Change, e Effect) error

	// Patterns lists the address templates of this wrapper's binds, and a channel that is closed
	// when a reload has changed them.
	Patterns() ([]Pattern, <-chan struct{})

	// Keep stores small durable records of the wrapper's own (sessions, feed positions), and
	// Kept lists those whose key has the prefix, in key order. A nil Value deletes.
	Keep(ctx context.Context, records ...Record) error
	Kept(ctx context.Context, prefix string) iter.Seq2[Record, error]

	// Tap shows an operation that passes without concerning a register (unmapped, refused) to
	// `spookgw tap`. Cheap when nobody watches.
	Tap(op Operation, outcome string)

	// Recording tells whether somebody records what passes, payloads included: only then a wrapper gives Tap also what
	// it would not look at, whole. It allocates nothing.
	Recording() bool

	// Trouble has `spookgw status` say what keeps the wrapper from a part of its work, and what helps, until the same
	// subject (a table, "feed") comes with an empty text. It is for what lasts, and for few subjects.
	Trouble(about, text string)

	// Count adds to a counter of this wrapper, shown in /metrics as
	// spookgw_wrapper_events_total{wrapper,event}: "sessions", "refused_auth", "oversized", …
	Count(event string, n int)
}

// An Intent is a write on its way to a real server.
type Intent interface {
	// Commit: the server accepted it. The candidate is durable, and the intent gone with it, when
	// Commit returns. as is the operation as the server took it (a created address, a version).
	Commit(ctx context.Context, as Operation) (Result, error)
	// Abort: the server did not take it. The address is free again.
	Abort()
	// Unknown: the connection broke between request and answer. The link reads the address back
	// where it can; what it can't is shown as outcome unknown.
	Unknown()
}

// Verb is what an operation does to its address.
type Verb uint8

const (
	Read    Verb = iota + 1 // one address
	List                    // what stands directly below a prefix that ends with the separator ("/v1/berlin/", "" for all)
	Put                     // replaces the whole: mapped fields that it doesn't carry are cleared
	Merge                   // touches what it mentions; null clears
	Delete                  // removes what the bind maps
	Rename                  // Address to To
	Message                 // one message of a stream: a Merge that says something happened
)

var verbNames = [...]string{Read: "read", List: "list", Put: "put", Merge: "merge", Delete: "delete", Rename: "rename", Message: "message"}

// String gives the name that HCL's `verb`, logs and history use.
func (v Verb) String() string {
	if int(v) < len(verbNames) && v > 0 {
		return verbNames[v]
	}
	return "invalid"
}

// Writes tells whether the verb changes state.
func (v Verb) Writes() bool { return v >= Put }

// An Operation is one thing a peer did or asked for, in the protocol's own terms.
type Operation struct {
	Verb    Verb
	Server  string // which of several upstreams, "" with one
	Address string // canonical, as Syntax.Canonical leaves it: "sensors/berlin/oven-3", "/v1/berlin/oven-3"
	To      string // Rename's target
	Payload Payload
	If      Precondition
	// Parts are several writes that are one: all or nothing; then Verb and Address are unset. One with the verb Read writes
	// nothing and only has its precondition checked together with the others.
	Parts []Operation
	Who   Who
	Tag   uint64 // of the wrapper's choice; comes back in the Change this operation causes, while it is live
	Limit int    // List: at most so many items, 0 for the link's own limit
	After string // List: items behind this address
	// Version is the server's own version after the write (an ETag), for Intent.Commit only: the
	// baseline keeps it, and Change.Previous gives it back. "" where the server has none.
	Version Version
}

// A Payload is a body as the peer sent it or is to get it.
type Payload struct {
	Raw  []byte            // owned by the receiver of the call for its duration; copy to keep
	Type string            // media type where the protocol has one, else ""
	Meta map[string]string // headers, properties: lower-case names; `meta` in HCL
}

// A Precondition is checked together with the commit.
type Precondition struct {
	Match  []Version // one of these must be current; Any: there must be one
	Differ []Version // none of these may be current; Any: there must be none
}

// Version names one committed value at an address; opaque outside the link (a StateID).
type Version string

// Any in a Precondition stands for whatever is there (`*` in HTTP).
const Any Version = "*"

// Who did it.
type Who struct {
	Principal string // user name, or "" for nobody in particular
	Verified  bool   // the gateway or the server checked it
	Peer      string // network address, client id
}

// A Result answers an Operation.
type Result struct {
	Payload Payload // Read; of a write what `reply` of its bind makes, Raw nil where it makes nothing
	Version Version // of the state read, or after the write
	// Cursor is the commit's for writes; "" if nothing came of it (`when` was false), so that no
	// Change will follow. For Read and List it is a place whose changes the answer holds already.
	Cursor  Cursor
	Items   []Item // List, in address order
	More    bool   // List: there are more behind the last item
	Created bool   // Put, Merge: nothing was there before
	// Waiting, for writes: it is durable, and what readers see is as before until it is collapsed. Version is that of
	// what they see. No Change follows from the write itself, also not to the peer that made it.
	Waiting bool
	// Modified, for Read, is when the newest write was made of what is shown, by the clock where it was made; zero: unknown.
	Modified time.Time
}

// An Item is one address of a List.
type Item struct {
	Address string
	Prefix  bool // a prefix with addresses below it rather than a register; Address ends with the separator
	Version Version
	Size    int
	Payload Payload // Scan: what the address shows
	// Modified, for Scan, is as in a Result.
	Modified time.Time
}

// A Cursor is a place in the gateway's commit log: opaque, comparable for equality only.
type Cursor string

// FollowMode is one of the two reasons to follow.
type FollowMode uint8

const (
	WriteBack FollowMode = iota + 1 // to write changes into a server
	Notify                          // to tell subscribers
)

// A Change is news for one address of a wrapper.
type Change struct {
	Server   string
	Address  string
	Payload  Payload // of what the bind maps, the whole newest state
	Gone     bool    // the register went, or the last field that the bind maps
	Version  Version
	Previous Version // WriteBack: what the server last showed, "" if unknown: for conditional writes
	Cursor   Cursor
	Snapshot bool // state rather than news
	Create   bool // WriteBack: the server is not known to have this address
	// From, WriteBack with Create, of a Protocol that Renames: what was at this address is at Address now. If the server has
	// something there and nothing at Address, it is to be moved, so that it keeps what no bind maps; Onto lays the change over
	// it, and Payload is it as it is made anew. Both addresses are the caller's until it settles. "": it was not moved.
	From string
	// ReadBack, WriteBack only: nothing is to be written; report with Seen what the server says at
	// this address (a whole document, or that it is gone), then settle. It comes before the first
	// write to an address and after a write whose outcome is unknown. A server that can't be
	// asked: settle as Parked.
	ReadBack bool
	// Onto, WriteBack only, lays the change over the document that the server has now, keeping in it
	// what no bind maps. Nil: the bind maps all there is, and Payload stands for the whole.
	Onto    func(doc Payload) (Payload, error)
	Echo    bool // Notify: caused by an operation at this very address of this very wrapper
	Tag     uint64
	Key     string  // idempotence key, for binds with events
	Options Options // the bind's protocol attributes: retain, qos, methods
	Ticket  uint64  // of the link: hand the Change back to Settle as it came
	// Modified, for Notify, is when the write was made that the change is of; zero: unknown.
	Modified time.Time
}

// An Outcome is one of the ends a write-back can come to.
type Outcome uint8

const (
	Done   Outcome = iota + 1 // the server has it
	Retry                     // transient: again after a backoff; an Err of ErrConflict: the server has changed, read it back first
	Parked                    // permanent: shown by `spookgw parked`, retried on demand
)

// An Effect says what became of a Change.
type Effect struct {
	Outcome  Outcome
	Err      error    // Retry, Parked: why, in the server's words
	Version  Version  // Done: the server's version afterwards, where it has one
	AsStored *Payload // Done: the server's own rendering, where it returned one
}

// A Position says where in a feed or poll a call of Seen stands.
type Position struct {
	Feed bool // an ordered feed that will show every change, own writes included
	// Asked, with Feed: the server is asked what has changed, and says what it has now. What came between two answers is not
	// shown, own writes among it. An answer that a write may have overtaken is passed over, and comes again as a ReadBack: so
	// Observation.Began has to be set where it is not one.
	Asked    bool
	Snapshot Snapshot // part of a full listing
	Keep     []Record // stored after all of what was seen
}

// Snapshot marks calls of Seen that list everything a server has.
type Snapshot uint8

const (
	NoSnapshot   Snapshot = iota
	SnapshotPart          // more of the listing follows
	SnapshotEnd           // with this call the listing is whole: what registers have and it did not show is filled
)

// An Observation is what a server says of one address.
type Observation struct {
	Server  string
	Address string
	// Verb is Put (a whole document), Merge, Message, Delete (it is gone), or Rename: it is at To now, where it is Payload, or
	// what it was known to be if that is empty.
	Verb    Verb
	To      string
	Payload Payload
	// More, in a feed: the server committed this one and the next as one, so that both become one write, and readers see all
	// of it or nothing. An address may come several times. Beyond the limits of a write it becomes several.
	More    bool
	Version Version
	Who     Who
	Tag     uint64
	// Began is when the server was asked, for a poll: what was written there since makes the
	// answer stale, and it is passed over. Zero in a feed that is not Asked and for a ReadBack.
	Began time.Time
	Wire  bool     // matched to a peer's write on the wire: news even if it equals the baseline
	Keep  []Record // stored in one commit with what this observation becomes
	Ours  bool     // bears this gateway's own mark
	// Foreign, in a feed: somebody else has written it, after all that the gateway was told there was taken.
	Foreign bool
	// Retained, of a Message or Merge: the server keeps the payload in place of all that it kept there (MQTT's RETAIN). What
	// it does not mention is not touched, and the server is told it again.
	Retained bool
}

// A Record is a small durable record of a wrapper's own.
type Record struct {
	Key   string
	Value []byte // nil deletes
}

// A Pattern is one bind's address template.
type Pattern struct {
	Bind     string // stable name of the bind
	Server   string // "" for any
	Segments []Segment
	Suffix   string // what follows the path in protocols that have more (a query); as written
	In, Out  bool
	Options  Options // "poll_ms" among them, in milliseconds, where the bind says how often it is asked for
	Hash     string  // names all that the bind means
	// Members are those of the payload that the bind speaks of, by name, where the protocol's
	// Syntax has Keys or Entries. Open: any others as well.
	Members []Member
	Open    bool
}

// A Member is one member of a payload, as a bind speaks of it.
type Member struct {
	Name string
	Type string // "string", "number", "bool", "bytes", "time", "list", "object", or "any"
	Key  bool   // it stands in the address
	In   bool
	Out  bool
}

// A Segment is what stands between two separators of a template.
type Segment struct {
	Literal string // whole segment, when Kind is LiteralSegment; OneSegment: what stands before its first capture
	Kind    SegmentKind
}

// SegmentKind tells how much a segment matches.
type SegmentKind uint8

const (
	LiteralSegment SegmentKind = iota + 1
	OneSegment                 // one segment with at least one capture in it
	RestSegments               // one or more whole segments
)
