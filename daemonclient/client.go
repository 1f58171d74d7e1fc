// Package daemonclient talks to a running gateway over its socket. A Client satisfies
// engine.State, so what works on an embedded engine works on a daemon.
//
// It is thin: no retries, no cache, no conflict resolution. When the connection breaks, every
// call returns an error that is engine.ErrUnavailable; whoever wants another connection dials
// again, and observes from the last cursor it has seen.
package daemonclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"sync"

	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
)

// A Client is one connection to a daemon. It is safe for concurrent use.
type Client struct {
	conn  io.ReadWriteCloser
	hello Hello

	write sync.Mutex // of conn's writing side

	mu     sync.Mutex
	next   int64
	calls  map[int64]*call
	subs   map[int64]*subscription
	broken error // why the connection is of no more use; nil while it is
	done   chan struct{}
}

// Hello is what the daemon said of itself.
type Hello struct {
	Version  int      `json:"version"` // of the protocol
	Server   string   `json:"server"`
	Endpoint string   `json:"endpoint"`
	Domain   string   `json:"domain"`  // that this connection is about
	Domains  []string `json:"domains"` // all that the daemon has, the default one first
	You      string   `json:"you"`     // the principal this connection writes as
}

type call struct {
	// opens: the answer opens a subscription, which must be known before the next line is read.
	opens *subscription
	done  chan struct{}
	reply wire.Message
	err   error
}

// A subscription's queue never holds more than its credit, so the reader never waits for it.
type subscription struct {
	id     int64
	method string // of its notifications
	queue  chan json.RawMessage
	mu     sync.Mutex
	err    error // set before queue is closed
	closed bool
}

// Dial connects to the daemon's socket. The error says what to do when nobody is there. The connection is about the
// daemon's default domain.
func Dial(ctx context.Context, path string) (*Client, error) { return DialDomain(ctx, path, "") }

// DialDomain is Dial for another domain of the daemon; "" is the default one. engine.ErrNotFound: it has no such domain.
func DialDomain(ctx context.Context, path, domain string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("%w: no gateway answers at %s: %w", engine.ErrUnavailable, path, err)
	}
	return greet(ctx, conn, domain)
}

// New talks over a connection that exists, and owns it from now on.
func New(ctx context.Context, conn io.ReadWriteCloser) (*Client, error) { return greet(ctx, conn, "") }

func greet(ctx context.Context, conn io.ReadWriteCloser, domain string) (*Client, error) {
	c := &Client{conn: conn, calls: map[int64]*call{}, subs: map[int64]*subscription{}, done: make(chan struct{})}
	go c.read()
	hello := map[string]any{"version": wire.Version}
	if domain != "" {
		hello["domain"] = domain
	}
	err := c.Call(ctx, "hello", hello, &c.hello)
	if err == nil && c.hello.Version != wire.Version {
		err = fmt.Errorf("%w: the daemon speaks version %d, this client %d", engine.ErrUnavailable, c.hello.Version, wire.Version)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// Hello gives what the daemon said of itself.
func (c *Client) Hello() Hello { return c.hello }

// Close ends the connection; calls and observations in progress end with engine.ErrClosed.
func (c *Client) Close() error {
	c.fail(engine.ErrClosed)
	<-c.done
	return nil
}

// fail ends everything with err, the first time it is called.
func (c *Client) fail(err error) {
	c.mu.Lock()
	if c.broken != nil {
		c.mu.Unlock()
		return
	}
	c.broken = err
	calls, subs := c.calls, c.subs
	c.calls, c.subs = map[int64]*call{}, map[int64]*subscription{}
	c.mu.Unlock()
	_ = c.conn.Close()
	for _, k := range calls {
		k.err = err
		close(k.done)
	}
	for _, s := range subs {
		s.end(err)
	}
}

// Call calls any method of the daemon: params is an object or nil, result what its answer is
// decoded into, or nil.
func (c *Client) Call(ctx context.Context, method string, params, result any) error {
	raw, err := c.call(ctx, method, params, nil)
	if err != nil || result == nil {
		return err
	}
	if err := json.Unmarshal(raw, result); err != nil {
		return fmt.Errorf("%w: answer to %s: %w", engine.ErrUnavailable, method, err)
	}
	return nil
}

func (c *Client) call(ctx context.Context, method string, params any, opens *subscription) (json.RawMessage, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k := &call{opens: opens, done: make(chan struct{})}
	c.mu.Lock()
	if c.broken != nil {
		c.mu.Unlock()
		return nil, c.broken
	}
	c.next++
	id := c.next
	c.calls[id] = k
	c.mu.Unlock()

	line, err := wire.AppendCall(nil, id, true, method, params)
	if err != nil {
		c.forget(id)
		if errors.Is(err, wire.ErrTooLong) {
			err = fmt.Errorf("%w: %w", engine.ErrTooLarge, err)
		}
		return nil, err
	}
	if err := c.send(line); err != nil {
		c.forget(id)
		return nil, err
	}
	select {
	case <-k.done:
	case <-ctx.Done():
		c.forget(id)
		return nil, ctx.Err()
	}
	switch {
	case k.err != nil:
		return nil, k.err
	case k.reply.Err != nil:
		return nil, k.reply.Err.ToError()
	}
	return k.reply.Result, nil
}

// forget leaves a call without anybody to answer to. A subscription it was to open is ended by
// the reader when it opens.
func (c *Client) forget(id int64) {
	c.mu.Lock()
	if k := c.calls[id]; k != nil && k.opens != nil {
		k.opens.end(context.Canceled)
	} else {
		delete(c.calls, id)
	}
	c.mu.Unlock()
}

func (c *Client) send(line []byte) error {
	c.write.Lock()
	_, err := c.conn.Write(line)
	c.write.Unlock()
	if err != nil {
		c.fail(fmt.Errorf("%w: the connection to the gateway broke: %w", engine.ErrUnavailable, err))
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.broken
	}
	return nil
}

// notify sends what has no answer.
func (c *Client) notify(method string, params any) {
	if line, err := wire.AppendCall(nil, 0, false, method, params); err == nil {
		_ = c.send(line)
	}
}

// read takes what comes, until the connection ends. Whatever breaks the protocol ends it: after
// that nothing more can be believed.
func (c *Client) read() {
	defer close(c.done)
	r := wire.NewReader(c.conn, wire.ReplyDepth)
	for {
		m, err := r.Next()
		if err == nil {
			err = c.take(m)
		}
		if err != nil {
			c.fail(fmt.Errorf("%w: the connection to the gateway broke: %w", engine.ErrUnavailable, err))
			return
		}
	}
}

func (c *Client) take(m wire.Message) error {
	if m.Method != "" {
		if m.HasID {
			return fmt.Errorf("the daemon calls %q, which is not its part", m.Method)
		}
		return c.notification(m)
	}
	if !m.HasID {
		return fmt.Errorf("the daemon could not read this client: %w", m.Err.ToError())
	}
	c.mu.Lock()
	k := c.calls[m.ID]
	delete(c.calls, m.ID)
	c.mu.Unlock()
	if k == nil {
		return nil // whoever called has gone
	}
	if k.opens != nil && m.Err == nil {
		if err := wire.Members(m.Result, wire.Member{Name: "sub", Into: &k.opens.id}); err != nil {
			return err
		}
		c.open(k.opens)
	}
	k.reply = m
	close(k.done)
	return nil
}

// open makes a subscription known, or takes it back if its consumer has gone meanwhile.
func (c *Client) open(s *subscription) {
	s.mu.Lock()
	gone := s.closed
	s.mu.Unlock()
	if gone {
		go c.notify("unobserve", map[string]any{"sub": s.id}) // the reader must not wait for the writer
		return
	}
	c.mu.Lock()
	broken := c.broken
	if broken == nil {
		c.subs[s.id] = s
	}
	c.mu.Unlock()
	if broken != nil {
		s.end(broken)
	}
}

func (c *Client) notification(m wire.Message) error {
	var id int64
	var fault json.RawMessage
	if err := wire.Members(m.Params, wire.Member{Name: "sub", Into: &id}, wire.Member{Name: "error", Into: &fault}); err != nil {
		return err
	}
	c.mu.Lock()
	s := c.subs[id]
	if m.Method == "ended" {
		delete(c.subs, id)
	}
	c.mu.Unlock()
	switch {
	case s == nil:
		return nil // ended on this side meanwhile
	case m.Method == "ended":
		var e wire.Error
		if err := wire.Members(fault, wire.Member{Name: "code", Into: &e.Code}, wire.Member{Name: "message", Into: &e.Message}, wire.Member{Name: "data", Into: &e.Data}); err != nil {
			return err
		}
		s.end(e.ToError())
		return nil
	case m.Method != s.method:
		return nil
	}
	return s.put(m.Params)
}

func (s *subscription) put(params json.RawMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	select {
	case s.queue <- params:
		return nil
	default:
		return fmt.Errorf("the daemon sends more than it was given credit for")
	}
}

func (s *subscription) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.err, s.closed = err, true
		close(s.queue)
	}
}

// credit is how many notifications may be under way to one subscriber.
const credit = 256

// Subscribe calls a method that answers with a subscription, and yields the parameters of the
// notifications that follow, those named notification. The sequence ends with an error: when ctx
// ends, when the daemon ends it, when the connection breaks.
func (c *Client) Subscribe(ctx context.Context, method, notification string, params map[string]any) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		s := &subscription{method: notification, queue: make(chan json.RawMessage, credit)}
		all := map[string]any{"credit": credit}
		for k, v := range params {
			all[k] = v
		}
		if _, err := c.call(ctx, method, all, s); err != nil {
			yield(nil, err)
			return
		}
		defer c.leave(s)
		for used := 0; ; {
			select {
			case raw, ok := <-s.queue:
				if !ok {
					yield(nil, s.err)
					return
				}
				if !yield(raw, nil) {
					return
				}
				if used++; used == credit/2 {
					c.notify("credit", map[string]any{"sub": s.id, "n": used})
					used = 0
				}
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			}
		}
	}
}

func (c *Client) leave(s *subscription) {
	c.mu.Lock()
	_, open := c.subs[s.id]
	delete(c.subs, s.id)
	c.mu.Unlock()
	s.end(context.Canceled)
	if open {
		c.notify("unobserve", map[string]any{"sub": s.id})
	}
}
