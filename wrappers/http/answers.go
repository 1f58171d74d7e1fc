package http

import (
	"net/http"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// FromServer implements relay.Handler.
func (h *session) FromServer(b []byte) (relay.Step, error) {
	n := 0
	for n < len(b) {
		if h.toEnd {
			return relay.Step{Pass: len(b), Mid: true, Skip: 1 << 62}, nil
		}
		if h.inAnswer != nil {
			k, done, err := h.inAnswer.scan(b[n:], nil)
			if err != nil {
				// The client sees an answer that breaks off, and nothing that could be taken for whole.
				return relay.Step{}, err
			}
			n += k
			if !done {
				return h.step(relay.Step{Pass: n, Mid: true}), nil
			}
			h.inAnswer = nil
			h.whole()
			continue
		}
		e, waiting := h.oldest()
		if !waiting {
			// Nobody asked. A server does so to say that it gives up on the connection (408).
			h.mu.Lock()
			h.lost = true
			h.mu.Unlock()
			h.toEnd = true
			return h.step(relay.Step{Pass: len(b), Mid: true, Skip: 1 << 62}), nil
		}
		var a head
		err := parseResponse(b[n:], &a, e.method.String())
		if err != nil && n > 0 {
			return h.step(relay.Step{Pass: n}), nil
		}
		if err != nil {
			return relay.Step{}, h.garbled(err)
		}
		if a.size == 0 {
			return h.step(relay.Step{Pass: n}), nil
		}
		if a.status == http.StatusSwitchingProtocols && !e.turns {
			return relay.Step{}, h.garbled(errUnasked)
		}
		if a.status < 200 && a.status != http.StatusSwitchingProtocols {
			if e.write != nil && e.write.told && a.status == http.StatusContinue {
				if n > 0 {
					return h.step(relay.Step{Pass: n}), nil
				}
				return relay.Step{Drop: a.size}, nil
			}
			n += a.size
			continue
		}
		if e.write != nil {
			if n > 0 {
				return h.step(relay.Step{Pass: n}), nil
			}
			if err := h.settle(e.write, &a); err != nil {
				return relay.Step{}, err
			}
		}
		h.pop()
		n += a.size
		if a.status == http.StatusSwitchingProtocols || e.method == connectMethod && a.status < 300 {
			h.mu.Lock()
			h.piped = true
			h.mu.Unlock()
			h.f.link.Count("pipes", 1)
			h.whole()
			return h.step(relay.Step{Pass: n, Blind: true}), nil
		}
		switch {
		case a.length == untilClose:
			h.toEnd = true
		case a.length == chunked:
			h.inAnswer = new(chunks)
		case a.length > int64(len(b)-n):
			h.whole()
			return h.step(relay.Step{Pass: n, Skip: a.length}), nil
		default:
			n += int(a.length)
			h.whole()
		}
	}
	return h.step(relay.Step{Pass: n, Mid: h.inAnswer != nil || h.toEnd}), nil
}

// whole notes that the step being made completes an answer.
func (h *session) whole() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fresh++
}

// step has completed answers published once they are written.
func (h *session) step(st relay.Step) relay.Step {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fresh > 0 {
		st.Then = h.published
	}
	return st
}

// garbled ends a session whose server doesn't speak HTTP.
func (h *session) garbled(why error) error {
	h.f.link.Count("garbled", 1)
	h.f.log().Warn("answer", "peer", h.peer, "err", why)
	return &relay.Refused{Say: rawProblem(http.StatusBadGateway, "the server's answer makes no sense", true, false), Err: why}
}

// settle decides by the answer what becomes of a write, before the client sees it.
func (h *session) settle(w *write, a *head) error {
	err := h.f.settle(w, a.status, string(a.etag), string(a.location))
	h.f.bodies.give(w.taken)
	// Whatever came of it, the intent has ended: End must not end it again.
	h.mu.Lock()
	h.ring[h.first].write = nil
	h.mu.Unlock()
	if err == nil {
		return nil
	}
	return &relay.Refused{Say: rawProblem(status(err), "the server took it, but it could not be recorded: "+wrappers.Reason(err), true, false), Err: err}
}
