package ldapwire

// Flags of a DirSync (MS-ADTS, section 3.1.1.3.4.1.3).
const (
	DirSyncObjectSecurity    = 0x1 // what the account may not read is not shown, and no right to replicate is needed
	DirSyncAncestorsFirst    = 0x800
	DirSyncPublicDataOnly    = 0x2000
	DirSyncIncrementalValues = -0x80000000 // of linked attributes only the values that changed
)

// DirSync is the value of a DirSync control (MS-ADTS, section 3.1.1.3.4.1.3). Of a response Flags is 0 where nothing more has
// changed, and the cookie is where to go on.
type DirSync struct {
	Flags  int64
	Size   int64 // bytes of attributes at most; 0: the server's own limit
	Cookie []byte
}

// Encode gives the control's value.
func (d *DirSync) Encode() []byte {
	return nest(nil, tagSequence, func(b []byte) []byte {
		b = appendInt(b, tagInteger, d.Flags)
		b = appendInt(b, tagInteger, d.Size)
		return AppendTLV(b, tagOctetString, d.Cookie)
	})
}

// DecodeDirSync reads the control's value.
func DecodeDirSync(value []byte) (d DirSync, err error) {
	in := reader{value}
	r, err := in.sequence("a DirSync")
	if err != nil {
		return d, err
	}
	if d.Flags, err = r.int("a DirSync's flags"); err != nil {
		return d, err
	}
	if d.Size, err = r.int("a DirSync's size"); err != nil {
		return d, err
	}
	d.Cookie, err = r.bytes("a DirSync's cookie")
	return d, err
}
