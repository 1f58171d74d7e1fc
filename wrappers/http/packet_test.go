package http

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestParseRequest(t *testing.T) {
	tests := []struct {
		name, in string
		size     int // 0: not whole yet; -1: up to the end
		length   int64
		err      error
	}{
		{"get", "GET /a HTTP/1.1\r\nHost: x\r\n\r\n", -1, noBody, nil},
		{"two", "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n", 19, noBody, nil},
		{"http 1.0", "GET /a HTTP/1.0\r\n\r\n", -1, noBody, nil},
		{"length", "PUT /a HTTP/1.1\r\ncontent-LENGTH:  12 \r\n\r\n", -1, 12, nil},
		{"chunked", "PUT /a HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n", -1, chunked, nil},
		{"empty line before", "\r\nGET /a HTTP/1.1\r\n\r\n", -1, noBody, nil},
		{"odd method and target", "M-SEARCH *?x=%zz&&=1 HTTP/1.1\r\nX: \xe9\r\n\r\n", -1, noBody, nil},
		{"partial line", "GET /a HT", 0, 0, nil},
		{"partial fields", "GET /a HTTP/1.1\r\nHost: x\r\n", 0, 0, nil},
		{"lone CR at the end", "\r", 0, 0, nil},
		{"tls", "\x16\x03\x01\x02", 0, 0, errStartLine},
		{"three empty lines", "\r\n\r\n\r\nGET", 0, 0, errStartLine},
		{"http 0.9", "GET /a\r\n", 0, 0, errStartLine},
		{"http 2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, 0, errVersion},
		{"two spaces", "GET  /a HTTP/1.1\r\n\r\n", 0, 0, errStartLine},
		{"tab in line", "GET\t/a HTTP/1.1\r\n\r\n", 0, 0, errStartLine},
		{"bare LF", "GET /a HTTP/1.1\nHost: x\r\n\r\n", 0, 0, errBareLF},
		{"bare LF in fields", "GET /a HTTP/1.1\r\nA: b\nContent-Length: 3\r\n\r\n", 0, 0, errBareLF},
		{"CR in a value", "GET /a HTTP/1.1\r\nA: b\rContent-Length: 3\r\n\r\n", 0, 0, errFieldLine},
		{"NUL in a value", "GET /a HTTP/1.1\r\nA: b\x00\r\n\r\n", 0, 0, errFieldLine},
		{"folded", "GET /a HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 0, 0, errFieldLine},
		{"space before colon", "PUT /a HTTP/1.1\r\nContent-Length : 3\r\n\r\n", 0, 0, errFieldLine},
		{"no name", "PUT /a HTTP/1.1\r\n: 3\r\n\r\n", 0, 0, errFieldLine},
		{"length and chunked", "PUT /a HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 0, errFraming},
		{"two lengths", "PUT /a HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", 0, 0, errFraming},
		{"list of lengths", "PUT /a HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n", 0, 0, errFraming},
		{"signed length", "PUT /a HTTP/1.1\r\nContent-Length: +3\r\n\r\n", 0, 0, errFraming},
		{"empty length", "PUT /a HTTP/1.1\r\nContent-Length:\r\n\r\n", 0, 0, errFraming},
		{"endless length", "PUT /a HTTP/1.1\r\nContent-Length: 9999999999999999999\r\n\r\n", 0, 0, errFraming},
		{"chunked twice", "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 0, errFraming},
		{"chunked in 1.0", "PUT /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 0, errFraming},
		{"other coding", "PUT /a HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 0, 0, errCoding},
		{"disguised coding", "PUT /a HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 0, 0, errFieldLine},
		{"too large", "GET /a HTTP/1.1\r\nA: " + strings.Repeat("x", maxHead), 0, 0, errHeadSize},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var h head
			err := parseRequest([]byte(tt.in), &h)
			if !errors.Is(err, tt.err) {
				t.Fatalf("got error %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			want := tt.size
			if want < 0 {
				want = len(tt.in)
			}
			if h.size != want || h.size > 0 && h.length != tt.length {
				t.Errorf("got size %d and length %d, want %d and %d", h.size, h.length, want, tt.length)
			}
		})
	}
}

func TestParseResponse(t *testing.T) {
	tests := []struct {
		name, method, in string
		status           int
		length           int64
		err              error
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n", 200, 5, nil},
		{"no reason", "GET", "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", 200, 5, nil},
		{"until close", "GET", "HTTP/1.0 200 OK\r\n\r\n", 200, untilClose, nil},
		{"head", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, noBody, nil},
		{"204", "PUT", "HTTP/1.1 204 No Content\r\n\r\n", 204, noBody, nil},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, noBody, nil},
		{"100", "PUT", "HTTP/1.1 100 Continue\r\n\r\n", 100, noBody, nil},
		{"connect", "CONNECT", "HTTP/1.1 200 OK\r\n\r\n", 200, noBody, nil},
		{"chunked beats length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 200, chunked, nil},
		{"codings", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 200, chunked, nil},
		{"other coding", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", 200, untilClose, nil},
		{"bare LF", "GET", "HTTP/1.1 200 OK\nContent-Length: 5\n\n", 200, 5, nil},
		{"equal lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 200, 5, nil},
		{"unequal lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 0, 0, errFraming},
		{"no HTTP", "GET", "SSH-2.0-OpenSSH\r\n", 0, 0, errStatusLine},
		{"no number", "GET", "HTTP/1.1 2x0 OK\r\n\r\n", 0, 0, errStatusLine},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var h head
			err := parseResponse([]byte(tt.in), &h, tt.method)
			if !errors.Is(err, tt.err) {
				t.Fatalf("got error %v, want %v", err, tt.err)
			}
			if err == nil && (h.size != len(tt.in) || h.status != tt.status || h.length != tt.length) {
				t.Errorf("got size %d, status %d, length %d; want %d, %d, %d", h.size, h.status, h.length, len(tt.in), tt.status, tt.length)
			}
		})
	}
}

func TestChunks(t *testing.T) {
	tests := []struct {
		name, in, want string
		rest           int
		bad            bool
	}{
		{"plain", "5\r\nhello\r\n0\r\n\r\n", "hello", 0, false},
		{"two and more", "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\nGET", "hello world", 3, false},
		{"trailers", "1\r\na\r\n0\r\nA: b\r\nC: d\r\n\r\n", "a", 0, false},
		{"upper case", "A\r\n0123456789\r\n0\r\n\r\n", "0123456789", 0, false},
		{"no size", "\r\n", "", 0, true},
		{"minus", "-1\r\n", "", 0, true},
		{"hex prefix", "0x1\r\na\r\n", "", 0, true},
		{"overflow", "ffffffffffffffff\r\n", "", 0, true},
		{"bare LF", "5\nhello\r\n0\r\n\r\n", "", 0, true},
		{"data too long", "1\r\nab\r\n", "", 0, true},
		{"endless extension", "1;" + strings.Repeat("x", 2*maxExtension), "", 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, step := range []int{1, 3, len(tt.in)} {
				c := chunks{strict: true}
				var got []byte
				n, done := 0, false
				var err error
				for n < len(tt.in) && !done && err == nil {
					var k int
					k, done, err = c.scan([]byte(tt.in[n:min(n+step, len(tt.in))]), &got)
					n += k
				}
				switch {
				case tt.bad && err == nil:
					t.Errorf("in steps of %d: no error", step)
				case !tt.bad && (err != nil || !done || string(got) != tt.want || len(tt.in)-n != tt.rest):
					t.Errorf("in steps of %d: got %q, done %v, %d left, %v; want %q, %d left", step, got, done, len(tt.in)-n, err, tt.want, tt.rest)
				}
			}
		})
	}
}

// FuzzRequestBorders: where both this parser and net/http accept a request, they agree where it
// ends, so nothing can be smuggled between them.
func FuzzRequestBorders(f *testing.F) {
	for _, s := range []string{
		"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
		"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET",
		"PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\nGET",
		"PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
		"POST /a?b=%zz HTTP/1.0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		"PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n00\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var h head
		if err := parseRequest(in, &h); err != nil || h.size == 0 {
			return
		}
		end := h.size
		var body []byte
		switch {
		case h.length == chunked:
			c := chunks{strict: true}
			n, done, err := c.scan(in[end:], &body)
			if err != nil || !done {
				return
			}
			end += n
		case int64(len(in)-end) < h.length:
			return
		default:
			body = in[end : end+int(h.length)]
			end += int(h.length)
		}
		rd := bytes.NewReader(in)
		br := bufio.NewReaderSize(rd, 16)
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		got, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if at := len(in) - rd.Len() - br.Buffered(); at != end {
			t.Errorf("net/http ends at %d, this at %d of %q", at, end, in)
		}
		if !bytes.Equal(got, body) {
			t.Errorf("net/http reads %q, this %q", got, body)
		}
	})
}

// FuzzResponse: no panic, and no size beyond what is there.
func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), "GET")
	f.Add([]byte("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n"), "PUT")
	f.Fuzz(func(t *testing.T, in []byte, method string) {
		var h head
		if parseResponse(in, &h, method) != nil || h.size == 0 {
			return
		}
		if h.size > len(in) {
			t.Fatalf("size %d of %d bytes", h.size, len(in))
		}
		if h.length == chunked {
			var c chunks
			if n, _, err := c.scan(in[h.size:], nil); err == nil && n > len(in)-h.size {
				t.Fatalf("body of %d bytes", n)
			}
		}
	})
}

// FuzzCanonical: what is canonical stays so, and comes back from a request line.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"/v1/berlin/oven-3", "/a%2Fb/%41/../c?x=%20y+z&%26", "/%zz/%25/%2541/50%", "/ü/%C3%BC/%FF/\xff", "/a b/./..//", "/a%3Fb?c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := canonical(s)
		if err != nil {
			return
		}
		again, err := canonical(c)
		if err != nil || again != c {
			t.Errorf("canonical(%q) = %q, then %q, %v", s, c, again, err)
		}
		back, err := canonical(target(c))
		if err != nil || back != c {
			t.Errorf("%q is on the wire as %q, which means %q, %v", c, target(c), back, err)
		}
	})
}

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		"/v1/berlin/oven-3":   "/v1/berlin/oven-3",
		"/v1/%6Fven":          "/v1/oven",
		"/v1/a%2fb":           "/v1/a%2Fb",
		"/v1/a%20b":           "/v1/a b",
		"/v1/%C3%BCber":       "/v1/über",
		"/v1/%ff":             "/v1/%FF",
		"/v1/50%25":           "/v1/50%",
		"/v1/%2541":           "/v1/%2541",
		"/v1/a&b=c":           "/v1/a%26b%3Dc",
		"/v1/x/../berlin/./a": "/v1/berlin/a",
		"/v1/%2e%2e/a":        "/a",
		"/../../a":            "/a",
		"/v1//a":              "/v1//a",
		"/v1/a/..":            "/v1/",
		"/update?ID=a&t=2+1":  "/update?ID=a&t=2 1",
		"/update?ID=a%26b":    "/update?ID=a%26b",
	} {
		if got, err := canonical(in); err != nil || got != want {
			t.Errorf("canonical(%q): got %q, %v; want %q", in, got, err, want)
		}
	}
	if _, err := canonical("v1/a"); err == nil {
		t.Error("an address without a slash was accepted")
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = canonical("/v1/berlin/oven-3") }); n != 0 {
		t.Errorf("a plain path costs %v allocations, want 0", n)
	}
}

func BenchmarkParseRequest(b *testing.B) {
	in := []byte("GET /v1/berlin/oven-3?x=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: wrk/4.2\r\nAccept: */*\r\nX-Request-Id: 0123456789abcdef\r\n\r\n")
	var h head
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if err := parseRequest(in, &h); err != nil || h.size != len(in) {
			b.Fatal(err, h.size)
		}
	}
}

func BenchmarkParseResponse(b *testing.B) {
	in := []byte("HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 05:00:00 GMT\r\nContent-Type: application/octet-stream\r\nContent-Length: 1024\r\nLast-Modified: Mon, 23 Nov 2026 04:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"6922-400\"\r\nAccept-Ranges: bytes\r\n\r\n")
	var h head
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if err := parseResponse(in, &h, "GET"); err != nil || h.length != 1024 {
			b.Fatal(err, h.length)
		}
	}
}
