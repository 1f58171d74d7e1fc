package mapping

import (
	"fmt"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// bindReply reads `reply`.
func (l *loader) bindReply(bind *Bind, c diag.Content) {
	a := c.Attrs["reply"]
	if a == nil {
		return
	}
	if bind.direction == "out" {
		l.Error("MAP085", a.NameRange, "`reply` in a bind that only goes out", "It answers writes, and nobody writes there. Take it out, or change the direction.")
	}
	for _, name := range bind.wrapperNames {
		switch w := l.set.wrappers[name].info; {
		case !w.Protocol.Replies:
			l.Error("MAP068", a.NameRange, fmt.Sprintf("a write over %s has no answer that could carry a text", w.Protocol.Name), "Take `reply` out.")
		case w.Upstream && !w.Implied:
			l.Error("MAP068", a.NameRange, fmt.Sprintf("the server behind wrapper %q answers by itself", name), "`reply` is for wrappers that are the server: those without an upstream.")
		}
	}
	sc := &scope{bind: bind, way: answering, log: l.Log}
	if _, ok := sc.check(a.Expr); ok {
		bind.reply = sc.compile(a.Expr)
	}
}

// Replies tells whether a write at the bind's addresses is answered with a body.
func (b *Bind) Replies() bool { return b.reply != nil }

// Reply makes the answer to a write, from what was written and from what the register is behind it: a text or bytes as
// they are, anything else in the bind's codec where that has members, else as JSON. Raw is nil where it gives nothing.
func (s *Set) Reply(wrapper string, op *wrappers.Operation, st engine.StateBlock, env Env) (wrappers.Payload, error) {
	w := s.wrappers[wrapper]
	if w == nil {
		return wrappers.Payload{}, wrappers.ErrUnmapped
	}
	m := messages.Get().(*message)
	defer m.release()
	e := w.lookup(op.Address, &m.find)
	if e == nil || e.bind.reply == nil {
		return wrappers.Payload{}, nil
	}
	b := e.bind
	m.wrapper, m.server, m.verb, m.who, m.body, m.env = wrapper, op.Server, op.Verb, &op.Who, &op.Payload, env
	m.at(e)
	if st.Exists {
		m.self = st.Value
	}
	if st.Register != "" {
		b.named(st.Register, &m.caps, &m.find) // what a key gave
	}
	if len(op.Payload.Raw) > 0 {
		if err := m.decode(); err != nil {
			return wrappers.Payload{}, err
		}
	}
	v, err := b.reply(m)
	if err != nil || v.IsAbsent() {
		return wrappers.Payload{}, err
	}
	k := jsonCodec
	switch {
	case v.Kind() == lattice.StringKind:
		k = textCodec
	case v.Kind() == lattice.BytesKind:
		k = bytesCodec
	case b.codec == cborCodec:
		k = cborCodec
	}
	pay, err := k.encode(v, nil)
	if pay.Raw == nil {
		pay.Raw = []byte{}
	}
	return pay, err
}
