package mqtt

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// connectSize bounds what a stranger may send as CONNECT: its texts and its will, each at most
// 64 KiB.
const connectSize = 400 << 10

// connect does the handshake of the protocol; true when the client is in.
func (c *conn) connect() bool {
	b := c.broker
	first, body, err := readPacket(c.in, min(b.cfg.Limits.Frame, connectSize))
	var req connect
	if err == nil {
		if first != typeConnect<<4 {
			err = breach("the first packet is not CONNECT")
		} else {
			req, err = parseConnect(body, true)
		}
	}
	c.level, c.v5 = req.level, req.level == level5
	if err == nil {
		err = c.logOn(&req)
	}
	if err == nil {
		err = c.attach(&req)
	}
	if err == nil {
		return true
	}
	pe := asProtocolError(err)
	var bye *goodbye
	if errors.As(err, &bye) {
		pe = &protocolError{bye.code, bye.err.Error()}
	}
	if pe == nil {
		b.cfg.Log.Debug("no CONNECT", "peer", c.peer.RemoteAddr(), "err", err)
		b.link.Count("refused_handshake", 1)
		return false
	}
	switch pe.code {
	case codeBadUser, codeNotAuthorized, codeBadAuthMethod:
		b.link.Count("refused_auth", 1)
	default:
		b.link.Count("refused_handshake", 1)
	}
	b.cfg.Log.Info("connection refused", "peer", peerName(c.peer.RemoteAddr(), string(req.clientID)), "err", err)
	// To who did not speak MQTT nothing is said.
	if req.name != "" {
		a := connack{code: connectCode(pe.code)}
		if c.v5 {
			a = connack{code: pe.code, props: appendString([]byte{propReason}, shorten(pe.text))}
		} else if req.level == 0 || pe == errLevel {
			a.code = v3BadVersion
		}
		_ = c.nc.SetWriteDeadline(time.Now().Add(time.Second)) // best effort: it is going anyway
		_, _ = c.nc.Write(appendConnack(nil, c.v5, &a))
	}
	if h, ok := c.nc.(interface{ CloseWrite() error }); ok && h.CloseWrite() == nil &&
		c.nc.SetReadDeadline(time.Now().Add(time.Second)) == nil {
		var b [512]byte
		for range 64 {
			if _, err := c.nc.Read(b[:]); err != nil {
				break
			}
		}
	}
	c.nc.Close()
	return false
}

// logOn decides who the client is.
func (c *conn) logOn(req *connect) error {
	b := c.broker
	if _, ok := property(req.props, propAuthMethod); ok {
		return &protocolError{codeBadAuthMethod, "no authentication method but user and password is known here"}
	}
	id := string(req.clientID)
	if id == "" {
		switch {
		case c.level == level31:
			return &protocolError{codeBadClientID, "MQTT 3.1 needs a client id"}
		case c.level == level311 && !req.clean:
			return &protocolError{codeBadClientID, "a session that lasts needs a client id"}
		}
	}
	c.who = wrappers.Who{Peer: peerName(c.peer.RemoteAddr(), id)}
	if req.hasUser && b.cfg.Logon != nil && b.cfg.Logon.Any() {
		principal, err := b.cfg.Logon.Password(b.ctx, string(req.user), string(req.password))
		if errors.Is(err, wrappers.ErrDenied) {
			return &protocolError{codeBadUser, "wrong user name or password"}
		}
		if err != nil {
			return &goodbye{codeServerUnavailable, errors.New(wrappers.Reason(err))}
		}
		c.who.Principal, c.who.Verified, c.canWrite = principal, true, true
		return nil
	}
	switch b.cfg.Anonymous {
	case wrappers.WriteAccess:
		c.canWrite = true
	case wrappers.ReadAccess:
	default:
		return &protocolError{codeNotAuthorized, "a user name and password are needed"}
	}
	return nil
}

// attach joins the connection to its session, taking it over from a former connection, and
// answers CONNECT.
func (c *conn) attach(req *connect) error {
	b := c.broker
	id, assigned := string(req.clientID), false
	if id == "" {
		var r [12]byte
		if _, err := rand.Read(r[:]); err != nil {
			return err
		}
		id, assigned = "spookgw-"+hex.EncodeToString(r[:]), true
		c.who.Peer = peerName(c.peer.RemoteAddr(), id)
	}
	wanted := uint32(0)
	if c.v5 {
		wanted = number(req.props, propSessionExpiry, 0)
	} else if !req.clean {
		wanted = neverExpires
	}
	expiry := min(wanted, b.opt.maxExpiry)
	c.window = b.opt.inflight
	if c.v5 {
		c.window = min(c.window, int(number(req.props, propReceiveMaximum, 65535)))
		c.maxPacket = int(min(number(req.props, propMaximumPacket, 0), maxRemaining+5))
		// Reason strings only for who wants them and has room (MQTT 5.0, section 3.1.2.11.7).
		c.terse = number(req.props, propRequestProblem, 1) == 0 || c.maxPacket > 0 && c.maxPacket < 256
	}
	c.keepAlive = time.Duration(req.keepAlive) * time.Second
	serverKeepAlive := false
	if idle := b.cfg.Limits.Idle; idle > 0 && (c.keepAlive == 0 || c.keepAlive > idle) {
		c.keepAlive = max(idle.Truncate(time.Second), time.Second)
		serverKeepAlive = true
	}
	if req.will != nil {
		if !c.canWrite {
			return &protocolError{codeNotAuthorized, "a will needs a user"}
		}
		w := req.will
		c.willDelay = number(w.props, propWillDelay, 0)
		c.will = &publication{address: string(w.topic), who: c.who, client: id,
			msg: publish{qos: w.qos, retain: w.retain, topic: w.topic, payload: w.payload, props: without(w.props, propWillDelay)}}
	}

	if expiry > 0 {
		b.findPlace()
	}
	s, err := b.claim(c, id)
	if err != nil {
		return err
	}
	// From here on the session is this connection's, and nobody else touches it.
	present := false
	if req.clean {
		b.endSession(s, false)
		s = newSession(b, id)
	} else if s == nil {
		if s, err = b.loadSession(id); err != nil {
			b.unclaim(c, id)
			return &goodbye{codeServerUnavailable, errors.New("the stored session can't be read now")}
		}
		present = s != nil
		if s == nil {
			s = newSession(b, id)
		}
	} else {
		present = true
	}
	a := connack{present: present && c.level != level31} // 3.1 has no such flag
	if c.v5 {
		a.props = c.connackProperties(assigned, id, wanted, expiry, serverKeepAlive)
	}
	if req.clean {
		if err := b.eraseSession(id); err != nil {
			b.unclaim(c, id)
			return &goodbye{codeServerUnavailable, errors.New("the former session can't be removed now")}
		}
	}
	c.mu.Lock()
	c.answers = appendConnack(c.answers, c.v5, &a)
	c.mu.Unlock()
	b.mu.Lock()
	c.session = s
	b.sessions[id] = s
	s.conn, s.will = c, nil
	c.resumed = present
	s.mu.Lock()
	s.out, s.expiry = c, expiry
	for _, f := range s.flights {
		if !f.done {
			c.resend = append(c.resend, f)
		}
	}
	s.hasRoom()
	s.mu.Unlock()
	if !present {
		s.live = true
	} else {
		s.live = false
		b.feed(s)
	}
	b.mu.Unlock()
	if expiry > 0 {
		if err := b.storeSession(s); err != nil {
			c.shut(codeImplementation, err)
		}
	}
	c.peer.Welcome()
	return nil
}

func (c *conn) connackProperties(assigned bool, id string, wanted, expiry uint32, serverKeepAlive bool) []byte {
	b := c.broker
	var p []byte
	if expiry != wanted {
		p = binary.BigEndian.AppendUint32(append(p, propSessionExpiry), expiry)
	}
	p = binary.BigEndian.AppendUint16(append(p, propReceiveMaximum), uint16(b.opt.inflight))
	p = binary.BigEndian.AppendUint32(append(p, propMaximumPacket), uint32(b.cfg.Limits.Frame))
	p = binary.BigEndian.AppendUint16(append(p, propTopicAliasMax), topicAliases)
	if assigned {
		p = appendString(append(p, propAssignedClientID), id)
	}
	if serverKeepAlive {
		p = binary.BigEndian.AppendUint16(append(p, propServerKeepAlive), uint16(min(c.keepAlive/time.Second, 65535)))
	}
	return p
}

// claim makes c the one connection of this client id: a former one is told so and waited for. It
// gives the session if it is in memory.
func (b *broker) claim(c *conn, id string) (*session, error) {
	late := time.NewTimer(b.cfg.Limits.Handshake)
	defer late.Stop()
	for {
		b.mu.Lock()
		if b.draining {
			b.mu.Unlock()
			return nil, &goodbye{codeShuttingDown, errors.New("the gateway is stopping")}
		}
		former := b.claims[id]
		if former == nil {
			b.claims[id] = c
			b.conns[c] = struct{}{}
			s := b.sessions[id]
			b.mu.Unlock()
			return s, nil
		}
		b.mu.Unlock()
		former.shut(codeTakenOver, errors.New("another connection took over this client id"))
		select {
		case <-former.done:
		case <-late.C:
			return nil, &goodbye{codeServerBusy, fmt.Errorf("the former connection of %q is still finishing its publishes", id)}
		}
	}
}

// unclaim gives up a claim whose connection came to nothing.
func (b *broker) unclaim(c *conn, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.claims[id] == c {
		delete(b.claims, id)
	}
	delete(b.conns, c)
	close(c.done)
}
