// Package recording is the form in which operations are kept in a file, to be tried on mappings later: JSON Lines, the first
// line a Header, each other one an Operation. It also masks what must not leave the gateway (mask.go).
package recording

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/spooksystems/gateway/wrappers"
)

// Format and Version stand in the first line. A reader refuses another format, and a version above its own.
const (
	Format  = "spookgw-recording"
	Version = 1
)

// MaxPayload is how many bytes of a payload are recorded; of a longer one only its size.
const MaxPayload = 16 << 20

// maxLine is the longest line a Reader takes: a payload in base64, or as text of which each byte is escaped, and the rest.
const maxLine = 6*MaxPayload + 1<<20

// maxParts bounds how deep and how many the parts of an operation may be.
const maxParts = 10_000

// ErrFormat means that what is read is no recording, or one of a later version.
var ErrFormat = errors.New("not a recording")

// A Header is the first line.
type Header struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Began   time.Time `json:"began"`
	Server  string    `json:"server,omitempty"` // the program that ran
}

// Kind is how an operation came to a gateway.
type Kind string

// The kinds.
const (
	Write  Kind = "write"  // a peer's, that concerns a register or was refused
	Read   Kind = "read"   // a peer's question
	Seen   Kind = "seen"   // what a server showed in a feed or when it was asked
	Passed Kind = "passed" // no bind maps it: a relay let it pass, or a wrapper refused it
)

// NoNews is the outcome of what a server showed and the gateway knew: a repetition, or the gateway's own write coming back.
const NoNews = "no news"

// NotTaken is the outcome of a write that the server behind a relay refused.
const NotTaken = "the server did not take it"

// An Operation is one line. Times are when it came.
type Operation struct {
	Time      time.Time         `json:"time"`
	Kind      Kind              `json:"kind"`
	Protocol  string            `json:"protocol"`
	Wrapper   string            `json:"wrapper"`
	Verb      string            `json:"verb,omitempty"` // "" where Parts are set
	Server    string            `json:"server,omitempty"`
	Address   string            `json:"address,omitempty"`
	To        string            `json:"to,omitempty"` // of a rename
	Text      *string           `json:"text,omitempty"`
	Base64    *string           `json:"base64,omitempty"` // instead of Text where the payload is not UTF-8
	Type      string            `json:"type,omitempty"`   // the payload's media type
	Meta      map[string]string `json:"meta,omitempty"`
	Size      int               `json:"size"`              // of the payload as it came, before anything was masked
	Omitted   bool              `json:"omitted,omitempty"` // the payload is not here: it was longer than MaxPayload, or could not be read
	Masked    bool              `json:"masked,omitempty"`  // something in it has become ***
	Principal string            `json:"principal,omitempty"`
	Verified  bool              `json:"verified,omitempty"`
	Peer      string            `json:"peer,omitempty"`
	Outcome   string            `json:"outcome,omitempty"` // "" is success, else why not, or what else became of it
	Registers []string          `json:"registers,omitempty"`
	Source    string            `json:"source,omitempty"` // file:line of the bind
	Lost      uint64            `json:"lost,omitempty"`   // so many operations before this one came too fast to be recorded
	Parts     []Operation       `json:"parts,omitempty"`
}

// SetPayload keeps a payload: as text where it is UTF-8.
func (o *Operation) SetPayload(raw []byte) {
	o.Text, o.Base64 = nil, nil
	switch {
	case len(raw) == 0:
	case utf8.Valid(raw):
		s := string(raw)
		o.Text = &s
	default:
		s := base64.StdEncoding.EncodeToString(raw)
		o.Base64 = &s
	}
}

// Payload gives the payload's bytes. A Reader has checked that they can be read.
func (o *Operation) Payload() []byte {
	switch {
	case o.Text != nil:
		return []byte(*o.Text)
	case o.Base64 != nil:
		raw, err := base64.StdEncoding.DecodeString(*o.Base64)
		if err != nil {
			return nil
		}
		return raw
	}
	return nil
}

// verbs are the names of verbs, as Verb.String gives them.
var verbs = func() map[string]wrappers.Verb {
	m := map[string]wrappers.Verb{}
	for v := wrappers.Read; v <= wrappers.Message; v++ {
		m[v.String()] = v
	}
	return m
}()

// Op is the operation as a link was given it.
func (o *Operation) Op() wrappers.Operation {
	op := wrappers.Operation{
		Verb: verbs[o.Verb], Server: o.Server, Address: o.Address, To: o.To,
		Payload: wrappers.Payload{Raw: o.Payload(), Type: o.Type, Meta: o.Meta},
		Who:     wrappers.Who{Principal: o.Principal, Verified: o.Verified, Peer: o.Peer},
	}
	for i := range o.Parts {
		op.Parts = append(op.Parts, o.Parts[i].Op())
	}
	return op
}

// Of makes the record of an operation; nothing in it is masked yet. The payload's bytes are not shared with op.
func Of(op *wrappers.Operation) Operation {
	o := Operation{
		Server: op.Server, Address: op.Address, To: op.To, Type: op.Payload.Type, Meta: op.Payload.Meta, Size: len(op.Payload.Raw),
		Principal: op.Who.Principal, Verified: op.Who.Verified, Peer: op.Who.Peer,
	}
	if len(op.Parts) == 0 {
		o.Verb = op.Verb.String()
	}
	if len(op.Payload.Raw) > MaxPayload {
		o.Omitted = true
	} else {
		o.SetPayload(op.Payload.Raw)
	}
	for i := range op.Parts {
		o.Parts = append(o.Parts, Of(&op.Parts[i]))
	}
	return o
}

// check says what is wrong with an operation that was read. left counts the parts that may follow.
func (o *Operation) check(part bool, left *int) error {
	if *left--; *left < 0 {
		return fmt.Errorf("more than %d parts", maxParts)
	}
	switch o.Kind {
	case Write, Read, Seen, Passed:
	case "":
		if !part {
			return errors.New(`no "kind"`)
		}
	default:
		return fmt.Errorf("kind %.40q", o.Kind)
	}
	if !part && (o.Protocol == "" || o.Wrapper == "") {
		return errors.New(`no "protocol" and "wrapper"`)
	}
	if o.Text != nil && o.Base64 != nil {
		return errors.New(`"text" and "base64"`)
	}
	if o.Base64 != nil {
		if _, err := base64.StdEncoding.DecodeString(*o.Base64); err != nil {
			return errors.New(`"base64" is none`)
		}
	}
	if o.Size < 0 {
		return errors.New(`"size" below zero`)
	}
	if len(o.Parts) > 0 {
		if o.Verb != "" || part {
			return errors.New(`"parts" in a part, or beside "verb"`)
		}
		for i := range o.Parts {
			if err := o.Parts[i].check(true, left); err != nil {
				return fmt.Errorf("part %d: %w", i+1, err)
			}
		}
		return nil
	}
	if verbs[o.Verb] == 0 {
		return fmt.Errorf("verb %.40q", o.Verb)
	}
	return nil
}

// A Writer writes a recording.
type Writer struct {
	enc *json.Encoder
}

// NewWriter writes the header.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	h.Format, h.Version = Format, Version
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &Writer{enc}, enc.Encode(h)
}

// Write appends one operation, as one line.
func (w *Writer) Write(o *Operation) error { return w.enc.Encode(o) }

// A Reader reads a recording. It holds one line at a time.
type Reader struct {
	b      *bufio.Reader
	line   int
	header Header
}

// NewReader reads the header. ErrFormat: it is no recording.
func NewReader(r io.Reader) (*Reader, error) {
	in := &Reader{b: bufio.NewReaderSize(r, 64<<10)}
	line, err := in.next(4 << 10)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(line) == 0 || json.Unmarshal(line, &in.header) != nil || in.header.Format != Format || in.header.Version < 1 {
		return nil, fmt.Errorf("%w: its first line is not {\"format\":%q,\"version\":…}", ErrFormat, Format)
	}
	if in.header.Version > Version {
		return nil, fmt.Errorf("%w this program reads: it has version %d, this program reads up to %d", ErrFormat, in.header.Version, Version)
	}
	return in, nil
}

// Header gives the first line.
func (r *Reader) Header() Header { return r.header }

// Line is the number of the line that Next gave last, the header's being 1.
func (r *Reader) Line() int { return r.line }

// Next gives the next operation; io.EOF after the last. A last line that was cut, by a crash or a full disk, is
// io.ErrUnexpectedEOF. Any other error names its line.
func (r *Reader) Next() (Operation, error) {
	for {
		line, err := r.next(maxLine)
		if err != nil {
			if errors.Is(err, io.EOF) && len(bytes.TrimSpace(line)) > 0 {
				// Without its end it may be whole all the same.
				if o, err := r.parse(line); err == nil {
					return o, nil
				}
				return Operation{}, fmt.Errorf("line %d was cut: %w", r.line, io.ErrUnexpectedEOF)
			}
			return Operation{}, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		return r.parse(line)
	}
}

func (r *Reader) parse(line []byte) (Operation, error) {
	var o Operation
	if !utf8.Valid(line) {
		return o, fmt.Errorf("line %d: not UTF-8", r.line)
	}
	err := json.Unmarshal(line, &o)
	if err == nil {
		left := maxParts
		err = o.check(false, &left)
	}
	if err != nil {
		return Operation{}, fmt.Errorf("line %d: %w", r.line, err)
	}
	return o, nil
}

// next reads one line without its end.
func (r *Reader) next(most int) ([]byte, error) {
	r.line++
	var whole []byte
	for {
		part, err := r.b.ReadSlice('\n')
		if len(whole)+len(part) > most {
			return nil, fmt.Errorf("line %d is longer than %d bytes", r.line, most)
		}
		whole = append(whole, part...)
		if err == nil {
			return whole[:len(whole)-1], nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return whole, err
		}
	}
}

// All reads operations until the end, at most so many.
func (r *Reader) All(most int) ([]Operation, error) {
	var out []Operation
	for {
		o, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return out, err
		case len(out) == most:
			return out, fmt.Errorf("more than %d operations", most)
		}
		out = append(out, o)
	}
}
