package http

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// gated answers 200 to everything, a GET only when told to.
func gated(t *testing.T) (addr string, asked <-chan string, answer chan<- struct{}) {
	got, gate := make(chan string, 10), make(chan struct{})
	return rawServer(t, func(c net.Conn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			got <- req.Method
			if req.Method == "GET" {
				<-gate
			}
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(req.Method), req.Method)
		}
	}), got, gate
}

func TestRelayWriteWaitsForTheAnswersBeforeIt(t *testing.T) {
	up, asked, answer := gated(t)
	link := newLink()
	link.Fail(wrappertest.CallBegin, wrappers.ErrUnavailable)
	c, r := dialRaw(t, relayTo(t, up, link, nil))
	send(t, c, "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPUT "+oven+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
	<-asked
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if b, err := r.Peek(1); err == nil {
		t.Fatalf("the refusal came before the answer to what was asked first: %q", b)
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	answer <- struct{}{}
	if _, body := readAnswer(t, r, "GET"); body != "GET" {
		t.Errorf("first: got %s", body)
	}
	if resp, _ := readAnswer(t, r, "PUT"); resp.StatusCode != 503 {
		t.Errorf("second: got %s, want 503", resp.Status)
	}
}

func TestRelayHoldsWhatFollowsAWrite(t *testing.T) {
	up, asked, _ := gated(t)
	link := newLink()
	release := link.Block(wrappertest.CallCommit)
	c, r := dialRaw(t, relayTo(t, up, link, nil))
	send(t, c, "PUT "+oven+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}DELETE /a HTTP/1.1\r\nHost: x\r\n\r\n")
	if m := <-asked; m != "PUT" {
		t.Fatalf("got %s", m)
	}
	link.Await(t, "the commit", func() bool { return link.Waiting(wrappertest.CallCommit) == 1 })
	select {
	case m := <-asked:
		t.Errorf("%s was forwarded before the write in front of it was durable", m)
	case <-time.After(30 * time.Millisecond):
	}
	release()
	for _, m := range []string{"PUT", "DELETE"} {
		if _, body := readAnswer(t, r, m); body != m {
			t.Errorf("got the answer to %s, want %s", body, m)
		}
	}
}

func TestRelayLargeBodiesHaveABudget(t *testing.T) {
	b := newBackend(t)
	link := newLink()
	addr := relayTo(t, b.addr, link, func(c *wrappers.Config) { c.Limits.Frame = 128 << 10 })
	head := fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", oven, 128<<10)
	var held []net.Conn
	for range budgetFrames {
		c, r := dialRaw(t, addr)
		send(t, c, strings.Replace(head, "\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n", 1))
		expect(t, r, "HTTP/1.1 100 Continue\r\n\r\n") // it has been reserved
		held = append(held, c)
	}
	c, r := dialRaw(t, addr)
	send(t, c, head)
	if resp, body := readAnswer(t, r, "PUT"); resp.StatusCode != 503 {
		t.Errorf("one too many: got %s %s, want 503", resp.Status, body)
	}
	small := newClient(t, addr)
	if err := small.Write("/v1/berlin/small", []byte("{}")); err != nil {
		t.Errorf("a small write: %v", err)
	}
	for _, c := range held {
		c.Close()
	}
	large := bytes.Repeat([]byte("1"), 128<<10)
	for try := 0; ; try++ { // what was reserved comes back as the sessions end
		if err := newClient(t, addr).Write("/v1/berlin/large", large); err == nil {
			break
		} else if try == 1000 {
			t.Fatal(err)
		}
	}
	if n := link.Counted("busy"); n == 0 {
		t.Error("nobody counted it")
	}
}

func TestRelaySoundRequestsBeforeGarbageAreAnswered(t *testing.T) {
	b := newBackend(t)
	c, r := dialRaw(t, relayTo(t, b.addr, newLink(), nil))
	send(t, c, "GET /free HTTP/1.1\r\nHost: x\r\n\r\n\x00\x01garbage\r\n\r\n")
	if resp, _ := readAnswer(t, r, "GET"); resp.StatusCode != 404 {
		t.Errorf("the sound one: got %s, want the server's 404", resp.Status)
	}
	if resp, _ := readAnswer(t, r, "GET"); resp.StatusCode != 400 {
		t.Errorf("the garbage: got %s, want 400", resp.Status)
	}
}

// drive feeds the answers of a server to a session in pieces and gives what it passes.
func drive(in []byte, piece int, methods []kept) (passed []byte, failed bool) {
	f := &front{wrapper: &wrapper{}, link: newLink()}
	h := &session{f: f, answered: make(chan struct{}, 1)}
	h.published = h.publish
	for _, m := range methods {
		h.push(exchange{method: m})
	}
	var buf []byte
	var skip int64
	for len(in) > 0 {
		n := min(piece, len(in))
		buf, in = append(buf, in[:n]...), in[n:]
		for len(buf) > 0 {
			if skip > 0 {
				k := int(min(skip, int64(len(buf))))
				passed, buf, skip = append(passed, buf[:k]...), buf[k:], skip-int64(k)
				continue
			}
			st, err := h.FromServer(buf)
			if err != nil {
				return passed, true
			}
			passed, buf, skip = append(passed, buf[:st.Pass]...), buf[st.Pass+st.Drop:], st.Skip
			if st.Then != nil {
				st.Then()
			}
			if st.Pass+st.Drop == 0 && skip == 0 {
				break
			}
		}
	}
	return passed, false
}

// FuzzAnswers: what passes does not depend on how the network cuts it, and is never changed.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\n\r\nrest"), 1, true)
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n"), 7, false)
	f.Fuzz(func(t *testing.T, in []byte, piece int, head bool) {
		methods := []kept{anyMethod, anyMethod, anyMethod}
		if head {
			methods[1] = headMethod
		}
		whole, failed := drive(in, len(in), methods)
		cut, failedCut := drive(in, max(1, min(piece, 1000)), methods)
		if failed != failedCut {
			t.Fatalf("whole: failed %v, in pieces of %d: %v", failed, piece, failedCut)
		}
		if !bytes.HasPrefix(in, whole) || !bytes.HasPrefix(in, cut) {
			t.Fatal("bytes were changed")
		}
		if !failed && !bytes.Equal(whole, cut) {
			t.Fatalf("whole: %d bytes passed, in pieces of %d: %d", len(whole), piece, len(cut))
		}
	})
}
