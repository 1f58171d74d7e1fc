package sql

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The frames of the frontend/backend protocol, version 3 (PostgreSQL, chapter "Frontend/Backend
// Protocol"): one type byte and a length that counts itself; the first frame of a client has no
// type byte.

// Codes in the first frame of a client.
const (
	protocol3     = 3 << 16 // major version; the minor one stands in the lower half
	cancelRequest = 80877102
	sslRequest    = 80877103
	gssRequest    = 80877104
)

// mostStartup is what PostgreSQL takes as a first frame (MAX_STARTUP_PACKET_LENGTH).
const mostStartup = 10_000

// Message types that the relay looks at.
const (
	msgQuery     = 'Q'
	msgParse     = 'P'
	msgBind      = 'B'
	msgExecute   = 'E'
	msgSync      = 'S'
	msgFunction  = 'F'
	msgTerminate = 'X'

	msgAuth      = 'R'
	msgComplete  = 'C'
	msgError     = 'E'
	msgReady     = 'Z'
	msgNotice    = 'N'
	msgParameter = 'S'
)

const frameHead = 5

var errFrame = errors.New("not a frame of PostgreSQL's protocol")

// frameSize reads the head of a frame; size counts all of it. Zero: the head is not whole.
func frameSize(b []byte) (size int64, err error) {
	if len(b) < frameHead {
		return 0, nil
	}
	n := binary.BigEndian.Uint32(b[1:])
	if n < 4 || n > 1<<31-1 {
		return 0, fmt.Errorf("%w: type %q, length %d", errFrame, b[0], n)
	}
	return int64(n) + 1, nil
}

// startup is what a client says first.
type startup struct {
	code   uint32
	params map[string]string
}

// parseStartup reads a first frame that is whole. size is its length; 0: more is needed.
func parseStartup(b []byte) (s startup, size int, err error) {
	if len(b) < 8 {
		return s, 0, nil
	}
	n := binary.BigEndian.Uint32(b)
	if n < 8 || n > mostStartup {
		return s, 0, fmt.Errorf("%w: a first frame of %d bytes", errFrame, n)
	}
	s.code = binary.BigEndian.Uint32(b[4:])
	if len(b) < int(n) {
		return s, 0, nil
	}
	body := b[8:n]
	switch {
	case s.code == sslRequest || s.code == gssRequest:
		if n != 8 {
			return s, 0, fmt.Errorf("%w: a request for encryption of %d bytes", errFrame, n)
		}
		return s, 8, nil
	case s.code == cancelRequest:
		return s, int(n), nil
	case s.code>>16 != protocol3>>16:
		// Another major version: the server says what it thinks of it.
		return s, int(n), nil
	}
	s.params = map[string]string{}
	for len(body) > 1 {
		name, rest, ok1 := bytes.Cut(body, []byte{0})
		value, rest, ok2 := bytes.Cut(rest, []byte{0})
		if !ok1 || !ok2 {
			return s, 0, fmt.Errorf("%w: parameters without an end", errFrame)
		}
		if len(name) == 0 {
			break
		}
		s.params[string(name)] = string(value)
		body = rest
	}
	return s, int(n), nil
}

// cstring takes a text that ends with a zero byte off b. What is cut off by the end of b counts.
func cstring(b []byte) (text, rest []byte) {
	text, rest, _ = bytes.Cut(b, []byte{0})
	return text, rest
}

// errorResponse makes the frame of an error (severity FATAL ends the session).
func errorResponse(severity, code, text string) []byte {
	b := []byte{msgError, 0, 0, 0, 0}
	for _, f := range []struct {
		field byte
		text  string
	}{{'S', severity}, {'V', severity}, {'C', code}, {'M', text}} {
		b = append(append(append(b, f.field), f.text...), 0)
	}
	b = append(b, 0)
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-1))
	return b
}

// tagWrote tells whether a command's tag says that rows were written.
func tagWrote(tag []byte) bool {
	if !tagWrites(tag) || string(tag) == "COMMIT" {
		return false
	}
	return !bytes.HasSuffix(tag, []byte(" 0"))
}

// reads tells whether a text is one statement that only reads, as far as its first word says.
func reads(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n(")
	n := 0
	for n < len(text) && (text[n]|0x20 >= 'a' && text[n]|0x20 <= 'z') {
		n++
	}
	reads := false
	for _, word := range [...]string{"select", "show", "table", "values", "fetch", "declare", "listen", "set"} {
		if n == len(word) && bytes.EqualFold(text[:n], []byte(word)) {
			reads = true
		}
	}
	if !reads {
		return false
	}
	i := bytes.IndexByte(text, ';')
	return i < 0 || len(bytes.TrimRight(text[i:], " \t\r\n;")) == 0
}

// tagWrites tells whether a command's tag says that something may have been written.
func tagWrites(tag []byte) bool {
	word, _, _ := bytes.Cut(tag, []byte(" "))
	switch string(word) {
	case "SELECT", "BEGIN", "START", "SET", "SHOW", "FETCH", "MOVE", "CLOSE", "DECLARE", "LISTEN", "UNLISTEN", "NOTIFY", "DISCARD", "DEALLOCATE",
		"PREPARE", "EXPLAIN", "ROLLBACK", "SAVEPOINT", "RELEASE", "LOCK", "RESET", "CHECKPOINT", "LOAD":
		return bytes.Equal(tag, []byte("ROLLBACK PREPARED")) || string(word) == "PREPARE" && bytes.HasSuffix(tag, []byte("TRANSACTION"))
	}
	return true
}
