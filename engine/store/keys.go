package store

import (
	"encoding/binary"

	"github.com/spooksystems/gateway/engine/lattice"
)

// Each table is one prefix byte. Numbers are big-endian, so that keys are in their order.
//
//	c origin seq           a candidate
//	h register 0 ordinal   what a commit made of a register
//	k table 0 key          a kept record
//	l ordinal              a commit: its dot and registers
//	m name                 one of a kind
//	o origin               the endpoint and incarnation behind an origin
//	r register             the newest state of a register
//
// Names hold no zero byte; key of a kept record may hold any.
const (
	candidateTable = 'c'
	historyTable   = 'h'
	keptTable      = 'k'
	logTable       = 'l'
	metaTable      = 'm'
	originTable    = 'o'
	registerTable  = 'r'
)

// Candidate is the key of the candidate with that dot.
func Candidate(d lattice.Dot) []byte {
	return binary.BigEndian.AppendUint64(append(append(make([]byte, 0, 25), candidateTable), d.Origin[:]...), d.Seq)
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
func Register(name string) []byte { return append([]byte{registerTable}, name...) }

// RegisterName reads a key that Register made.
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
