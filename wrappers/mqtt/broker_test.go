package mqtt

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A scripted broker does what a test tells it, and records every byte of its peers.
type scripted struct {
	t     *testing.T
	ln    net.Listener
	mu    sync.Mutex
	conns []*scriptedConn
	came  sync.Cond
	// answer may answer a packet in place of the default; nil result: the default.
	answer func(c *scriptedConn, first byte, body []byte) []byte
}

type scriptedConn struct {
	b     *scripted
	nc    net.Conn
	v5    bool
	id    string
	bytes bytes.Buffer // as they came
	got   []packet
	sent  uint16
	over  bool
}

func startScripted(t *testing.T, answer func(c *scriptedConn, first byte, body []byte) []byte) *scripted {
	b := &scripted{t: t, ln: listen(t), answer: answer}
	b.came.L = &b.mu
	t.Cleanup(func() { b.ln.Close() })
	go func() {
		for {
			nc, err := b.ln.Accept()
			if err != nil {
				return
			}
			c := &scriptedConn{b: b, nc: nc}
			b.mu.Lock()
			b.conns = append(b.conns, c)
			b.mu.Unlock()
			t.Cleanup(func() { nc.Close() })
			go c.serve()
		}
	}()
	return b
}

func (b *scripted) addr() string { return b.ln.Addr().String() }

func (c *scriptedConn) serve() {
	b := c.b
	in := bufio.NewReader(io.TeeReader(c.nc, writerFunc(func(p []byte) {
		b.mu.Lock()
		c.bytes.Write(p)
		b.mu.Unlock()
	})))
	for {
		first, err := in.ReadByte()
		if err != nil {
			break
		}
		n := 0
		for shift := 0; ; shift += 7 { // tolerant of lengths with more bytes than needed
			x, err := in.ReadByte()
			if err != nil {
				break
			}
			n |= int(x&0x7f) << shift
			if x&0x80 == 0 {
				break
			}
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(in, body); err != nil {
			break
		}
		var say []byte
		if b.answer != nil {
			say = b.answer(c, first, body)
		}
		if say == nil {
			say = c.usual(first, body)
		}
		b.mu.Lock()
		c.got = append(c.got, packet{first, body})
		b.came.Broadcast()
		b.mu.Unlock()
		if _, err := c.nc.Write(say); err != nil {
			break
		}
	}
	b.mu.Lock()
	c.over = true
	b.came.Broadcast()
	b.mu.Unlock()
}

// usual is what a broker without subscribers answers.
func (c *scriptedConn) usual(first byte, body []byte) []byte {
	switch first >> 4 {
	case typeConnect:
		req, err := parseConnect(body, false)
		if err != nil {
			return nil
		}
		c.b.mu.Lock()
		c.v5, c.id = req.level == level5, string(req.clientID)
		c.b.mu.Unlock()
		return appendConnack(nil, c.v5, &connack{})
	case typePublish:
		p, _ := parsePublish(first, body, c.v5)
		switch p.qos {
		case 1:
			return appendAck(nil, typePuback, c.v5, p.id, 0, "")
		case 2:
			return appendAck(nil, typePubrec, c.v5, p.id, 0, "")
		}
	case typePubrel:
		return appendAck(nil, typePubcomp, c.v5, binary.BigEndian.Uint16(body), 0, "")
	case typeSubscribe:
		s, err := parseSubscribe(typeSubscribe, first, body, c.v5)
		if err != nil {
			return nil
		}
		codes := make([]byte, len(s.requests))
		for i, r := range s.requests {
			codes[i] = r.qos()
		}
		return appendSuback(nil, c.v5, typeSuback, s.id, codes)
	case typePingreq:
		return []byte{typePingresp << 4, 0}
	}
	return []byte{}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

// await waits for a connection that cond accepts. b.mu is held while it runs.
func (b *scripted) await(what string, cond func(c *scriptedConn) bool) *scriptedConn {
	b.t.Helper()
	late := time.AfterFunc(waitFor, func() {
		b.mu.Lock()
		b.came.Broadcast()
		b.mu.Unlock()
	})
	defer late.Stop()
	until := time.Now().Add(waitFor)
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		for _, c := range b.conns {
			if cond(c) {
				return c
			}
		}
		if time.Now().After(until) {
			b.t.Fatalf("waited for %s", what)
		}
		b.came.Wait()
	}
}

// feedConn is the gateway's own session.
func (b *scripted) feedConn() *scriptedConn {
	return b.await("the feed", func(c *scriptedConn) bool {
		return !c.over && len(c.id) > 8 && c.id[:8] == "spookgw-"
	})
}

func (c *scriptedConn) say(b []byte) {
	c.b.t.Helper()
	if _, err := c.nc.Write(b); err != nil {
		c.b.t.Fatal(err)
	}
}
