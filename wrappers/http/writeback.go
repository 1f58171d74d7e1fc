package http

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/spooksystems/gateway/wrappers"
)

// serveOwn writes back and polls until the returned function is called.
func (s *server) serveOwn(ctx context.Context, link wrappers.Link) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { s.w.writeBack(ctx, link, []*server{s}) })
	wg.Go(func() { s.watch(ctx, link) })
	return func() {
		cancel()
		wg.Wait()
		s.http.CloseIdleConnections()
	}
}

// writeBack carries changes from elsewhere into the servers until ctx ends. Addresses are
// independent; the link yields none that is still out.
func (w *wrapper) writeBack(ctx context.Context, link wrappers.Link, servers []*server) {
	var wg sync.WaitGroup
	defer wg.Wait()
	most := make(chan struct{}, 2*len(servers)*cap(servers[0].slots))
	for c, err := range link.Follow(ctx, wrappers.WriteBack, "") {
		if err != nil {
			if ctx.Err() == nil {
				w.log().Error("write-back ended", "err", err)
			}
			return
		}
		i := slices.IndexFunc(servers, func(s *server) bool { return s.up.Server == c.Server })
		select {
		case most <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-most }()
			e := wrappers.Effect{Outcome: wrappers.Parked, Err: errors.New("there is no upstream " + c.Server)}
			switch {
			case i < 0:
			case c.ReadBack:
				e = servers[i].readBack(ctx, link, c)
			default:
				e = servers[i].bring(ctx, link, c)
			}
			if ctx.Err() != nil && e.Outcome != wrappers.Done {
				return // unsettled changes come again
			}
			// What was done is settled even if we are being stopped.
			if err := link.Settle(context.WithoutCancel(ctx), c, e); err != nil {
				w.log().Warn("settle", "address", c.Address, "err", err)
			}
		})
	}
}

// readBack reports what the server has at an address.
func (s *server) readBack(ctx context.Context, link wrappers.Link, c wrappers.Change) wrappers.Effect {
	o, err := s.ask(ctx, c.Address, "")
	if err != nil {
		return failed(err)
	}
	s.docs.conflict(c.Address, false)
	if err := link.Seen(ctx, wrappers.Position{}, []wrappers.Observation{*o}); err != nil {
		return wrappers.Effect{Outcome: wrappers.Retry, Err: err}
	}
	return wrappers.Effect{Outcome: wrappers.Done, Version: o.Version}
}

func failed(err error) wrappers.Effect {
	if transient(err) {
		return wrappers.Effect{Outcome: wrappers.Retry, Err: err}
	}
	return wrappers.Effect{Outcome: wrappers.Parked, Err: err}
}

// bring makes the server show the newest state of an address.
func (s *server) bring(ctx context.Context, link wrappers.Link, c wrappers.Change) wrappers.Effect {
	if c.Gone {
		return s.remove(ctx, c)
	}
	ps, _ := s.w.patterns(link)
	h := http.Header{"Content-Type": {mediaType(c.Payload)}}
	if c.Key != "" {
		h.Set("Idempotency-Key", `"`+c.Key+`"`)
	}
	switch method := writeMethod(methodsAt(ps, c.Server, c.Address)); method {
	case http.MethodPost:
		return s.send(ctx, c, method, c.Payload.Raw, h)
	case http.MethodPatch:
		return s.patch(ctx, c, h)
	default:
		return s.put(ctx, c, h)
	}
}

// current gives the document that a change is to be laid over, and its tag. Where the tag last seen
// belongs to a document we remember, the server need not be asked: If-Match will tell. ok is
// false where e says why not.
func (s *server) current(ctx context.Context, c wrappers.Change) (doc wrappers.Payload, tag wrappers.Version, e wrappers.Effect, ok bool) {
	conflict := s.docs.conflicted(c.Address)
	if c.Create && !conflict {
		return doc, "", e, true
	}
	if doc, known := s.docs.get(c.Address, string(c.Previous)); known && strong(c.Previous) && !conflict {
		return doc, c.Previous, e, true
	}
	o, err := s.ask(ctx, c.Address, "")
	if err != nil {
		return doc, "", failed(err), false
	}
	if c.Previous != "" && o.Version != "" && o.Version != c.Previous && !conflict {
		return doc, "", s.met(c, "the document is at "+string(o.Version)+", it was at "+string(c.Previous)), false
	}
	return o.Payload, o.Version, e, true
}

// put replaces a document, keeping in it what no bind maps.
func (s *server) put(ctx context.Context, c wrappers.Change, h http.Header) wrappers.Effect {
	pay, tag := c.Payload, c.Previous
	conflict := s.docs.conflicted(c.Address)
	if c.Onto != nil || conflict {
		doc, at, e, ok := s.current(ctx, c)
		if !ok {
			return e
		}
		tag = at
		if c.Onto != nil && len(doc.Raw) > 0 {
			var err error
			if pay, err = c.Onto(doc); err != nil {
				return wrappers.Effect{Outcome: wrappers.Parked, Err: err}
			}
			if sameJSON(pay.Raw, doc.Raw) { // it has it already
				s.docs.conflict(c.Address, false)
				return wrappers.Effect{Outcome: wrappers.Done, Version: tag}
			}
		}
	}
	switch {
	case strong(tag):
		h.Set("If-Match", string(tag))
	case c.Create && !conflict:
		h.Set("If-None-Match", "*")
	}
	e := s.send(ctx, c, http.MethodPut, pay.Raw, h)
	if e.Outcome == wrappers.Done {
		pay.Type = h.Get("Content-Type")
		s.docs.keep(c.Address, string(e.Version), pay)
		s.docs.conflict(c.Address, false)
	}
	return e
}

// patch sends what has changed of a document as a merge patch (RFC 7396).
func (s *server) patch(ctx context.Context, c wrappers.Change, h http.Header) wrappers.Effect {
	doc, tag, e, ok := s.current(ctx, c)
	if !ok {
		return e
	}
	pay := c.Payload
	if c.Onto != nil && len(doc.Raw) > 0 {
		var err error
		if pay, err = c.Onto(doc); err != nil {
			return wrappers.Effect{Outcome: wrappers.Parked, Err: err}
		}
	}
	body := mergePatch(doc.Raw, pay.Raw)
	if string(body) == "{}" && !c.Create {
		s.docs.conflict(c.Address, false)
		return wrappers.Effect{Outcome: wrappers.Done, Version: tag}
	}
	h.Set("Content-Type", "application/merge-patch+json")
	if strong(tag) {
		h.Set("If-Match", string(tag))
	}
	e = s.send(ctx, c, http.MethodPatch, body, h)
	if e.Outcome == wrappers.Done {
		s.docs.forget(c.Address) // what the server made of it is its own
		s.docs.conflict(c.Address, false)
	}
	return e
}

// remove deletes an address.
func (s *server) remove(ctx context.Context, c wrappers.Change) wrappers.Effect {
	h := http.Header{}
	if strong(c.Previous) && !s.docs.conflicted(c.Address) {
		h.Set("If-Match", string(c.Previous))
	}
	e := s.send(ctx, c, http.MethodDelete, nil, h)
	if e.Outcome == wrappers.Done {
		s.docs.forget(c.Address)
		e.Version = ""
	}
	return e
}

// met notes that a write met a change of somebody else's.
func (s *server) met(c wrappers.Change, how string) wrappers.Effect {
	s.docs.conflict(c.Address, true)
	s.docs.forget(c.Address)
	return wrappers.Effect{Outcome: wrappers.Retry, Err: wrappers.Refuse(wrappers.ErrConflict, how)}
}

// send sends a write and judges the answer.
func (s *server) send(ctx context.Context, c wrappers.Change, method string, body []byte, h http.Header) wrappers.Effect {
	a, err := s.do(ctx, method, c.Address, body, h)
	if err != nil {
		return failed(err)
	}
	switch {
	case a.status >= 200 && a.status < 300:
		e := wrappers.Effect{Outcome: wrappers.Done, Version: wrappers.Version(a.header.Get("ETag"))}
		if stored(a, c.Address) {
			e.AsStored = &wrappers.Payload{Raw: a.body, Type: a.header.Get("Content-Type"), Meta: metaOf(a.header)}
		}
		return e
	case method == http.MethodDelete && (a.status == http.StatusNotFound || a.status == http.StatusGone):
		return wrappers.Effect{Outcome: wrappers.Done}
	case a.status == http.StatusPreconditionFailed:
		return s.met(c, (&statusError{method, c.Address, a}).Error())
	}
	return failed(&statusError{method, c.Address, a})
}

// stored tells whether an answer's body is the document as the server keeps it (RFC 9110, section
// 15.3.1, and RFC 7240, section 4.2): not every body after a PUT is.
func stored(a *answer, address string) bool {
	if len(a.body) == 0 || a.status == http.StatusAccepted {
		return false
	}
	if at := a.header.Get("Content-Location"); at != "" {
		got, err := canonical(pathOf(at))
		return err == nil && got == address
	}
	return strings.Contains(a.header.Get("Preference-Applied"), "return=representation")
}

// strong tells whether a version is a tag that If-Match can use.
func strong(v wrappers.Version) bool { return len(v) >= 2 && v[0] == '"' }

func writeMethod(named []string) string {
	for _, m := range named {
		switch m {
		case http.MethodPut, http.MethodPatch, http.MethodPost:
			return m
		}
	}
	return http.MethodPut
}

func object(raw []byte) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil {
		return nil
	}
	return m
}

// mergePatch gives the patch that makes one document of another; where either is no object,
// that is the document itself.
func mergePatch(from, to []byte) []byte {
	f, t := object(from), object(to)
	if t == nil {
		return to
	}
	patch := map[string]json.RawMessage{}
	for k, v := range t {
		old, there := f[k]
		switch {
		case !there:
			patch[k] = v
		case sameJSON(old, v):
		case object(old) != nil && object(v) != nil:
			patch[k] = mergePatch(old, v)
		default:
			patch[k] = v
		}
	}
	for k := range f {
		if _, stays := t[k]; !stays {
			patch[k] = json.RawMessage("null")
		}
	}
	out, err := json.Marshal(patch)
	if err != nil {
		return to
	}
	return out
}

func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

// documents remembers the last document of some addresses with its tag, so that a write which
// keeps foreign members needs no GET. It may forget anything at any time.
type documents struct {
	mu     sync.Mutex
	bytes  int
	docs   map[string]document
	behind map[string]bool // addresses whose last write met a change
}

type document struct {
	tag string
	pay wrappers.Payload
}

// Bounds of what is remembered.
const (
	documentMost  = 64 << 10
	documentsMost = 8 << 20
	documentCost  = 100 // beside address and body
)

func (d *documents) get(address, tag string) (wrappers.Payload, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	doc, ok := d.docs[address]
	return doc.pay, ok && tag != "" && doc.tag == tag
}

func (d *documents) keep(address, tag string, pay wrappers.Payload) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(address)
	if tag == "" || len(pay.Raw) > documentMost {
		return
	}
	if d.docs == nil {
		d.docs = map[string]document{}
	}
	size := len(address) + len(pay.Raw) + documentCost
	for k := range d.docs { // any will do
		if d.bytes+size <= documentsMost {
			break
		}
		d.drop(k)
	}
	d.docs[strings.Clone(address)] = document{tag, wrappers.Payload{Raw: bytes.Clone(pay.Raw), Type: pay.Type}}
	d.bytes += size
}

func (d *documents) drop(address string) {
	if doc, ok := d.docs[address]; ok {
		d.bytes -= len(address) + len(doc.pay.Raw) + documentCost
		delete(d.docs, address)
	}
}

func (d *documents) forget(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(address)
}

// conflict notes whether the last write of an address met a change; conflicted asks.
func (d *documents) conflict(address string, yes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !yes {
		delete(d.behind, address)
		return
	}
	if d.behind == nil {
		d.behind = map[string]bool{}
	}
	d.behind[address] = true
}

func (d *documents) conflicted(address string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.behind[address]
}
