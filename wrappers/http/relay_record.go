package http

import (
	"io"
	"net/http"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
)

// passing is a write that no bind maps, while somebody records: its body is copied as it passes, and holds up nobody.
type passing struct {
	op     wrappers.Operation
	coding string
	limit  int
	data   []byte
	over   bool  // the body is longer than the limit
	left   int64 // of a body with a length
}

// wholeAddress is the address of a target with its query, which binds to come may name.
func wholeAddress(target string) string {
	address, err := canonical(target)
	if err != nil {
		return strings.Clone(target)
	}
	return strings.Clone(address)
}

// passingOf begins to copy a request. Its head may be gone when the body is.
func (h *session) passingOf(verb wrappers.Verb, target string, r *head) *passing {
	return &passing{
		op: wrappers.Operation{
			Verb: verb, Server: h.f.up.Server, Address: wholeAddress(target), Who: wrappers.Who{Principal: userOf(string(r.auth)), Peer: h.peer},
			Payload: wrappers.Payload{Type: payloadType(string(r.kind)), Meta: metaOfFields(r.fields)},
		},
		coding: string(r.encoded), limit: h.f.cfg.Limits.Frame,
	}
}

// take copies what belongs to the body, and gives how much that is.
func (p *passing) take(b []byte) int {
	n := int(min(p.left, int64(len(b))))
	p.left -= int64(n)
	p.keep(b[:n])
	return n
}

func (p *passing) keep(b []byte) {
	if p.over = p.over || len(p.data)+len(b) > p.limit; p.over {
		p.data = nil
		return
	}
	p.data = append(p.data, b...)
}

// into is where chunks put their data; nil: nowhere.
func (p *passing) into() *[]byte {
	if p == nil || p.over {
		return nil
	}
	if len(p.data) > p.limit {
		p.over, p.data = true, nil
		return nil
	}
	return &p.data
}

// tap shows the request, whole.
func (p *passing) tap(link wrappers.Link) {
	outcome := "passed"
	if p.over || len(p.data) > p.limit {
		p.data, outcome = nil, "passed, too long to be recorded"
	}
	if raw, ok := decoded(p.data, p.coding, p.limit); ok {
		p.op.Payload.Raw = raw
		delete(p.op.Payload.Meta, "content-encoding")
	} else {
		p.op.Payload.Raw = p.data
	}
	link.Tap(p.op, outcome)
}

// A passingBody copies a body of HTTP/2 as the proxy reads it.
type passingBody struct {
	io.ReadCloser
	p    *passing
	link wrappers.Link
	done bool
}

func (b *passingBody) Read(buf []byte) (int, error) {
	n, err := b.ReadCloser.Read(buf)
	b.p.keep(buf[:n])
	if err == io.EOF && !b.done {
		b.done = true
		b.p.tap(b.link)
	}
	return n, err
}

// recorded shows a request of HTTP/2 that passes.
func (f *front) recorded(r *http.Request, verb wrappers.Verb, target string) {
	p := &passing{
		op: wrappers.Operation{
			Verb: verb, Server: f.up.Server, Address: wholeAddress(target), Who: wrappers.Who{Principal: userOf(r.Header.Get("Authorization")), Peer: r.RemoteAddr},
			Payload: wrappers.Payload{Type: payloadType(r.Header.Get("Content-Type")), Meta: metaOf(r.Header)},
		},
		coding: strings.Join(r.Header.Values("Content-Encoding"), ", "), limit: f.cfg.Limits.Frame,
	}
	if !verb.Writes() || r.Body == nil || r.ContentLength == 0 {
		p.tap(f.link)
		return
	}
	r.Body = &passingBody{ReadCloser: r.Body, p: p, link: f.link}
}
