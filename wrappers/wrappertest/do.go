package wrappertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/spooksystems/gateway/wrappers"
)

func clonePayload(p wrappers.Payload) wrappers.Payload {
	p.Raw = bytes.Clone(p.Raw)
	p.Meta = maps.Clone(p.Meta)
	return p
}

func cloneOp(op wrappers.Operation) wrappers.Operation {
	op.Address, op.To, op.Server = strings.Clone(op.Address), strings.Clone(op.To), strings.Clone(op.Server)
	op.Payload = clonePayload(op.Payload)
	op.If.Match, op.If.Differ = slices.Clone(op.If.Match), slices.Clone(op.If.Differ)
	op.Parts = slices.Clone(op.Parts)
	for i := range op.Parts {
		op.Parts[i] = cloneOp(op.Parts[i])
	}
	return op
}

// mergeJSON lays the members of patch over doc, null removing; what is not two objects is replaced.
func mergeJSON(doc, patch []byte) []byte {
	var d, p map[string]json.RawMessage
	if json.Unmarshal(patch, &p) != nil || p == nil {
		return patch
	}
	if json.Unmarshal(doc, &d) != nil || d == nil {
		d = map[string]json.RawMessage{}
	}
	for k, v := range p {
		if string(v) == "null" {
			delete(d, k)
		} else {
			d[k] = v
		}
	}
	out, err := json.Marshal(d)
	if err != nil {
		return patch
	}
	return out
}

// Do implements wrappers.Link.
func (l *Link) Do(ctx context.Context, op wrappers.Operation) (wrappers.Result, error) {
	if err := l.enter(ctx, CallDo); err != nil {
		return wrappers.Result{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	parts := op.Parts
	if parts == nil {
		parts = []wrappers.Operation{op}
	}
	if op.Parts == nil && op.Verb == wrappers.List {
		return l.list(op)
	}
	for i := range parts {
		if err := l.check(&parts[i]); err != nil {
			return wrappers.Result{}, err
		}
	}
	if op.Verb == wrappers.Read && op.Parts == nil {
		c := l.cell(op.Server, op.Address)
		return wrappers.Result{Payload: clonePayload(c.payload), Version: c.version, Cursor: cursorOf(len(l.log))}, nil
	}
	var res wrappers.Result
	for _, p := range parts {
		p = cloneOp(p)
		p.Tag = op.Tag
		r := l.apply(p, ViaDo)
		if len(parts) == 1 {
			res = r
		} else {
			res.Cursor = r.Cursor
		}
	}
	l.wake()
	return res, nil
}

// Scan implements wrappers.Link. Fail and Block take it for a Do.
func (l *Link) Scan(ctx context.Context, op wrappers.Operation) iter.Seq2[wrappers.Item, error] {
	return func(yield func(wrappers.Item, error) bool) {
		if err := l.enter(ctx, CallDo); err != nil {
			yield(wrappers.Item{}, err)
			return
		}
		l.mu.Lock()
		prefix, _, _ := strings.Cut(op.Address, "?")
		var items []wrappers.Item
		for at, c := range l.cells {
			if at.server == op.Server && l.below(at.address, prefix) && c.exists && l.maps(wrappers.Read, at.server, at.address) {
				items = append(items, wrappers.Item{Address: at.address, Version: c.version, Payload: clonePayload(c.payload)})
			}
		}
		l.mu.Unlock()
		slices.SortFunc(items, func(a, b wrappers.Item) int { return strings.Compare(a.Address, b.Address) })
		for _, it := range items {
			if !yield(it, nil) {
				return
			}
		}
	}
}

// Start implements wrappers.Link. What is started at one address is done in that order; Fail and
// Block take it for a Do.
func (l *Link) Start(ctx context.Context, op wrappers.Operation) (func() (wrappers.Result, error), error) {
	op = cloneOp(op)
	at := place{op.Server, op.Address}
	done := make(chan struct{})
	l.mu.Lock()
	before := l.started[at]
	l.started[at] = done
	l.mu.Unlock()
	var res wrappers.Result
	var err error
	go func() {
		defer close(done)
		if before != nil {
			<-before
		}
		res, err = l.Do(ctx, op)
	}()
	return func() (wrappers.Result, error) {
		<-done
		return res, err
	}, nil
}

func (l *Link) check(op *wrappers.Operation) error {
	if !l.maps(op.Verb, op.Server, op.Address) {
		return wrappers.Refuse(wrappers.ErrUnmapped, "no bind maps "+op.Address)
	}
	if err := l.may(op.Verb, op.Address, op.Who); err != nil {
		return err
	}
	c := l.cells[place{op.Server, op.Address}]
	exists := c != nil && c.exists
	var version wrappers.Version
	if exists {
		version = c.version
	}
	if len(op.If.Match) > 0 && !(exists && (slices.Contains(op.If.Match, wrappers.Any) || slices.Contains(op.If.Match, version))) {
		return wrappers.Refuse(wrappers.ErrConflict, op.Address+" is at version "+string(version))
	}
	if exists && (slices.Contains(op.If.Differ, wrappers.Any) || slices.Contains(op.If.Differ, version)) {
		return wrappers.Refuse(wrappers.ErrConflict, op.Address+" is at version "+string(version))
	}
	switch op.Verb {
	case wrappers.Read, wrappers.Delete, wrappers.Rename:
		if !exists && len(op.If.Differ) == 0 { // a Read with one may ask that there is nothing
			return wrappers.Refuse(wrappers.ErrNotFound, op.Address+" does not exist")
		}
	}
	return nil
}

func (l *Link) list(op wrappers.Operation) (wrappers.Result, error) {
	if l.syntax.Upward {
		return l.listUpward(op)
	}
	sep := "/"
	var res wrappers.Result
	prefixes := map[string]bool{}
	var items []wrappers.Item
	for at, c := range l.cells {
		rest, below := strings.CutPrefix(at.address, op.Address)
		if !below || !c.exists || at.server != op.Server || rest == "" || l.may(wrappers.Read, at.address, op.Who) != nil {
			continue
		}
		if op.Address == "" {
			rest = strings.TrimPrefix(rest, sep)
		}
		head, _, deeper := strings.Cut(rest, sep)
		if deeper {
			p := at.address[:len(at.address)-len(rest)] + head + sep
			if !prefixes[p] {
				prefixes[p] = true
				items = append(items, wrappers.Item{Address: p, Prefix: true})
			}
			continue
		}
		items = append(items, wrappers.Item{Address: at.address, Version: c.version, Size: len(c.payload.Raw)})
	}
	if len(items) == 0 && !l.someBelow(op.Address) {
		return res, wrappers.Refuse(wrappers.ErrUnmapped, "no bind maps addresses below "+op.Address)
	}
	slices.SortFunc(items, func(a, b wrappers.Item) int { return strings.Compare(a.Address, b.Address) })
	for _, it := range items {
		if op.After != "" && it.Address <= op.After {
			continue
		}
		if op.Limit > 0 && len(res.Items) == op.Limit {
			res.More = true
			break
		}
		res.Items = append(res.Items, it)
	}
	return res, nil
}

// listUpward is list where addresses begin with what is deepest.
func (l *Link) listUpward(op wrappers.Operation) (wrappers.Result, error) {
	sep := l.syntax.Separator
	var items []wrappers.Item
	for at, c := range l.cells {
		if !c.exists || at.server != op.Server || !l.below(at.address, op.Address) || l.may(wrappers.Read, at.address, op.Who) != nil {
			continue
		}
		item := wrappers.Item{Address: at.address, Version: c.version, Size: len(c.payload.Raw)}
		front := at.address
		if op.Address != "" {
			front = front[:len(front)-len(op.Address)]
		}
		if i := strings.LastIndex(front, sep); i >= 0 {
			item = wrappers.Item{Address: at.address[i+len(sep):] + sep, Prefix: true}
		}
		items = append(items, item)
	}
	slices.SortFunc(items, func(a, b wrappers.Item) int { return strings.Compare(a.Address, b.Address) })
	items = slices.CompactFunc(items, func(a, b wrappers.Item) bool { return a.Address == b.Address })
	var res wrappers.Result
	for _, it := range items {
		if op.After != "" && it.Address <= op.After {
			continue
		}
		if op.Limit > 0 && len(res.Items) == op.Limit {
			res.More = true
			break
		}
		res.Items = append(res.Items, it)
	}
	return res, nil
}

// merge lays a patch over a document: of JSON, or of entries.
func (l *Link) merge(doc, patch []byte) []byte {
	if !l.syntax.Entries {
		return mergeJSON(doc, patch)
	}
	var d, p map[string]any
	if len(doc) > 0 && cbor.Unmarshal(doc, &d) != nil || cbor.Unmarshal(patch, &p) != nil {
		return patch
	}
	if d == nil {
		d = map[string]any{}
	}
	for k, v := range p {
		if d[k] = v; v == nil {
			delete(d, k)
		}
	}
	out, err := sorted.Marshal(d)
	if err != nil {
		return patch
	}
	return out
}

// sorted writes equal entries as equal bytes.
var sorted = func() cbor.EncMode {
	mode, err := cbor.EncOptions{Sort: cbor.SortBytewiseLexical, ShortestFloat: cbor.ShortestFloat16, BigIntConvert: cbor.BigIntConvertShortest}.EncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// someBelow tells whether a pattern could have addresses below the prefix.
func (l *Link) someBelow(prefix string) bool {
	trimmed := strings.Trim(prefix, "/")
	var want []string
	if trimmed != "" {
		want = strings.Split(trimmed, "/")
	}
	for _, p := range l.patterns {
		fits := true
		for i, w := range want {
			if i >= len(p.Segments) {
				fits = false
				break
			}
			if p.Segments[i].Kind == wrappers.RestSegments {
				break
			}
			if p.Segments[i].Kind == wrappers.LiteralSegment && p.Segments[i].Literal != w {
				fits = false
				break
			}
		}
		if fits && (len(want) < len(p.Segments) || len(p.Segments) > 0 && p.Segments[len(p.Segments)-1].Kind == wrappers.RestSegments) {
			return true
		}
	}
	return false
}

// apply makes a write current and appends it to the log; l.mu is held.
func (l *Link) apply(op wrappers.Operation, via Via) wrappers.Result {
	c := l.cell(op.Server, op.Address)
	created := !c.exists
	switch op.Verb {
	case wrappers.Delete:
		c.exists, c.payload = false, wrappers.Payload{}
	case wrappers.Rename:
		to := l.cell(op.Server, op.To)
		to.exists, to.payload = true, c.payload
		c.exists, c.payload = false, wrappers.Payload{}
		l.commit(op, op.To, to, via)
	case wrappers.Merge, wrappers.Message:
		op.Payload.Raw = l.merge(c.payload.Raw, op.Payload.Raw)
		c.exists, c.payload = true, op.Payload
	default:
		c.exists, c.payload = true, op.Payload
	}
	l.commit(op, op.Address, c, via)
	return wrappers.Result{Version: c.version, Cursor: cursorOf(len(l.log)), Created: created && c.exists}
}

func (l *Link) commit(op wrappers.Operation, address string, c *cell, via Via) {
	c.rank++
	h := fnv.New64a()
	h.Write(c.payload.Raw)
	c.version = wrappers.Version(fmt.Sprintf("%d.%016x", c.rank, h.Sum64()))
	var raw []byte
	if c.exists {
		raw = c.payload.Raw
	}
	l.candidates = append(l.candidates, Candidate{Via: via, Verb: op.Verb, Server: op.Server, Address: address, Payload: raw, Op: op, Version: c.version})
	ch := wrappers.Change{Server: op.Server, Address: address, Payload: c.payload, Gone: !c.exists, Version: c.version,
		Cursor: cursorOf(len(l.log) + 1), Echo: via != ViaPush, Tag: op.Tag}
	if p := l.pattern(op.Server, address); p != nil {
		ch.Options = p.Options
	}
	l.log = append(l.log, entry{ch})
	if via == ViaPush {
		l.due++
		c.due = l.due
	}
}

func cursorOf(n int) wrappers.Cursor { return wrappers.Cursor(fmt.Sprintf("log.%08d", n)) }

// Push writes a register as if another wrapper or site had: followers hear of it, and servers
// behind the wrapper are owed it.
func (l *Link) Push(op wrappers.Operation) wrappers.Version {
	l.mu.Lock()
	defer l.mu.Unlock()
	res := l.apply(cloneOp(op), ViaPush)
	l.wake()
	return res.Version
}

// PushPut is Push of a Put at server "".
func (l *Link) PushPut(address, payload string) wrappers.Version {
	return l.Push(wrappers.Operation{Verb: wrappers.Put, Address: address, Payload: wrappers.Payload{Raw: []byte(payload)}})
}
