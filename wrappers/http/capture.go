package http

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// commitTime bounds a commit, and the request that precedes it where the server must be asked.
const commitTime = 30 * time.Second

// writeOf makes the operation of a mapped write from a request as it came over the wire.
func (f *front) writeOf(r *head, body []byte, peer string) *write {
	return f.writeFrom(string(r.method), pathOf(string(r.target)), peer, userOf(string(r.auth)), wrappers.Payload{
		Raw: bytes.Clone(body), Type: string(r.kind), Meta: metaOfFields(r.fields),
	}, string(r.encoded))
}

// writeFrom decides what a write means: a body that says it, or one that only the server can read.
func (f *front) writeFrom(method, path, peer, user string, p wrappers.Payload, coding string) *write {
	ps, queries := f.patterns(f.link)
	w := &write{}
	verb := methodVerbs[method]
	address, mapped, err := addressing{f.link, queries}.resolve(verb, f.up.Server, path)
	if verb == wrappers.Message && (!mapped || err != nil || !named(methodsAt(ps, f.up.Server, address), method)) {
		// A POST that no bind names may do anything to the address: the server knows.
		verb, w.readBack = wrappers.Put, true
		address, _, _ = addressing{f.link, queries}.resolve(verb, f.up.Server, path)
	}
	w.op = wrappers.Operation{Verb: verb, Server: f.up.Server, Address: address, Who: wrappers.Who{Principal: user, Peer: peer}}
	if verb == wrappers.Delete {
		return w
	}
	p.Type = payloadType(p.Type)
	if method == http.MethodPatch {
		switch kind, _, _ := mime.ParseMediaType(p.Type); kind {
		case "", "application/merge-patch+json", "application/json":
		default: // a JSON Patch (RFC 6902), a diff: what it makes of the document the server knows
			w.readBack = true
		}
	}
	if p.Meta["content-range"] != "" {
		w.readBack = true
	}
	if !w.readBack {
		var ok bool
		if p.Raw, ok = decoded(p.Raw, coding, f.cfg.Limits.Frame); !ok {
			w.readBack = true
		}
	}
	if w.readBack {
		w.op.Verb = wrappers.Put
		p.Raw = nil
	}
	w.op.Payload = p
	return w
}

func named(methods []string, m string) bool {
	for _, x := range methods {
		if x == m {
			return true
		}
	}
	return false
}

// decoded undoes a content coding, within the limit; false where it can't.
func decoded(raw []byte, coding string, limit int) ([]byte, bool) {
	switch strings.ToLower(strings.TrimSpace(coding)) {
	case "", "identity":
		return raw, true
	case "gzip", "x-gzip":
		zr, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil, false
		}
		out, err := io.ReadAll(io.LimitReader(zr, int64(limit)+1))
		return out, err == nil && len(out) <= limit
	}
	return nil, false
}

// settle ends a write's intent by the status of the answer. An error means that the client must not see
// success.
func (f *front) settle(w *write, code int, tag, location string) error {
	if code < 200 || code > 299 {
		w.intent.Abort()
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitTime)
	defer cancel()
	as := w.op
	as.Version = wrappers.Version(tag)
	if code == http.StatusCreated && location != "" && w.op.Verb == wrappers.Put && w.readBack {
		// A POST that made something says where; the address it was sent to is read back all the same.
		f.link.Count("created_elsewhere", 1)
	}
	if w.readBack || code == http.StatusAccepted {
		o, err := f.server.ask(ctx, w.op.Address, "")
		if err != nil {
			// The server took it and can't be asked now: it is read back later.
			f.log().Warn("read back", "address", w.op.Address, "err", err)
			w.intent.Unknown()
			return nil
		}
		as.Verb, as.Payload, as.Version = o.Verb, o.Payload, o.Version
		if o.Verb == wrappers.Delete && w.op.Verb != wrappers.Delete && !w.readBack {
			w.intent.Unknown() // accepted, and not yet done
			return nil
		}
	}
	_, err := w.intent.Commit(ctx, as)
	return err
}

// userOf gives the name in Basic credentials; "" without. The gateway has not checked it.
func userOf(auth string) string {
	scheme, cred, _ := strings.Cut(auth, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return ""
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(cred))
	if err != nil {
		return ""
	}
	user, _, found := strings.Cut(string(raw), ":")
	if !found {
		return ""
	}
	return user
}

// metaOfFields gives field lines as `meta` in HCL sees them.
func metaOfFields(fields []byte) map[string]string {
	m := map[string]string{}
	for line := range bytes.SplitSeq(fields, []byte{'\n'}) {
		name, value, found := bytes.Cut(line, []byte{':'})
		if !found || secretHeaders[http.CanonicalHeaderKey(string(name))] {
			continue
		}
		k, v := strings.ToLower(string(name)), string(trim(bytes.TrimSuffix(value, []byte{'\r'})))
		if old, again := m[k]; again {
			v = old + ", " + v
		}
		m[k] = v
	}
	return m
}
