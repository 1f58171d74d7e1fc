package http

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
)

// TestRelayRecordsWhatPasses: while somebody records, also requests that no bind maps are shown, with their bodies; the
// server gets the same bytes.
func TestRelayRecordsWhatPasses(t *testing.T) {
	long := strings.Repeat("x", 3000)
	requests := "GET /free/1?a=b HTTP/1.1\r\nHost: h\r\nCookie: c=d\r\n\r\n" +
		"PUT /free/2 HTTP/1.1\r\nHost: h\r\nContent-Type: text/csv\r\nContent-Length: 7\r\n\r\na;b\n1;2" +
		"POST /free/3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nT: v\r\n\r\n" +
		"PUT /free/long HTTP/1.1\r\nHost: h\r\nContent-Length: 3000\r\n\r\n" + long +
		"DELETE /free/4 HTTP/1.1\r\nHost: h\r\n\r\n"
	answers := strings.Repeat("HTTP/1.1 204 No Content\r\n\r\n", 5)
	for _, step := range []int{1, 7, 1 << 20} {
		got := make(chan string, 1)
		up := rawServer(t, func(c net.Conn, r *bufio.Reader) {
			b := make([]byte, len(requests))
			n, _ := io.ReadFull(r, b)
			got <- string(b[:n])
			_, _ = io.WriteString(c, answers)
			_, _ = io.Copy(io.Discard, r)
		})
		link := newLink()
		link.Record()
		c, r := dialRaw(t, relayTo(t, up, link, func(c *wrappers.Config) { c.Limits.Frame = 2000 }))
		for i := 0; i < len(requests); i += step {
			send(t, c, requests[i:min(i+step, len(requests))])
		}
		if g := <-got; g != requests {
			t.Errorf("in pieces of %d: the server got\n%q\nwant\n%q", step, g, requests)
		}
		expect(t, r, answers)
		want := []struct{ verb, address, body, outcome string }{
			{"read", "/free/1?a=b", "", "passed"},
			{"put", "/free/2", "a;b\n1;2", "passed"},
			{"message", "/free/3", "abcde", "passed"},
			{"put", "/free/long", "", "passed, too long to be recorded"},
			{"delete", "/free/4", "", "passed"},
		}
		link.Await(t, "all requests", func() bool { return len(link.Taps()) >= len(want) })
		for i, tap := range link.Taps() {
			w := want[i]
			if tap.Op.Verb.String() != w.verb || tap.Op.Address != w.address || string(tap.Op.Payload.Raw) != w.body || tap.Outcome != w.outcome {
				t.Errorf("in pieces of %d: got %s %s %q (%s), want %v", step, tap.Op.Verb, tap.Op.Address, tap.Op.Payload.Raw, tap.Outcome, w)
			}
			if tap.Op.Payload.Meta["host"] != "h" || tap.Op.Payload.Meta["cookie"] != "" || tap.Op.Who.Peer == "" {
				t.Errorf("%s: meta %v, peer %q", w.address, tap.Op.Payload.Meta, tap.Op.Who.Peer)
			}
		}
	}
}

func TestRelayRecordsHTTP2(t *testing.T) {
	cert := httptest.NewTLSServer(nil)
	defer cert.Close()
	b := newBackend(t)
	link := newLink()
	link.Record()
	addr := relayTo(t, b.addr, link, func(c *wrappers.Config) { c.TLS = &tls.Config{Certificates: cert.TLS.Certificates} })
	protocols := &http.Protocols{}
	protocols.SetHTTP2(true)
	c := newClient(t, addr)
	c.base = "https://" + addr
	c.http.Transport = &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	if _, _, err := c.do("PUT", "/free/1", "abc"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.do("GET", "/free/1", ""); err != nil {
		t.Fatal(err)
	}
	link.Await(t, "both", func() bool { return len(link.Taps()) >= 2 })
	taps := link.Taps()
	if taps[0].Op.Verb != wrappers.Put || string(taps[0].Op.Payload.Raw) != "abc" || taps[1].Op.Verb != wrappers.Read || taps[1].Op.Address != "/free/1" {
		t.Errorf("got %+v", taps)
	}
}

// TestVirtualRecordsWhatItRefuses: what no bind maps is read to its end before it is refused.
func TestVirtualRecordsWhatItRefuses(t *testing.T) {
	link := newLink()
	link.Record()
	l := listen(t)
	start(t, config(l, nil), link)
	c := newClient(t, l.Addr().String())
	resp, _, err := c.do("PUT", "/free/1", `{"a":1}`)
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Fatalf("got %v, %v; want 404", resp, err)
	}
	taps := link.Taps()
	if len(taps) != 1 || string(taps[0].Op.Payload.Raw) != `{"a":1}` || taps[0].Outcome != "refused: no bind maps it" {
		t.Errorf("got %+v", taps)
	}
}
