package mqtt

import (
	"context"
	"errors"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// A slot is one publish on its way to durability; with QoS 1 and 2, its turn to be acknowledged.
type slot struct {
	publication
	qos    byte
	id     uint16
	size   int
	done   bool
	err    error
	repeat bool // QoS 2, and committed already: only the answer is owed
}

// topicAliases is how many aliases a client may use.
const topicAliases = 64

// onPublish takes a PUBLISH in. It blocks while the client has too many in flight.
func (c *conn) onPublish(first byte, body []byte) error {
	p, err := parsePublish(first, body, c.v5)
	if err != nil {
		return err
	}
	if err := p.check(c.v5); err != nil {
		return err
	}
	topic := string(p.topic)
	if c.v5 {
		if topic, err = c.alias(topic, p.props); err != nil {
			return err
		}
		p.props = without(p.props, propTopicAlias)
		p.topic = []byte(topic)
	}
	if err := checkTopic(p.topic); err != nil {
		return err
	}
	s := &slot{qos: p.qos, id: p.id, size: len(body) + 128}
	s.publication = publication{address: topic, msg: p, who: c.who, client: c.session.id, arrived: time.Now()}
	s.msg.dup, s.msg.id = false, 0
	if !c.canWrite {
		s.err, s.done = wrappers.Refuse(wrappers.ErrDenied, "publishing needs a user"), true
	}
	if p.qos == 2 {
		ses := c.session
		ses.mu.Lock()
		committed, known := ses.received[p.id]
		switch {
		case committed:
			s.done, s.repeat = true, true
		case known: // the first copy is on its way: its answer answers this one
			ses.mu.Unlock()
			return nil
		case !s.done:
			if len(ses.received) >= 65535 {
				ses.mu.Unlock()
				return &protocolError{codeReceiveMaximum, "too many QoS 2 messages without PUBREL"}
			}
			ses.received[p.id] = false
		}
		ses.mu.Unlock()
	}
	return c.ingest(s)
}

func (c *conn) alias(topic string, props []byte) (string, error) {
	n := number(props, propTopicAlias, 0)
	switch {
	case n == 0 && topic == "":
		return "", breach("a PUBLISH without a topic")
	case n == 0:
		return topic, nil
	case n > topicAliases:
		return "", &protocolError{codeTopicAliasInvalid, "topic alias above the agreed maximum"}
	}
	if topic == "" {
		known, ok := c.aliases[uint16(n)]
		if !ok {
			return "", &protocolError{codeTopicAliasInvalid, "a topic alias that was never set"}
		}
		return known, nil
	}
	if c.aliases == nil {
		c.aliases = make(map[uint16]string)
	}
	c.aliases[uint16(n)] = topic
	return topic, nil
}

// ingest queues a publish behind those of the same address: a client's messages to one topic
// keep their order, others overlap.
func (c *conn) ingest(s *slot) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := c.broker.opt.inflight
	for !c.closing && c.busy > 0 && (c.busy >= limit && (s.qos == 0 || !c.v5) || c.heavy+s.size > c.broker.cfg.Limits.Queue) {
		c.idle.Wait()
	}
	if c.closing || c.refusing {
		c.forget(s)
		return nil // not acknowledged: the client sends it again
	}
	if s.qos > 0 {
		if len(c.order) >= limit && c.v5 {
			c.forget(s)
			return &protocolError{codeReceiveMaximum, "more messages in flight than the agreed receive maximum"}
		}
		c.order = append(c.order, s)
	}
	if s.done {
		c.settle(s)
		return nil
	}
	c.busy++
	c.heavy += s.size
	queue, running := c.chains[s.address]
	c.chains[s.address] = append(queue, s)
	if !running {
		c.broker.bg.Go(func() { c.commitAll(s.address) })
	}
	return nil
}

// forget undoes the note of a QoS 2 message that was not taken.
func (c *conn) forget(s *slot) {
	if s.qos != 2 || s.repeat {
		return
	}
	c.session.mu.Lock()
	delete(c.session.received, s.id)
	c.session.mu.Unlock()
}

// commitAll starts the publishes of one address in their order until there are no more. Their
// syncs overlap.
func (c *conn) commitAll(address string) {
	for {
		c.mu.Lock()
		queue := c.chains[address]
		if len(queue) == 0 {
			delete(c.chains, address)
			c.mu.Unlock()
			return
		}
		s := queue[0]
		c.chains[address] = queue[1:]
		c.mu.Unlock()
		var wait func() error
		if c.guarded(s, func() { wait = c.broker.start(&s.publication) }) {
			c.broker.bg.Go(func() { c.finishPublish(s, wait) })
		}
	}
}

// guarded runs a step of a publish; false: it panicked, which ends that publish and nothing else.
func (c *conn) guarded(s *slot, step func()) (ok bool) {
	defer func() {
		if r := recover(); r != nil {
			s.err = wrappers.ErrUnavailable
			c.broker.link.Count("panics", 1)
			c.broker.cfg.Log.Error("panic in a publish", "address", s.address, "panic", r)
			c.taken(s)
		}
	}()
	step()
	return true
}

// finishPublish waits for a publish that was started.
func (c *conn) finishPublish(s *slot, wait func() error) {
	if c.guarded(s, func() { c.await(s, wait) }) {
		c.taken(s)
	}
}

// taken acknowledges what is due.
func (c *conn) taken(s *slot) {
	c.mu.Lock()
	s.done = true
	c.busy--
	c.heavy -= s.size
	c.settle(s)
	c.idle.Broadcast()
	c.mu.Unlock()
}

func (c *conn) await(s *slot, wait func() error) {
	b := c.broker
	s.err = wait()
	if s.qos == 2 {
		if s.err == nil && c.session.lasts() {
			// Between the commit and this record a crash makes the client send again, unacknowledged.
			s.err = b.link.Keep(b.ctx, wrappers.Record{Key: c.session.receivedKey(s.id), Value: []byte{1}})
		}
		c.session.mu.Lock()
		if s.err == nil {
			c.session.received[s.id] = true
		} else {
			delete(c.session.received, s.id)
		}
		c.session.mu.Unlock()
	}
}

// settle writes the acknowledgements that are due, in the order of the publishes (MQTT 5.0,
// section 4.6). c.mu is held.
func (c *conn) settle(s *slot) {
	if s.err != nil {
		c.refused(s)
	}
	if s.qos == 0 {
		if s.err != nil && !c.v5 {
			c.shutLocked(0, s.err)
		}
		return
	}
	n := 0
	for n < len(c.order) && c.order[n].done && !c.closing {
		o := c.order[n]
		n++
		kind := byte(typePuback)
		if o.qos == 2 {
			kind = typePubrec
		}
		if o.err != nil && !c.v5 {
			// MQTT 3 has no word for no: closing is the only way not to say yes.
			c.shutLocked(0, o.err)
			break
		}
		code, reason := byte(0), ""
		if o.err != nil {
			code = publishCode(o.err)
			if !c.terse {
				reason = wrappers.Reason(o.err)
			}
		}
		c.answers = appendAck(c.answers, kind, c.v5, o.id, code, reason)
	}
	if n > 0 {
		clear(c.order[:n])
		c.order = c.order[n:]
		c.nudge()
	}
}

// refused tells the operator of a publish that was not taken. That it passed the link has shown.
func (c *conn) refused(s *slot) {
	b := c.broker
	b.link.Count("refused_publishes", 1)
	if errors.Is(s.err, wrappers.ErrUnavailable) && !errors.Is(s.err, context.Canceled) {
		b.cfg.Log.Error("publish not taken", "address", s.address, "principal", s.who.Principal, "peer", s.who.Peer, "err", s.err)
	} else {
		b.cfg.Log.Info("publish refused", "address", s.address, "principal", s.who.Principal, "peer", s.who.Peer, "err", s.err)
	}
}

func (c *conn) onAck(kind byte, a ack) error {
	s := c.session
	switch kind {
	case typePuback, typePubcomp:
		s.acked(a.id)
	case typePubrec:
		if a.code >= 0x80 {
			s.acked(a.id)
			return nil
		}
		code := byte(0)
		if !s.release(a.id) && c.v5 {
			code = codeIDNotFound
		}
		return c.answer(func(b []byte) []byte { return appendAck(b, typePubrel, c.v5, a.id, code, "") })
	case typePubrel:
		s.mu.Lock()
		committed, known := s.received[a.id]
		s.mu.Unlock()
		if known && !committed {
			return breach("PUBREL before PUBREC")
		}
		if known && s.lasts() {
			// The identifier is free for another message after PUBCOMP, so its record goes first.
			c.mu.Lock()
			c.busy++
			c.mu.Unlock()
			c.broker.bg.Go(func() {
				err := c.broker.link.Keep(c.broker.ctx, wrappers.Record{Key: s.receivedKey(a.id)})
				if err == nil {
					c.completed(a.id)
				}
				c.mu.Lock()
				c.busy--
				c.idle.Broadcast()
				if err != nil {
					c.shutLocked(codeImplementation, err)
				}
				c.mu.Unlock()
			})
			return nil
		}
		if !known {
			code := byte(0)
			if c.v5 {
				code = codeIDNotFound
			}
			return c.answer(func(b []byte) []byte { return appendAck(b, typePubcomp, c.v5, a.id, code, "") })
		}
		c.completed(a.id)
	}
	return nil
}

// completed ends a QoS 2 exchange.
func (c *conn) completed(id uint16) {
	c.session.mu.Lock()
	delete(c.session.received, id)
	c.session.mu.Unlock()
	if err := c.answer(func(b []byte) []byte { return appendAck(b, typePubcomp, c.v5, id, 0, "") }); err != nil {
		c.shut(codeQuotaExceeded, err)
	}
}
