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
	members := membersAt(ps, c.Server, c.Address)
	switch method := writeMethod(methodsAt(ps, c.Server, c.Address)); method {
	case http.MethodPost:
		return s.send(ctx, c, method, c.Payload.Raw, h)
	case http.MethodPatch:
		h.Set("Content-Type", "application/merge-patch+json")
		if strong(c.Previous) && !s.docs.conflicted(c.Address) {
			h.Set("If-Match", string(c.Previous))
		}
		return s.send(ctx, c, method, withNulls(c.Payload.Raw, members), h)
	default:
		return s.put(ctx, c, members, h)
	}
}

// put replaces a document, keeping the members that the bind doesn't map.
func (s *server) put(ctx context.Context, c wrappers.Change, members []string, h http.Header) wrappers.Effect {
	body, tag := c.Payload.Raw, string(c.Previous)
	conflict := s.docs.conflicted(c.Address)
	if part := !slices.Contains(members, "*") && isObject(body); part || conflict {
		doc, known := s.docs.get(c.Address, tag)
		switch {
		case c.Create && !conflict:
		case known && strong(c.Previous) && !conflict:
			if part {
				body = merged(doc, body, members)
			}
		default:
			o, err := s.ask(ctx, c.Address, "")
			if err != nil {
				return failed(err)
			}
			if tag != "" && o.Version != "" && string(o.Version) != tag && !conflict {
				return s.met(c, "the document is at "+string(o.Version)+", it was at "+tag)
			}
			tag = string(o.Version)
			if part && o.Verb == wrappers.Put {
				body = merged(o.Payload.Raw, body, members)
				if bytes.Equal(body, o.Payload.Raw) {
					s.docs.conflict(c.Address, false)
					return wrappers.Effect{Outcome: wrappers.Done, Version: o.Version} // it has it already
				}
			}
		}
	}
	switch {
	case strong(wrappers.Version(tag)):
		h.Set("If-Match", tag)
	case c.Create && !conflict:
		h.Set("If-None-Match", "*")
	}
	e := s.send(ctx, c, http.MethodPut, body, h)
	if e.Outcome == wrappers.Done {
		s.docs.keep(c.Address, string(e.Version), body)
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

// membersAt gives the members that binds map at an address.
func membersAt(ps []wrappers.Pattern, server, address string) (out []string) {
	for i := range ps {
		if ps[i].Out && fits(&ps[i], server, address) {
			out = append(out, ps[i].Members...)
		}
	}
	return out
}

func object(raw []byte) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil {
		return nil
	}
	return m
}

func isObject(raw []byte) bool { return object(raw) != nil }

// merged lays the members of part over doc and takes away what the bind maps and part lacks. What
// are not two objects is replaced; where nothing changes, doc comes back as it is.
func merged(doc, part []byte, members []string) []byte {
	d, p := object(doc), object(part)
	if d == nil || p == nil {
		return part
	}
	same := true
	for k, v := range p {
		same = same && d[k] != nil && sameJSON(d[k], v)
		d[k] = v
	}
	for _, k := range members {
		if _, there := d[k]; there && p[k] == nil {
			same = false
			delete(d, k)
		}
	}
	if same {
		return doc
	}
	out, err := json.Marshal(d)
	if err != nil {
		return part
	}
	return out
}

// withNulls makes a merge patch of a document: what the bind maps and it lacks becomes null.
func withNulls(doc []byte, members []string) []byte {
	d := object(doc)
	if d == nil {
		return doc
	}
	for _, k := range members {
		if _, there := d[k]; !there && k != "*" {
			d[k] = json.RawMessage("null")
		}
	}
	out, err := json.Marshal(d)
	if err != nil {
		return doc
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
	tag  string
	body []byte
}

// Bounds of what is remembered.
const (
	documentMost  = 64 << 10
	documentsMost = 8 << 20
)

func (d *documents) get(address, tag string) ([]byte, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	doc, ok := d.docs[address]
	return doc.body, ok && tag != "" && doc.tag == tag
}

func (d *documents) keep(address, tag string, body []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(address)
	if tag == "" || len(body) > documentMost {
		return
	}
	if d.docs == nil {
		d.docs = map[string]document{}
	}
	size := len(address) + len(body) + 100
	for k := range d.docs { // any will do
		if d.bytes+size <= documentsMost {
			break
		}
		d.drop(k)
	}
	d.docs[strings.Clone(address)] = document{tag, bytes.Clone(body)}
	d.bytes += size
}

func (d *documents) drop(address string) {
	if doc, ok := d.docs[address]; ok {
		d.bytes -= len(address) + len(doc.body) + 100
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
