package ldapwire

// Values of controls and extended operations as a server reads and writes them.

// DecodeFilter reads the value of an Assertion control (RFC 4528, section 3).
func DecodeFilter(value []byte) (*Filter, error) {
	r := reader{value}
	f, err := readFilter(&r, 0)
	if err == nil && !r.empty() {
		err = malformed("%d bytes behind a filter", len(r.b))
	}
	return f, err
}

// DecodeAttributeSelection reads the value of a Pre-Read or Post-Read request control (RFC 4527, section 3).
func DecodeAttributeSelection(value []byte) (attributes []string, err error) {
	in := reader{value}
	r, err := in.sequence("the attributes to read")
	for err == nil && !r.empty() {
		var a string
		if a, err = r.text("an attribute"); err == nil {
			attributes = append(attributes, a)
		}
	}
	return attributes, err
}

// EncodeReadEntry gives the value of such a response control.
func EncodeReadEntry(e *SearchResultEntry) []byte {
	return nest(nil, byte(OpSearchResultEntry), e.append)
}

// A SortKey is one of those of a server-side sort (RFC 2891, section 1.1).
type SortKey struct {
	Attribute string
	Rule      string // matching rule, "" for the attribute's own
	Reverse   bool
}

// DecodeSort reads the value of a sort request control (RFC 2891, section 1.1).
func DecodeSort(value []byte) (keys []SortKey, err error) {
	in := reader{value}
	r, err := in.sequence("sort keys")
	for err == nil && !r.empty() {
		var one reader
		if one, err = r.sequence("a sort key"); err != nil {
			break
		}
		var k SortKey
		if k.Attribute, err = one.text("a sort key's attribute"); err != nil {
			break
		}
		rule, _, e := one.maybe(context)
		if err = e; err != nil {
			break
		}
		k.Rule = string(rule)
		reverse, there, e := one.maybe(context | 1)
		if err = e; err == nil && there {
			k.Reverse, err = boolean(reverse, "reverseOrder")
		}
		keys = append(keys, k)
	}
	if err == nil && len(keys) == 0 {
		err = malformed("no sort key")
	}
	return keys, err
}

// EncodeSort gives the value of a sort request control.
func EncodeSort(keys ...SortKey) []byte {
	return nest(nil, tagSequence, func(b []byte) []byte {
		for _, k := range keys {
			b = nest(b, tagSequence, func(b []byte) []byte {
				b = appendString(b, tagOctetString, k.Attribute)
				if k.Rule != "" {
					b = appendString(b, context, k.Rule)
				}
				if k.Reverse {
					b = appendBool(b, context|1, true)
				}
				return b
			})
		}
		return b
	})
}

// EncodeSortResult gives the value of a sort response control (RFC 2891, section 1.2); attribute: the first at fault, or "".
func EncodeSortResult(code ResultCode, attribute string) []byte {
	return nest(nil, tagSequence, func(b []byte) []byte {
		b = appendInt(b, tagEnumerated, int64(code))
		if attribute != "" {
			b = appendString(b, context, attribute)
		}
		return b
	})
}

// Kinds of changes of a persistent search (draft-ietf-ldapext-psearch-03, section 4).
const (
	ChangeAdd    = 1
	ChangeDelete = 2
	ChangeModify = 4
	ChangeModDN  = 8
)

// A PersistentSearch is the value of that control.
type PersistentSearch struct {
	ChangeTypes int64
	ChangesOnly bool
	ReturnECs   bool
}

// Encode gives the control's value.
func (p *PersistentSearch) Encode() []byte {
	return nest(nil, tagSequence, func(b []byte) []byte {
		return appendBool(appendBool(appendInt(b, tagInteger, p.ChangeTypes), tagBoolean, p.ChangesOnly), tagBoolean, p.ReturnECs)
	})
}

// DecodePersistentSearch reads the control's value.
func DecodePersistentSearch(value []byte) (p PersistentSearch, err error) {
	in := reader{value}
	r, err := in.sequence("a persistent search")
	if err != nil {
		return p, err
	}
	if p.ChangeTypes, err = r.int("changeTypes"); err != nil {
		return p, err
	}
	if p.ChangesOnly, err = r.bool("changesOnly"); err != nil {
		return p, err
	}
	p.ReturnECs, err = r.bool("returnECs")
	return p, err
}

// EncodeEntryChange gives the value of an entry change notification control; previous: the former name of one that was moved,
// or "".
func EncodeEntryChange(kind int64, previous string) []byte {
	return nest(nil, tagSequence, func(b []byte) []byte {
		b = appendInt(b, tagEnumerated, kind)
		if previous != "" {
			b = appendString(b, tagOctetString, previous)
		}
		return b
	})
}

// A PasswordModify is the value of that request (RFC 3062, section 2); nil: it is not there.
type PasswordModify struct {
	UserIdentity, OldPasswd, NewPasswd []byte
}

// DecodePasswordModify reads the request's value.
func DecodePasswordModify(value []byte) (p PasswordModify, err error) {
	if value == nil {
		return p, nil
	}
	in := reader{value}
	r, err := in.sequence("a password modification")
	if err != nil {
		return p, err
	}
	for tag, to := range []*[]byte{&p.UserIdentity, &p.OldPasswd, &p.NewPasswd} {
		v, there, err := r.maybe(context | byte(tag))
		if err != nil {
			return p, err
		}
		if there {
			*to = v
		}
	}
	if !r.empty() {
		err = malformed("what a password modification has no place for")
	}
	return p, err
}

// EncodePasswordGenerated gives the value of the response that tells a password the server made.
func EncodePasswordGenerated(password string) []byte {
	return nest(nil, tagSequence, func(b []byte) []byte { return appendString(b, context, password) })
}

// DecodeCancel reads the value of a Cancel request (RFC 3909, section 2.1).
func DecodeCancel(value []byte) (id int32, err error) {
	in := reader{value}
	r, err := in.sequence("a cancel request")
	if err != nil {
		return 0, err
	}
	v, err := r.int("the message ID to cancel")
	if err == nil && (v < 0 || v > MaxMessageID) {
		err = malformed("the message ID %d", v)
	}
	return int32(v), err
}
