package lattice

// A Blob stands for content that is too large to be kept in a register: it is kept beside the log, in chunks that are
// named by their hash.
type Blob struct {
	Hash Hash   // SHA-256 over the hashes of its chunks, in order
	Size uint64 // bytes
	Type string // media type, "" if nobody said
}

const blobMember = "$blob"

// Value is what stands in a register: an object with the members $blob, size and type.
func (b Blob) Value() Value {
	members := []Member{{blobMember, Bytes(b.Hash[:])}, {"size", Int(int64(b.Size))}}
	if b.Type != "" {
		members = append(members, Member{"type", String(b.Type)})
	}
	return Object(members...)
}

// BlobOf reads what Blob.Value made; ok is false for any other value.
func BlobOf(v Value) (b Blob, ok bool) {
	if v.kind != ObjectKind {
		return b, false
	}
	hash, _ := v.Member(blobMember)
	if hash.kind != BytesKind || hash.Len() != len(b.Hash) {
		return b, false
	}
	copy(b.Hash[:], hash.Bytes())
	size, _ := v.Member("size")
	kind, _ := v.Member("type")
	b.Size, b.Type = uint64(max(size.Int(), 0)), kind.Text()
	return b, true
}
