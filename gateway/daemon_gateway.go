package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// gatewayCalls are the methods of a whole gateway.
func (g *Gateway) gatewayCalls() map[string]method {
	calls := stateCalls(func(s *session) engine.State { return s.domain.store }, g)
	calls["hello"] = g.callHello
	calls["status"] = g.callStatus
	calls["reload"] = g.callReload
	calls["plan"] = g.callPlan
	calls["parked"] = g.callParked
	calls["retry"] = func(ctx context.Context, _ *session, p json.RawMessage) (any, error) {
		return g.callParkedItem(ctx, p, func(ctx context.Context, id string) error { return g.domains.parkedItem(ctx, id, (*Links).Retry) })
	}
	calls["drop"] = func(ctx context.Context, _ *session, p json.RawMessage) (any, error) {
		return g.callParkedItem(ctx, p, func(ctx context.Context, id string) error { return g.domains.parkedItem(ctx, id, (*Links).Drop) })
	}
	calls["contacts"] = func(context.Context, *session, json.RawMessage) (any, error) {
		return map[string]any{"contacts": g.domains.contacts()}, nil
	}
	calls["tap"] = g.callTap
	calls["record"] = g.callRecord
	calls["explain"] = g.callExplain
	calls["access"] = g.callAccess
	calls["approve"] = g.callApprove
	calls["backup"] = g.callBackup
	calls["sites"] = g.callSites
	calls["pairOffer"] = g.callPairOffer
	calls["pairAccept"] = g.callPairAccept
	calls["pairWithdraw"] = g.callPairWithdraw
	calls["pairDissolve"] = g.callPairDissolve
	calls["verify"] = g.callVerify
	for _, name := range []string{"writeState", "collapse", "revert"} {
		write := calls[name]
		calls[name] = func(ctx context.Context, s *session, p json.RawMessage) (any, error) {
			began := time.Now()
			result, err := write(ctx, s, p)
			g.wrote(s, result, err, time.Since(began))
			return result, err
		}
	}
	return calls
}

// admit holds a write against the declared types. Who did it is the connection's to say, not the
// caller's: it keeps only what the gateway can't know.
func (g *Gateway) admit(s *session, w *engine.Write) error {
	w.By = engine.Cause{
		Principal: s.principal, Verified: s.verified, Protocol: "daemon",
		Verb: w.By.Verb, Address: w.By.Address, Source: w.By.Source,
	}
	set := g.generation.Load().Set.Of(s.domain.name)
	checked := map[string]bool{}
	for _, op := range w.Ops {
		if checked[op.Register] {
			continue
		}
		checked[op.Register] = true
		if err := g.may(s, op.Register, wrappers.WriteAccess); err != nil {
			return err
		}
		if err := set.Check(op.Register, w.Ops); err != nil {
			return err
		}
	}
	return nil
}

// wrote makes an event of a write over the socket, as the links do for theirs.
func (g *Gateway) wrote(s *session, result any, err error, took time.Duration) {
	e := Event{Time: time.Now(), Kind: Set, Domain: s.domain.name, Protocol: "daemon", Principal: s.principal, Verb: wrappers.Merge, Took: took}
	if err != nil {
		e.Outcome = err.Error()
	}
	if r, ok := result.(receipt); ok {
		var texts []string
		for _, st := range r.States {
			e.Registers = append(e.Registers, st.Register)
			texts = append(texts, shortValue(st))
		}
		e.Cursor, _ = engine.ParseCursor(r.Cursor)
		e.Text = strings.Join(texts, ", ")
	}
	g.emit(e)
}

func shortValue(s wire.State) string {
	text := string(s.Value)
	switch {
	case !s.Exists && s.ID == "":
		text = "nothing"
	case !s.Exists:
		text = "gone"
	case len(text) > 200:
		text = text[:200] + "…"
	}
	if s.Waiting > 0 {
		text += fmt.Sprintf(", %d waiting", s.Waiting)
	}
	return text
}

func helloLimits() map[string]any {
	return map[string]any{"message": wire.MaxMessage, "depth": wire.MaxDepth, "calls": wire.MaxCalls, "subs": wire.MaxSubs, "credit": wire.MaxCredit, "page": wire.MaxPage}
}

func (g *Gateway) callHello(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	name, err := helloVersion(params)
	if err != nil {
		return nil, err
	}
	d := g.domains.first()
	if name != "" {
		d = g.domains.named(name)
	}
	switch {
	case d == nil:
		return nil, fmt.Errorf("%w: no domain %q here: there is %s", engine.ErrNotFound, name, quoted(g.generation.Load().config.Domains))
	case s.domain == nil:
		s.domain = d
	case s.domain != d:
		return nil, paramError(errors.New("a connection is about one domain: open another one"))
	}
	status, err := d.store.Status(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"version": wire.Version, "limits": helloLimits(), "codec": "json", "server": "spookgw " + g.options.Version,
		"endpoint": status.Endpoint.String(), "domain": d.name, "domains": g.generation.Load().config.Domains, "you": s.principal,
	}, nil
}

// helloVersion reads a hello: the version, which there is one of, and the domain that is meant.
func helloVersion(params json.RawMessage) (domain string, err error) {
	version := int64(wire.Version)
	if err := wire.Members(params, wire.Member{Name: "version", Into: &version}, wire.Member{Name: "domain", Into: &domain}); err != nil {
		return "", paramError(err)
	}
	if version < 1 {
		return "", paramError(fmt.Errorf("version %d", version))
	}
	return domain, nil
}

func (g *Gateway) callStatus(ctx context.Context, s *session, _ json.RawMessage) (any, error) {
	status, err := s.domain.store.Status(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]any{"engine": wire.FromStatus(status), "gateway": g.Status(ctx)}, nil
}

// A reloadAnswer says what was done, or, with OK false, what is wrong: the findings are the answer
// then, and no error of the call.
type reloadAnswer struct {
	OK          bool             `json:"ok"`
	Error       string           `json:"error,omitempty"`
	Reload      *Reload          `json:"reload,omitempty"`
	Diagnostics diag.Diagnostics `json:"diagnostics"`
	Text        string           `json:"text"` // the findings for people
}

// shrunk is for more findings than a message holds: the first ones are enough to begin with.
func (r *reloadAnswer) shrunk() any {
	small := *r
	small.Diagnostics = small.Diagnostics[:min(20, len(small.Diagnostics))]
	small.Text = small.Text[:min(64<<10, len(small.Text))] + "\n…\n"
	return &small
}

func (g *Gateway) callReload(_ context.Context, _ *session, params json.RawMessage) (any, error) {
	var approve string
	if err := wire.Members(params, wire.Member{Name: "approve", Into: &approve}); err != nil {
		return nil, paramError(err)
	}
	// Not the caller's context: a reload that has begun is finished, whoever is still there.
	r, found, err := g.Reload(context.Background(), approve)
	out := &reloadAnswer{OK: err == nil, Reload: r, Diagnostics: found}
	if found == nil {
		out.Diagnostics = diag.Diagnostics{}
	}
	if err != nil {
		out.Error = err.Error()
	}
	var text strings.Builder
	_ = found.WriteText(&text, false, 0) // a Builder takes everything
	out.Text = text.String()
	return out, nil
}

func (g *Gateway) callParked(ctx context.Context, _ *session, _ json.RawMessage) (any, error) {
	items, err := g.domains.parked(ctx)
	if err != nil {
		return nil, err
	}
	page := pageOf{items: []json.RawMessage{}, most: 10 * wire.MaxPage}
	for _, item := range items {
		if page.full() {
			break
		}
		if err := page.add(item, func() any { item.Reason = "too long to show"; return item }); err != nil {
			return nil, err
		}
	}
	return map[string]any{"parked": page.items, "total": len(items)}, nil
}

func (g *Gateway) callParkedItem(ctx context.Context, params json.RawMessage, do func(context.Context, string) error) (any, error) {
	var id string
	if err := wire.Members(params, wire.Member{Name: "id", Into: &id}); err != nil {
		return nil, paramError(err)
	}
	if id == "" {
		return nil, paramError(errors.New("no id"))
	}
	return nil, do(ctx, id)
}

// callApprove lets first contacts go on that stopped.
func (g *Gateway) callApprove(ctx context.Context, _ *session, params json.RawMessage) (any, error) {
	var source string
	if err := wire.Members(params, wire.Member{Name: "bind", Into: &source}); err != nil {
		return nil, paramError(err)
	}
	var approved []string
	for _, d := range g.domains.list {
		names, err := d.links.Approve(ctx, source)
		if err != nil {
			return nil, err
		}
		approved = append(approved, names...)
	}
	if len(approved) == 0 {
		return nil, fmt.Errorf("%w: no first contact has stopped at %s", engine.ErrNotFound, source)
	}
	return map[string]any{"wrappers": approved}, nil
}

// callTap shows operations as they pass. What a slow watcher misses is counted, and told.
func (g *Gateway) callTap(_ context.Context, s *session, params json.RawMessage) (any, error) {
	var protocol, wrapper string
	if err := wire.Members(params, wire.Member{Name: "protocol", Into: &protocol}, wire.Member{Name: "wrapper", Into: &wrapper}); err != nil {
		return nil, paramError(err)
	}
	return orNil(s.subscribe(params, func(ctx context.Context, sub *openSub) error {
		w, stop := g.hub.watch()
		defer stop()
		for {
			select {
			case e := <-w.events:
				if protocol != "" && e.Protocol != protocol || wrapper != "" && e.Wrapper != wrapper {
					continue
				}
				if slices.ContainsFunc(e.Registers, func(r string) bool { return g.may(s, r, wrappers.ReadAccess) != nil }) {
					e.Text = "" // that it passed is the operator's business, what it says is not
				}
				if err := sub.tell(ctx, "tap", map[string]any{"sub": sub.ID, "event": e.form(), "lost": w.lost.Load()}, nil); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}))
}
