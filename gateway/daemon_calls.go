package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping/diag"
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
// admit checks a write and says who did it.
func stateCalls(state engine.State, admit func(*session, *engine.Write) error) map[string]method {
	c := &stateDoor{state, admit}
	return map[string]method{
		"readState": c.readState, "writeState": c.writeState, "observe": c.observe, "unobserve": c.unobserve,
		"list": c.list, "history": c.history, "cursor": c.cursor,
		"pending": c.pending, "collapse": c.collapse, "stateAt": c.stateAt, "revert": c.revert, "explain": c.explain, "backup": c.backup,
		"close": func(context.Context, *session, json.RawMessage) (any, error) { return nil, nil },
	}
}

type stateDoor struct {
	state engine.State
	admit func(*session, *engine.Write) error
}

func (c *stateDoor) readState(ctx context.Context, _ *session, params json.RawMessage) (any, error) {
	var register string
	if err := wire.Members(params, wire.Member{Name: "register", Into: &register}); err != nil {
		return nil, paramError(err)
	}
	b, err := c.state.ReadState(ctx, register)
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
	if err := c.admit(s, &w); err != nil {
		return nil, err
	}
	r, err := c.state.WriteState(ctx, w)
	if err != nil {
		return nil, err
	}
	return receipt(wire.FromReceipt(r)), nil
}

// receipt is what writeState answers: done, even when the states don't fit into a message.
type receipt wire.Receipt

func (r receipt) shrunk() any { return wire.Receipt(r).WithoutValues() }

func (c *stateDoor) cursor(ctx context.Context, _ *session, _ json.RawMessage) (any, error) {
	at, err := c.state.Cursor(ctx)
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
		for d, err := range c.state.Observe(ctx, f, from) {
			if err != nil {
				return err
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
func (c *stateDoor) list(ctx context.Context, _ *session, params json.RawMessage) (any, error) {
	var prefix, after string
	var limit int64
	err := wire.Members(params, wire.Member{Name: "prefix", Into: &prefix}, wire.Member{Name: "after", Into: &after}, wire.Member{Name: "limit", Into: &limit})
	if err != nil {
		return nil, paramError(err)
	}
	page := pageOf{items: []json.RawMessage{}, most: pageLimit(limit)}
	for b, err := range c.state.List(ctx, prefix, after, page.most+1) {
		if err != nil {
			return nil, err
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

func (c *stateDoor) history(ctx context.Context, _ *session, params json.RawMessage) (any, error) {
	var q engine.HistoryQuery
	var limit int64
	err := wire.Members(params, wire.Member{Name: "register", Into: &q.Register}, wire.Member{Name: "before", Into: &q.Before},
		wire.Member{Name: "after", Into: &q.After}, wire.Member{Name: "oldest", Into: &q.Oldest}, wire.Member{Name: "limit", Into: &limit})
	if err != nil {
		return nil, paramError(err)
	}
	page := pageOf{items: []json.RawMessage{}, most: pageLimit(limit)}
	q.Limit = page.most + 1
	for d, err := range c.state.History(ctx, q) {
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

// gatewayCalls are the methods of a whole gateway.
func (g *Gateway) gatewayCalls() map[string]method {
	calls := stateCalls(g.store, g.admit)
	calls["hello"] = g.callHello
	calls["status"] = g.callStatus
	calls["reload"] = g.callReload
	calls["parked"] = g.callParked
	calls["retry"] = func(ctx context.Context, _ *session, p json.RawMessage) (any, error) {
		return g.callParkedItem(ctx, p, g.links.Retry)
	}
	calls["drop"] = func(ctx context.Context, _ *session, p json.RawMessage) (any, error) {
		return g.callParkedItem(ctx, p, g.links.Drop)
	}
	calls["contacts"] = func(context.Context, *session, json.RawMessage) (any, error) {
		return map[string]any{"contacts": g.links.Contacts()}, nil
	}
	calls["tap"] = g.callTap
	calls["explain"] = g.callExplain
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
	set := g.generation.Load().Set
	checked := map[string]bool{}
	for _, op := range w.Ops {
		if checked[op.Register] {
			continue
		}
		checked[op.Register] = true
		if err := set.Check(op.Register, w.Ops); err != nil {
			return err
		}
	}
	return nil
}

// wrote makes an event of a write over the socket, as the links do for theirs.
func (g *Gateway) wrote(s *session, result any, err error, took time.Duration) {
	e := Event{Time: time.Now(), Kind: Set, Protocol: "daemon", Principal: s.principal, Verb: wrappers.Merge, Took: took}
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
	if err := helloVersion(params); err != nil {
		return nil, err
	}
	status, err := g.store.Status(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"version": wire.Version, "limits": helloLimits(), "codec": "json", "server": "spookgw " + g.options.Version,
		"endpoint": status.Endpoint.String(), "domain": g.generation.Load().config.Domain, "you": s.principal,
	}, nil
}

func helloVersion(params json.RawMessage) error {
	version := int64(wire.Version)
	if err := wire.Members(params, wire.Member{Name: "version", Into: &version}); err != nil {
		return paramError(err)
	}
	if version < 1 {
		return paramError(fmt.Errorf("version %d", version))
	}
	return nil
}

func (g *Gateway) callStatus(ctx context.Context, _ *session, _ json.RawMessage) (any, error) {
	status, err := g.store.Status(ctx)
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

func (g *Gateway) callReload(context.Context, *session, json.RawMessage) (any, error) {
	// Not the caller's context: a reload that has begun is finished, whoever is still there.
	r, found, err := g.Reload(context.Background())
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
	items, err := g.links.Parked(ctx)
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
				if err := sub.tell(ctx, "tap", map[string]any{"sub": sub.ID, "event": e.form(), "lost": w.lost.Load()}, nil); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}))
}

// openDoor opens the socket at the place that options, configuration and system agree on.
func (g *Gateway) openDoor(ctx context.Context, config *Config) error {
	path := g.options.Socket
	if path == "" {
		path = config.Daemon.Socket
	}
	if path == "" {
		path = DefaultSocket(g.data)
	}
	l, err := openSocketPath(ctx, path)
	if err != nil {
		return fmt.Errorf("daemon socket: %w", err)
	}
	g.door = newDoor(l, path, g.gatewayCalls(), g.log, func(method, outcome string) {
		g.figures.daemon.WithLabelValues(method, outcome).Inc()
	})
	return nil
}

// The place of the door on a machine with one gateway run by the system.
const systemSocket = "/run/spookgw/daemon.sock"

// DefaultSocket is where the door is when nothing says otherwise: $SPOOKGW_SOCKET;
// /run/spookgw/daemon.sock where that can be made; in $XDG_RUNTIME_DIR; in the data directory.
func DefaultSocket(data string) string {
	if path := os.Getenv("SPOOKGW_SOCKET"); path != "" {
		return path
	}
	dir := filepath.Dir(systemSocket)
	if err := os.Mkdir(dir, 0o755); (err == nil || errors.Is(err, fs.ErrExist)) && writable(dir) {
		return systemSocket
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "spookgw.sock")
	}
	return filepath.Join(data, "daemon.sock")
}

// FindSocket is where a client looks for it: the same places, and the first of them that has one.
func FindSocket() string {
	if path := os.Getenv("SPOOKGW_SOCKET"); path != "" {
		return path
	}
	places := []string{systemSocket}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		places = append(places, filepath.Join(dir, "spookgw.sock"))
	}
	places = append(places, filepath.Join(defaultData, "daemon.sock"))
	for _, path := range places {
		if info, err := os.Stat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
			return path
		}
	}
	return places[len(places)-1]
}

// writable tells whether this process may make files in a directory.
func writable(dir string) bool {
	f, err := os.CreateTemp(dir, ".w")
	if err != nil {
		return false
	}
	_ = f.Close()
	return os.Remove(f.Name()) == nil
}
