package store

import (
	"encoding/binary"

	"github.com/spooksystems/gateway/engine/lattice"
)

// Each table is one prefix byte. Numbers are big-endian, so that keys are in their order.
//
//	a origin seq           a candidate that waits for others
//	c origin seq           a candidate
//	d stamp register       a register whose hidden fields can be removed some day
//	h register 0 ordinal   what a commit made of a register
//	i kind 0 key           a record of the engine's own
//	j register             a register that a join brought, not joined yet
//	k table 0 key          a kept record
//	l ordinal              a commit: its dot and registers
//	m name                 one of a kind
//	o origin               the endpoint and incarnation behind an origin
//	p register             a register with candidates that wait for a marker
//	r register             the newest state of a register
//	s shard                hash over the registers of a shard
//	t stamp ordinal name   a history entry that outlives its commit
//	v origin               the last candidate of an origin
//
// Names hold no zero byte; key of a kept record may hold any.
const (
	earlyTable     = 'a'
	candidateTable = 'c'
	hiddenTable    = 'd'
	historyTable   = 'h'
	internalTable  = 'i'
	joinTable      = 'j'
	keptTable      = 'k'
	logTable       = 'l'
	metaTable      = 'm'
	originTable    = 'o'
	pendingTable   = 'p'
	registerTable  = 'r'
	shardTable     = 's'
	tailTable      = 't'
	headTable      = 'v'
)

// Candidate is the key of the candidate with that dot.
func Candidate(d lattice.Dot) []byte { return dotKey(candidateTable, d) }

// Early is the key of a candidate with that dot which waits for others.
func Early(d lattice.Dot) []byte { return dotKey(earlyTable, d) }

func dotKey(table byte, d lattice.Dot) []byte {
	return binary.BigEndian.AppendUint64(append(append(make([]byte, 0, 25), table), d.Origin[:]...), d.Seq)
}

// DotOf reads a key that Candidate or Early made.
func DotOf(key []byte) (d lattice.Dot, ok bool) {
	if len(key) != 25 {
		return d, false
	}
	copy(d.Origin[:], key[1:])
	d.Seq = binary.BigEndian.Uint64(key[17:])
	return d, true
}

// Hidden is the key of a register whose hidden fields can be removed from that stamp on, some day.
func Hidden(at lattice.Stamp, register string) []byte {
	return append(binary.BigEndian.AppendUint64(append(make([]byte, 0, len(register)+9), hiddenTable), uint64(at)), register...)
}

// HiddenOf reads a key that Hidden made.
func HiddenOf(key []byte) (at lattice.Stamp, register string) {
	return lattice.Stamp(binary.BigEndian.Uint64(key[1:])), string(key[9:])
}

// Tail is the key of a history entry that is to go at a stamp.
func Tail(at lattice.Stamp, ordinal uint64, register string) []byte {
	k := binary.BigEndian.AppendUint64(append(make([]byte, 0, len(register)+17), tailTable), uint64(at))
	return append(binary.BigEndian.AppendUint64(k, ordinal), register...)
}

// TailOf reads a key that Tail made.
func TailOf(key []byte) (at lattice.Stamp, ordinal uint64, register string) {
	return lattice.Stamp(binary.BigEndian.Uint64(key[1:])), binary.BigEndian.Uint64(key[9:]), string(key[17:])
}

// Pending is the key of a register with candidates that wait for a marker; as a prefix of names, where they begin.
func Pending(name string) []byte { return append([]byte{pendingTable}, name...) }

// Joining is the key of a register that a join brought.
func Joining(name string) []byte { return append([]byte{joinTable}, name...) }

// Shard is the key of the hash over the registers of a shard.
func Shard(n byte) []byte { return []byte{shardTable, n} }

// Head is the key of the last candidate of an origin.
func Head(o lattice.OriginID) []byte { return append([]byte{headTable}, o[:]...) }

// OriginOf reads a key that Head or Origin made.
func OriginOf(key []byte) (o lattice.OriginID, ok bool) {
	copy(o[:], key[1:])
	return o, len(key) == 17
}

// Internal is the key of a record of the engine's own; with an empty key, what the keys of its kind begin with.
func Internal(kind, key string) []byte {
	k := append(make([]byte, 0, len(kind)+len(key)+2), internalTable)
	return append(append(append(k, kind...), 0), key...)
}

// History is the key of what the commit with that ordinal made of a register.
func History(register string, ordinal uint64) []byte {
	return binary.BigEndian.AppendUint64(HistoryPrefix(register), ordinal)
}

// HistoryPrefix is what the keys of one register's history begin with.
func HistoryPrefix(register string) []byte {
	k := append(make([]byte, 0, len(register)+10), historyTable)
	return append(append(k, register...), 0)
}

// Commit is the key of the commit with that ordinal.
func Commit(ordinal uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 9), logTable), ordinal)
}

// CommitOrdinal reads a key that Commit made.
func CommitOrdinal(key []byte) (uint64, bool) {
	if len(key) != 9 || key[0] != logTable {
		return 0, false
	}
	return binary.BigEndian.Uint64(key[1:]), true
}

// Register is the key of a register's newest state; as a prefix of names, where they begin.
func Register(name string) []byte { return append(append(make([]byte, 0, 64), registerTable), name...) }

// RegisterName reads a key that Register, Pending or Joining made.
func RegisterName(key []byte) string { return string(key[1:]) }

// Origin is the key of what is behind an origin.
func Origin(o lattice.OriginID) []byte { return append([]byte{originTable}, o[:]...) }

// Meta is the key of something there is one of.
func Meta(name string) []byte { return append([]byte{metaTable}, name...) }

// Kept is the key of a kept record; with an empty key, what the keys of its table begin with.
func Kept(table, key string) []byte {
	k := append(make([]byte, 0, len(table)+len(key)+2), keptTable)
	return append(append(append(k, table...), 0), key...)
}

// KeptKey reads the record's own key from a key that Kept made for table.
func KeptKey(key []byte, table string) string { return string(key[len(table)+2:]) }

// Behind is the lowest key behind all that begin with prefix; nil if there is none.
func Behind(prefix []byte) []byte {
	for i := len(prefix); i > 0; i-- {
		if prefix[i-1] != 0xff {
			end := append([]byte(nil), prefix[:i]...)
			end[i-1]++
			return end
		}
	}
	return nil
}
