package ldapwire

// EncodeAttributeSelection gives the value of a Pre-Read or Post-Read request control (RFC 4527, section 3).
func EncodeAttributeSelection(attributes ...string) []byte {
	return nest(nil, tagSequence, func(b []byte) []byte {
		for _, a := range attributes {
			b = appendString(b, tagOctetString, a)
		}
		return b
	})
}

// DecodeReadEntry reads the value of such a response control: the entry before or after the operation.
func DecodeReadEntry(value []byte) (*SearchResultEntry, error) {
	in := reader{value}
	c, err := in.take(byte(OpSearchResultEntry), "an entry that was read")
	if err != nil {
		// RFC 4527 has a SEQUENCE there, of a type that is tagged as the operation is: servers send either.
		in = reader{value}
		if c, err = in.take(tagSequence, "an entry that was read"); err != nil {
			return nil, err
		}
	}
	e := &SearchResultEntry{}
	return e, e.decode(c)
}

// EncodeFilter gives a filter as the value of an Assertion control (RFC 4528, section 3).
func EncodeFilter(f *Filter) []byte { return f.append(nil) }
