package sql

import (
	"encoding/binary"
	"reflect"
	"testing"
)

// Messages as PostgreSQL 15 sends them, written out by hand after "Logical Replication Message Formats".

func message(kind byte, parts ...any) []byte {
	b := []byte{kind}
	for _, p := range parts {
		switch p := p.(type) {
		case byte:
			b = append(b, p)
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(p))
		case uint16:
			b = binary.BigEndian.AppendUint16(b, p)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, p)
		case string:
			b = append(append(b, p...), 0)
		case []byte:
			b = append(binary.BigEndian.AppendUint32(append(b, 't'), uint32(len(p))), p...)
		}
	}
	return b
}

var outputs = []struct {
	name string
	raw  []byte
	want any
}{
	{"begin", message('B', uint64(0x100000002), uint64(0), 7), outBegin{final: 0x100000002, at: serverEpoch, xid: 7}},
	{"commit", message('C', byte(0), uint64(2), uint64(3), uint64(4)), outCommit{2, 3}},
	{"origin", message('O', uint64(2), "spook"), outOrigin{"spook"}},
	{"relation", message('R', 16384, "public", "t", byte('d'), uint16(2), byte(1), "id", 23, -1, byte(0), "v", 25, -1),
		outRelation{16384, tableName{"public", "t"}, 'd', []outColumn{{"id", true, 23}, {"v", false, 25}}}},
	{"type", message('Y', 16390, "public", "mood"), outType{16390, tableName{"public", "mood"}}},
	{"insert", message('I', 16384, byte('N'), uint16(3), []byte("1"), byte('n'), byte('u')),
		outInsert{16384, tuple{{cellText, []byte("1")}, {kind: cellNull}, {kind: cellUnchanged}}}},
	{"update", message('U', 16384, byte('N'), uint16(1), []byte("2")), outUpdate{oid: 16384, row: tuple{{cellText, []byte("2")}}}},
	{"update of the key", message('U', 16384, byte('K'), uint16(1), []byte("1"), byte('N'), uint16(1), []byte("2")),
		outUpdate{oid: 16384, old: tuple{{cellText, []byte("1")}}, row: tuple{{cellText, []byte("2")}}}},
	{"delete", message('D', 16384, byte('O'), uint16(1), []byte("")), outDelete{16384, tuple{{cellText, []byte{}}}, true}},
	{"truncate", message('T', 2, byte(0), 16384, 16385), outTruncate{[]uint32{16384, 16385}}},
	{"message", append(message('M', byte(1), uint64(9), "spookgw", 2), "ab"...), outMessage{true, 9, "spookgw", []byte("ab")}},
}

func TestParseOutput(t *testing.T) {
	for _, test := range outputs {
		got, err := parseOutput(test.raw)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %+v, %v; want %+v", test.name, got, err, test.want)
		}
		for n := range len(test.raw) { // cut off anywhere
			if got, err := parseOutput(test.raw[:n]); err == nil {
				t.Errorf("%s: %d bytes of %d give %+v", test.name, n, len(test.raw), got)
			}
		}
	}
}

func FuzzParseOutput(f *testing.F) {
	for _, test := range outputs {
		f.Add(test.raw)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseOutput(b)
		if (m == nil) == (err == nil) {
			t.Errorf("got %v and %v", m, err)
		}
	})
}

func TestLSN(t *testing.T) {
	for _, s := range []string{"0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"} {
		l, err := parseLSN(s)
		if err != nil || l.String() != s {
			t.Errorf("%s: got %s, %v", s, l, err)
		}
	}
	if _, err := parseLSN("x"); err == nil {
		t.Error("no error")
	}
}
