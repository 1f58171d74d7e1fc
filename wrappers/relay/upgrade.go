package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
)

var errMidFrame = errors.New("the server is in the middle of a frame")

// ToTLS says something to the client, if anything, and makes a TLS connection of what was a plain one, in protocols that
// begin TLS in their own words once a session stands. begun are bytes behind those words that were read already. Only FromClient
// may call it, which then drops all it was shown. An error ends the session.
func (ses *Session) ToTLS(say, begun []byte, cfg *tls.Config) error {
	e := ses.toClient
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.done:
		return net.ErrClosed
	case e.mid:
		return errMidFrame
	}
	if err := e.write(say); err != nil {
		return err
	}
	conn := ses.client
	if len(begun) > 0 {
		conn = &begunConn{conn, slices.Clone(begun)}
	}
	tc := tls.Server(conn, cfg)
	ctx, cancel := context.WithTimeout(ses.ctx, ses.server.Handshake)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		ses.server.Count("tls_refused", 1)
		return err
	}
	e.conn, e.raw = tc, nil
	ses.in.src, ses.in.raw = tc, nil
	return nil
}

// begunConn is a connection of which some bytes were read already.
type begunConn struct {
	net.Conn
	head []byte
}

func (c *begunConn) Read(b []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(b, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}
