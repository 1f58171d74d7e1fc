package sql

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// The messages of the logical decoding plugin pgoutput, protocol version 1 (PostgreSQL, "Logical
// Replication Message Formats"). What a message holds points into the frame it was read from.

// An lsn is a place in the server's write-ahead log.
type lsn uint64

func (l lsn) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

func parseLSN(s string) (lsn, error) {
	var hi, lo uint32
	if _, err := fmt.Sscanf(s, "%X/%X", &hi, &lo); err != nil {
		return 0, fmt.Errorf("%q is no place in a write-ahead log", s)
	}
	return lsn(hi)<<32 | lsn(lo), nil
}

type outBegin struct {
	final lsn // of the commit
	at    time.Time
	xid   uint32
}

type outCommit struct{ commit, end lsn }

type outOrigin struct{ name string }

type outRelation struct {
	oid      uint32
	table    tableName
	identity byte // replica identity: d(efault), n(othing), f(ull), i(ndex)
	columns  []outColumn
}

type outColumn struct {
	name string
	key  bool // of the replica identity
	oid  uint32
}

type outType struct {
	oid  uint32
	name tableName
}

// A tuple is a row's columns in the order of its relation.
type tuple []cell

// A cell is one column: its text; or kind null, or unchanged (a TOAST value that was not sent).
type cell struct {
	kind byte
	text []byte
}

const (
	cellNull      = 'n'
	cellUnchanged = 'u'
	cellText      = 't'
)

type outInsert struct {
	oid uint32
	row tuple
}

type outUpdate struct {
	oid  uint32
	old  tuple // nil: the key is as it was
	full bool  // old is the whole row, not only its key
	row  tuple
}

type outDelete struct {
	oid  uint32
	old  tuple
	full bool
}

type outTruncate struct{ oids []uint32 }

type outMessage struct {
	transactional bool
	at            lsn
	prefix        string
	content       []byte
}

var errOutput = errors.New("not a message of pgoutput")

// mostColumns is PostgreSQL's limit (MaxTupleAttributeNumber).
const mostColumns = 1664

// parseOutput reads one message; nil without an error: one that says nothing to us.
func parseOutput(b []byte) (any, error) {
	if len(b) == 0 {
		return nil, errOutput
	}
	r := reader{b: b[1:]}
	var m any
	switch b[0] {
	case 'B':
		m = outBegin{final: lsn(r.u64()), at: r.time(), xid: r.u32()}
	case 'C':
		r.byte()
		m = outCommit{commit: lsn(r.u64()), end: lsn(r.u64())}
		r.u64()
	case 'O':
		r.u64()
		m = outOrigin{r.text()}
	case 'R':
		rel := outRelation{oid: r.u32(), table: tableName{r.text(), r.text()}, identity: r.byte()}
		if rel.table.schema == "" {
			rel.table.schema = "pg_catalog"
		}
		n := int(r.u16())
		if n > mostColumns {
			return nil, fmt.Errorf("%w: a relation of %d columns", errOutput, n)
		}
		for range n {
			c := outColumn{key: r.byte()&1 != 0, name: r.text(), oid: r.u32()}
			r.u32()
			rel.columns = append(rel.columns, c)
		}
		m = rel
	case 'Y':
		m = outType{r.u32(), tableName{r.text(), r.text()}}
	case 'I':
		in := outInsert{oid: r.u32()}
		r.want('N')
		in.row = r.tuple()
		m = in
	case 'U':
		up := outUpdate{oid: r.u32()}
		if k := r.byte(); k == 'K' || k == 'O' {
			up.full = k == 'O'
			up.old = r.tuple()
			r.want('N')
		} else if k != 'N' {
			return nil, fmt.Errorf("%w: an update with %q", errOutput, k)
		}
		up.row = r.tuple()
		m = up
	case 'D':
		del := outDelete{oid: r.u32()}
		k := r.byte()
		if k != 'K' && k != 'O' {
			return nil, fmt.Errorf("%w: a delete with %q", errOutput, k)
		}
		del.full = k == 'O'
		del.old = r.tuple()
		m = del
	case 'T':
		n := int(r.u32())
		r.byte()
		var t outTruncate
		for i := 0; i < n && r.err == nil; i++ {
			t.oids = append(t.oids, r.u32())
		}
		m = t
	case 'M':
		msg := outMessage{transactional: r.byte()&1 != 0, at: lsn(r.u64()), prefix: r.text()}
		msg.content = r.take(int(r.u32()))
		m = msg
	default:
		return nil, fmt.Errorf("%w: type %q", errOutput, b[0])
	}
	if r.err != nil {
		return nil, fmt.Errorf("%w: type %q is cut off", errOutput, b[0])
	}
	return m, nil
}

// A reader takes a message apart. After an error it gives zeros.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.b) {
		r.err = errOutput
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) text() string {
	i := bytes.IndexByte(r.b, 0)
	if r.err != nil || i < 0 {
		r.err = errOutput
		return ""
	}
	s := string(r.b[:i])
	r.b = r.b[i+1:]
	return s
}

// serverEpoch is where the server's microseconds begin.
var serverEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (r *reader) time() time.Time {
	return serverEpoch.Add(time.Duration(int64(r.u64())) * time.Microsecond)
}

func (r *reader) want(c byte) {
	if r.byte() != c {
		r.err = errOutput
	}
}

func (r *reader) tuple() tuple {
	n := int(r.u16())
	if n > mostColumns || n > len(r.b) {
		r.err = errOutput
		return nil
	}
	t := make(tuple, 0, n)
	for range n {
		c := cell{kind: r.byte()}
		switch c.kind {
		case cellNull, cellUnchanged:
		case cellText:
			c.text = r.take(int(int32(r.u32())))
		default:
			r.err = errOutput
		}
		if r.err != nil {
			return nil
		}
		t = append(t, c)
	}
	return t
}
