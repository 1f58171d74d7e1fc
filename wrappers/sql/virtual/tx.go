package virtual

import (
	"context"
	"errors"
	"slices"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// A tx is what a transaction has read and is going to write. Nothing of it is told to anybody before it commits; then
// all of it is one write, which has the version of each row it changed as a precondition.
type tx struct {
	link    wrappers.Link
	who     wrappers.Who
	strict  bool // rows that were only read are checked, too
	changes map[string]*change
	order   []*change
	undo    []undo
	reads   map[string]wrappers.Version // of a block: what was read first; "": it was not there
	block   bool
	beyond  bool // more was read than is kept
	size    int
	notify  []notification
}

// A change is one row's way from what it was to what it is to be.
type change struct {
	table   *table
	address string
	base    wrappers.Version // of the row that was read, "" if there was none
	row     []pgsql.Value    // nil: it goes, or stays away
	touched []bool           // columns that were written; nil: all
	blind   bool             // nobody has looked what is there: touched is written over whatever it is
	dead    bool             // undone
}

// undo is how a change was before.
type undo struct {
	at     *change
	before change
	size   int
	note   int // how many notifications there were
}

// A row is a row as a transaction sees it.
type row struct {
	values  []pgsql.Value
	version wrappers.Version // of what is committed; "" if it is only staged
}

// most are the bounds of a transaction: those of one write of the engine.
const (
	mostChanges = 60_000
	mostStaged  = 24 << 20 // bytes
	mostReads   = 20_000   // rows of a block whose versions are kept
)

var errTooMuch = &pgsql.Error{Code: "54000", Message: "the transaction changes too much at once",
	Hint: "It may change 60,000 rows and 24 MiB. Commit in between."}

var errStale = &pgsql.Error{Code: "40001", Message: "could not serialize access due to concurrent update",
	Detail: "A row was changed by somebody else after this transaction had read it.", Hint: "The transaction might succeed if retried."}

func newTx(link wrappers.Link, who wrappers.Who) *tx {
	return &tx{link: link, who: who}
}

// get gives a row by its address, nil if there is none.
func (x *tx) get(ctx context.Context, t *table, address string) (*row, error) {
	if c := x.changes[address]; c != nil && !c.dead {
		if c.row == nil {
			return nil, nil
		}
		if err := x.look(ctx, c); err != nil {
			return nil, err
		}
		return &row{c.row, c.base}, nil
	}
	return x.read(ctx, t, address)
}

// look reads what a blind change is laid over, since somebody wants to see it.
func (x *tx) look(ctx context.Context, c *change) error {
	if !c.blind {
		return nil
	}
	there, err := x.read(ctx, c.table, c.address)
	if err != nil {
		return err
	}
	c.blind = false
	if there == nil {
		c.touched = nil
		return nil
	}
	for i, is := range c.touched {
		if is {
			there.values[i] = c.row[i]
		}
	}
	c.row, c.base = there.values, there.version
	return nil
}

// read gives a row as it is committed.
func (x *tx) read(ctx context.Context, t *table, address string) (*row, error) {
	res, err := x.link.Do(ctx, wrappers.Operation{Verb: wrappers.Read, Address: address, Who: x.who})
	if errors.Is(err, wrappers.ErrNotFound) {
		x.saw(address, "")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	x.saw(address, res.Version)
	values := make([]pgsql.Value, len(t.Columns))
	if !t.parseKey(address, values) {
		return nil, nil
	}
	bad, err := t.decodeRow(res.Payload.Raw, values)
	if bad > 0 {
		x.link.Count("unshowable", bad)
	}
	return &row{values, res.Version}, err
}

// saw notes which version of a row a block has read first: what it writes there later is written over that.
func (x *tx) saw(address string, v wrappers.Version) {
	if !x.block && !x.strict {
		return
	}
	if x.reads == nil {
		x.reads = map[string]wrappers.Version{}
	}
	if _, known := x.reads[address]; known {
		return
	}
	if len(x.reads) >= mostReads {
		x.beyond = true
		return
	}
	x.reads[address] = v
}

// over stages columns that are written over whatever is there, if anything: no version is asked for. False: the
// transaction has to look.
func (x *tx) over(t *table, address string, values []pgsql.Value, touched []bool) (bool, error) {
	if x.block || x.strict || x.changes[address] != nil {
		return false, nil
	}
	if err := x.stage(t, address, "", values, touched); err != nil {
		return true, err
	}
	x.changes[address].blind = true
	return true, nil
}

// stage notes what a row is to be. base is the version that was read of it, where this is its first change.
func (x *tx) stage(t *table, address string, base wrappers.Version, values []pgsql.Value, touched []bool) error {
	c := x.changes[address]
	if v, known := x.reads[address]; known && (c == nil || c.dead) && v != base {
		return errStale
	}
	size := len(address) + 64
	for i := range values {
		size += 24 + len(values[i].Str)
	}
	if x.size += size; x.size > mostStaged || len(x.order) >= mostChanges {
		return errTooMuch
	}
	if c == nil || c.dead {
		fresh := &change{table: t, address: address, base: base, row: values, touched: touched}
		if x.changes == nil {
			x.changes = map[string]*change{}
		}
		x.undo = append(x.undo, undo{at: fresh, before: change{dead: true}, size: size, note: len(x.notify)})
		x.changes[address] = fresh
		x.order = append(x.order, fresh)
		return nil
	}
	x.undo = append(x.undo, undo{at: c, before: *c, size: size, note: len(x.notify)})
	switch {
	case c.row == nil || values == nil || touched == nil || c.touched == nil:
		if c.row == nil && values != nil {
			touched = nil // it was deleted, and is another row now
		} else if c.touched == nil {
			touched = nil
		}
	default:
		both := slices.Clone(c.touched)
		for i := range touched {
			both[i] = both[i] || touched[i]
		}
		touched = both
	}
	c.row, c.touched = values, touched
	return nil
}

// mark is a place to come back to.
func (x *tx) mark() int { return len(x.undo) }

// back undoes what was staged since.
func (x *tx) back(mark int) {
	for len(x.undo) > mark {
		u := x.undo[len(x.undo)-1]
		x.undo = x.undo[:len(x.undo)-1]
		x.size -= u.size
		if u.at == nil {
			x.notify = x.notify[:u.note]
			continue
		}
		at, order := u.at.address, u.at
		t := u.at.table
		*u.at = u.before
		u.at.table, u.at.address = t, at
		if u.at.dead {
			delete(x.changes, at)
			if n := len(x.order); n > 0 && x.order[n-1] == order {
				x.order = x.order[:n-1]
			}
		}
	}
}

// tell notes a NOTIFY, which is sent with the commit.
func (x *tx) tell(n notification) error {
	if x.size += len(n.channel) + len(n.payload); x.size > mostStaged {
		return errTooMuch
	}
	x.undo = append(x.undo, undo{size: len(n.channel) + len(n.payload), note: len(x.notify)})
	if !slices.Contains(x.notify, n) {
		x.notify = append(x.notify, n)
	}
	return nil
}

// operation gives all changes as one.
func (x *tx) operation() (wrappers.Operation, error) {
	op := wrappers.Operation{Who: x.who}
	for _, c := range x.order {
		if c.dead || c.base == "" && c.row == nil {
			continue
		}
		part, err := c.operation()
		if err != nil {
			return op, err
		}
		part.Who = x.who
		op.Parts = append(op.Parts, part)
	}
	if len(op.Parts) == 0 {
		return op, nil
	}
	if !x.strict {
		x.reads = nil
	} else if x.beyond {
		return op, &pgsql.Error{Code: "54000", Message: "the transaction has read too many rows to be serializable", Hint: "It may read 20,000 rows before it writes."}
	}
	for address, v := range x.reads {
		if c := x.changes[address]; c != nil && !c.dead && !(c.base == "" && c.row == nil) {
			continue
		}
		part := wrappers.Operation{Verb: wrappers.Read, Address: address, Who: x.who}
		if v == "" {
			part.If.Differ = []wrappers.Version{wrappers.Any}
		} else {
			part.If.Match = []wrappers.Version{v}
		}
		op.Parts = append(op.Parts, part)
	}
	if len(op.Parts) == 1 {
		return op.Parts[0], nil
	}
	return op, nil
}

// asks tells whether the transaction's write depends on what it has read: one that doesn't is not done again, since nobody
// can have come between.
func (x *tx) asks() bool {
	return slices.ContainsFunc(x.order, func(c *change) bool { return !c.blind && !c.dead }) || len(x.reads) > 0
}

func (c *change) operation() (wrappers.Operation, error) {
	op := wrappers.Operation{Address: c.address}
	if c.blind {
		raw, err := c.table.encodeRow(c.row, func(i int) bool { return c.touched[i] })
		op.Verb, op.Payload = wrappers.Merge, wrappers.Payload{Raw: raw, Type: "application/cbor"}
		return op, err
	}
	if c.base == "" {
		op.If.Differ = []wrappers.Version{wrappers.Any}
	} else {
		op.If.Match = []wrappers.Version{c.base}
	}
	with := func(i int) bool {
		return c.table.in[i] && (c.touched == nil && (c.base != "" || !c.row[i].IsNull()) || c.touched != nil && c.touched[i])
	}
	switch {
	case c.row == nil:
		op.Verb = wrappers.Delete
		return op, nil
	case c.base == "" || c.touched == nil:
		op.Verb = wrappers.Put
	default:
		op.Verb = wrappers.Merge
	}
	if c.row != nil {
		some := false
		for i := range c.row {
			some = some || c.table.in[i] && !c.table.isKey(i) && !c.row[i].IsNull()
		}
		if !some && c.base != "" {
			// A register is there by what it holds.
			op.Verb = wrappers.Delete
			return op, nil
		}
	}
	raw, err := c.table.encodeRow(c.row, with)
	op.Payload = wrappers.Payload{Raw: raw, Type: "application/cbor"}
	return op, err
}

// commit writes all of it; it is durable when commit returns.
func (x *tx) commit(ctx context.Context) error {
	op, err := x.operation()
	if err != nil || op.Verb == 0 && len(op.Parts) == 0 {
		return err
	}
	_, err = x.link.Do(ctx, op)
	return err
}
