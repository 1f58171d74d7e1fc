package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestTransparentHTTP: a request and its answer pass a relay unchanged, byte for byte, whether
// or not they concern a register.
func TestTransparentHTTP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conns := make(chan net.Conn, 64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			conns <- c
		}
	}()
	g := newGateway(t, fmt.Sprintf(`
wrapper "http" "erp" {
  listen   = "127.0.0.1:$http"
  upstream = "http://%s"
}
`, l.Addr()), `
register "site/{site}/{sensor}" {
  fields = { value = number }
  bind "http" "/v1/{site}/{sensor}" {}
}
`).start()

	crlf := func(lines ...string) string { return strings.Join(lines, "\r\n") }
	exchanges := []struct{ name, request, response string }{
		{"odd names and queries",
			crlf("GET /plain//a/%2Fb/../c?x=1;y=2&z=3&bad=%zz&&= HTTP/1.1", "hOST: example.org", "SOAPAction: \"urn:x\"", "X-Twice: 1", "x-twice:2", "X-Empty:", "", ""),
			crlf("HTTP/1.1 200 Fine By Me", "x-lower: 1", "X-UPPER:2", "Set-Cookie: a=1", "set-cookie: b=2", "Content-Length: 5", "", "hello")},
		{"an unknown method",
			crlf("FROB /plain/x HTTP/1.1", "Host: x", "Content-Length: 3", "", "abc"),
			crlf("HTTP/1.1 299 Frobbed", "Content-Length: 0", "", "")},
		{"chunks and trailers",
			crlf("POST /plain/x HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", "Trailer: X-Sum", "", "5;ext=1", "hello", "00a", "0123456789", "0", "X-Sum: 15", "", ""),
			crlf("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", "3;a=\"b\"", "abc", "0", "X-After: yes", "", "")},
		{"an answer to HEAD",
			crlf("HEAD /plain/x HTTP/1.1", "Host: x", "", ""),
			crlf("HTTP/1.1 200 OK", "Content-Length: 1000000", "", "")},
		{"no content, not modified",
			crlf("GET /plain/x HTTP/1.1", "Host: x", "If-None-Match: \"1\"", "", ""),
			crlf("HTTP/1.1 304 Not Modified", "ETag: \"1\"", "Content-Length: 77", "", "")},
		{"early hints",
			crlf("GET /plain/x HTTP/1.1", "Host: x", "", ""),
			crlf("HTTP/1.1 103 Early Hints", "Link: </a>", "", "HTTP/1.1 200 OK", "Content-Length: 2", "", "ok")},
		{"a mapped read",
			crlf("GET /v1/berlin/oven-3?unit=K HTTP/1.1", "host: x", "accept: */*;q=0.1", "", ""),
			crlf("HTTP/1.1 200 OK", "ETAG: W/\"1\"", "Content-Length: 14", "", `{ "value":1 }`+"\n")},
		{"a mapped write",
			crlf("PUT /v1/berlin/oven-3 HTTP/1.1", "host: x", "content-TYPE: application/json", "Content-Length: 28", "", `{ "value" : 1.50, "more":[]}`),
			crlf("HTTP/1.1 204 No Content", "ETAG: \"2\"", "X-Odd:  spaces  ", "", "")},
		{"a mapped write in chunks",
			crlf("PUT /v1/berlin/oven-4 HTTP/1.1", "host: x", "content-TYPE: application/json", "transfer-encoding: Chunked", "", "8", `{"value"`, "3", `:2}`, "0", "", ""),
			crlf("HTTP/1.1 201 Created", "Content-Length: 0", "", "")},
		{"a refusal of a mapped write",
			crlf("PUT /v1/berlin/oven-3 HTTP/1.1", "host: x", "Content-Length: 11", "", `{"value":9}`),
			crlf("HTTP/1.1 403 No", "Content-Length: 4", "", "nope")},
	}
	pass := func(t *testing.T, client, server net.Conn, sr *bufio.Reader, request, response string, piece int) {
		t.Helper()
		inPieces(t, client, []byte(request), piece)
		readExactly(t, "server", server, sr, []byte(request))
		inPieces(t, server, []byte(response), piece)
		readExactly(t, "client", client, client, []byte(response))
	}
	for _, piece := range []int{1, 9, 1 << 20} {
		t.Run(fmt.Sprintf("pieces=%d", piece), func(t *testing.T) {
			// All on one connection, one after the other.
			client, err := net.Dial("tcp", loopback(g.http))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			var server net.Conn
			var sr *bufio.Reader
			for _, e := range exchanges {
				if server == nil {
					inPieces(t, client, []byte(e.request[:1]), 1)
					server = within1(t, "connection at the server", conns)
					sr = bufio.NewReader(server)
					inPieces(t, client, []byte(e.request[1:]), piece)
					readExactly(t, "server: "+e.name, server, sr, []byte(e.request))
					inPieces(t, server, []byte(e.response), piece)
					readExactly(t, "client: "+e.name, client, client, []byte(e.response))
					continue
				}
				t.Run(e.name, func(t *testing.T) { pass(t, client, server, sr, e.request, e.response, piece) })
				if t.Failed() {
					return
				}
			}
			t.Run("pipelined", func(t *testing.T) {
				var up, down strings.Builder
				for range 10 {
					up.WriteString(exchanges[0].request)
					down.WriteString(exchanges[0].response)
				}
				pass(t, client, server, sr, up.String(), down.String(), piece)
			})
			t.Run("upgrade", func(t *testing.T) {
				pass(t, client, server, sr, crlf("GET /socket HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: frob", "", ""),
					crlf("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: frob", "", ""), piece)
				pass(t, client, server, sr, "\x00\x01 PUT /v1/berlin/oven-9 HTTP/1.1\r\n\r\n", "\xff\xfe anything", piece)
			})
			server.Close()
			client.SetReadDeadline(time.Now().Add(patience))
			if n, err := client.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("after the server closed: got %d bytes and %v, want EOF", n, err)
			}
		})
	}
	if got := g.read("site/berlin/oven-3"); got != `{"value":1.5}` {
		t.Errorf("register: got %s, want what the server accepted", got)
	}
	g.wantHistory("site/berlin/oven-3", 3)
	g.wantHistory("site/berlin/oven-4", 3)
	g.wantHistory("site/berlin/oven-9", 0)

	t.Run("until the server closes", func(t *testing.T) {
		client, err := net.Dial("tcp", loopback(g.http))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		request := crlf("GET /plain/old HTTP/1.0", "", "")
		io.WriteString(client, request)
		server := within1(t, "connection at the server", conns)
		readExactly(t, "server", server, server, []byte(request))
		response := crlf("HTTP/1.0 200 OK", "Server: old", "", "no length")
		io.WriteString(server, response)
		server.Close()
		client.SetReadDeadline(time.Now().Add(patience))
		got, err := io.ReadAll(client)
		if err != nil || string(got) != response {
			t.Errorf("got %q and %v, want %q", got, err, response)
		}
	})
}
