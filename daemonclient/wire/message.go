// Package wire is the form in which the daemon's door and its clients talk: JSON-RPC 2.0 in a
// strict profile, one message per line.
//
// The profile: UTF-8; integer ids; no batches; one message at most MaxMessage bytes; bounded depth;
// duplicate keys refused; unknown members ignored; names compared exactly.
package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spooksystems/gateway/engine/lattice"
)

// The limits both sides keep.
const (
	Version    = 1
	MaxMessage = 1 << 20                // bytes of one line, without its end
	MaxDepth   = 32                     // levels of arrays and objects in what the daemon reads
	ReplyDepth = 2*lattice.MaxDepth + 8 // and in what it answers: a stored value may be deeper, and a set costs two
	MaxCalls   = 64                     // answered at once per connection; more wait unread
	MaxSubs    = 256                    // subscriptions per connection
	MaxCredit  = 4096
	MaxPage    = 1000 // items of one answer of list and history
)

// What can be wrong with a message. ErrSyntax and ErrForm leave the stream in step: the next line
// is a new message. So does ErrTooLong: the line was read to its end and dropped.
var (
	ErrSyntax  = errors.New("not JSON of the strict profile")
	ErrForm    = errors.New("not a JSON-RPC 2.0 message of the strict profile")
	ErrTooLong = fmt.Errorf("message longer than %d bytes", MaxMessage)
)

// A Message is any of a call (Method, HasID), a notification (Method alone), an answer (Result or
// Err, HasID), or the answer to something that had no legible id (Err alone).
type Message struct {
	ID     int64
	HasID  bool
	Method string
	Params json.RawMessage // an object, or nil
	Result json.RawMessage
	Err    *Error
}

// An Error is the error member of an answer.
type Error struct {
	Code    int        `json:"code"`
	Message string     `json:"message"`
	Data    *ErrorData `json:"data,omitempty"`
}

// ErrorData names the engine's kind of error, the register it concerns, and the whole text.
type ErrorData struct {
	Kind     string `json:"kind"`
	Register string `json:"register,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

// A Reader takes messages from a stream. It holds at most MaxMessage bytes.
type Reader struct {
	b     *bufio.Reader
	depth int
}

// NewReader reads from r messages of at most depth levels.
func NewReader(r io.Reader, depth int) *Reader {
	return &Reader{bufio.NewReaderSize(r, 16<<10), depth}
}

// Next gives the next message. Empty lines are passed over. After an error that wraps ErrSyntax,
// ErrForm or ErrTooLong it may be called again; any other error, io.EOF too, is the end. A last
// line without an end is io.ErrUnexpectedEOF: it may have been cut.
func (r *Reader) Next() (Message, error) {
	for {
		line, err := r.line()
		if err != nil {
			return Message{}, err
		}
		if len(bytes.TrimSpace(line)) > 0 {
			return Parse(line, r.depth)
		}
	}
}

func (r *Reader) line() ([]byte, error) {
	var whole []byte
	long := false
	for {
		part, err := r.b.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case err == io.EOF && len(whole)+len(part) > 0, err == io.EOF && long:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		end := err == nil
		if end {
			part = part[:len(part)-1]
		}
		if len(whole)+len(part) > MaxMessage {
			long, whole = true, nil
		}
		switch {
		case end && long:
			return nil, ErrTooLong
		case long:
		case end && whole == nil:
			return part, nil
		default:
			whole = append(whole, part...)
			if end {
				return whole, nil
			}
		}
	}
}

// Parse reads one message. The result shares no memory with line.
func Parse(line []byte, depth int) (Message, error) {
	if err := Check(line, depth); err != nil {
		return Message{}, err
	}
	if t := bytes.TrimSpace(line); t[0] != '{' {
		return Message{}, fmt.Errorf("%w: not an object (batches are not in the profile)", ErrForm)
	}
	var (
		m       Message
		version string
		id      json.RawMessage
		fault   json.RawMessage
	)
	err := Members(line,
		Member{"jsonrpc", &version},
		Member{"id", &id},
		Member{"method", &m.Method},
		Member{"params", &m.Params},
		Member{"result", &m.Result},
		Member{"error", &fault},
	)
	if err != nil {
		return Message{}, fmt.Errorf("%w: %v", ErrForm, err)
	}
	nullID := string(id) == "null"
	if id != nil && !nullID {
		// Beyond 2^53 a peer whose numbers are floating point would not find its own id again.
		m.ID, err = strconv.ParseInt(string(id), 10, 64)
		if err != nil || m.ID > 1<<53 || m.ID < -1<<53 {
			return Message{}, fmt.Errorf("%w: id is not an integer within 2^53", ErrForm)
		}
		m.HasID = true
	}
	if string(m.Params) == "null" {
		m.Params = nil
	}
	if string(fault) == "null" {
		fault = nil
	}
	switch {
	case version != "2.0":
		return Message{}, fmt.Errorf("%w: jsonrpc is not \"2.0\"", ErrForm)
	case m.Params != nil && m.Params[0] != '{':
		return m, fmt.Errorf("%w: params is not an object", ErrForm)
	case m.Method != "":
		if m.Result != nil || fault != nil || nullID {
			return m, fmt.Errorf("%w: a call has neither result nor error nor a null id", ErrForm)
		}
		return m, nil
	case fault != nil && m.Result == nil:
		m.Err = new(Error)
		var data json.RawMessage
		if err := Members(fault, Member{"code", &m.Err.Code}, Member{"message", &m.Err.Message}, Member{"data", &data}); err != nil {
			return m, fmt.Errorf("%w: error: %v", ErrForm, err)
		}
		if len(data) > 0 && data[0] == '{' {
			m.Err.Data = new(ErrorData)
			if err := Members(data, Member{"kind", &m.Err.Data.Kind}, Member{"register", &m.Err.Data.Register}, Member{"detail", &m.Err.Data.Detail}); err != nil {
				return m, fmt.Errorf("%w: error data: %v", ErrForm, err)
			}
		}
		return m, nil
	case m.Result != nil && fault == nil && m.HasID:
		return m, nil
	}
	return m, fmt.Errorf("%w: neither a call nor an answer", ErrForm)
}

// A Member is one member of an object and where it goes.
type Member struct {
	Name string
	Into any
}

// Members reads the named members of a JSON object; others are ignored, absent ones leave Into as
// it is. Unlike encoding/json with a struct it compares names exactly: "Register" is not "register".
func Members(object []byte, members ...Member) error {
	var all map[string]json.RawMessage
	if len(object) == 0 {
		return nil
	}
	if err := json.Unmarshal(object, &all); err != nil {
		return err
	}
	for _, m := range members {
		raw, ok := all[m.Name]
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, m.Into); err != nil {
			return fmt.Errorf("%s: %w", m.Name, plain(err))
		}
	}
	return nil
}

// plain says what encoding/json found in words that don't name Go types.
func plain(err error) error {
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("a %s does not fit here", t.Value)
	}
	return err
}

// AppendCall appends a call's or, without an id, a notification's line to dst.
func AppendCall(dst []byte, id int64, hasID bool, method string, params any) ([]byte, error) {
	dst = append(dst, `{"jsonrpc":"2.0"`...)
	if hasID {
		dst = append(dst, `,"id":`...)
		dst = strconv.AppendInt(dst, id, 10)
	}
	dst = append(dst, `,"method":`...)
	dst, err := appendJSON(dst, method)
	if err != nil {
		return nil, err
	}
	if params != nil {
		dst = append(dst, `,"params":`...)
		if dst, err = appendJSON(dst, params); err != nil {
			return nil, err
		}
	}
	return endLine(append(dst, '}'))
}

// AppendResult appends an answer's line to dst.
func AppendResult(dst []byte, id int64, result any) ([]byte, error) {
	dst = append(dst, `{"jsonrpc":"2.0","id":`...)
	dst = strconv.AppendInt(dst, id, 10)
	dst = append(dst, `,"result":`...)
	if result == nil {
		result = struct{}{}
	}
	dst, err := appendJSON(dst, result)
	if err != nil {
		return nil, err
	}
	return endLine(append(dst, '}'))
}

// AppendError appends the line of a refusal; without an id it answers what was illegible.
func AppendError(dst []byte, id int64, hasID bool, e *Error) []byte {
	dst = append(dst, `{"jsonrpc":"2.0","id":`...)
	if hasID {
		dst = strconv.AppendInt(dst, id, 10)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"error":`...)
	b, err := json.Marshal(e)
	if err != nil { // strings and an int
		panic(err)
	}
	return append(append(dst, b...), '}', '\n')
}

func endLine(b []byte) ([]byte, error) {
	if len(b) > MaxMessage {
		return nil, ErrTooLong
	}
	return append(b, '\n'), nil
}

func appendJSON(dst []byte, v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return append(dst, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...), nil
}

// JSON gives v's JSON without escaping for HTML.
func JSON(v any) (json.RawMessage, error) { return appendJSON(nil, v) }
