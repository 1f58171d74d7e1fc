package sql

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// With attribute = "exact" a client's transaction itself says whose it is. Ahead of each statement that
// writes mapped tables the relay puts messages of the extended protocol of its own,
//
//	Close, Parse, Bind, Execute (pg_logical_emit_message), Close, Close
//
// and takes their answers out of what the server says. The client's bytes stay as they are. Ahead of
// a Bind they are a part of the client's own pipeline. Ahead of a Query outside of a block they begin
// the implicit transaction in which the Query is run, which then ends not with the Query but with a Sync
// that follows it (PostgreSQL 14.15, 15.10, 16.6, 17.2 and later; before, the Sync does nothing): of the two
// ReadyForQuery the client gets the second, and the CommandComplete only when it is known that the
// transaction was committed. While COPY reads, a server passes over a Sync: where a Query may be one,
// it is sent behind the Query's ReadyForQuery, and what else the client says waits for that.

// An exact is what a session keeps for it. Its client's side and its server's side run on a goroutine each.
type exact struct {
	nonce string // of the session; the answer to a message of ours bears it

	// Of the client's side.
	seq   uint64
	heard bool // of the frame that the client's bytes begin with: it was looked at
	tails bool // a Sync is to follow it
	asked int  // Parse, Bind and Close of the client since it last sent what ReadyForQuery answers

	// Of the server's side.
	tail     bool // the next ReadyForQuery is a Query's behind which there is a Sync
	checked  bool // the server has asked for a proof of who it is
	answered int  // of those that are counted in asked, since the last ReadyForQuery

	mute    atomic.Bool // a replication session: it has no transactions
	standby atomic.Bool
	failed  atomic.Bool // the block is one that failed

	mu    sync.Mutex
	owed  []byte        // what the client sent that a ReadyForQuery is yet to answer: Query, Sync, FunctionCall
	ready int           // ReadyForQuery that were answered
	sent  []injected    // of which no answer has come yet
	late  chan struct{} // closed when the Sync that is still to follow the last Query was sent; nil: none is
}

// An injected is one that is on its way.
type injected struct {
	seq   uint64
	ready int // the ReadyForQuery before it
	asked int // the client's own Parse, Bind and Close since then
	query bool
	late  bool
}

func newExact() *exact {
	var nonce [12]byte
	_, _ = rand.Read(nonce[:])
	return &exact{nonce: "spookgw-" + hex.EncodeToString(nonce[:]) + "-", owed: []byte{0}}
}

// exactName is that of the statement and of the portal. They are there for as long as it takes.
const exactName = "spookgw_who"

const exactQuery = "SELECT $2, pg_catalog.pg_logical_emit_message(true, '" + markPrefix + "', $1)"

const (
	msgClose    = 'C'
	msgCopyData = 'd'
	msgCopyDone = 'c'
	msgCopyFail = 'f'
	msgCopyIn   = 'G'

	msgParsed  = '1'
	msgBound   = '2'
	msgClosed  = '3'
	msgDataRow = 'D'
	msgNotify  = 'A'
)

// frame adds a whole frame.
func frame(b []byte, kind byte, body func([]byte) []byte) []byte {
	at := len(b)
	b = append(b, kind, 0, 0, 0, 0)
	if body != nil {
		b = body(b)
	}
	binary.BigEndian.PutUint32(b[at+1:], uint32(len(b)-at-1))
	return b
}

func zero(b []byte, s string) []byte { return append(append(b, s...), 0) }

// inject adds the messages that say who is about to do what.
func (x *exact) inject(b []byte, content []byte, query, late bool) []byte {
	x.seq++
	x.mu.Lock()
	x.sent = append(x.sent, injected{x.seq, x.ready + len(x.owed), x.asked, query, late})
	if late {
		x.late = make(chan struct{})
	}
	x.mu.Unlock()
	nonce := x.nonce + strconv.FormatUint(x.seq, 10)
	shut := func(what byte) func([]byte) []byte {
		return func(b []byte) []byte { return zero(append(b, what), exactName) }
	}
	// What an error has left there goes first.
	b = frame(b, msgClose, shut('S'))
	b = frame(b, msgParse, func(b []byte) []byte {
		b = zero(zero(b, exactName), exactQuery)
		b = binary.BigEndian.AppendUint16(b, 2)
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, 17), 25) // bytea, text
	})
	b = frame(b, msgBind, func(b []byte) []byte {
		b = zero(zero(b, exactName), exactName)
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, 1), 1) // all binary
		b = binary.BigEndian.AppendUint16(b, 2)
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(content))), content...)
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(nonce))), nonce...)
		return binary.BigEndian.AppendUint16(b, 0)
	})
	b = frame(b, msgExecute, func(b []byte) []byte { return binary.BigEndian.AppendUint32(zero(b, exactName), 0) })
	b = frame(b, msgClose, shut('P'))
	return frame(b, msgClose, shut('S'))
}

// exactFromClient is FromClient of a session whose transactions say whose they are.
func (h *session) exactFromClient(b []byte) (relay.Step, error) {
	x := h.exact
	var out []byte // with what is put in between; nil: nothing is
	n, from := 0, 0
	pass := func(st relay.Step) (relay.Step, error) {
		if out == nil {
			st.Pass = n
			return st, nil
		}
		out = append(out, b[from:n]...)
		st.Drop = n
		return st, h.s.ToServer(out)
	}
	for {
		size, err := frameSize(b[n:])
		switch {
		case err != nil:
			return relay.Step{}, h.refuse(stateProtocolViolation, err)
		case size == 0:
			return pass(relay.Step{Need: frameHead})
		case size > int64(h.d.w.cfg.Limits.Frame)+frameHead:
			h.d.link.Count("oversized", 1)
			return relay.Step{}, h.refuse(sqlstate(wrappers.ErrTooLarge), fmt.Errorf("a message of %d bytes is larger than this gateway passes (limits { frame })", size))
		}
		kind := b[n]
		here := b[n:]
		whole := int64(len(here)) >= size
		if whole {
			here = here[:size]
		}
		if late := x.awaited(); late != nil && !x.heard && kind != msgCopyData && kind != msgCopyDone && kind != msgCopyFail {
			if n > 0 {
				return pass(relay.Step{})
			}
			select {
			case <-late:
			case <-h.s.ServerGone():
				x.release()
			case <-h.s.Context().Done():
				x.release()
			}
			continue
		}
		if interesting[kind] && !x.heard {
			if want := int(min(size, int64(h.looks()))); len(here) < want {
				return pass(relay.Step{Need: want})
			}
			if h.d.link.Recording() && !h.d.passing.stands() {
				if n > 0 {
					return pass(relay.Step{}) // what precedes it is on its way
				}
				h.d.passing.await(h.s.Context())
			}
			body := here[frameHead:]
			block := h.pending.Load() == 0 && !h.idle.Load() // it is known
			h.heard(kind, body, !whole)
			if st, ok := h.writesOf(kind, body, block); ok && x.may() && h.d.exact.Load() {
				late := kind == msgQuery && (size > lookAt || mentions(body, []byte("copy")))
				out = append(out, b[from:n]...)
				from = n
				out = x.inject(out, h.saying(st).seal(h.d.seal), kind == msgQuery, late)
				x.tails = kind == msgQuery && !late
			}
		}
		if !x.heard {
			x.count(kind)
		}
		if !whole {
			if out != nil { // first what precedes it
				x.heard = true
				return pass(relay.Step{})
			}
			x.heard = false
			left := size - int64(len(here))
			n += len(here)
			st := relay.Step{Skip: left}
			if x.tails {
				x.tails = false
				st.Then = func() { _ = h.s.ToServer(frame(nil, msgSync, nil)) } // the session ends if it fails
			}
			return pass(st)
		}
		x.heard = false
		n += int(size)
		if x.tails {
			x.tails = false
			out = append(out, b[from:n]...)
			out = frame(out, msgSync, nil)
			from = n
		}
	}
}

// mapped are the tables of binds, without the bit of all others.
const mapped = 1<<mostWatched - 1

// writesOf gives the statement of a frame that writes mapped tables, where a message may precede it.
func (h *session) writesOf(kind byte, body []byte, block bool) (statement, bool) {
	switch kind {
	case msgQuery:
		text, _ := cstring(body)
		if tables := h.tables(text) & mapped; tables != 0 && sayable(text, block) {
			return statement{tables: tables, text: shortText(text)}, true
		}
	case msgBind:
		_, rest := cstring(body)
		name, _ := cstring(rest)
		st, ok := h.prepared[string(name)]
		return st, ok && st.tables&mapped != 0 && sayable([]byte(st.text), block)
	}
	return statement{}, false
}

// sayable tells whether a text that mentions a mapped table writes, and bears it that a message
// precedes it: a statement that has to be the first of its transaction, or to be outside of one, does not.
func sayable(text []byte, block bool) bool {
	text = afterComments(text)
	word := firstWord(text)
	is := func(words ...string) bool {
		for _, w := range words {
			if len(w) == len(word) && bytes.EqualFold(word, []byte(w)) {
				return true
			}
		}
		return false
	}
	has := func(words ...string) bool {
		for _, w := range words {
			if mentions(text, []byte(w)) {
				return true
			}
		}
		return false
	}
	switch {
	case is("insert", "update", "delete", "merge", "truncate"):
		return true
	case is("copy"):
		return has("from") && !bytes.HasPrefix(bytes.TrimLeft(text[len(word):], " \t\r\n"), []byte("("))
	case is("with"):
		return has("insert", "update", "delete", "merge")
	case is("do", "call"): // outside of a block they may end transactions
		return block
	case is("begin", "start", "set", "select", "values", "table", "show", "reset", "lock", "savepoint", "release", "declare", "fetch", "close", "execute"):
		return several(text) && has("insert", "update", "delete", "merge", "truncate", "copy") && !has("isolation", "read ", "deferrable", "snapshot", "characteristics")
	}
	return false
}

// several tells whether something follows the first ';'.
func several(text []byte) bool {
	i := bytes.IndexByte(text, ';')
	return i >= 0 && len(bytes.TrimRight(text[i:], " \t\r\n;")) > 0
}

// afterComments cuts off what precedes the first word.
func afterComments(text []byte) []byte {
	for {
		text = bytes.TrimLeft(text, " \t\r\n\f(;")
		switch {
		case bytes.HasPrefix(text, []byte("--")):
			i := bytes.IndexByte(text, '\n')
			if i < 0 {
				return nil
			}
			text = text[i+1:]
		case bytes.HasPrefix(text, []byte("/*")):
			depth, i := 1, 2
			for ; depth > 0 && i+1 < len(text); i++ {
				switch string(text[i : i+2]) {
				case "*/":
					depth--
					i++
				case "/*":
					depth++
					i++
				}
			}
			if depth > 0 {
				return nil
			}
			text = text[i:]
		default:
			return text
		}
	}
}

func firstWord(text []byte) []byte {
	n := 0
	for n < len(text) && (text[n]|0x20 >= 'a' && text[n]|0x20 <= 'z') {
		n++
	}
	return text[:n]
}

func (h *session) saying(st statement) *saying {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &saying{Principal: h.who.Principal, Verified: h.who.Verified, Peer: h.who.Peer, Statement: st.text, Application: h.app}
}

// count notes what is to be answered.
func (x *exact) count(kind byte) {
	switch kind {
	case msgParse, msgBind, msgClose:
		x.asked++
	case msgQuery, msgSync, msgFunction:
		x.asked = 0
		x.mu.Lock()
		x.owed = append(x.owed, kind)
		x.mu.Unlock()
	}
}

// may tells whether the session bears messages now.
func (x *exact) may() bool { return !x.mute.Load() && !x.standby.Load() && !x.failed.Load() }

// awaited gives what is closed when the Sync that is still to come was sent; nil: there is none.
func (x *exact) awaited() chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.late
}

// release tells that it was sent; false: there was none to send.
func (x *exact) release() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.late == nil {
		return false
	}
	close(x.late)
	x.late = nil
	return true
}
