// Package engine holds shared state: registers that candidates collapse into, their history, and
// the log by which observers follow them. It knows no protocol and no HCL.
//
// This file is the vocabulary and the interfaces. The pure core (values, the causal dot store,
// the fold) is engine/lattice; the disk is engine/store; Engine in sequencer.go puts them together.
package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/spooksystems/gateway/engine/lattice"
)

// The core's nouns, by the names the rest of the gateway uses.
type (
	EndpointID   = lattice.EndpointID   // who writes: 64 bytes, minted once per node
	Origin       = lattice.Origin       // (EndpointID, incarnation)
	OriginID     = lattice.OriginID     // 16 bytes that stand for an Origin in dots and on disk
	Dot          = lattice.Dot          // (origin, seq): names one candidate for ever
	Stamp        = lattice.Stamp        // hybrid logical clock: 48 bits of milliseconds, 16 of counter
	Value        = lattice.Value        // null, bool, int64, decimal, string, bytes, list, object, set
	QCandidate   = lattice.QCandidate   // one write, not yet resolved
	QStateVector = lattice.QStateVector // per origin, the highest seq applied
	StateID      = lattice.StateID      // rank.digest
	Cause        = lattice.Cause        // who did it, and through what
	CollapseRule = lattice.Rule         // how the entries of a field become its value
	CommitMode   = lattice.CommitMode   // when candidates collapse
	Retention    = lattice.Retention    // how long history is kept
	Declaration  = lattice.Declaration  // how the registers of one template collapse
	FieldDots    = lattice.FieldDots    // the live entries behind one field
	Op           = lattice.Edit         // one operation on one register
	OpKind       = lattice.EditKind     // what it does
)

// A StateBlock is the committed value of a register.
type StateBlock struct {
	Register string
	Exists   bool    // false: deleted or never written; then Value is absent
	Value    Value   // an object of its fields, or the one value of a register that has no fields
	ID       StateID // zero if never written
	Ordinal  uint64  // of the commit that made it
	Time     Stamp   // of that commit's candidate
	Dots     []FieldDots
	// Siblings are the fields, by the rule ask, whose value is a set of what writers who did not know of each other wrote.
	Siblings []string
	// Provisional are the fields that a member of the domain who was not heard since may still change: those of first.
	Provisional []string
	Waiting     int  // candidates that wait to be collapsed; Value is without them
	Opaque      bool // it holds operations that a newer program made: Value is without them, and writes are refused
	Incoming    bool // a part of a large value is not here yet: Value has what was there before
}

// Existence is the name under which FieldDots lists the entries that say the register exists.
// It can't be a field's name: those are UTF-8.
const Existence = lattice.Existence

// A Write is one candidate before it has a dot: applied and observed atomically.
type Write struct {
	Ops []Op
	If  []Precondition
	By  Cause
	Tag uint64 // comes back in the deltas of live observers; never stored
	// Bulk: one document that is many registers. It may be as large as MaxBulkOps and MaxBulk, and while it gets its place
	// no other write does, so it is for the process that hosts the engine to allow.
	Bulk bool
	Keep []Record // stored in the same batch
	// KeepWith, where set, gives further records for the same batch, once the dot is known. It
	// runs inside the sequencer: it must be quick and call nothing of the engine.
	KeepWith func(Dot) []Record
}

// What an Op does.
const (
	OpPut     = lattice.EditPut     // the field gets the value, as its rule has it
	OpRemove  = lattice.EditRemove  // the field goes; of a field that is not there: nothing
	OpOnly    = lattice.EditOnly    // every seen field goes that is not named in Fields; the register exists, if empty
	OpDelete  = lattice.EditDelete  // the register goes
	OpAdd     = lattice.EditAdd     // a sum grows by the value, a union by its items
	OpRestore = lattice.EditRestore // the field gets the value, also where the rule would keep a better one
)

// A Precondition is checked in the sequencer, with the commit.
type Precondition struct {
	Register string
	Match    []StateID // one of these must be current; empty: no demand
	Differ   []StateID // none of these may be current
	Exists   *bool     // it must exist, or must not
}

// A Record is a durable record that belongs to whoever writes it: baselines, cursors, intents,
// parked operations. Table is a short lower-case name. A nil Value deletes.
type Record struct {
	Table string
	Key   string
	Value []byte
}

// A Receipt says that a write is durable.
type Receipt struct {
	Dot    Dot
	Cursor Cursor
	Time   Stamp
	States []StateBlock // of the registers written, in the order of their first Op
	// Created are those among them that did not exist before.
	Created []string
}

// A QDelta is the step from one StateBlock to the next.
type QDelta struct {
	Cursor   Cursor // of the commit, one for all of a batch; zero for all but the last of a snapshot, so that who stops in between begins anew
	Part, Of int    // place within the batch, from 0
	Before   StateID
	After    StateBlock
	Changed  []FieldChange // by field name; empty when a write changed no value
	Created  bool          // it did not exist before
	Deleted  bool
	Dot      Dot
	Cause    Cause
	Tag      uint64 // of the Write, for live observers
	Snapshot bool   // state rather than a step: Before and Changed are unset
	Pending  bool   // a candidate that waits to be collapsed: After is what was there before
}

// A FieldChange is one field's part of a delta; an absent Value means the field was or is not there.
type FieldChange struct {
	Field         string
	Before, After Value
}

// A Cursor is a place in this node's commit log. A log that was restored or made anew has another
// id; cursors of different logs are not comparable. The zero Cursor is before everything.
type Cursor struct {
	Log     uint64
	Ordinal uint64
}

// String gives "log.ordinal", both in hexadecimal and decimal as users see them; ParseCursor reads it.
func (c Cursor) String() string {
	return strconv.FormatUint(c.Log, 16) + "." + strconv.FormatUint(c.Ordinal, 10)
}

// ParseCursor reads what Cursor.String wrote.
func ParseCursor(s string) (Cursor, error) {
	for i := range len(s) {
		if s[i] != '.' {
			continue
		}
		log, err1 := strconv.ParseUint(s[:i], 16, 64)
		ord, err2 := strconv.ParseUint(s[i+1:], 10, 64)
		if err1 != nil || err2 != nil {
			break
		}
		return Cursor{Log: log, Ordinal: ord}, nil
	}
	return Cursor{}, fmt.Errorf("%w: cursor %q", ErrInvalid, s)
}

// A Filter says which registers an observer wants. The zero Filter wants all.
type Filter struct {
	Prefix string // names that begin with it
	Name   string // exactly this register
}

// A HistoryQuery selects history of one register, newest first.
type HistoryQuery struct {
	Register string
	Before   uint64 // ordinals below it; 0: from the newest
	After    uint64 // ordinals above it
	Oldest   bool   // oldest first
	Limit    int    // 0: 100
}

// A Moment is a place in one register's past: exactly one of its parts is set.
type Moment struct {
	Time    time.Time // as of then: the newest state whose candidate has no later stamp
	ID      StateID   // the state with that id
	Ordinal uint64    // as of that commit
}

// A PendingQuery selects candidates that wait to be collapsed.
type PendingQuery struct {
	Prefix string // of registers' names; a whole name finds that register, too
	Limit  int    // 0: 100
}

// A Pending is one candidate's part for one register that waits for a marker.
type Pending struct {
	Register string
	Dot      Dot
	Time     Stamp
	Cause    Cause         // as far as it is still known
	Would    []FieldChange // what it says: per field the committed value, and the one it puts (absent: it removes it)
	Deletes  bool          // it removes the register
	Mode     CommitMode    // what the register waits for now
}

// An Explanation says why a register has the value it has.
type Explanation struct {
	State       StateBlock
	Declaration string // the template that it is declared by, "" for none; Source and At say where it came from
	Source      string // file and line, where this node's own files have it
	Mode        CommitMode
	DeleteWins  bool
	Group       string // the QGroup it belongs to
	Fields      []FieldExplanation
	Existence   []LiveEntry // who says that it exists
	Deleted     []LiveEntry // marks of deletes that win
	Pending     []Pending
	Hidden      bool // it is deleted, and what it had is kept until every member knows
}

// A FieldExplanation says which entries live behind one field, and which of them its value is.
type FieldExplanation struct {
	Field   string
	Rule    CollapseRule
	Value   Value
	Entries []LiveEntry
	Why     string // one sentence for people
}

// A LiveEntry is one value that nobody who saw it has replaced.
type LiveEntry struct {
	Dot   Dot
	Time  Stamp
	By    string // who, in short: always known
	Cause Cause  // all of it, where the candidate is still in the log
	Node  EndpointID
	Value Value
	Wins  bool // the field's value is this one, or holds it
}

// A BackupInfo says what a backup holds.
type BackupInfo struct {
	Dir    string
	Cursor Cursor // the newest commit in it
	Time   time.Time
	Bytes  uint64
}

// A Finding is something an operator has to know of. Findings of one Code and Subject are one.
type Finding struct {
	Code    string // "clone", "fork", "restored", "backup", "clock", "divergence", "rules", "opaque", "held"
	Subject string // what it concerns: an endpoint, an origin, a register
	Text    string // the finding in one sentence, and the remedy in another
	Since   time.Time
}

// Status is an engine in figures.
type Status struct {
	Endpoint    EndpointID
	Incarnation string
	Cursor      Cursor // last visible commit
	Registers   uint64 // that exist
	Candidates  uint64 // stored
	Observers   int
	DiskBytes   uint64
	FreeBytes   uint64
	Full        bool // below min_free: writes are refused
	Fsyncs      uint64
	Started     time.Time
	Root        string // hash over all registers: equal wherever the same candidates are known
	Pending     uint64 // registers with candidates that wait
	Held        uint64 // candidates that wait for what they depend on
	Floor       uint64 // ordinal below which the log was trimmed
	Findings    []Finding
}

// State is what an application sees of an engine: the embedded Engine and daemonclient.Client
// both satisfy it, and enginetest.Run holds both to it.
type State interface {
	// ReadState gives the committed state. A register that does not exist has Exists false and no error.
	ReadState(ctx context.Context, register string) (StateBlock, error)
	// WriteState commits one candidate. It is durable and visible when WriteState returns. A write
	// that changes nothing at all makes none: its Receipt has the zero Dot and the state as it is.
	// Op.Base, Tag, Keep and Bulk are for the process that hosts the engine; a client refuses them.
	WriteState(ctx context.Context, w Write) (Receipt, error)
	// List yields existing registers in name order, behind after, at most limit (0: all).
	List(ctx context.Context, prefix, after string, limit int) iter.Seq2[StateBlock, error]
	// History yields what became of one register, newest first unless the query says otherwise.
	History(ctx context.Context, q HistoryQuery) iter.Seq2[QDelta, error]
	// Observe yields the deltas behind from in commit order, without end; the zero Cursor, or one
	// older than the log, is answered by a snapshot first. It misses nothing and never waits for
	// a slow consumer at anyone's cost.
	Observe(ctx context.Context, f Filter, from Cursor) iter.Seq2[QDelta, error]
	// Pending yields the candidates that wait to be collapsed, by register, oldest first.
	Pending(ctx context.Context, q PendingQuery) iter.Seq2[Pending, error]
	// Collapse settles what waits on a register as it is now. It is a candidate of its own; without anything that waits
	// it makes none, and its Receipt has the zero Dot.
	Collapse(ctx context.Context, register string, by Cause) (Receipt, error)
	// StateAt gives a register as it was. ErrNotFound: there is no such state, or history does not reach back to it.
	StateAt(ctx context.Context, register string, at Moment) (StateBlock, error)
	// Revert puts a former state back, as a new candidate, whatever the rules of its fields.
	Revert(ctx context.Context, register string, to Moment, by Cause) (Receipt, error)
	// Explain says why a register has its value.
	Explain(ctx context.Context, register string) (Explanation, error)
	// Backup makes a copy of everything in a new directory of the machine that the engine runs on, while it runs. Opened
	// as a data directory it knows that it is one.
	Backup(ctx context.Context, dir string) (BackupInfo, error)
	// Cursor is the place of the newest visible commit: observing from it is observing from now.
	Cursor(ctx context.Context) (Cursor, error)
	// Status gives the figures.
	Status(ctx context.Context) (Status, error)
	// Close releases it. Further calls return ErrClosed.
	Close() error
}

// Submitter sequences a write and lets the caller wait for the disk later, so that one feed's
// events keep their order and share fsyncs.
type Submitter interface {
	// Submit sequences w and returns its dot (zero if w changes nothing). The write is durable and
	// visible when wait returns; wait must be called once.
	Submit(ctx context.Context, w Write) (dot Dot, wait func() (Receipt, error), err error)
}

// Keeper is the durable notebook beside the registers, for the process that hosts the engine.
type Keeper interface {
	// KeepRecords stores records; durable when it returns if sync, else with the next commit that is.
	KeepRecords(ctx context.Context, sync bool, records ...Record) error
	// Kept gives one record's value, nil if there is none.
	Kept(table, key string) ([]byte, error)
	// EachKept yields the records of a table whose key has the prefix, in key order.
	EachKept(table, prefix string) iter.Seq2[Record, error]
}

// The kinds of error. daemonclient carries them as fixed codes.
var (
	ErrInvalid     = lattice.ErrInvalid
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("precondition failed")
	ErrDenied      = errors.New("not allowed to write") // by the declaration's writers
	ErrTooLarge    = lattice.ErrTooLarge
	ErrFull        = errors.New("disk is almost full: writes are refused until there is room")
	ErrClosed      = errors.New("closed")
	ErrUnavailable = errors.New("unavailable")
)
