package sql

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"github.com/spooksystems/gateway/wrappers/relay"
)

// exactAnswer looks at a frame of the server that begins at b[n], of which here is there. False: it is
// the client's, as any other.
func (h *session) exactAnswer(b []byte, n int, here []byte, size int64) (relay.Step, bool) {
	x := h.exact
	switch here[0] {
	case msgClosed:
		if st, taken := h.ours(b, n); taken {
			return st, true
		}
		x.answered++
	case msgParsed, msgBound:
		x.answered++
	case msgCopyIn:
		h.copyIn()
	case msgAuth, msgParameter:
		if int64(len(here)) < size {
			if size > lookAt {
				return relay.Step{}, false
			}
			return relay.Step{Pass: n, Need: int(size)}, true
		}
		h.learn(here[0], here[frameHead:])
	case msgError:
		if x.fails() {
			h.endTail() // the Query behind it is passed over
		}
	case msgComplete:
		if x.tail {
			return h.completed(b, n)
		}
	case msgReady:
		if len(here) < frameHead+1 {
			return relay.Step{Pass: n, Need: frameHead + 1}, true
		}
		if x.tail {
			h.endTail()
			x.tail = false
			return relay.Step{Pass: n, Drop: int(size)}, true
		}
	}
	return relay.Step{}, false
}

// learn takes in what the server says when a session begins.
func (h *session) learn(kind byte, body []byte) {
	x := h.exact
	if kind == msgParameter {
		name, rest := cstring(body)
		if string(name) == "in_hot_standby" {
			value, _ := cstring(rest)
			x.standby.Store(string(value) == "on")
		}
		return
	}
	if len(body) < 4 {
		return
	}
	switch binary.BigEndian.Uint32(body) {
	case 0:
		if x.checked {
			h.mu.Lock()
			h.who.Verified = true
			h.mu.Unlock()
		}
	case 3, 5, 7, 9, 10: // a password in clear or as MD5, GSSAPI, SSPI, SASL
		x.checked = true
	}
}

// ours takes out the answers to an injection.
func (h *session) ours(b []byte, n int) (relay.Step, bool) {
	x := h.exact
	x.mu.Lock()
	var next injected
	if len(x.sent) > 0 {
		next = x.sent[0]
	}
	turn := next.ready == x.ready && next.asked == x.answered
	x.mu.Unlock()
	if next.seq == 0 || !turn {
		return relay.Step{}, false
	}
	size, ok, need := parseOurs(b[n:], x.nonce+strconv.FormatUint(next.seq, 10))
	switch {
	case need > 0:
		return relay.Step{Pass: n, Need: need}, true
	case size == 0:
		return relay.Step{}, false
	case ok:
		x.tail = next.query
		x.mu.Lock()
		x.sent = x.sent[1:]
		x.mu.Unlock()
	}
	// Or an error comes, which is the client's to hear.
	return relay.Step{Pass: n, Drop: size}, true
}

// mostOurs bounds what the answers to an injection may take, notices included.
const mostOurs = 64 << 10

// parseOurs reads the answers to an injection at the beginning of b; ok: all, else those before an error. need > 0: so many
// bytes have to be there first. size 0: it is something else.
func parseOurs(b []byte, nonce string) (size int, ok bool, need int) {
	const kinds = string(msgClosed) + string(msgParsed) + string(msgBound) + string(msgDataRow) + string(msgComplete) + string(msgClosed) + string(msgClosed)
	n := 0
	for i := 0; i < len(kinds); {
		if n < len(b) && b[n] == msgError && i > 0 {
			return n, false, 0
		}
		frame, need := frameAt(b, n)
		if n+len(frame) > mostOurs || need > mostOurs || n < len(b) && b[n] != kinds[i] && !async(b[n]) {
			return 0, false, 0
		}
		if need > 0 {
			return 0, false, need
		}
		if frame == nil {
			return 0, false, 0
		}
		if frame[0] == kinds[i] {
			if frame[0] == msgDataRow && !rowHas(frame[frameHead:], nonce) {
				return 0, false, 0
			}
			i++
		}
		n += len(frame)
	}
	return n, true, 0
}

// frameAt gives the frame at b[n]. need > 0: so many bytes of b have to be there first. Neither: it is none.
func frameAt(b []byte, n int) (frame []byte, need int) {
	size, err := frameSize(b[min(n, len(b)):])
	switch {
	case err != nil:
		return nil, 0
	case size == 0:
		return nil, n + frameHead
	case int64(len(b)-n) < size:
		return nil, n + int(size)
	}
	return b[n : n+int(size)], 0
}

// async are the frames that a server may say at any time.
func async(kind byte) bool { return kind == msgNotice || kind == msgParameter || kind == msgNotify }

// rowHas tells whether a DataRow of two columns begins with this text.
func rowHas(body []byte, text string) bool {
	if len(body) < 6 || binary.BigEndian.Uint16(body) != 2 {
		return false
	}
	n := binary.BigEndian.Uint32(body[2:])
	body = body[6:]
	return uint64(n) <= uint64(len(body)) && string(body[:n]) == text
}

// completed holds the success of a Query back until the transaction is over: an error at its end is
// to take its place, as it would without the gateway.
func (h *session) completed(b []byte, n int) (relay.Step, bool) {
	x := h.exact
	command, need := frameAt(b, n)
	if need > 0 {
		return relay.Step{Pass: n, Need: need - n}, true
	}
	first := -1 // where the Query's own ReadyForQuery is
	for at := n + len(command); ; {
		next, need := frameAt(b, at)
		if len(next) == 0 && need == 0 || need-n > mostOurs {
			return relay.Step{}, false
		}
		if at < len(b) && !async(b[at]) && b[at] != msgReady && (first < 0 || b[at] != msgError) {
			return relay.Step{}, false // another command of the same Query
		}
		if need > 0 {
			return relay.Step{Pass: n, Need: need - n}, true
		}
		switch {
		case next[0] == msgError:
			return relay.Step{Pass: n, Drop: len(command)}, true
		case next[0] == msgReady && first < 0:
			first = at
			h.endTail()
		case next[0] == msgReady:
			if first != n+len(command) {
				return relay.Step{}, false
			}
			// The two stand side by side then, as without us.
			gap := at - first
			if gap != frameHead+1 {
				return relay.Step{}, false
			}
			x.tail = false
			copy(b[n+gap:], bytes.Clone(command))
			return relay.Step{Pass: n, Drop: gap}, true
		}
		at += len(next)
	}
}

// endTail sends the Sync that is to end the transaction of a Query, where it did not follow at once.
func (h *session) endTail() {
	x := h.exact
	if late := x.awaited(); late != nil {
		_ = h.s.ToServer(frame(nil, msgSync, nil)) // the session ends if it fails
		x.release()
	}
}

// fails tells whether an error means that a Query is passed over whose Sync is still to come.
func (x *exact) fails() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return !x.tail && len(x.sent) > 0 && x.sent[0].late && x.sent[0].ready == x.ready
}

// over notes a ReadyForQuery, and forgets the injections that the server has passed over because of an error.
func (x *exact) over(status byte) {
	x.failed.Store(status == 'E')
	x.mu.Lock()
	defer x.mu.Unlock()
	x.answered = 0
	if len(x.owed) > 0 {
		x.owed = x.owed[1:]
		x.ready++
	}
	for len(x.sent) > 0 && x.sent[0].ready < x.ready {
		x.sent = x.sent[1:]
	}
}

// copyIn notes that the server reads COPY's data: a Sync that came with an Execute it passes over, and
// never answers.
func (h *session) copyIn() {
	x := h.exact
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.owed) > 0 && x.owed[0] == msgSync {
		x.owed = x.owed[1:]
		x.ready++
		h.pending.Add(-1)
	}
}
