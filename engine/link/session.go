package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spooksystems/gateway/engine"
)

// How long silence may last.
const (
	Heartbeat  = 5 * time.Second  // after which a session says that it is alive
	Patience   = 15 * time.Second // after which one that says nothing is given up: the pair is decohered
	tickPeriod = time.Second      // how often Tick wants to be called
	busyPause  = 2 * time.Second  // until a state is offered again to who was taking another one
)

// A Session is one connection's side of a pair: frames in, frames out, the clock given to it, no goroutine and no I/O of
// its own beside the engine's. Handle is called by one goroutine, Next by one, Tick by either's; all by the same is well,
// too. A session that returned an error is over: Close it, and begin another on a new connection.
type Session struct {
	o   sessionOptions
	e   *engine.Engine
	own nonce

	mu       sync.Mutex
	phase    phase
	peer     nonce
	greeting *hello // the peer's
	record   *Record
	queue    []*frame // to be sent before all else
	pieces   [][]byte // of a long frame, already encoded
	partly   []byte   // of a long frame that is arriving

	busy    bool // in Handle
	heardAt time.Time
	saidAt  time.Time
	skew    time.Duration // of the peer's clock against this one

	knows   knowing
	out     outgoing
	in      incoming
	large   wanting
	give    map[uint64]*giving
	dropped []*giving // to be closed
	take    map[uint64]*taking
	count   Figures
	over    error
}

// sessionOptions are what a session is made of.
type sessionOptions struct {
	engine *engine.Engine
	caller bool
	peer   engine.EndpointID // whom the caller calls; of the called: zero, or what the transport has proven
	secret []byte            // of an invitation that the caller uses
	// admit says whether the peer may be talked to, and what is kept of it. A *refusal is told to the peer.
	admit  func(context.Context, *hello) (*Record, error)
	now    func() time.Time
	random io.Reader
	// changed wakes whoever calls Next.
	changed func()
	joins   *sync.Mutex // one state at a time is taken into an engine
}

type phase uint8

const (
	greetingPhase phase = iota // until the peer's hello
	meetingPhase               // until its vector
	catchingPhase              // until both have had what they lacked
	levelPhase
	overPhase
)

// A refusal is an error that the peer is told.
type refusal struct {
	code byeCode
	text string
	twin engine.OriginID
}

func (r *refusal) Error() string { return r.text }

// The ways in which a session ends.
var (
	ErrSilent    = errors.New("nothing heard for too long")
	ErrDissolved = errors.New("the other site has dissolved the pair")
	ErrRefused   = errors.New("the other site refuses")
	ErrTwin      = errors.New("this endpoint runs twice")
	ErrBusy      = errors.New("the other site asks to try again later")
	ErrProtocol  = errors.New("the other site does not keep to the protocol")
	ErrStopping  = errors.New("the other site is being stopped")
)

var byeErrors = map[byeCode]error{
	byeDissolved: ErrDissolved, byeRefused: ErrRefused, byeTwin: ErrTwin, byeBusy: ErrBusy, byeProtocol: ErrProtocol, byeStopping: ErrStopping,
}

// newSession begins a session; the caller's has its hello to say at once.
func newSession(ctx context.Context, o sessionOptions) (*Session, error) {
	if o.changed == nil {
		o.changed = func() {}
	}
	now := o.now()
	s := &Session{o: o, e: o.engine, heardAt: now, saidAt: now, give: map[uint64]*giving{}, take: map[uint64]*taking{}}
	s.out.begin()
	s.large.begin()
	if err := s.mint(); err != nil {
		return nil, err
	}
	if !o.caller {
		return s, nil
	}
	p, err := loadPlace(s.e, o.peer)
	if err != nil {
		return nil, err
	}
	s.knows.place = p
	return s, s.greet(ctx, nonce{})
}

func (s *Session) mint() error {
	for s.own == (nonce{}) {
		if _, err := io.ReadFull(s.o.random, s.own[:]); err != nil {
			return err
		}
	}
	return nil
}

// greet puts the own hello into the queue.
func (s *Session) greet(ctx context.Context, echo nonce) error {
	at := s.e.Place() // before the summary: what it says has at least this
	own, err := s.e.Summary(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.knows.told, s.knows.number, s.knows.at = own.Vector, 1, at
	h := &hello{
		Feature: Feature, Endpoint: own.Endpoint, Origin: own.Origin, Nonce: s.own, Echo: echo, Head: own.Head, Digest: digest(own.Vector),
		Root: own.Root, Heard: own.Heard, Wall: s.o.now().UnixMilli(), Window: Window, Secret: s.o.secret,
	}
	if len(s.knows.place.theirs) > 0 {
		h.Base = digest(s.knows.place.theirs)
	}
	s.knows.digest = h.Digest
	s.queue = append(s.queue, &frame{to: s.peer, kind: kindHello, hello: h})
	return nil
}

// Handle takes one frame. What it says is done when Handle returns. An error ends the session.
func (s *Session) Handle(ctx context.Context, raw []byte) error {
	s.mu.Lock()
	s.count.BytesIn += uint64(len(raw))
	s.busy = true
	over := s.over
	s.mu.Unlock()
	began := s.o.now()
	defer func() {
		s.mu.Lock()
		s.busy = false
		if now := s.o.now(); now.Sub(began) >= tickPeriod {
			s.heardAt = now // what has come meanwhile was not listened to
		}
		s.mu.Unlock()
	}()
	if over != nil {
		return over
	}
	f, err := parseFrame(raw)
	if err == nil {
		err = s.handle(ctx, f)
	}
	if errors.Is(err, engine.ErrInvalid) {
		err = &refusal{code: byeProtocol, text: err.Error()}
	}
	var r *refusal
	if errors.As(err, &r) {
		s.bye(r)
	}
	s.o.changed()
	return err
}

// bye puts a last word into the queue, before everything else.
func (s *Session) bye(r *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = []*frame{{to: s.peer, kind: kindBye, bye: &bye{Code: r.code, Text: r.text, Twin: r.twin}}}
	s.pieces = nil
}

func (s *Session) handle(ctx context.Context, f *frame) error {
	if f.kind == kindHello {
		return s.greeted(ctx, f.hello)
	}
	s.mu.Lock()
	late := f.to != s.own
	ready := s.phase
	if !late {
		s.heardAt = s.o.now()
	}
	s.mu.Unlock()
	if late {
		return nil // of another connection
	}
	if f.kind == kindBye {
		return s.left(ctx, f.bye)
	}
	if f.kind == kindPart {
		return s.piece(ctx, f)
	}
	if ready == greetingPhase || ready == meetingPhase && f.kind != kindVector {
		return invalid("a frame of kind %d before the vectors", f.kind)
	}
	switch f.kind {
	case kindVector:
		return s.learn(ctx, f.vector)
	case kindNews:
		return s.heard(ctx, f.news)
	case kindBatch:
		return s.receive(ctx, f.batch)
	case kindOffer:
		return s.offered(ctx, f.offer)
	case kindAsk:
		return s.asked(f.ask)
	case kindAnswer:
		return s.answered(f.answer)
	case kindWant:
		return s.wanted(f.want)
	case kindRegisters:
		return s.joined(ctx, f.registers)
	case kindCompare:
		return s.compared(ctx, f.number)
	case kindTwin:
		return s.e.Twin(ctx, f.twin)
	case kindChunkAsk:
		return s.chunksAsked(f.chunks)
	case kindChunk:
		return s.chunkCame(ctx, f.chunk)
	}
	return invalid("a frame of kind %d", f.kind)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{engine.ErrInvalid}, args...)...)
}

// piece puts a long frame together.
func (s *Session) piece(ctx context.Context, f *frame) error {
	if len(s.partly)+len(f.part) > maxMessage {
		return invalid("a frame of more than %d bytes", maxMessage)
	}
	s.partly = append(s.partly, f.part...)
	if !f.last {
		return nil
	}
	raw := s.partly
	s.partly = nil
	whole, err := parseFrame(raw)
	if err != nil {
		return err
	}
	if whole.kind == kindPart || whole.kind == kindHello {
		return invalid("a frame of kind %d in parts", whole.kind)
	}
	return s.handle(ctx, whole)
}

// left takes the peer's last word.
func (s *Session) left(ctx context.Context, b *bye) error {
	err := byeErrors[b.Code]
	if err == nil {
		err = ErrProtocol
	}
	if b.Code == byeTwin && b.Twin != (engine.OriginID{}) {
		if err := s.e.Twin(ctx, b.Twin); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: %s", err, b.Text)
}

// greeted takes the peer's hello.
func (s *Session) greeted(ctx context.Context, h *hello) error {
	s.mu.Lock()
	phase, peer := s.phase, s.peer
	s.mu.Unlock()
	switch {
	case s.o.caller && (h.Echo != s.own || phase != greetingPhase):
		return nil // of an earlier call
	case !s.o.caller && h.Echo != (nonce{}):
		return nil
	case !s.o.caller && phase != greetingPhase:
		if h.Nonce == peer {
			return nil
		}
		// The one before was late, and this is who calls now.
		return &refusal{code: byeBusy, text: "a second hello on one connection"}
	case h.Feature == 0:
		return invalid("feature level 0")
	case s.o.peer != (engine.EndpointID{}) && h.Endpoint != s.o.peer:
		return &refusal{code: byeRefused, text: fmt.Sprintf("endpoint %s, with the certificate of %s", h.Endpoint, s.o.peer)}
	}
	s.mu.Lock()
	s.heardAt, s.peer, s.greeting = s.o.now(), h.Nonce, h
	s.skew = time.UnixMilli(h.Wall).Sub(s.o.now())
	s.out.window = min(max(h.Window, batchBytes), 64<<20)
	s.mu.Unlock()
	own, err := s.e.Status(ctx)
	if err != nil {
		return err
	}
	if h.Endpoint == own.Endpoint {
		self, err := s.e.Summary(ctx)
		if err == nil {
			err = s.e.Twin(ctx, h.Origin)
		}
		if err != nil {
			return err
		}
		return &refusal{code: byeTwin, text: "this endpoint is mine: one of our data directories is a copy of the other's", twin: self.Origin}
	}
	record, err := s.o.admit(ctx, h)
	if err != nil {
		return err
	}
	if !s.o.caller {
		p, err := loadPlace(s.e, h.Endpoint)
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.knows.place = p
		s.mu.Unlock()
		if err := s.greet(ctx, h.Nonce); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.record = record
	s.mu.Unlock()
	return s.compareVectors(ctx, h)
}

// Next gives the next frame to send, nil if there is none now. An error ends the session.
func (s *Session) Next(ctx context.Context) ([]byte, error) {
	raw, err := s.next(ctx)
	if raw != nil {
		s.mu.Lock()
		s.saidAt = s.o.now()
		s.count.BytesOut += uint64(len(raw))
		s.mu.Unlock()
	}
	return raw, err
}

func (s *Session) next(ctx context.Context) ([]byte, error) {
	if err := s.closeDropped(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if len(s.queue) > 0 {
		f := s.queue[0]
		s.queue = s.queue[1:]
		s.mu.Unlock()
		return s.encode(f), nil
	}
	phase, due, pieces := s.phase, s.in.due, len(s.pieces) > 0
	s.mu.Unlock()
	if phase == greetingPhase || phase == overPhase {
		return nil, nil
	}
	if due && phase != meetingPhase {
		f, err := s.news(ctx)
		if err != nil {
			return nil, err
		}
		return s.encode(f), nil
	}
	if pieces {
		s.mu.Lock()
		defer s.mu.Unlock()
		raw := s.pieces[0]
		s.pieces = s.pieces[1:]
		return raw, nil
	}
	if phase == meetingPhase {
		return nil, nil
	}
	for _, source := range []func(context.Context) (*frame, error){s.nextChunk, s.nextRegisters, s.nextBatch} {
		f, err := source(ctx)
		if f != nil || err != nil {
			return s.encode(f), err
		}
	}
	// Having found that there is nothing left may be news.
	s.mu.Lock()
	due = s.in.due
	s.mu.Unlock()
	if due {
		f, err := s.news(ctx)
		return s.encode(f), err
	}
	return nil, nil
}

// encode gives the bytes of a frame; of a long one those of its first part, with the rest behind.
func (s *Session) encode(f *frame) []byte {
	if f == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.kind != kindHello {
		f.to = s.peer
	}
	raw := f.appendTo(nil)
	if len(raw) <= MaxFrame {
		return raw
	}
	for len(raw) > 0 {
		n := min(len(raw), partBytes)
		p := frame{to: s.peer, kind: kindPart, part: raw[:n], last: n == len(raw)}
		s.pieces = append(s.pieces, p.appendTo(nil))
		raw = raw[n:]
	}
	first := s.pieces[0]
	s.pieces = s.pieces[1:]
	return first
}

// send puts a frame into the queue.
func (s *Session) send(f *frame) {
	s.mu.Lock()
	s.queue = append(s.queue, f)
	s.mu.Unlock()
	s.o.changed()
}

// Tick is called about every second: it notices silence, says that it is alive, and keeps how far it has come. ErrSilent
// ends the session.
func (s *Session) Tick(ctx context.Context) error {
	now := s.o.now()
	s.mu.Lock()
	silent := now.Sub(s.heardAt) >= Patience && !s.busy
	if now.Sub(s.saidAt) >= Heartbeat && s.phase >= catchingPhase {
		s.in.due = true
	}
	again := s.out.again
	if !again.IsZero() && !now.Before(again) {
		s.out.again = time.Time{}
		s.out.mode = opMode
	}
	phase := s.phase
	s.mu.Unlock()
	if silent {
		return fmt.Errorf("%w: %s", ErrSilent, Patience)
	}
	if phase >= catchingPhase && phase != overPhase {
		if err := s.askChunks(ctx, true); err != nil {
			return err
		}
		if err := s.keepPlace(ctx); err != nil {
			return err
		}
	}
	s.o.changed()
	return nil
}

// Close ends the session, and keeps how far it has come.
func (s *Session) Close() error {
	s.mu.Lock()
	was := s.phase
	s.phase = overPhase
	if s.over == nil {
		s.over = engine.ErrClosed
	}
	give, take := s.give, s.take
	s.give, s.take = map[uint64]*giving{}, map[uint64]*taking{}
	s.mu.Unlock()
	var err error
	if was == catchingPhase || was == levelPhase {
		err = s.keepPlace(context.Background())
	}
	for _, g := range give {
		err = errors.Join(err, g.close())
	}
	err = errors.Join(err, s.closeDropped())
	for _, t := range take {
		err = errors.Join(err, t.close(engine.ErrUnavailable))
	}
	if errors.Is(err, engine.ErrClosed) {
		return nil
	}
	return err
}

// Figures are what a session has done so far.
type Figures struct {
	BytesIn, BytesOut           uint64 // frames, without what the transport adds
	CandidatesIn, CandidatesOut uint64
	RegistersIn, RegistersOut   uint64 // of states
	ChunksIn, ChunksOut         uint64
	States                      uint64 // taken whole, because the peer's log was trimmed
}

func (f *Figures) add(o Figures) {
	f.BytesIn += o.BytesIn
	f.BytesOut += o.BytesOut
	f.CandidatesIn += o.CandidatesIn
	f.CandidatesOut += o.CandidatesOut
	f.RegistersIn += o.RegistersIn
	f.RegistersOut += o.RegistersOut
	f.ChunksIn += o.ChunksIn
	f.ChunksOut += o.ChunksOut
	f.States += o.States
}

// Alive notes that bytes have come, of a frame that is not whole yet.
func (s *Session) Alive(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.After(s.heardAt) && s.phase != greetingPhase {
		s.heardAt = at
	}
}

// Level says whether both sides have had what they lacked when they met.
func (s *Session) Level() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase == levelPhase
}

// met says who the peer is, once it has been admitted.
func (s *Session) met() (h *hello, heardAt time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.greeting, s.heardAt, s.record != nil
}

// tellTwin tells the peer that another process runs under its endpoint.
func (s *Session) tellTwin(origin engine.OriginID) {
	s.send(&frame{kind: kindTwin, twin: origin})
}
