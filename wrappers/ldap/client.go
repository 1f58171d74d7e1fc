package ldap

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// A session is one of the gateway's own connections to a directory: requests are multiplexed by message id (RFC 4511,
// section 4.1.1), and answers stream to who asked. It is safe for concurrent use.
type session struct {
	c     net.Conn
	frame int // largest message that is read, in bytes
	waits patience

	sending sync.Mutex // one message at a time
	out     []byte

	mu      sync.Mutex
	next    int32
	waiting map[int32]*exchange
	cause   error         // why it ended
	over    chan struct{} // closed when it has
}

// An exchange is one request and its answers.
type exchange struct {
	id      int32
	answers chan *ldapwire.Message
	left    chan struct{} // closed when nobody reads answers any more
}

// patience finds half-open lines: a session on which nothing came for idle is asked for the root DSE, and is given up if
// nothing comes for answer.
type patience struct{ idle, answer time.Duration }

var usualPatience = patience{30 * time.Second, 15 * time.Second}

const (
	dialWithin      = 10 * time.Second
	writeWithin     = 30 * time.Second
	answersBuffered = 64
	readBuffer      = 32 << 10
)

// dialSession connects: with TLS at once where tlsConf is set, after StartTLS (RFC 4511, section 4.14) where start is.
func dialSession(ctx context.Context, up *wrappers.Upstream, tlsConf, start *tls.Config, frame int, waits patience) (*session, error) {
	d := net.Dialer{Timeout: dialWithin, KeepAlive: 15 * time.Second}
	c, err := d.DialContext(ctx, up.Network(), up.Addr)
	if err != nil {
		return nil, err
	}
	if start != nil {
		if err := askStartTLS(ctx, c); err != nil {
			c.Close()
			return nil, fmt.Errorf("StartTLS: %w", err)
		}
		tlsConf = start
	}
	if tlsConf != nil {
		if c, err = overTLS(ctx, c, tlsConf); err != nil {
			return nil, err
		}
	}
	s := &session{c: c, frame: frame, waits: waits, waiting: map[int32]*exchange{}, over: make(chan struct{})}
	go s.read()
	return s, nil
}

func overTLS(ctx context.Context, c net.Conn, conf *tls.Config) (net.Conn, error) {
	t := tls.Client(c, conf)
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return t, nil
}

// askStartTLS has the server begin TLS. It reads no byte beyond the answer, which would be of the handshake.
func askStartTLS(ctx context.Context, c net.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = c.SetDeadline(time.Now().Add(dialWithin))
	q := ldapwire.Message{MessageID: 1, Body: &ldapwire.ExtendedRequest{Name: ldapwire.OIDStartTLS}}
	if _, err := c.Write(q.Encode()); err != nil {
		return err
	}
	m, err := readMessage(bufio.NewReader(oneByOne{c}), 64<<10)
	if err != nil {
		return err
	}
	_ = c.SetDeadline(time.Time{})
	return resultError(m)
}

// oneByOne has a buffer in front of it read nothing ahead.
type oneByOne struct{ r io.Reader }

func (o oneByOne) Read(b []byte) (int, error) { return o.r.Read(b[:min(1, len(b))]) }

// close ends the session; who waits for answers is told so.
func (s *session) close() {
	q := ldapwire.Message{MessageID: ldapwire.MaxMessageID, Body: &ldapwire.UnbindRequest{}}
	s.sending.Lock()
	if s.ended() == nil {
		_ = s.c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = s.c.Write(q.Encode())
	}
	s.sending.Unlock()
	s.end(net.ErrClosed)
}

func (s *session) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return
	}
	s.cause = why
	close(s.over)
	s.c.Close()
}

// ended gives why the session is over, nil while it stands.
func (s *session) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// enter gives an exchange a free message id. The largest is left to the unbind.
func (s *session) enter(x *exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.next++; s.next >= ldapwire.MaxMessageID {
			s.next = 1
		}
		if s.waiting[s.next] == nil {
			break
		}
	}
	x.id = s.next
	s.waiting[x.id] = x
}

// read hands out what comes until the connection ends. Who does not take answers holds back the others: a search of
// which much comes has a session of its own.
func (s *session) read() {
	in := bufio.NewReaderSize(s.c, readBuffer)
	asked := false
	for {
		within := s.waits.idle
		if asked {
			within = s.waits.answer
		}
		_ = s.c.SetReadDeadline(time.Now().Add(within))
		if _, err := in.Peek(1); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && !asked {
				asked = true
				go s.probe()
				continue
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = fmt.Errorf("the server has not said a word for %v, though it was asked", s.waits.idle+s.waits.answer)
			}
			s.end(err)
			return
		}
		asked = false
		_ = s.c.SetReadDeadline(time.Now().Add(s.waits.idle + s.waits.answer))
		m, err := readMessage(in, s.frame)
		if err != nil {
			s.end(err)
			return
		}
		if m.MessageID == 0 { // unsolicited: a notice of disconnection (RFC 4511, section 4.4.1)
			if err := resultError(m); err != nil {
				s.end(fmt.Errorf("the server ends the connection: %w", err))
				return
			}
			continue
		}
		s.mu.Lock()
		x := s.waiting[m.MessageID]
		if x != nil && final(m) {
			delete(s.waiting, m.MessageID)
		}
		s.mu.Unlock()
		if x == nil {
			continue // it was abandoned
		}
		select {
		case x.answers <- m:
		case <-x.left:
		case <-s.over:
			return
		}
	}
}

// readMessage reads one message whole. A length that is announced allocates nothing before it is there.
func readMessage(in *bufio.Reader, most int) (*ldapwire.Message, error) {
	f := ldapwire.Frame{}
	for n := 7; ; n++ { // the shortest message there is
		head, err := in.Peek(n)
		if err != nil {
			if errors.Is(err, io.EOF) && len(head) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		ok := false
		if f, ok, err = ldapwire.ReadFrame(head); err != nil {
			return nil, err
		}
		if ok {
			break
		}
	}
	if f.Size > int64(most) {
		return nil, fmt.Errorf("a message of %d bytes, and limits { frame } is %d", f.Size, most)
	}
	raw := make([]byte, 0, min(f.Size, 1<<20))
	for int64(len(raw)) < f.Size {
		if len(raw) == cap(raw) {
			raw = append(make([]byte, 0, min(f.Size, int64(2*cap(raw)))), raw...)
		}
		n, err := io.ReadFull(in, raw[len(raw):min(int64(cap(raw)), f.Size)])
		raw = raw[:len(raw)+n]
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return ldapwire.Decode(raw)
}

// final tells whether a message is the last answer to its request.
func final(m *ldapwire.Message) bool {
	_, ok := m.Body.(ldapwire.Response)
	return ok
}

func (s *session) probe() {
	ctx, cancel := context.WithTimeout(context.Background(), s.waits.answer)
	defer cancel()
	_, _ = s.do(ctx, &ldapwire.SearchRequest{Filter: anything, Attributes: []string{"1.1"}})
}

// ask sends a request. leave has to be called when its answers are not read any more.
func (s *session) ask(body ldapwire.Body, controls ...ldapwire.Control) (*exchange, error) {
	x := &exchange{answers: make(chan *ldapwire.Message, answersBuffered), left: make(chan struct{})}
	s.enter(x)
	if err := s.send(&ldapwire.Message{MessageID: x.id, Body: body, Controls: controls}); err != nil {
		return nil, err
	}
	return x, nil
}

func (s *session) send(m *ldapwire.Message) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	if err := s.ended(); err != nil {
		return err
	}
	s.out = m.Append(s.out[:0])
	if cap(s.out) > 1<<20 {
		defer func() { s.out = nil }()
	}
	_ = s.c.SetWriteDeadline(time.Now().Add(writeWithin))
	if _, err := s.c.Write(s.out); err != nil {
		s.end(err)
		return err
	}
	return nil
}

// leave gives up the answers of an exchange that are still to come.
func (s *session) leave(x *exchange) {
	close(x.left)
	s.mu.Lock()
	open := s.waiting[x.id] == x
	if open {
		delete(s.waiting, x.id)
	}
	s.mu.Unlock()
	if open {
		// It has an id of its own, and no answer (RFC 4511, section 4.11).
		a := &exchange{}
		s.enter(a)
		_ = s.send(&ldapwire.Message{MessageID: a.id, Body: &ldapwire.AbandonRequest{MessageID: x.id}})
		s.mu.Lock()
		delete(s.waiting, a.id)
		s.mu.Unlock()
	}
}

// answer waits for the next one.
func (s *session) answer(ctx context.Context, x *exchange) (*ldapwire.Message, error) {
	select {
	case m := <-x.answers:
		return m, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.over:
	}
	select { // what came before the end counts
	case m := <-x.answers:
		return m, nil
	default:
		return nil, s.ended()
	}
}

// each calls f with every answer but the last one, which it returns.
func (s *session) each(ctx context.Context, f func(*ldapwire.Message) error, body ldapwire.Body, controls ...ldapwire.Control) (*ldapwire.Message, error) {
	x, err := s.ask(body, controls...)
	if err != nil {
		return nil, err
	}
	defer s.leave(x)
	for {
		m, err := s.answer(ctx, x)
		if err != nil || final(m) {
			return m, err
		}
		if err := f(m); err != nil {
			return nil, err
		}
	}
}

// do performs an operation of which the last answer matters. The error is of the session; what the server says of the
// operation is in the message.
func (s *session) do(ctx context.Context, body ldapwire.Body, controls ...ldapwire.Control) (*ldapwire.Message, error) {
	return s.each(ctx, func(*ldapwire.Message) error { return nil }, body, controls...)
}

// bind is the simple method (RFC 4513, section 5.1). Without a name the session stays anonymous.
func (s *session) bind(ctx context.Context, name, password string) error {
	if name == "" {
		return nil
	}
	if password == "" {
		return errors.New("a name without a password is an unauthenticated bind, which servers take for anonymous (RFC 4513, section 5.1.2): set password")
	}
	m, err := s.do(ctx, &ldapwire.BindRequest{Version: 3, Name: name, Simple: []byte(password)})
	if err != nil {
		return err
	}
	return resultError(m)
}

// anything is the filter that every entry passes.
var anything = &ldapwire.Filter{Kind: ldapwire.FilterPresent, Attribute: "objectClass"}

func equality(attribute, value string) *ldapwire.Filter {
	return &ldapwire.Filter{Kind: ldapwire.FilterEqualityMatch, Attribute: attribute, Value: []byte(value)}
}

func atLeast(attribute, value string) *ldapwire.Filter {
	return &ldapwire.Filter{Kind: ldapwire.FilterGreaterOrEqual, Attribute: attribute, Value: []byte(value)}
}

// one reads one entry; nil: there is none.
func (s *session) one(ctx context.Context, dn string, attributes ...string) (*ldapwire.SearchResultEntry, error) {
	var found *ldapwire.SearchResultEntry
	q := &ldapwire.SearchRequest{BaseObject: dn, Filter: anything, Attributes: attributes}
	last, err := s.each(ctx, func(m *ldapwire.Message) error {
		if e, ok := m.Body.(*ldapwire.SearchResultEntry); ok && found == nil {
			found = e
		}
		return nil
	}, q)
	if err != nil {
		return nil, err
	}
	if err := resultError(last); err != nil {
		if codeOf(err) == ldapwire.NoSuchObject {
			return nil, nil
		}
		return nil, err
	}
	return found, nil
}

// values gives an attribute's values.
func values(e *ldapwire.SearchResultEntry, name string) [][]byte {
	for i := range e.Attributes {
		if strings.EqualFold(e.Attributes[i].Type, name) {
			return e.Attributes[i].Vals
		}
	}
	return nil
}

// value gives an attribute's first value as text.
func value(e *ldapwire.SearchResultEntry, name string) string {
	if v := values(e, name); len(v) > 0 {
		return string(v[0])
	}
	return ""
}

// A refusal is what a server said instead of success.
type refusal struct {
	code     ldapwire.ResultCode
	text     string   // its diagnostic message
	matched  string   // the part of the name that is there
	referral []string // where else to ask
}

func (r *refusal) Error() string {
	s := fmt.Sprintf("%s (%d)", r.code, int64(r.code))
	if r.text != "" {
		s += ": " + r.text
	}
	if len(r.referral) > 0 {
		s += ": ask " + strings.Join(r.referral, " or ")
	}
	return s
}

// resultError is nil for success.
func resultError(m *ldapwire.Message) error {
	b, ok := m.Body.(ldapwire.Response)
	if !ok {
		return fmt.Errorf("%w: an answer without a result", ldapwire.ErrMalformed)
	}
	r := b.Result()
	if r.ResultCode == ldapwire.Success {
		return nil
	}
	return &refusal{r.ResultCode, r.DiagnosticMessage, r.MatchedDN, r.Referral}
}

// codeOf gives the code that a server refused with; Success where no server did.
func codeOf(err error) ldapwire.ResultCode {
	var r *refusal
	if errors.As(err, &r) {
		return r.code
	}
	return ldapwire.Success
}
