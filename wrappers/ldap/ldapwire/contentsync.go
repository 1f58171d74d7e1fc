package ldapwire

// The values of the content synchronization operation's controls and messages (RFC 4533).

// Modes of a SyncRequest.
const (
	RefreshOnly       = 1
	RefreshAndPersist = 3
)

// SyncRequest is the value of a Sync Request control (RFC 4533, section 2.2).
type SyncRequest struct {
	Mode       int64
	Cookie     []byte // nil: there is none
	ReloadHint bool   // where the server can't go on from the cookie: true: it lists everything instead of saying so
}

// Encode gives the control's value.
func (q *SyncRequest) Encode() []byte {
	return nest(nil, tagSequence, func(b []byte) []byte {
		b = appendInt(b, tagEnumerated, q.Mode)
		if q.Cookie != nil {
			b = AppendTLV(b, tagOctetString, q.Cookie)
		}
		if q.ReloadHint {
			b = appendBool(b, tagBoolean, true)
		}
		return b
	})
}

// DecodeSyncRequest reads the control's value.
func DecodeSyncRequest(value []byte) (q SyncRequest, err error) {
	in := reader{value}
	r, err := in.sequence("a sync request")
	if err != nil {
		return q, err
	}
	if q.Mode, err = r.enum("a sync request's mode"); err != nil {
		return q, err
	}
	if q.Cookie, _, err = r.maybe(tagOctetString); err != nil {
		return q, err
	}
	if r.peek() == tagBoolean {
		q.ReloadHint, err = r.bool("a sync request's reloadHint")
	}
	return q, err
}

// A SyncStateKind says what has become of an entry (RFC 4533, section 2.3).
type SyncStateKind int64

const (
	SyncPresent SyncStateKind = 0
	SyncAdd     SyncStateKind = 1
	SyncModify  SyncStateKind = 2
	SyncDelete  SyncStateKind = 3
)

// SyncState is the value of a Sync State control (RFC 4533, section 2.3).
type SyncState struct {
	State     SyncStateKind
	EntryUUID [16]byte
	Cookie    []byte // nil: there is none
}

// Encode gives the control's value.
func (s *SyncState) Encode() []byte {
	return nest(nil, tagSequence, func(b []byte) []byte {
		b = appendInt(b, tagEnumerated, int64(s.State))
		b = AppendTLV(b, tagOctetString, s.EntryUUID[:])
		if s.Cookie != nil {
			b = AppendTLV(b, tagOctetString, s.Cookie)
		}
		return b
	})
}

// DecodeSyncState reads the control's value.
func DecodeSyncState(value []byte) (s SyncState, err error) {
	in := reader{value}
	r, err := in.sequence("a sync state")
	if err != nil {
		return s, err
	}
	state, err := r.enum("a sync state")
	if err != nil {
		return s, err
	}
	if s.State = SyncStateKind(state); s.State < SyncPresent || s.State > SyncDelete {
		return s, malformed("a sync state of %d", state)
	}
	if s.EntryUUID, err = readUUID(&r); err != nil {
		return s, err
	}
	s.Cookie, _, err = r.maybe(tagOctetString)
	return s, err
}

func readUUID(r *reader) (id [16]byte, err error) {
	b, err := r.bytes("an entryUUID")
	if err == nil && copy(id[:], b) != len(b) || len(b) != len(id) {
		err = malformed("an entryUUID of %d bytes", len(b))
	}
	return id, err
}

// SyncDone is the value of a Sync Done control (RFC 4533, section 2.4).
type SyncDone struct {
	Cookie         []byte // nil: there is none
	RefreshDeletes bool
}

// Encode gives the control's value.
func (s *SyncDone) Encode() []byte {
	return nest(nil, tagSequence, func(b []byte) []byte {
		if s.Cookie != nil {
			b = AppendTLV(b, tagOctetString, s.Cookie)
		}
		if s.RefreshDeletes {
			b = appendBool(b, tagBoolean, true)
		}
		return b
	})
}

// DecodeSyncDone reads the control's value.
func DecodeSyncDone(value []byte) (s SyncDone, err error) {
	in := reader{value}
	r, err := in.sequence("a sync done")
	if err != nil {
		return s, err
	}
	if s.Cookie, _, err = r.maybe(tagOctetString); err != nil {
		return s, err
	}
	if r.peek() == tagBoolean {
		s.RefreshDeletes, err = r.bool("refreshDeletes")
	}
	return s, err
}

// A SyncInfoKind is the choice that a SyncInfo is.
type SyncInfoKind byte

const (
	SyncNewCookie      SyncInfoKind = context
	SyncRefreshDelete  SyncInfoKind = context | constructed | 1
	SyncRefreshPresent SyncInfoKind = context | constructed | 2
	SyncIDSet          SyncInfoKind = context | constructed | 3
)

// SyncInfo is the value of a Sync Info message, an IntermediateResponse (RFC 4533, section 2.5).
type SyncInfo struct {
	Kind           SyncInfoKind
	Cookie         []byte     // nil: there is none
	RefreshDone    bool       // refreshDelete, refreshPresent: the refresh stage is over
	RefreshDeletes bool       // syncIdSet: these have gone, else they are there
	SyncUUIDs      [][16]byte // syncIdSet
}

// Encode gives the message's value.
func (s *SyncInfo) Encode() []byte {
	if s.Kind == SyncNewCookie {
		return AppendTLV(nil, byte(s.Kind), s.Cookie)
	}
	return nest(nil, byte(s.Kind), func(b []byte) []byte {
		if s.Cookie != nil {
			b = AppendTLV(b, tagOctetString, s.Cookie)
		}
		if s.Kind != SyncIDSet {
			if !s.RefreshDone { // DEFAULT TRUE
				b = appendBool(b, tagBoolean, false)
			}
			return b
		}
		if s.RefreshDeletes {
			b = appendBool(b, tagBoolean, true)
		}
		return nest(b, tagSet, func(b []byte) []byte {
			for i := range s.SyncUUIDs {
				b = AppendTLV(b, tagOctetString, s.SyncUUIDs[i][:])
			}
			return b
		})
	})
}

// DecodeSyncInfo reads the message's value.
func DecodeSyncInfo(value []byte) (s SyncInfo, err error) {
	in := reader{value}
	tag, c, err := in.next()
	if err != nil {
		return s, err
	}
	s.Kind = SyncInfoKind(tag)
	r := reader{c}
	switch s.Kind {
	case SyncNewCookie:
		s.Cookie = c
		return s, nil
	case SyncRefreshDelete, SyncRefreshPresent, SyncIDSet:
	default:
		return s, malformed("a sync info of the tag %#x", tag)
	}
	if s.Cookie, _, err = r.maybe(tagOctetString); err != nil {
		return s, err
	}
	flag := s.Kind != SyncIDSet
	if r.peek() == tagBoolean {
		if flag, err = r.bool("a sync info's flag"); err != nil {
			return s, err
		}
	}
	if s.Kind != SyncIDSet {
		s.RefreshDone = flag
		return s, nil
	}
	s.RefreshDeletes = flag
	set, err := r.set("syncUUIDs")
	for err == nil && !set.empty() {
		var id [16]byte
		if id, err = readUUID(&set); err == nil {
			s.SyncUUIDs = append(s.SyncUUIDs, id)
		}
	}
	return s, err
}
