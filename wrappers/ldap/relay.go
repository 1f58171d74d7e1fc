package ldap

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// A front stands in front of a directory server, and is attached to it.
//
// A write passes like this: FromClient decodes a copy, asks who may (Link.May), notes who writes where (wire) and passes
// the bytes. When the result of success comes, it is dropped from the stream, alone, and said to the client once the
// feed has shown everything that the server had committed by then (source.CaughtUp).
type front struct {
	*wrapper
	source source
	link   wrappers.Link
	saidBlind,
	saidTLS atomic.Bool
}

func newRelay(w *wrapper, s source) *front { return &front{wrapper: w, source: s} }

// Serve implements wrappers.Wrapper.
func (r *front) Serve(ctx context.Context, link wrappers.Link) error {
	r.link = link
	// The attached side outlives the relay: results are held until it has shown the writes.
	behind, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var bg sync.WaitGroup
	bg.Go(func() {
		if err := r.source.Serve(behind, link); err != nil {
			cancel(err)
		}
	})
	err := r.server().Serve(ctx)
	stop()
	bg.Wait()
	if cause := context.Cause(ctx); err == nil && cause != nil && cause != context.Canceled {
		return cause
	}
	return err
}

func (r *front) server() *relay.Server {
	l := &r.cfg.Limits
	rs := &relay.Server{
		Door: relay.Door{
			Listener: r.cfg.Listener, Sessions: l.Sessions, PerHost: l.PerHost, Handshake: l.Handshake,
			Count: r.link.Count, Log: r.cfg.Log,
		},
		Dial:   r.dial,
		Handle: r.handle,
		Down: func(error) []byte {
			return disconnection(ldapwire.Unavailable, "the directory behind this gateway can't be reached")
		},
		Hold:  l.Frame,
		Queue: l.Queue,
		Idle:  l.Idle,
		Drain: r.cfg.Drain,
	}
	if r.frontTLS() == nil {
		rs.Full = disconnection(ldapwire.Busy, "this gateway has as many sessions as it may have")
	}
	return rs
}

// disconnection is the notice with which a server ends a session (RFC 4511, section 4.4.1).
func disconnection(code ldapwire.ResultCode, text string) []byte {
	return (&ldapwire.Message{Body: &ldapwire.ExtendedResponse{
		LDAPResult: ldapwire.LDAPResult{ResultCode: code, DiagnosticMessage: text}, Name: ldapwire.OIDNoticeOfDisconnection,
	}}).Encode()
}

// captured waits until the registers have what the server had committed when it was called, at most as long as a result
// is held.
func (r *front) captured(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.captureWait)
	defer cancel()
	began := time.Now()
	if err := r.source.CaughtUp(ctx); err != nil {
		if r.waitForFeed(ctx, err) {
			return
		}
		r.link.Count("capture_late", 1)
		r.log().Debug("a result passes before the registers have the write: the server owes it", "err", err, "after", time.Since(began))
	}
}

// waitForFeed tries again while the feed is down, until ctx ends.
func (r *front) waitForFeed(ctx context.Context, err error) bool {
	for pause := 20 * time.Millisecond; err != nil; pause = min(2*pause, 500*time.Millisecond) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
		err = r.source.CaughtUp(ctx)
	}
	return true
}
