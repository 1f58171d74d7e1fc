package relay

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"testing"
)

// TestWindow: pieces of any size come as they were sent, over TCP and TLS, and nothing is held when all was taken.
func TestWindow(t *testing.T) {
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	defer cert.Close()
	for _, secure := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		if secure {
			client = tls.Client(client, &tls.Config{InsecureSkipVerify: true})
			server = tls.Server(server, &tls.Config{Certificates: cert.TLS.Certificates})
		}
		var all []byte
		sizes := []int{1, 5, 4096, 3, 100_000, 0, 70_000, 17}
		for i, n := range sizes {
			all = append(all, bytes.Repeat([]byte{byte(i + 1)}, n)...)
		}
		go func() {
			for rest := all; len(rest) > 0; {
				n := min(len(rest), 7001)
				if _, err := client.Write(rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
			_, _ = client.Write([]byte("end"))
			client.Close()
		}()
		v := NewWindow(server)
		for i, n := range sizes {
			b, err := v.Next(n)
			if err != nil || !bytes.Equal(b, bytes.Repeat([]byte{byte(i + 1)}, n)) {
				t.Fatalf("piece %d of %d bytes: %d bytes, %v", i, n, len(b), err)
			}
		}
		if _, err := v.Next(3); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Next(1); !errors.Is(err, io.EOF) {
			t.Errorf("at the end: %v", err)
		}
		if v.buf != nil {
			t.Errorf("a buffer of %d bytes is held with nothing in it", len(v.buf))
		}
	}
}
