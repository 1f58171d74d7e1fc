package sql

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

func TestParseStartup(t *testing.T) {
	whole, err := (&pgproto3.StartupMessage{ProtocolVersion: protocol3 | 2, Parameters: map[string]string{"user": "joe", "database": "erp"}}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, n, err := parseStartup(append(whole, "Q"...))
	if err != nil || n != len(whole) || s.params["user"] != "joe" || s.params["database"] != "erp" || s.code != protocol3|2 {
		t.Errorf("got %+v, %d, %v", s, n, err)
	}
	for n := range whole {
		if _, size, err := parseStartup(whole[:n]); size != 0 || err != nil {
			t.Errorf("%d bytes: got %d, %v", n, size, err)
		}
	}
	request := func(code, more int) []byte {
		b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(8+more)), uint32(code))
		return append(b, make([]byte, more)...)
	}
	for _, test := range []struct {
		name string
		b    []byte
		size int
		bad  bool
	}{
		{"TLS", request(sslRequest, 0), 8, false},
		{"GSS", request(gssRequest, 0), 8, false},
		{"cancel", request(cancelRequest, 8), 16, false},
		{"cancel with the longer key of 3.2", request(cancelRequest, 36), 44, false},
		{"version 2", request(2<<16, 4), 12, false},
		{"TLS with more", request(sslRequest, 4), 0, true},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), 0, true},
		{"too large", request(protocol3, mostStartup), 0, true},
		{"no end", append(request(protocol3, 0)[:3], 11, 0, 3, 0, 0, 'a', 'b', 'c'), 0, true},
	} {
		if _, size, err := parseStartup(test.b); size != test.size || (err != nil) != test.bad {
			t.Errorf("%s: got %d, %v", test.name, size, err)
		}
	}
}

func TestErrorResponse(t *testing.T) {
	b := errorResponse("FATAL", stateTooManyConns, "too many")
	msg, err := pgproto3.NewFrontend(bytes.NewReader(b), nil).Receive()
	if e, ok := msg.(*pgproto3.ErrorResponse); err != nil || !ok || e.Code != "53300" || e.Message != "too many" || e.Severity != "FATAL" || e.SeverityUnlocalized != "FATAL" {
		t.Errorf("got %+v, %v", msg, err)
	}
}

func TestTagWrites(t *testing.T) {
	for tag, want := range map[string]bool{
		"SELECT 5": false, "INSERT 0 1": true, "UPDATE 0": true, "DELETE 2": true, "COPY 7": true, "BEGIN": false, "COMMIT": true, "ROLLBACK": false,
		"COMMIT PREPARED": true, "PREPARE TRANSACTION": true, "PREPARE": false, "CALL": true, "DO": true, "MERGE 1": true, "TRUNCATE TABLE": true, "SET": false,
	} {
		if got := tagWrites([]byte(tag)); got != want {
			t.Errorf("%s: got %v, want %v", tag, got, want)
		}
	}
}

func TestReads(t *testing.T) {
	for text, want := range map[string]bool{
		"SELECT * FROM sensors": true, " (select 1)": true, "select 1;": true, "SELECT 1; UPDATE sensors SET v = 1": false, "WITH x AS (DELETE FROM sensors) SELECT 1": false,
		"selectx": false, "INSERT INTO sensors": false, "": false, "TABLE sensors ; ": true,
	} {
		if got := reads([]byte(text)); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
	for tag, want := range map[string]bool{"UPDATE 0": false, "UPDATE 10": true, "INSERT 0 0": false, "INSERT 0 1": true, "COMMIT": false, "SELECT 3": false, "DO": true} {
		if got := tagWrote([]byte(tag)); got != want {
			t.Errorf("%s: got %v, want %v", tag, got, want)
		}
	}
}

// FuzzFrames holds the scanner against the library's reading of the same bytes: both find the same borders.
func FuzzFrames(f *testing.F) {
	q, _ := (&pgproto3.Query{String: "select 1"}).Encode(nil)
	p, _ := (&pgproto3.Parse{Name: "a", Query: "update sensors set v = $1"}).Encode(nil)
	b, _ := (&pgproto3.Bind{PreparedStatement: "a", Parameters: [][]byte{[]byte("1")}}).Encode(nil)
	f.Add(append(append(q, p...), b...))
	f.Add([]byte{'Q', 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		h := &session{d: &database{w: &wrapper{sync: true}, link: newLink()}}
		h.d.w.cfg.Limits.Frame = 1 << 20
		h.d.watch.Store(&tableWatch{names: [][]byte{[]byte("sensors")}})
		seen := 0
		for rest := b; ; {
			size, err := frameSize(rest)
			if err != nil || size == 0 {
				break
			}
			if size < 5 {
				t.Fatalf("a frame of %d bytes", size)
			}
			if size > int64(len(rest)) {
				break
			}
			h.heard(rest[0], rest[frameHead:size], false)
			rest = rest[size:]
			seen += int(size)
		}
		if seen > len(b) {
			t.Fatal("more frames than bytes")
		}
		if _, n, err := parseStartup(b); n > len(b) || err != nil && n != 0 {
			t.Fatalf("a first frame of %d bytes of %d: %v", n, len(b), err)
		}
	})
}

func TestMentions(t *testing.T) {
	w := &tableWatch{names: [][]byte{[]byte("sensors"), []byte("ü")}}
	for text, want := range map[string]uint64{
		"UPDATE Sensors SET v = 1": 1, `insert into "public"."sensors"`: 1, "select 1": 0, "sensor": 0, "xsensors": 1, "select 'ü', ssensorsensors": 3, "": 0,
	} {
		if got := w.in([]byte(text)); got != want {
			t.Errorf("%q: got %b, want %b", text, got, want)
		}
	}
	long := []byte(strings.Repeat("s", 1000))
	if n := testing.AllocsPerRun(100, func() { w.in(long) }); n != 0 {
		t.Errorf("got %v allocations", n)
	}
}
