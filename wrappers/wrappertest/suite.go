package wrappertest

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// A Suite is what a wrapper brings to Run: how to start it in each of the three ways, and what
// its addresses look like. Run starts a new Rig for every check.
type Suite struct {
	Syntax    wrappers.Syntax    // of the templates, for NewLinkOf; zero: with '/' between segments
	Templates []string           // what the Link maps
	Address   func(n int) string // the n-th mapped address, from 0; each fits Templates
	Unmapped  string             // an address that no template fits
	// Document is the n-th payload, complete and different for each n; nil: {"value":n}.
	Document func(n int) []byte
	// Same compares payloads; nil: equal bytes, or JSON that says the same.
	Same func(a, b []byte) bool

	// Virtual, Relay and Attached start the wrapper. Tune may be nil; it changes the Config before
	// New. A nil hook skips the checks of that way. The Rig must be torn down by t.Cleanup.
	Virtual  func(t *testing.T, link *Link, tune func(*wrappers.Config)) Rig
	Relay    func(t *testing.T, link *Link, tune func(*wrappers.Config)) Rig
	Attached func(t *testing.T, link *Link, tune func(*wrappers.Config)) Rig

	// RelayHolds is the call that a client's success waits for behind a relay: CallCommit without
	// a feed, CallSeen with one.
	RelayHolds Call
	// NoRead: the protocol has no reading of one address.
	NoRead bool
	// Garbage is what no peer of the protocol says first; nil skips.
	Garbage []byte
	// Deletes tells whether Client.Delete means anything.
	Deletes bool
}

// A Rig is one wrapper at work.
type Rig struct {
	Addr string // of its listener
	// Dial connects a client of the protocol to the wrapper; nil for attached.
	Dial func(t *testing.T) Client
	// Server is what stands behind it; nil for virtual.
	Server Server
	// Stop ends Serve and gives what it returned.
	Stop func() error
}

// A Client is a peer. Its calls return when the protocol has answered.
type Client interface {
	Write(address string, payload []byte) error // nil: the protocol said success
	Read(address string) ([]byte, error)        // ErrAbsent: there is nothing
	Delete(address string) error
	// Subscribe gives every payload that arrives for an address from now on; nil: it is gone.
	Subscribe(address string) (<-chan []byte, error)
	Close()
}

// ErrAbsent is what Client.Read returns where nothing is.
var ErrAbsent = errors.New("absent")

// A Server stands behind a relay or an attached wrapper.
type Server interface {
	Value(address string) ([]byte, bool)
	// Set and Remove change the server behind the gateway's back.
	Set(address string, payload []byte)
	Remove(address string)
	// Writes tells how many writes of an address it was asked for, refused ones included.
	Writes(address string) int
	// Fail makes the next write, from whoever, fail: refused for good, refused for now, or the
	// connection breaks before the answer. False: this server cannot.
	Fail(how Failure) bool
}

// Failure is how a Server fails one write.
type Failure uint8

// The failures.
const (
	RefuseForGood Failure = iota + 1
	RefuseForNow
	BreakConnection
)

// Run holds a wrapper to the contract.
func Run(t *testing.T, s Suite) {
	if s.Document == nil {
		s.Document = func(n int) []byte { return fmt.Appendf(nil, `{"value":%d}`, n) }
	}
	if s.Same == nil {
		s.Same = sameBody
	}
	if s.Virtual != nil {
		t.Run("virtual", s.virtual)
	}
	if s.Relay != nil {
		t.Run("relay", s.relay)
	}
	if s.Attached != nil {
		t.Run("attached", s.attached)
	}
}

// patience bounds every wait of the suite.
const patience = 10 * time.Second

// going runs f on a goroutine and gives its error.
func going(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

func ended(t *testing.T, what string, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatalf("%s: no answer within %v", what, patience)
		return nil
	}
}

// notYet checks that an answer is still held. That it stays so for ever can't be shown; a
// wrapper that answers early does so within microseconds of the call that is blocked.
func notYet(t *testing.T, what string, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Errorf("%s: the peer was answered (%v) before it was durable", what, err)
	case <-time.After(30 * time.Millisecond):
	}
}

func (s *Suite) link() *Link {
	if s.Syntax.Separator == "" {
		return NewLink(s.Templates...)
	}
	return NewLinkOf(s.Syntax, s.Templates...)
}

func (s *Suite) virtual(t *testing.T) {
	t.Run("an acknowledged write is durable", func(t *testing.T) {
		link := s.link()
		c := s.Virtual(t, link, nil).Dial(t)
		release := link.Block(CallDo)
		defer release()
		done := going(func() error { return c.Write(s.Address(0), s.Document(1)) })
		link.Await(t, "the write to reach the link", func() bool { return link.Waiting(CallDo) == 1 })
		notYet(t, "write", done)
		release()
		if err := ended(t, "write", done); err != nil {
			t.Fatalf("write: %v", err)
		}
		s.candidates(t, link, ViaDo, s.Address(0), s.Document(1))
	})
	t.Run("a write that is not durable is not acknowledged", func(t *testing.T) {
		link := s.link()
		rig := s.Virtual(t, link, nil)
		link.Fail(CallDo, wrappers.Refuse(wrappers.ErrUnavailable, "the disk is almost full"))
		c := rig.Dial(t)
		if err := ended(t, "write", going(func() error { return c.Write(s.Address(0), s.Document(1)) })); err == nil {
			t.Error("the peer saw success")
		}
		c = rig.Dial(t) // some protocols can only refuse by closing
		if err := ended(t, "write", going(func() error { return c.Write(s.Address(0), s.Document(2)) })); err != nil {
			t.Errorf("the next write: %v", err)
		}
		s.candidates(t, link, ViaDo, s.Address(0), s.Document(2))
	})
	t.Run("every kind of refusal is told", func(t *testing.T) {
		for _, kind := range []error{wrappers.ErrInvalid, wrappers.ErrDenied, wrappers.ErrConflict, wrappers.ErrTooLarge, wrappers.ErrUnavailable, errors.New("a bug")} {
			link := s.link()
			c := s.Virtual(t, link, nil).Dial(t)
			link.Fail(CallDo, fmt.Errorf("wrapped: %w", kind))
			if err := ended(t, "write", going(func() error { return c.Write(s.Address(0), s.Document(1)) })); err == nil {
				t.Errorf("%v: the peer saw success", kind)
			}
		}
	})
	t.Run("what no bind maps is refused", func(t *testing.T) {
		link := s.link()
		c := s.Virtual(t, link, nil).Dial(t)
		if err := ended(t, "write", going(func() error { return c.Write(s.Unmapped, s.Document(1)) })); err == nil {
			t.Error("the peer saw success")
		}
		s.candidates(t, link, ViaDo, s.Unmapped)
	})
	t.Run("who wrote it is known", func(t *testing.T) {
		link := s.link()
		c := s.Virtual(t, link, nil).Dial(t)
		if err := ended(t, "write", going(func() error { return c.Write(s.Address(0), s.Document(1)) })); err != nil {
			t.Fatal(err)
		}
		for _, cand := range link.Candidates() {
			if cand.Op.Who.Peer == "" {
				t.Errorf("%s %s: no peer", cand.Verb, cand.Address)
			}
		}
	})
	if !s.NoRead {
		t.Run("a write reads back", func(t *testing.T) {
			link := s.link()
			rig := s.Virtual(t, link, nil)
			c, other := rig.Dial(t), rig.Dial(t)
			if _, err := c.Read(s.Address(0)); !errors.Is(err, ErrAbsent) {
				t.Errorf("before the write: got %v, want absent", err)
			}
			if err := c.Write(s.Address(0), s.Document(1)); err != nil {
				t.Fatal(err)
			}
			s.reads(t, other, s.Address(0), s.Document(1))
			link.PushPut(s.Address(0), string(s.Document(2)))
			s.reads(t, other, s.Address(0), s.Document(2))
		})
	}
	if s.Deletes {
		t.Run("a delete deletes", func(t *testing.T) {
			link := s.link()
			c := s.Virtual(t, link, nil).Dial(t)
			link.PushPut(s.Address(0), string(s.Document(1)))
			if err := c.Delete(s.Address(0)); err != nil {
				t.Fatal(err)
			}
			if _, there := link.Register("", s.Address(0)); there {
				t.Error("it is still there")
			}
		})
	}
	t.Run("subscribers hear what others change", func(t *testing.T) {
		link := s.link()
		rig := s.Virtual(t, link, nil)
		got, err := rig.Dial(t).Subscribe(s.Address(0))
		if err != nil {
			t.Fatal(err)
		}
		link.PushPut(s.Address(1), string(s.Document(9)))
		for n := 1; n <= 20; n++ {
			link.PushPut(s.Address(0), string(s.Document(n)))
		}
		for n := 1; n <= 20; n++ {
			s.hears(t, got, s.Document(n))
		}
		if err := rig.Dial(t).Write(s.Address(0), s.Document(21)); err != nil {
			t.Fatal(err)
		}
		s.hears(t, got, s.Document(21))
	})
	t.Run("one peer's garbage is its own", func(t *testing.T) { s.garbage(t, s.Virtual) })
	t.Run("an oversized write is refused", func(t *testing.T) { s.oversized(t, s.Virtual, ViaDo) })
	t.Run("sessions are limited", func(t *testing.T) { s.sessions(t, s.Virtual) })
	t.Run("it stops when told", func(t *testing.T) { s.stops(t, s.Virtual) })
}

func (s *Suite) relay(t *testing.T) {
	via := ViaWire
	if s.RelayHolds == CallSeen {
		via = ViaSeen
	}
	t.Run("an acknowledged write is durable", func(t *testing.T) {
		link := s.link()
		rig := s.Relay(t, link, nil)
		c := rig.Dial(t)
		release := link.Block(s.RelayHolds)
		defer release()
		done := going(func() error { return c.Write(s.Address(0), s.Document(1)) })
		link.Await(t, "the write to reach the link", func() bool { return link.Waiting(s.RelayHolds) > 0 })
		s.holds(t, rig.Server, s.Address(0), s.Document(1))
		notYet(t, "write", done)
		release()
		if err := ended(t, "write", done); err != nil {
			t.Fatalf("write: %v", err)
		}
		link.Await(t, "the candidate", func() bool { return len(link.Candidates(via)) > 0 })
		s.candidates(t, link, via, s.Address(0), s.Document(1))
	})
	if via == ViaWire {
		t.Run("what can't be noted is not forwarded", func(t *testing.T) {
			link := s.link()
			rig := s.Relay(t, link, nil)
			c := rig.Dial(t)
			link.Fail(CallBegin, wrappers.Refuse(wrappers.ErrUnavailable, "the disk is almost full"))
			if err := ended(t, "write", going(func() error { return c.Write(s.Address(0), s.Document(1)) })); err == nil {
				t.Error("the peer saw success")
			}
			if n := rig.Server.Writes(s.Address(0)); n != 0 {
				t.Errorf("the server was asked %d times, want 0", n)
			}
		})
		t.Run("what could not be committed is not acknowledged", func(t *testing.T) {
			link := s.link()
			rig := s.Relay(t, link, nil)
			c := rig.Dial(t)
			link.Fail(CallCommit, wrappers.ErrUnavailable)
			if err := ended(t, "write", going(func() error { return c.Write(s.Address(0), s.Document(1)) })); err == nil {
				t.Error("the peer saw success")
			}
		})
	}
	t.Run("what the server refuses is no candidate", func(t *testing.T) {
		link := s.link()
		rig := s.Relay(t, link, nil)
		if !rig.Server.Fail(RefuseForGood) {
			t.Skip("n/a: this server refuses nothing")
		}
		c := rig.Dial(t)
		if err := ended(t, "write", going(func() error { return c.Write(s.Address(0), s.Document(1)) })); err == nil {
			t.Error("the peer saw success")
		}
		for _, i := range link.Intents() {
			if i.End != "abort" {
				t.Errorf("intent: got %s, want abort", i.End)
			}
		}
		s.candidates(t, link, via, s.Address(0))
	})
	t.Run("a broken answer is an unknown outcome", func(t *testing.T) {
		link := s.link()
		rig := s.Relay(t, link, nil)
		if via != ViaWire || !rig.Server.Fail(BreakConnection) {
			t.Skip("n/a: no intents, or this server does not break off")
		}
		c := rig.Dial(t)
		if err := ended(t, "write", going(func() error { return c.Write(s.Address(0), s.Document(1)) })); err == nil {
			t.Error("the peer saw success")
		}
		link.Await(t, "the intent's end", func() bool {
			is := link.Intents()
			return len(is) == 1 && is[0].End == "unknown"
		})
		s.candidates(t, link, via, s.Address(0))
	})
	t.Run("a peer's write is written once and comes back to nobody", func(t *testing.T) {
		link := s.link()
		rig := s.Relay(t, link, nil)
		c := rig.Dial(t)
		for n := 1; n <= 3; n++ {
			if err := ended(t, "write", going(func() error { return c.Write(s.Address(0), s.Document(n)) })); err != nil {
				t.Fatal(err)
			}
		}
		// What follows on another address comes after any echo would have.
		link.PushPut(s.Address(1), string(s.Document(9)))
		s.settled(t, link, s.Address(1), wrappers.Done)
		link.Await(t, "the candidates", func() bool { return len(link.Candidates(via)) >= 3 })
		s.candidates(t, link, via, s.Address(0), s.Document(1), s.Document(2), s.Document(3))
		if n := rig.Server.Writes(s.Address(0)); n != 3 {
			t.Errorf("the server was asked %d times, want 3", n)
		}
	})
	t.Run("what no bind maps passes", func(t *testing.T) {
		link := s.link()
		rig := s.Relay(t, link, nil)
		c := rig.Dial(t)
		if err := ended(t, "write", going(func() error { return c.Write(s.Unmapped, s.Document(1)) })); err != nil {
			t.Fatalf("write: %v", err)
		}
		s.holds(t, rig.Server, s.Unmapped, s.Document(1))
		if n := len(link.Intents()); n != 0 {
			t.Errorf("got %d intents, want none", n)
		}
		s.candidates(t, link, via, s.Unmapped)
	})
	t.Run("who wrote it is known", func(t *testing.T) {
		link := s.link()
		c := s.Relay(t, link, nil).Dial(t)
		if err := ended(t, "write", going(func() error { return c.Write(s.Address(0), s.Document(1)) })); err != nil {
			t.Fatal(err)
		}
		link.Await(t, "the candidate", func() bool { return len(link.Candidates(via)) > 0 })
		for _, cand := range link.Candidates(via) {
			if cand.Op.Who.Peer == "" {
				t.Errorf("%s %s: no peer", cand.Verb, cand.Address)
			}
		}
	})
	t.Run("one peer's garbage is its own", func(t *testing.T) { s.garbage(t, s.Relay) })
	t.Run("an oversized write is refused", func(t *testing.T) { s.oversized(t, s.Relay, via) })
	t.Run("sessions are limited", func(t *testing.T) { s.sessions(t, s.Relay) })
	t.Run("it stops when told", func(t *testing.T) { s.stops(t, s.Relay) })
	s.writeBack(t, s.Relay)
}

func (s *Suite) attached(t *testing.T) {
	s.writeBack(t, s.Attached)
	t.Run("what others write into the server arrives", func(t *testing.T) {
		link := s.link()
		rig := s.Attached(t, link, nil)
		link.PushPut(s.Address(0), string(s.Document(0)))
		s.settled(t, link, s.Address(0), wrappers.Done)
		rig.Server.Set(s.Address(0), s.Document(1))
		link.Await(t, "the candidate", func() bool { return len(link.Candidates(ViaSeen)) > 0 })
		s.candidates(t, link, ViaSeen, s.Address(0), s.Document(1))
		rig.Server.Set(s.Address(0), s.Document(2))
		link.Await(t, "the next one", func() bool { return len(link.Candidates(ViaSeen)) > 1 })
		s.candidates(t, link, ViaSeen, s.Address(0), s.Document(1), s.Document(2))
		if n := rig.Server.Writes(s.Address(0)); n != 1 {
			t.Errorf("the server was asked %d times, want 1: its own news came back to it", n)
		}
	})
	t.Run("it stops when told", func(t *testing.T) { s.stops(t, s.Attached) })
}

func (s *Suite) writeBack(t *testing.T, start func(*testing.T, *Link, func(*wrappers.Config)) Rig) {
	t.Run("a change from elsewhere is written once and is no news", func(t *testing.T) {
		link := s.link()
		rig := start(t, link, nil)
		link.PushPut(s.Address(0), string(s.Document(1)))
		s.settled(t, link, s.Address(0), wrappers.Done)
		s.holds(t, rig.Server, s.Address(0), s.Document(1))
		link.PushPut(s.Address(1), string(s.Document(2)))
		s.settled(t, link, s.Address(1), wrappers.Done)
		if n := rig.Server.Writes(s.Address(0)); n != 1 {
			t.Errorf("the server was asked %d times, want 1", n)
		}
		s.candidates(t, link, ViaSeen, s.Address(0))
		s.candidates(t, link, ViaWire, s.Address(0))
	})
	t.Run("the newest state wins", func(t *testing.T) {
		link := s.link()
		rig := start(t, link, nil)
		for n := range 50 {
			link.PushPut(s.Address(0), string(s.Document(n)))
		}
		link.Await(t, "the newest state to be settled", func() bool {
			ss := link.Settlements()
			return len(ss) > 0 && s.Same(ss[len(ss)-1].Change.Payload.Raw, s.Document(49)) && ss[len(ss)-1].Effect.Outcome == wrappers.Done
		})
		s.holds(t, rig.Server, s.Address(0), s.Document(49))
	})
	if s.Deletes {
		t.Run("a delete from elsewhere deletes", func(t *testing.T) {
			link := s.link()
			rig := start(t, link, nil)
			link.PushPut(s.Address(0), string(s.Document(1)))
			s.settled(t, link, s.Address(0), wrappers.Done)
			link.Push(wrappers.Operation{Verb: wrappers.Delete, Address: s.Address(0)})
			link.Await(t, "the delete to be settled", func() bool {
				ss := link.Settlements()
				return len(ss) > 1 && ss[len(ss)-1].Change.Gone && ss[len(ss)-1].Effect.Outcome == wrappers.Done
			})
			if v, there := rig.Server.Value(s.Address(0)); there {
				t.Errorf("the server still has %q", v)
			}
		})
	}
	t.Run("a transient failure is tried again", func(t *testing.T) {
		link := s.link()
		rig := start(t, link, nil)
		if !rig.Server.Fail(RefuseForNow) {
			t.Skip("n/a: this server does not refuse for now")
		}
		link.PushPut(s.Address(0), string(s.Document(1)))
		link.Await(t, "retry, then done", func() bool {
			ss := link.Settlements()
			return len(ss) == 2 && ss[0].Effect.Outcome == wrappers.Retry && ss[0].Effect.Err != nil && ss[1].Effect.Outcome == wrappers.Done
		})
		s.holds(t, rig.Server, s.Address(0), s.Document(1))
	})
	t.Run("a permanent one is parked and the stream goes on", func(t *testing.T) {
		link := s.link()
		rig := start(t, link, nil)
		if !rig.Server.Fail(RefuseForGood) {
			t.Skip("n/a: this server refuses nothing")
		}
		link.PushPut(s.Address(0), string(s.Document(1)))
		s.settled(t, link, s.Address(0), wrappers.Parked)
		for _, e := range link.Settlements() {
			if e.Effect.Outcome == wrappers.Parked && e.Effect.Err == nil {
				t.Error("parked without a reason")
			}
		}
		link.PushPut(s.Address(1), string(s.Document(2)))
		s.settled(t, link, s.Address(1), wrappers.Done)
		s.holds(t, rig.Server, s.Address(1), s.Document(2))
	})
}

func (s *Suite) settled(t *testing.T, link *Link, address string, want wrappers.Outcome) {
	t.Helper()
	link.Await(t, fmt.Sprintf("%s to be settled with outcome %d", address, want), func() bool {
		for _, e := range link.Settlements() {
			if e.Change.Address == address && e.Effect.Outcome == want {
				return true
			}
		}
		return false
	})
}

// candidates checks that exactly these came by a door for an address.
func (s *Suite) candidates(t *testing.T, link *Link, via Via, address string, want ...[]byte) {
	t.Helper()
	var got [][]byte
	for _, c := range link.Candidates(via) {
		if c.Address == address {
			got = append(got, c.Payload)
		}
	}
	same := len(got) == len(want)
	for i := 0; same && i < len(want); i++ {
		same = s.Same(got[i], want[i])
	}
	if !same {
		t.Errorf("candidates of %s by %s: got %q, want %q", address, via, got, want)
	}
}

func (s *Suite) holds(t *testing.T, srv Server, address string, want []byte) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		got, there := srv.Value(address)
		if there && s.Same(got, want) {
			return
		}
		// A write without acknowledgement (MQTT's QoS 0) may still be on its way.
		if time.Now().After(deadline) {
			t.Fatalf("the server has %q at %s (there: %v), want %q", got, address, there, want)
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *Suite) reads(t *testing.T, c Client, address string, want []byte) {
	t.Helper()
	got, err := c.Read(address)
	if err != nil || !s.Same(got, want) {
		t.Errorf("read %s: got %q, %v; want %q", address, got, err, want)
	}
}

func (s *Suite) hears(t *testing.T, from <-chan []byte, want []byte) {
	t.Helper()
	select {
	case got, open := <-from:
		if !open || !s.Same(got, want) {
			t.Fatalf("the subscriber heard %q (open: %v), want %q", got, open, want)
		}
	case <-time.After(patience):
		t.Fatalf("the subscriber did not hear %q within %v", want, patience)
	}
}

func (s *Suite) garbage(t *testing.T, start func(*testing.T, *Link, func(*wrappers.Config)) Rig) {
	if s.Garbage == nil {
		t.Skip("n/a: no garbage is given")
	}
	rig := start(t, s.link(), nil)
	good := rig.Dial(t)
	if err := good.Write(s.Address(0), s.Document(1)); err != nil {
		t.Fatal(err)
	}
	bad, err := net.Dial("tcp", rig.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	_ = bad.SetDeadline(time.Now().Add(patience))
	_, _ = bad.Write(s.Garbage)
	var b [4096]byte
	for {
		if _, err := bad.Read(b[:]); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("the peer that sent garbage still has its session after %v", patience)
			}
			break
		}
	}
	if err := good.Write(s.Address(0), s.Document(2)); err != nil {
		t.Errorf("another peer's write: %v", err)
	}
}

func (s *Suite) oversized(t *testing.T, start func(*testing.T, *Link, func(*wrappers.Config)) Rig, via Via) {
	link := s.link()
	rig := start(t, link, func(c *wrappers.Config) { c.Limits.Frame = 32 << 10 })
	big := []byte(`{"text":"` + strings.Repeat("x", 64<<10) + `"}`)
	c := rig.Dial(t)
	if err := ended(t, "write", going(func() error { return c.Write(s.Address(0), big) })); err == nil {
		t.Error("the peer saw success")
	}
	c = rig.Dial(t)
	if err := ended(t, "write", going(func() error { return c.Write(s.Address(0), s.Document(1)) })); err != nil {
		t.Errorf("a small write after it: %v", err)
	}
	link.Await(t, "the candidate", func() bool { return len(link.Candidates(via)) > 0 })
	s.candidates(t, link, via, s.Address(0), s.Document(1))
}

func (s *Suite) sessions(t *testing.T, start func(*testing.T, *Link, func(*wrappers.Config)) Rig) {
	link := s.link()
	rig := start(t, link, func(c *wrappers.Config) { c.Limits.Sessions = 3 })
	conns := make([]net.Conn, 0, 10)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range 10 {
		c, err := net.Dial("tcp", rig.Addr)
		if err != nil {
			break
		}
		conns = append(conns, c)
	}
	link.Await(t, "sessions to be turned away", func() bool { return link.Counted("sessions_full") >= 7 })
}

func (s *Suite) stops(t *testing.T, start func(*testing.T, *Link, func(*wrappers.Config)) Rig) {
	rig := start(t, s.link(), func(c *wrappers.Config) { c.Drain = time.Second })
	if rig.Dial != nil {
		if err := rig.Dial(t).Write(s.Address(0), s.Document(1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := ended(t, "Serve", going(rig.Stop)); err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
	if rig.Addr == "" {
		return
	}
	if c, err := net.Dial("tcp", rig.Addr); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}
