package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"

	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// pending answers a page of what waits: behind `after` (a register and a dot), at most `limit`.
func (c *stateDoor) pending(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	q := engine.PendingQuery{Limit: math.MaxInt32}
	var limit int64
	var after json.RawMessage
	err := wire.Members(params, wire.Member{Name: "prefix", Into: &q.Prefix}, wire.Member{Name: "limit", Into: &limit}, wire.Member{Name: "after", Into: &after})
	if err != nil {
		return nil, paramError(err)
	}
	var register, dot string
	if err := wire.Members(after, wire.Member{Name: "register", Into: &register}, wire.Member{Name: "dot", Into: &dot}); err != nil {
		return nil, paramError(err)
	}
	page := pageOf{items: []json.RawMessage{}, most: pageLimit(limit)}
	add := func(p engine.Pending) error {
		if page.more = page.full(); page.more {
			return nil
		}
		form := wire.FromPending(p)
		return page.add(form, func() any { return form.WithoutValues() })
	}
	// What waits on the register where the last page ended. Is its last candidate settled by now,
	// then so are those before it, and all that wait are news.
	var same []engine.Pending
	passed := false
	for p, err := range c.of(s).Pending(ctx, q) {
		switch {
		case err != nil:
			return nil, err
		case p.Register < register || c.rules.may(s, p.Register, wrappers.ReadAccess) != nil:
			continue
		case p.Register == register && !passed:
			if same = append(same, p); p.Dot.String() == dot {
				same, passed = nil, true
			}
			continue
		}
		for _, waits := range append(same, p) {
			if err := add(waits); err != nil {
				return nil, err
			}
		}
		if same = nil; page.more {
			break
		}
	}
	for _, waits := range same {
		if err := add(waits); err != nil {
			return nil, err
		}
	}
	return map[string]any{"pending": page.items, "more": page.more}, nil
}

// registerAnd reads a call's register, a moment under the name given, and who did it.
func registerAnd(params json.RawMessage, name string) (register string, at engine.Moment, by engine.Cause, err error) {
	var moment, cause json.RawMessage
	err = wire.Members(params, wire.Member{Name: "register", Into: &register}, wire.Member{Name: name, Into: &moment}, wire.Member{Name: "by", Into: &cause})
	if err == nil {
		by, err = wire.ParseCause(cause)
	}
	if err != nil {
		return register, at, by, paramError(err)
	}
	if name != "" {
		at, err = wire.ParseMoment(moment)
	}
	return register, at, by, err
}

func (c *stateDoor) collapse(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	register, _, by, err := registerAnd(params, "")
	if err != nil {
		return nil, err
	}
	w := engine.Write{By: by}
	if err := c.rules.may(s, register, wrappers.WriteAccess); err != nil {
		return nil, err
	}
	if err := c.rules.admit(s, &w); err != nil {
		return nil, err
	}
	r, err := c.of(s).Collapse(ctx, register, w.By)
	if err != nil {
		return nil, err
	}
	return receipt(wire.FromReceipt(r)), nil
}

func (c *stateDoor) stateAt(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	register, at, _, err := registerAnd(params, "at")
	if err == nil {
		err = c.rules.may(s, register, wrappers.ReadAccess)
	}
	if err != nil {
		return nil, err
	}
	b, err := c.of(s).StateAt(ctx, register, at)
	if err != nil {
		return nil, err
	}
	return map[string]any{"state": wire.FromState(b)}, nil
}

// revert puts a former state back. That is held against the declared types like any write: they
// may have changed since.
func (c *stateDoor) revert(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	register, to, by, err := registerAnd(params, "to")
	if err == nil {
		err = c.rules.may(s, register, wrappers.WriteAccess)
	}
	if err != nil {
		return nil, err
	}
	b, err := c.of(s).StateAt(ctx, register, to)
	if err != nil {
		return nil, err
	}
	w := engine.Write{By: by, Ops: putsOf(b)}
	if err := c.rules.admit(s, &w); err != nil {
		return nil, err
	}
	r, err := c.of(s).Revert(ctx, register, to, w.By)
	if err != nil {
		return nil, err
	}
	return receipt(wire.FromReceipt(r)), nil
}

// putsOf are the operations that a state's value would take on an empty register.
func putsOf(b engine.StateBlock) (ops []engine.Op) {
	for _, f := range fieldsOf(b) {
		v := b.Value
		if f != "" || v.Kind() == lattice.ObjectKind {
			v, _ = b.Value.Member(f)
		}
		ops = append(ops, engine.Op{Register: b.Register, Kind: engine.OpPut, Field: f, Value: v})
	}
	return ops
}

// explained is what explain answers. It has told only where there is a gateway around the engine.
type explained struct {
	Explanation wire.Explanation `json:"explanation"`
	Told        []wire.Told      `json:"told,omitempty"`
}

func (e explained) shrunk() any { e.Explanation = e.Explanation.WithoutValues(); return e }

func (c *stateDoor) explain(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	register, _, _, err := registerAnd(params, "")
	if err == nil {
		err = c.rules.may(s, register, wrappers.ReadAccess)
	}
	if err != nil {
		return nil, err
	}
	x, err := c.of(s).Explain(ctx, register)
	if err != nil {
		return nil, err
	}
	return explained{Explanation: wire.FromExplanation(x)}, nil
}

// callExplain is explain, and who was told.
func (g *Gateway) callExplain(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	register, _, _, err := registerAnd(params, "")
	if err == nil {
		err = g.may(s, register, wrappers.ReadAccess)
	}
	if err != nil {
		return nil, err
	}
	x, err := s.domain.store.Explain(ctx, register)
	if err != nil {
		return nil, err
	}
	told, err := s.domain.told(register)
	return explained{wire.FromExplanation(x), told}, err
}

// backup makes a directory of this process' user, so its path has to mean the same to both sides.
func (c *stateDoor) backup(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	dir, err := backupDir(params)
	if err != nil {
		return nil, err
	}
	b, err := c.of(s).Backup(ctx, dir)
	if err != nil {
		return nil, err
	}
	return wire.FromBackup(b), nil
}

func backupDir(params json.RawMessage) (string, error) {
	var dir string
	if err := wire.Members(params, wire.Member{Name: "dir", Into: &dir}); err != nil {
		return "", paramError(err)
	}
	if dir == "" {
		return "", paramError(errors.New("no dir"))
	}
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("%w: %q is not an absolute path", engine.ErrInvalid, dir)
	}
	return filepath.Clean(dir), nil
}

// callBackup copies all domains, whichever the session is about.
func (g *Gateway) callBackup(ctx context.Context, _ *session, params json.RawMessage) (any, error) {
	dir, err := backupDir(params)
	if err != nil {
		return nil, err
	}
	b, err := g.domains.backup(ctx, dir)
	if err != nil {
		return nil, err
	}
	return wire.FromBackup(b), nil
}
