package http

import (
	"bytes"
	"errors"
)

// This file finds the borders of HTTP/1.x messages in raw bytes (RFC 9112) and nothing else. What
// two servers could read in two ways is refused in a request: that is how requests are smuggled.

// maxHead bounds a head, start line and fields together.
const maxHead = 64 << 10

// Errors of requests. Their texts are for the peer.
var (
	errStartLine  = errors.New("the request line is malformed")
	errVersion    = errors.New("only HTTP/1.0 and HTTP/1.1 are spoken here")
	errFieldLine  = errors.New("a header field is malformed")
	errBareLF     = errors.New("a line does not end with CR LF")
	errFraming    = errors.New("the length of the body is ambiguous")
	errCoding     = errors.New("only the transfer coding chunked is understood")
	errChunk      = errors.New("a chunk is malformed")
	errHeadSize   = errors.New("the head is too large")
	errStatusLine = errors.New("the status line is malformed")
)

// How a body ends.
const (
	noBody     = int64(0)
	chunked    = int64(-1)
	untilClose = int64(-2)
)

// A head is the head of one message. Its slices point into what was parsed.
type head struct {
	size   int   // bytes, the empty line included
	length int64 // of the body, or chunked or untilClose (responses without a length)
	http10 bool

	method, target []byte // of a request
	status         int    // of a response

	upgrade  bool
	expect   bool // 100-continue
	encoded  []byte
	kind     []byte // Content-Type
	etag     []byte
	location []byte
	auth     []byte
	origin   []byte // originHeader
	fields   []byte // all field lines

	lengths, codings int // seen so far
	badCoding        bool
}

var tokenByte = func() (t [256]bool) {
	for c := range 256 {
		t[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), byte(c)) >= 0
	}
	return t
}()

// valueByte may stand in a field value or a request target's line.
var valueByte = func() (t [256]bool) {
	for c := range 256 {
		t[c] = c >= ' ' && c != 0x7f || c == '\t'
	}
	return t
}()

// parseRequest reads one request head at the start of b. Size 0: it is not whole yet.
func parseRequest(b []byte, h *head) error {
	*h = head{}
	i, blank := 0, 0
	// An empty line or two before a request is what old clients leave behind a body (RFC 9112,
	// section 2.2).
	for i+1 < len(b) && b[i] == '\r' && b[i+1] == '\n' {
		if i, blank = i+2, blank+1; blank > 2 {
			return errStartLine
		}
	}
	if i < len(b) && !tokenByte[b[i]] && (b[i] != '\r' || i+1 < len(b)) {
		return errStartLine // no HTTP at all: don't wait for a line that will not end
	}
	line, next, err := cutLine(b, i, true)
	if next == 0 || err != nil {
		return tooLong(err, len(b))
	}
	m := bytes.IndexByte(line, ' ')
	if m <= 0 || !all(line[:m], &tokenByte) {
		return errStartLine
	}
	rest := line[m+1:]
	t := bytes.IndexByte(rest, ' ')
	if t <= 0 {
		return errStartLine
	}
	h.method, h.target = line[:m], rest[:t]
	for _, c := range h.target {
		if c <= ' ' || c == 0x7f {
			return errStartLine
		}
	}
	switch version := string(rest[t+1:]); version {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.http10 = true
	default:
		if len(version) == 8 && version[:5] == "HTTP/" {
			return errVersion
		}
		return errStartLine
	}
	if err := h.readFields(b, next, true); h.size == 0 || err != nil {
		return tooLong(err, len(b))
	}
	switch {
	case h.codings > 1 || h.codings == 1 && h.lengths > 0 || h.codings == 1 && h.http10:
		return errFraming
	case h.badCoding:
		return errCoding
	case h.codings == 1:
		h.length = chunked
	}
	return nil
}

// parseResponse reads one response head. It is more lenient than parseRequest about line ends, for
// old servers, and decides by RFC 9112, section 6.3. method is that of the request.
func parseResponse(b []byte, h *head, method string) error {
	*h = head{}
	line, next, err := cutLine(b, 0, false)
	if next == 0 || err != nil {
		return tooLong(err, len(b))
	}
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return errStatusLine
	}
	h.http10 = line[7] == '0'
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return errStatusLine
		}
		h.status = h.status*10 + int(c-'0')
	}
	if h.status < 100 {
		return errStatusLine
	}
	if err := h.readFields(b, next, false); h.size == 0 || err != nil {
		return tooLong(err, len(b))
	}
	switch {
	case method == "HEAD", h.status < 200, h.status == 204, h.status == 304, method == "CONNECT" && h.status < 300:
		h.length = noBody
	case h.codings > 0 && h.badCoding:
		h.length = untilClose
	case h.codings > 0:
		h.length = chunked
	case h.lengths == 0:
		h.length = untilClose
	}
	return nil
}

func tooLong(err error, have int) error {
	if err == nil && have > maxHead {
		return errHeadSize
	}
	return err
}

// cutLine gives the line that begins at i without its end, and where the next begins; 0: it has
// no end yet.
func cutLine(b []byte, i int, strict bool) (line []byte, next int, err error) {
	j := bytes.IndexByte(b[i:], '\n')
	if j < 0 {
		return nil, 0, nil
	}
	line, next = b[i:i+j], i+j+1
	if j > 0 && line[j-1] == '\r' {
		return line[:j-1], next, nil
	}
	if strict {
		return nil, 0, errBareLF
	}
	return line, next, nil
}

// readFields reads field lines from i on, up to the empty line.
func (h *head) readFields(b []byte, i int, strict bool) error {
	start := i
	for {
		line, next, err := cutLine(b, i, strict)
		if next == 0 || err != nil {
			return err
		}
		if len(line) == 0 {
			if next > maxHead {
				return errHeadSize
			}
			h.fields, h.size = b[start:i], next
			return nil
		}
		colon := bytes.IndexByte(line, ':')
		switch {
		case colon > 0 && all(line[:colon], &tokenByte) && all(line[colon+1:], &valueByte):
			if err := h.field(line[:colon], trim(line[colon+1:]), strict); err != nil {
				return err
			}
		case strict:
			return errFieldLine
		}
		i = next
	}
}

// field notes what matters for borders and for mapping.
func (h *head) field(name, value []byte, strict bool) error {
	switch len(name) {
	case 4:
		if fold(name, "etag") {
			h.etag = value
		}
	case 6:
		if fold(name, "expect") {
			h.expect = fold(value, "100-continue")
		}
	case 7:
		if fold(name, "upgrade") {
			h.upgrade = true
		}
	case 8:
		if fold(name, "location") {
			h.location = value
		}
	case 12:
		if fold(name, "content-type") {
			h.kind = value
		}
	case 13:
		if fold(name, "authorization") {
			h.auth = value
		}
	case 14:
		switch {
		case fold(name, "content-length"):
			n, ok := digits(value)
			if !ok || h.lengths > 0 && (strict || n != h.length) {
				return errFraming
			}
			h.length = n
			h.lengths++
		case fold(name, "spookgw-origin"):
			h.origin = value
		}
	case 16:
		if fold(name, "content-encoding") {
			h.encoded = value
		}
	case 17:
		if fold(name, "transfer-encoding") {
			h.codings++
			// Several codings that end in chunked are framed by it; only a response may have them.
			h.badCoding = !fold(value, "chunked") && (strict || !endsChunked(value))
		}
	}
	return nil
}

func endsChunked(value []byte) bool {
	return fold(trim(value[bytes.LastIndexByte(value, ',')+1:]), "chunked")
}

// digits reads a decimal of at most 18 digits and nothing else.
func digits(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

func all(b []byte, set *[256]bool) bool {
	for _, c := range b {
		if !set[c] {
			return false
		}
	}
	return true
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// fold compares with a lower-case text, case aside.
func fold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// chunks follows a chunked body (RFC 9112, section 7.1) through pieces of any size.
type chunks struct {
	strict bool // lines end with CR LF
	state  chunkState
	left   int64 // of the chunk's data
	digits int
	line   int // bytes of the present line, to bound extensions and trailers
	total  int // bytes of trailers
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExtension
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	trailerStart
	trailerLine
	trailerLF
	trailerEndLF
	chunksDone
)

// maxExtension bounds a chunk extension, which nobody uses but attackers.
const maxExtension = 1 << 10

// scan moves over b and gives how many of its bytes belong to the body; done: the last of them
// is its end. Data is appended to *keep if keep is not nil.
func (c *chunks) scan(b []byte, keep *[]byte) (n int, done bool, err error) {
	for n < len(b) {
		if c.state == chunkData {
			k := int(min(c.left, int64(len(b)-n)))
			if keep != nil {
				*keep = append(*keep, b[n:n+k]...)
			}
			n += k
			if c.left -= int64(k); c.left == 0 {
				c.state = chunkDataCR
			}
			continue
		}
		x := b[n]
		n++
		if !c.strict && x == '\n' {
			// Where a line may end with LF alone, CR is part of what precedes it.
			switch c.state {
			case chunkSize, chunkExtension:
				c.state = chunkSizeLF
			case chunkDataCR:
				c.state = chunkDataLF
			case trailerStart:
				c.state = trailerEndLF
			case trailerLine:
				c.state = trailerLF
			}
		}
		switch c.state {
		case chunkSize:
			switch {
			case ishex(x):
				if c.digits++; c.digits > 15 {
					return n, false, errChunk
				}
				c.left = c.left<<4 | int64(unhex(x))
			case c.digits == 0:
				return n, false, errChunk
			case x == '\r':
				c.state = chunkSizeLF
			case x == ';' || x == ' ' || x == '\t':
				c.state, c.line = chunkExtension, 0
			default:
				return n, false, errChunk
			}
		case chunkExtension:
			switch c.line++; {
			case x == '\r':
				c.state = chunkSizeLF
			case !valueByte[x] || c.line > maxExtension:
				return n, false, errChunk
			}
		case chunkSizeLF:
			if x != '\n' || c.digits == 0 {
				return n, false, errChunk
			}
			c.digits = 0
			if c.state = chunkData; c.left == 0 {
				c.state = trailerStart
			}
		case chunkDataCR:
			if x != '\r' {
				return n, false, errChunk
			}
			c.state = chunkDataLF
		case chunkDataLF:
			if x != '\n' {
				return n, false, errChunk
			}
			c.state = chunkSize
		case trailerStart, trailerLine:
			c.total++
			switch {
			case x == '\r' && c.state == trailerStart:
				c.state = trailerEndLF
			case x == '\r':
				c.state = trailerLF
			case !valueByte[x] || c.total > maxHead:
				return n, false, errChunk
			default:
				c.state = trailerLine
			}
		case trailerLF:
			if x != '\n' {
				return n, false, errChunk
			}
			c.state = trailerStart
		case trailerEndLF:
			if x != '\n' {
				return n, false, errChunk
			}
			c.state = chunksDone
			return n, true, nil
		}
	}
	return n, c.state == chunksDone, nil
}
