package mqtt

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// A storedSession is the durable record of a session. Messages are not in it: they are in the
// log, and the record says from where.
type storedSession struct {
	Expiry   uint32        `json:"expiry"`
	Absent   int64         `json:"absent,omitempty"` // Unix seconds since when; 0: connected when it was stored
	Subs     []storedSub   `json:"subs,omitempty"`
	From     []byte        `json:"from,omitempty"`
	Done     []storedPlace `json:"done,omitempty"`
	Released []uint16      `json:"released,omitempty"` // QoS 2 messages the client has and has not completed
}

type storedSub struct {
	Filter  string `json:"f"`
	Options byte   `json:"o,omitempty"`
	ID      int    `json:"i,omitempty"`
	Owed    bool   `json:"owed,omitempty"`
}

type storedPlace struct {
	Cursor  []byte `json:"c"`
	Address string `json:"a"`
}

const sessionPrefix = "session/"

func sessionKey(id string) string { return sessionPrefix + hex.EncodeToString([]byte(id)) }

func receivedPrefix(id string) string { return "received/" + hex.EncodeToString([]byte(id)) + "/" }

// receivedKey is of the record that a QoS 2 message of this identifier is committed.
func (s *session) receivedKey(id uint16) string {
	return receivedPrefix(s.id) + strconv.Itoa(int(id))
}

// record makes the session's durable record.
func (b *broker) record(s *session) (wrappers.Record, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	pos := s.resume(true)
	st := storedSession{From: []byte(pos.from)}
	for at := range pos.done {
		st.Done = append(st.Done, storedPlace{[]byte(at.cursor), at.address})
	}
	for _, sub := range s.subs {
		owed := false
		for _, o := range s.owed {
			owed = owed || o == sub
		}
		st.Subs = append(st.Subs, storedSub{sub.filter, sub.options.options, sub.id, owed})
	}
	if s.conn == nil {
		st.Absent = time.Now().Unix()
	}
	s.mu.Lock()
	st.Expiry = s.expiry
	for _, f := range s.flights {
		if f.released && !f.done {
			st.Released = append(st.Released, f.id)
		}
	}
	s.progress = false
	s.mu.Unlock()
	value, err := json.Marshal(st)
	return wrappers.Record{Key: sessionKey(s.id), Value: value}, err
}

// storeSession makes the session durable as it stands.
func (b *broker) storeSession(s *session) error {
	r, err := b.record(s)
	if err != nil {
		return err
	}
	s.stored.Store(true)
	return b.link.Keep(b.ctx, r)
}

// keepProgress stores how far the connected clients have come, so that a crash repeats little.
func (b *broker) keepProgress() {
	var moved []*session
	b.mu.Lock()
	for c := range b.conns {
		if s := c.session; s != nil && s.conn == c {
			s.mu.Lock()
			if s.progress && s.expiry > 0 {
				moved = append(moved, s)
			}
			s.mu.Unlock()
		}
	}
	b.mu.Unlock()
	var records []wrappers.Record
	for _, s := range moved {
		r, err := b.record(s)
		if err != nil {
			b.cfg.Log.Error("session not stored", "client", s.id, "err", err)
			continue
		}
		records = append(records, r)
	}
	if len(records) == 0 {
		return
	}
	if err := b.link.Keep(b.ctx, records...); err != nil && b.ctx.Err() == nil {
		b.cfg.Log.Warn("progress of sessions not stored: a crash now would repeat messages", "sessions", len(records), "err", err)
	}
}

// eraseSession removes all records of a client.
func (b *broker) eraseSession(id string) error {
	var gone []wrappers.Record
	for _, prefix := range []string{sessionKey(id), receivedPrefix(id)} {
		for r, err := range b.link.Kept(b.ctx, prefix) {
			if err != nil {
				return err
			}
			if r.Key == prefix || strings.HasSuffix(prefix, "/") {
				gone = append(gone, wrappers.Record{Key: r.Key})
			}
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return b.link.Keep(b.ctx, gone...)
}

// loadSession reads a session that is not in memory; nil when there is none.
func (b *broker) loadSession(id string) (*session, error) {
	var st storedSession
	found := false
	for r, err := range b.link.Kept(b.ctx, sessionKey(id)) {
		if err != nil {
			return nil, err
		}
		if r.Key == sessionKey(id) {
			if err := json.Unmarshal(r.Value, &st); err != nil {
				return nil, fmt.Errorf("record of session %q: %w", id, err)
			}
			found = true
		}
	}
	if !found {
		return nil, nil
	}
	if st.ended(time.Now()) {
		return nil, b.eraseSession(id)
	}
	s := newSession(b, id)
	s.stored.Store(true)
	s.expiry = st.Expiry
	s.pos = position{from: wrappers.Cursor(st.From), done: make(map[place]bool, len(st.Done))}
	for _, p := range st.Done {
		s.pos.done[place{wrappers.Cursor(p.Cursor), p.Address}] = true
	}
	for r, err := range b.link.Kept(b.ctx, receivedPrefix(id)) {
		if err != nil {
			return nil, err
		}
		if n, err := strconv.ParseUint(r.Key[strings.LastIndexByte(r.Key, '/')+1:], 10, 16); err == nil {
			s.received[uint16(n)] = true
		}
	}
	for _, id := range st.Released {
		f := &flight{delivery: delivery{entry: &entry{filter: &subscription{}}, qos: 2}, id: id, released: true}
		s.flights = append(s.flights, f)
		s.byID[id] = f
		s.unacked++
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range st.Subs {
		share, topics, err := splitFilter(o.Filter)
		if err != nil {
			continue
		}
		sub := &subscription{session: s, filter: o.Filter, topics: topics, options: request{o.Filter, o.Options}, id: o.ID}
		b.enter(sub, share)
		if o.Owed {
			s.owed = append(s.owed, sub)
		}
	}
	return s, nil
}

func (st *storedSession) ended(now time.Time) bool {
	return st.Absent != 0 && st.Expiry != neverExpires && now.Unix() > st.Absent+int64(st.Expiry)
}

// forgetExpired removes, at start, what ended while the gateway was away, and begins the absence
// of the clients that were connected when it stopped.
func (b *broker) forgetExpired() error {
	now := time.Now()
	var ended []string
	var absent []wrappers.Record
	for r, err := range b.link.Kept(b.ctx, sessionPrefix) {
		if err != nil {
			return err
		}
		id, err := hex.DecodeString(strings.TrimPrefix(r.Key, sessionPrefix))
		if err != nil {
			continue
		}
		var st storedSession
		switch {
		case json.Unmarshal(r.Value, &st) != nil || st.ended(now):
			ended = append(ended, string(id))
		case st.Absent == 0:
			st.Absent = now.Unix()
			value, err := json.Marshal(st)
			if err != nil {
				return err
			}
			absent = append(absent, wrappers.Record{Key: r.Key, Value: value})
		}
	}
	for _, id := range ended {
		if err := b.eraseSession(id); err != nil {
			return err
		}
	}
	if len(absent) == 0 {
		return nil
	}
	return b.link.Keep(b.ctx, absent...)
}
