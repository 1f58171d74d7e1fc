package link

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spooksystems/gateway/engine"
)

// A session at work: one goroutine reads, one writes, one watches the clock, one the log.

func (s *Site) options(caller bool, peer engine.EndpointID, secret []byte, admit func(context.Context, *hello) (*Record, error)) sessionOptions {
	return sessionOptions{engine: s.e, caller: caller, peer: peer, secret: secret, admit: admit, now: s.o.Now, random: rand.Reader, joins: &s.joins}
}

// maxCalled bounds how many callers may be in at once beyond one for each pair.
const maxCalled = 32

// serve is the session of a peer who called.
func (s *Site) serve(conn frameConn, endpoint engine.EndpointID, key [32]byte) {
	defer conn.close()
	s.mu.Lock()
	if s.closed || len(s.called) >= maxCalled+len(s.pairs) {
		s.mu.Unlock()
		return
	}
	s.wait.Add(1)
	s.called[conn] = struct{}{}
	s.mu.Unlock()
	defer s.wait.Done()
	defer func() {
		s.mu.Lock()
		delete(s.called, conn)
		s.mu.Unlock()
	}()
	session, err := newSession(s.ctx, s.options(false, endpoint, nil, func(ctx context.Context, h *hello) (*Record, error) { return s.admit(ctx, h, key) }))
	if err == nil {
		err = s.run(s.ctx, conn, session)
	}
	if err != nil && s.ctx.Err() == nil {
		s.mu.Lock()
		p := s.pairs[endpoint]
		s.mu.Unlock()
		if p == nil {
			s.o.Log.Warn("sites: a caller was sent away", "peer", conn.remote(), "endpoint", endpoint.String(), "error", err)
			return
		}
		if !s.dissolvedBy(p, err) {
			s.noteFailure(p, err)
		}
	}
}

// lastWord is how long a session that ends may take to say why.
const lastWord = time.Second

// run drives a session until its connection ends, or ctx.
func (s *Site) run(ctx context.Context, conn frameConn, session *Session) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	wake := make(chan struct{}, 1)
	session.o.changed = func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	var wait sync.WaitGroup
	wait.Go(func() { s.read(ctx, cancel, conn, session) })
	wait.Go(func() { s.write(ctx, cancel, conn, session, wake) })
	wait.Go(func() { s.tick(ctx, cancel, conn, session) })
	wait.Go(func() { s.watch(ctx, session) })
	<-ctx.Done()
	cause := context.Cause(ctx)
	if errors.Is(cause, context.Canceled) && s.ctx.Err() != nil {
		session.bye(&refusal{code: byeStopping, text: "this site is being stopped"})
	}
	s.lastWords(conn, session)
	conn.close()
	wait.Wait()
	s.ended(session)
	return errors.Join(cause, session.Close())
}

// lastWords says why the connection ends, if that is to be said.
func (s *Site) lastWords(conn frameConn, session *Session) {
	ctx, cancel := context.WithTimeout(context.Background(), lastWord)
	defer cancel()
	if raw := session.farewell(); raw != nil {
		_ = conn.write(ctx, raw) // it ends anyway
	}
}

func (s *Site) read(ctx context.Context, cancel context.CancelCauseFunc, conn frameConn, session *Session) {
	up := false
	for {
		// Not ctx: its end would close the connection before the last word.
		raw, err := conn.read(context.Background())
		if err != nil {
			cancel(fmt.Errorf("the connection broke: %w", err))
			return
		}
		if err := session.Handle(ctx, raw); err != nil {
			cancel(err)
			return
		}
		if !up {
			up = s.begin(session, conn, cancel)
		}
		s.note(session)
	}
}

func (s *Site) write(ctx context.Context, cancel context.CancelCauseFunc, conn frameConn, session *Session, wake <-chan struct{}) {
	for ctx.Err() == nil {
		raw, err := session.Next(ctx)
		if err != nil {
			cancel(err)
			return
		}
		if raw != nil {
			if err := conn.write(context.Background(), raw); err != nil {
				cancel(fmt.Errorf("the connection broke: %w", err))
				return
			}
		}
		if raw != nil {
			continue
		}
		s.note(session)
		select {
		case <-wake:
		case <-ctx.Done():
		}
	}
}

func (s *Site) tick(ctx context.Context, cancel context.CancelCauseFunc, conn frameConn, session *Session) {
	t := time.NewTicker(tickPeriod)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			session.Alive(conn.heard())
			if err := session.Tick(ctx); err != nil {
				cancel(err)
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// watch wakes the session when the log has grown.
func (s *Site) watch(ctx context.Context, session *Session) {
	for {
		at := s.e.Place()
		session.o.changed()
		if s.e.Await(ctx, at) != nil {
			return
		}
	}
}

// begin makes a session that was admitted the one of its pair.
func (s *Site) begin(session *Session, conn frameConn, cancel context.CancelCauseFunc) bool {
	h, _, ok := session.met()
	if !ok {
		return false
	}
	s.mu.Lock()
	p := s.pairs[h.Endpoint]
	if p == nil || p.record.Dissolved {
		s.mu.Unlock()
		cancel(ErrDissolved)
		return true
	}
	if p.session != nil && p.session != session {
		p.stop(errors.New("the peer has come by a new line"))
	}
	p.session, p.stop, p.remote, p.twin = session, cancel, conn.remote(), engine.OriginID{}
	p.begun++
	s.move(p, Reentangling)
	var keep *Record
	if len(p.record.Secret) > 0 {
		r := *p.record
		r.Secret = nil
		p.record, keep = &r, &r
	}
	s.mu.Unlock()
	if keep != nil {
		if err := s.keepRecord(s.ctx, keep); err != nil {
			cancel(err)
		}
	}
	return true
}

// note brings the pair's state up to the session's.
func (s *Site) note(session *Session) {
	if !session.Level() {
		return
	}
	h, _, ok := session.met()
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pairs[h.Endpoint]; p != nil && p.session == session {
		s.move(p, Entangled)
		p.failure, p.level = "", true
	}
}

// ended takes a session away from its pair.
func (s *Site) ended(session *Session) {
	h, _, ok := session.met()
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pairs[h.Endpoint]
	if p == nil {
		return
	}
	p.figures.add(session.figures())
	if p.session == session {
		p.session, p.stop, p.remote = nil, nil, ""
		s.move(p, Decohered)
	}
}
