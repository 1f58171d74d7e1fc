package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

// errParams means that a call's parameters don't fit the method.
var errParams = errors.New("parameters")

func paramError(err error) error { return fmt.Errorf("%w: %w", errParams, err) }

// errorForm gives the code of an error. The register a call named goes along.
func errorForm(err error, m wire.Message) *wire.Error {
	if errors.Is(err, errParams) {
		return &wire.Error{Code: wire.CodeParams, Message: err.Error(), Data: &wire.ErrorData{Kind: "invalid", Detail: err.Error()}}
	}
	if errors.Is(err, wire.ErrTooLong) {
		err = fmt.Errorf("%w: %w", engine.ErrTooLarge, err)
	}
	var register string
	_ = wire.Members(m.Params, wire.Member{Name: "register", Into: &register})
	// The links' kinds, in the engine's words: one set of codes for all methods.
	for from, to := range map[error]error{
		wrappers.ErrNotFound: engine.ErrNotFound, wrappers.ErrInvalid: engine.ErrInvalid, wrappers.ErrConflict: engine.ErrConflict,
		wrappers.ErrTooLarge: engine.ErrTooLarge, wrappers.ErrUnavailable: engine.ErrUnavailable, wrappers.ErrDenied: engine.ErrDenied,
	} {
		if errors.Is(err, from) {
			return wire.FromError(&kindError{err, to}, register)
		}
	}
	return wire.FromError(err, register)
}

// A kindError is an error with the engine's kind instead of its own.
type kindError struct {
	error
	kind error
}

func (e *kindError) Unwrap() error { return e.kind }

// stateCalls are the methods of engine.State: all that a door to a bare engine has.
//
// of gives the state that a session is about.
func stateCalls(of func(*session) engine.State, rules doorRules) map[string]method {
	c := &stateDoor{of, rules}
	return map[string]method{
		"readState": c.readState, "writeState": c.writeState, "observe": c.observe, "unobserve": c.unobserve,
		"list": c.list, "history": c.history, "cursor": c.cursor,
		"pending": c.pending, "collapse": c.collapse, "stateAt": c.stateAt, "revert": c.revert, "explain": c.explain, "backup": c.backup,
		"close": func(context.Context, *session, json.RawMessage) (any, error) { return nil, nil },
	}
}

type stateDoor struct {
	of    func(*session) engine.State
	rules doorRules
}

// doorRules are what a door asks before it does anything.
type doorRules interface {
	// admit checks a write, and fills in who did it.
	admit(*session, *engine.Write) error
	// may refuses what a session's user may not do with a register.
	may(s *session, register string, need wrappers.Access) error
}

func (c *stateDoor) readState(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	var register string
	if err := wire.Members(params, wire.Member{Name: "register", Into: &register}); err != nil {
		return nil, paramError(err)
	}
	if err := c.rules.may(s, register, wrappers.ReadAccess); err != nil {
		return nil, err
	}
	b, err := c.of(s).ReadState(ctx, register)
	if err != nil {
		return nil, err
	}
	return map[string]any{"state": wire.FromState(b)}, nil
}

// writeState commits a candidate.
func (c *stateDoor) writeState(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	w, err := wire.ParseWrite(params)
	if err != nil {
		return nil, err
	}
	if err := c.rules.admit(s, &w); err != nil {
		return nil, err
	}
	r, err := c.of(s).WriteState(ctx, w)
	if err != nil {
		return nil, err
	}
	return receipt(wire.FromReceipt(r)), nil
}

// receipt is what writeState answers: done, even when the states don't fit into a message.
type receipt wire.Receipt

func (r receipt) shrunk() any { return wire.Receipt(r).WithoutValues() }

func (c *stateDoor) cursor(ctx context.Context, s *session, _ json.RawMessage) (any, error) {
	at, err := c.of(s).Cursor(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]any{"cursor": at.String()}, nil
}

func (c *stateDoor) observe(_ context.Context, s *session, params json.RawMessage) (any, error) {
	var f engine.Filter
	var text string
	err := wire.Members(params, wire.Member{Name: "prefix", Into: &f.Prefix}, wire.Member{Name: "name", Into: &f.Name}, wire.Member{Name: "from", Into: &text})
	if err != nil {
		return nil, paramError(err)
	}
	var from engine.Cursor
	if text != "" {
		if from, err = engine.ParseCursor(text); err != nil {
			return nil, paramError(err)
		}
	}
	return orNil(s.subscribe(params, func(ctx context.Context, sub *openSub) error {
		for d, err := range c.of(s).Observe(ctx, f, from) {
			if err != nil {
				return err
			}
			if c.rules.may(s, d.After.Register, wrappers.ReadAccess) != nil {
				continue
			}
			form := wire.FromDelta(d)
			event := func(d wire.Delta) any {
				return map[string]any{"sub": sub.ID, "ordinal": form.After.Ordinal, "delta": d}
			}
			if err := sub.tell(ctx, "event", event(form), func() any { return event(form.WithoutValues()) }); err != nil {
				return err
			}
		}
		return nil
	}))
}

func orNil(sub *openSub, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return sub, nil
}

func (c *stateDoor) unobserve(_ context.Context, s *session, params json.RawMessage) (any, error) {
	var id int64
	if err := wire.Members(params, wire.Member{Name: "sub", Into: &id}); err != nil {
		return nil, paramError(err)
	}
	if !s.unsubscribe(id) {
		return nil, fmt.Errorf("%w: subscription %d", engine.ErrNotFound, id)
	}
	return nil, nil
}

// pageBytes is how much of a message a page fills, at most.
const pageBytes = wire.MaxMessage / 2

func pageLimit(n int64) int {
	if n <= 0 || n > wire.MaxPage {
		return wire.MaxPage
	}
	return int(n)
}

// list answers a page: behind `after`, at most `limit`, and less when they are large. A register
// that fills a message by itself is answered without its value and marked.
func (c *stateDoor) list(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	var prefix, after string
	var limit int64
	err := wire.Members(params, wire.Member{Name: "prefix", Into: &prefix}, wire.Member{Name: "after", Into: &after}, wire.Member{Name: "limit", Into: &limit})
	if err != nil {
		return nil, paramError(err)
	}
	page := pageOf{items: []json.RawMessage{}, most: pageLimit(limit)}
	for b, err := range c.of(s).List(ctx, prefix, after, 0) {
		if err != nil {
			return nil, err
		}
		if c.rules.may(s, b.Register, wrappers.ReadAccess) != nil {
			continue
		}
		if page.full() {
			page.more = true
			break
		}
		form := wire.FromState(b)
		if err := page.add(form, func() any { form.Value, form.Seen, form.TooLarge = nil, nil, true; return form }); err != nil {
			return nil, err
		}
	}
	return map[string]any{"states": page.items, "more": page.more}, nil
}

func (c *stateDoor) history(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	var q engine.HistoryQuery
	var limit int64
	err := wire.Members(params, wire.Member{Name: "register", Into: &q.Register}, wire.Member{Name: "before", Into: &q.Before},
		wire.Member{Name: "after", Into: &q.After}, wire.Member{Name: "oldest", Into: &q.Oldest}, wire.Member{Name: "limit", Into: &limit})
	if err != nil {
		return nil, paramError(err)
	}
	if err := c.rules.may(s, q.Register, wrappers.ReadAccess); err != nil {
		return nil, err
	}
	page := pageOf{items: []json.RawMessage{}, most: pageLimit(limit)}
	q.Limit = page.most + 1
	for d, err := range c.of(s).History(ctx, q) {
		if err != nil {
			return nil, err
		}
		if page.full() {
			page.more = true
			break
		}
		form := wire.FromDelta(d)
		if err := page.add(form, func() any { return form.WithoutValues() }); err != nil {
			return nil, err
		}
	}
	return map[string]any{"deltas": page.items, "more": page.more}, nil
}

// pageOf collects items while they fit.
type pageOf struct {
	items []json.RawMessage
	most  int
	bytes int
	more  bool
}

func (p *pageOf) full() bool { return len(p.items) >= p.most || p.bytes >= pageBytes }

func (p *pageOf) add(item any, small func() any) error {
	raw, err := wire.JSON(item)
	if err == nil && len(raw) > pageBytes-1024 {
		raw, err = wire.JSON(small())
	}
	p.items = append(p.items, raw)
	p.bytes += len(raw) + 1
	return err
}
