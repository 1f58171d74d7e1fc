package ldapwire

// EncodePaged gives the value of a Paged Results control (RFC 2696): entries for one page, and where to go on; of a response the
// size is an estimate of all there are, 0: not known, and an empty cookie the end.
func EncodePaged(size int64, cookie []byte) []byte {
	return nest(nil, tagSequence, func(b []byte) []byte {
		b = appendInt(b, tagInteger, size)
		return AppendTLV(b, tagOctetString, cookie)
	})
}

// DecodePaged reads the control's value.
func DecodePaged(value []byte) (size int64, cookie []byte, err error) {
	in := reader{value}
	r, err := in.sequence("a page")
	if err != nil {
		return 0, nil, err
	}
	if size, err = r.int("a page's size"); err != nil {
		return 0, nil, err
	}
	cookie, err = r.bytes("a page's cookie")
	return size, cookie, err
}
