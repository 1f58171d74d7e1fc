package ldap

import (
	"bufio"
	"net"
	"sync"
	"testing"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// A proxy stands between a wrapper and its server: it counts the writes of each entry, remembers them, and has one fail.
type proxy struct {
	t  testing.TB
	ln net.Listener
	to string

	mu     sync.Mutex
	fail   wrappertest.Failure
	code   ldapwire.ResultCode
	writes map[string]int // by name
	sent   []ldapwire.Body
	sizes  []int64
	conns  map[net.Conn]bool
	deaf   bool // nothing passes any more, and nothing is closed
}

func startProxy(t testing.TB, to string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, ln: ln, to: to, writes: map[string]int{}, conns: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		p.cut()
		wg.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.ln.Addr().String() }

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) serve(c net.Conn) {
	up, err := net.Dial("tcp", p.to)
	if err != nil {
		c.Close()
		return
	}
	p.mu.Lock()
	p.conns[c], p.conns[up] = true, true
	p.mu.Unlock()
	defer func() {
		c.Close()
		up.Close()
		p.mu.Lock()
		delete(p.conns, c)
		delete(p.conns, up)
		p.mu.Unlock()
	}()
	mute := make(chan struct{}, 1) // the answer to come is not passed on
	var back sync.WaitGroup
	var writing sync.Mutex
	back.Go(func() {
		defer c.Close()
		in := bufio.NewReaderSize(up, readBuffer)
		for {
			m, err := readMessage(in, 256<<20)
			if err != nil {
				return
			}
			if _, write := entryOf(m.Body); write || m.Body.Op() == ldapwire.OpModifyResponse || m.Body.Op() == ldapwire.OpAddResponse || m.Body.Op() == ldapwire.OpDelResponse {
				select {
				case <-mute:
					return
				default:
				}
			}
			if p.isDeaf() {
				continue
			}
			writing.Lock()
			_, err = c.Write(m.Encode())
			writing.Unlock()
			if err != nil {
				return
			}
		}
	})
	in := bufio.NewReaderSize(c, readBuffer)
	for {
		m, err := readMessage(in, 256<<20)
		if err != nil {
			break
		}
		if p.isDeaf() {
			continue
		}
		if name, ok := entryOf(m.Body); ok {
			p.mu.Lock()
			p.writes[name]++
			p.sent = append(p.sent, m.Body)
			p.sizes = append(p.sizes, int64(len(m.Encode())))
			how, code := p.fail, p.code
			p.fail = 0
			p.mu.Unlock()
			switch how {
			case wrappertest.RefuseForGood, wrappertest.RefuseForNow:
				r := ldapwire.NewResponse(m.Body.Op())
				r.Result().ResultCode, r.Result().DiagnosticMessage = code, "as asked"
				answer := ldapwire.Message{MessageID: m.MessageID, Body: r}
				writing.Lock()
				_, _ = c.Write(answer.Encode())
				writing.Unlock()
				continue
			case wrappertest.BreakConnection:
				mute <- struct{}{}
			}
		}
		if _, err := up.Write(m.Encode()); err != nil {
			break
		}
	}
	up.Close()
	back.Wait()
}

func (p *proxy) isDeaf() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.deaf
}

// entryOf gives the entry that a request writes.
func entryOf(b ldapwire.Body) (string, bool) {
	switch q := b.(type) {
	case *ldapwire.AddRequest:
		return q.Entry, true
	case *ldapwire.ModifyRequest:
		return q.Object, true
	case *ldapwire.DelRequest:
		return q.Entry, true
	}
	return "", false
}

// requests gives the writes that have passed.
func (p *proxy) requests() []ldapwire.Body {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]ldapwire.Body{}, p.sent...)
}

// watchedServer is a server behind a proxy.
type watchedServer struct {
	rigServer
	p *proxy
}

func (s *watchedServer) Writes(address string) int {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return s.p.writes[nameAt(address)]
}

func (s *watchedServer) Fail(how wrappertest.Failure) bool {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.fail = how
	s.p.code = map[wrappertest.Failure]ldapwire.ResultCode{wrappertest.RefuseForGood: ldapwire.ConstraintViolation, wrappertest.RefuseForNow: ldapwire.Busy}[how]
	return true
}
