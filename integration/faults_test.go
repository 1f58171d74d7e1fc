package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// moved fails unless one of the counters has risen since before.
func (g *spookgw) moved(before map[string]float64, why string) {
	g.t.Helper()
	now := g.events()
	for sample, v := range now {
		if v > before[sample] && isCounterOfTrouble(sample) {
			return
		}
	}
	g.t.Errorf("%s: no counter of /metrics tells of it", why)
}

// smallDisk gives a directory on a disk that fill leaves without room, and empty gives it back.
func smallDisk(t testing.TB) (dir string, minFree int64, fill, empty func()) {
	t.Helper()
	dir = t.TempDir()
	hog := filepath.Join(dir, "hog")
	if unmount, err := mountMemory(dir, "256m"); err == nil {
		// Runs after the gateway has ended: clean-ups go backwards.
		t.Cleanup(func() {
			if err := unmount(); err != nil {
				t.Error(err)
			}
		})
		minFree = 48 << 20
	} else {
		free, err := freeBytes(dir)
		if err != nil || free < 4<<30 {
			t.Skip("neither a file system in memory nor 4 GiB of room here")
		}
		minFree = free - 2<<30
	}
	fill = func() {
		free, err := freeBytes(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := reserve(hog, free-minFree/2); err != nil {
			t.Fatalf("filling the disk: %v", err)
		}
	}
	empty = func() {
		if err := os.Remove(hog); err != nil {
			t.Fatal(err)
		}
	}
	return dir, minFree, fill, empty
}

// TestFullDisk: without room writes are refused in each protocol's words, reads go on, and it
// recovers by itself.
func TestFullDisk(t *testing.T) {
	dir, minFree, fill, empty := smallDisk(t)
	g := newGateway(t, fmt.Sprintf("min_free = %d\n", minFree)+virtualWrappers, sensorMapping)
	g.data = dir
	g.configure(g.wrappers)
	g.start()
	c := keepAlive(t)
	url := g.httpURL() + "/v1/berlin/oven"
	v5 := dialMQTT(t, g.mqttAddr(), mqttOptions{v5: true, id: "five"})
	sub := watchTopic(t, g.mqttAddr(), "sensors/#")

	request(t, c, "PUT", url, `{"value":1}`)
	if code := v5.publish(t, "sensors/berlin/five", `{"value":1}`, false); code != 0 {
		t.Fatalf("publish with room: reason code %#x", code)
	}
	before := g.events()
	fill()
	eventually(t, "a PUT is refused", func() bool {
		status, h, body := request(t, c, "PUT", url, `{"value":2}`)
		switch status {
		case http.StatusNoContent, http.StatusOK, http.StatusCreated:
			return false
		case http.StatusServiceUnavailable:
			if h.Get("Content-Type") != "application/problem+json" {
				t.Errorf("503: got Content-Type %q and %s, want a problem", h.Get("Content-Type"), body)
			}
			return true
		default:
			t.Fatalf("PUT on a full disk: got %d %s, want 503", status, body)
			return true
		}
	})
	entries := len(g.history("site/berlin/oven"))
	if code := v5.publish(t, "sensors/berlin/five", `{"value":2}`, false); code < 0x80 {
		t.Errorf("MQTT 5 publish on a full disk: got reason code %#x, want a refusal", code)
	}
	v3 := dialMQTT(t, g.mqttAddr(), mqttOptions{id: "three"})
	v3.Write(v3.publishFrame("sensors/berlin/three", []byte(`{"value":2}`), 1, false, 7, false))
	v3.SetReadDeadline(time.Now().Add(patience))
	if f, err := v3.next(); err == nil {
		t.Errorf("MQTT 3.1.1 publish on a full disk: got % x, want the connection closed", f)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("MQTT 3.1.1 publish on a full disk: neither acknowledged nor closed")
	}
	if status, _, body := request(t, c, "GET", url, ""); status != http.StatusOK {
		t.Errorf("GET on a full disk: got %d %s", status, body)
	}
	if got := g.read("site/berlin/oven"); got == "" {
		t.Error("the daemon does not answer on a full disk")
	}
	if _, errs, code := g.try("set", "site/berlin/cli", `{"value":1}`); code == 0 {
		t.Errorf("spookgw set on a full disk: got exit 0, want an error; it said %s", errs)
	}
	g.moved(before, "a full disk")

	empty()
	eventually(t, "writes are taken again", func() bool {
		status, _, _ := request(t, c, "PUT", url, `{"value":3}`)
		return status/100 == 2
	})
	if code := v5.publish(t, "sensors/berlin/five", `{"value":3}`, false); code != 0 {
		t.Errorf("publish with room again: reason code %#x", code)
	}
	sub.until(t, "the message after recovery", func(m message) bool { return m.topic == "sensors/berlin/five" && m.payload == `{"value":3}` })
	for _, m := range sub.all {
		if m.topic == "sensors/berlin/five" && m.payload == `{"value":2}` {
			t.Error("a subscriber got a message that was refused")
		}
	}
	if got := len(g.history("site/berlin/oven")); got != entries+1 {
		t.Errorf("history: got %d entries, want %d: what was refused must not be there", got, entries+1)
	}
	g.wantHistory("site/berlin/three", 0)
}

// TestUpstreamDown: a client whose server is away is told so; the rest goes on.
func TestUpstreamDown(t *testing.T) {
	p := newPlant(t, false)
	p.start()
	before := p.events()
	p.broker.stop(t)
	if status, _, body := request(t, p.client, "PUT", p.httpURL()+"/v1/berlin/oven", `{"value":1}`); status/100 != 2 {
		t.Errorf("PUT while the broker is down: got %d %s", status, body)
	}
	c, _, err := tryDialMQTT(p.mqttAddr(), mqttOptions{id: "early"})
	if err == nil {
		c.Close()
		t.Error("an MQTT client was accepted while its broker is down")
	}
	p.moved(before, "a broker that is down")
	p.http.down()
	status, _, body := request(t, p.client, "GET", p.httpURL()+"/v1/berlin/oven", "")
	if status != http.StatusBadGateway {
		t.Errorf("GET while the server is down: got %d %s, want 502", status, body)
	}
	if got := p.read("site/berlin/oven"); got != `{"value":1}` {
		t.Errorf("register: got %s", got)
	}
	p.brokerUp(t)
	p.http.up(t)
	late := watchTopic(t, p.mqttAddr(), "sensors/berlin/oven")
	late.until(t, "what was written while the broker was down", func(m message) bool { return m.payload == `{"value":1}` })
	if status, _, _ := request(t, p.client, "GET", p.httpURL()+"/v1/berlin/oven", ""); status != http.StatusOK {
		t.Errorf("GET after the server is back: got %d", status)
	}
}

// TestBackendLoss: a server that dies between request and answer gives its client an error, and
// the write is not done twice.
func TestBackendLoss(t *testing.T) {
	for _, method := range []string{"PUT", "POST"} {
		t.Run(method, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			asked := make(chan string, 16)
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					buf := make([]byte, 4096)
					n, _ := conn.Read(buf)
					asked <- string(buf[:n])
					conn.Close()
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
			status, _, body, err := tryRequest(t.Context(), keepAlive(t), method, g.httpURL()+"/v1/berlin/oven", `{"value":1}`)
			if err == nil && status != http.StatusBadGateway {
				t.Errorf("got %d %s, want 502 or a closed connection", status, body)
			}
			within1(t, "request at the server", asked)
			writes := 1
			for more := true; more; {
				select {
				case r := <-asked:
					if bytes.HasPrefix([]byte(r), []byte(method)) {
						writes++
					}
				default:
					more = false
				}
			}
			if writes != 1 {
				t.Errorf("the server was asked %d times to %s, want once", writes, method)
			}
			g.wantHistory("site/berlin/oven", 0)
		})
	}
}

// standing is each way a wrapper can stand, for tests that treat all alike.
func standing(t *testing.T, f func(t *testing.T, g *spookgw)) {
	t.Run("virtual", func(t *testing.T) {
		g := newGateway(t, virtualWrappers, sensorMapping)
		f(t, g)
	})
	t.Run("relay", func(t *testing.T) {
		f(t, newPlant(t, false).spookgw)
	})
}

// TestGarbage: a peer that sends garbage loses its connection; nobody else notices.
func TestGarbage(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	standing(t, func(t *testing.T, g *spookgw) {
		g.start()
		dice := rand.New(rand.NewPCG(seed, 0))
		noise := func(n int) []byte {
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(dice.Uint32())
			}
			return b
		}
		hello := frame(mConnect, text("MQTT"), []byte{4, 2}, u16(0), text("garbage"))
		hello5 := frame(mConnect, text("MQTT"), []byte{5, 2}, u16(0), props(), text("garbage5"))
		inputs := map[string][]byte{
			"zeroes":              make([]byte, 4096),
			"a lie about lengths": {mPublish, 0xff, 0xff, 0xff, 0xff, 0xff},
			"CONNECT cut short":   hello[:5],
			"two CONNECTs":        append(bytes.Clone(hello), hello...),
			"publish first":       frame(mPublish, text("sensors/a/b"), []byte(`{"value":1}`)),
			"noise after CONNECT": append(bytes.Clone(hello), noise(4096)...),
			"noise after 5":       append(bytes.Clone(hello5), noise(4096)...),
			"bad properties":      append(bytes.Clone(hello5), frame(mPublish|2, text("sensors/a/b"), u16(1), []byte{0xff, 0xff, 0x7f}, []byte("x"))...),
			"a topic with NUL":    append(bytes.Clone(hello5), frame(mPublish|2, text("sensors/a\x00/b"), u16(1), props(), []byte("x"))...),
			"wildcard in a topic": append(bytes.Clone(hello5), frame(mPublish|2, text("sensors/+/b"), u16(1), props(), []byte("x"))...),
			"QoS 3":               append(bytes.Clone(hello5), frame(mPublish|6, text("sensors/a/b"), u16(1), props(), []byte("x"))...),
			"not HTTP":            []byte("EHLO example.org\r\n\r\n"),
			"header without end":  []byte("GET /v1/a/b HTTP/1.1\r\nHost: x\r\nX: " + string(bytes.Repeat([]byte("y"), 2<<20))),
			"smuggling":           []byte("PUT /v1/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/a/c HTTP/1.1\r\nHost: x\r\n\r\n"),
			"two lengths":         []byte("PUT /v1/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
			"negative length":     []byte("PUT /v1/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"),
			"bad chunk":           []byte("PUT /v1/a/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc"),
			"HTTP 2 without TLS":  []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + string(noise(64))),
			"bare line feeds":     []byte("GET /v1/a/b HTTP/1.1\nHost: x\n\n"),
		}
		for i := range 20 {
			inputs[fmt.Sprintf("noise %d", i)] = noise(1 + dice.IntN(20000))
		}
		by := startBystanders(t, g)
		before := g.events()
		var wg sync.WaitGroup
		for name, b := range inputs {
			for proto, addr := range map[string]string{"mqtt": g.mqttAddr(), "http": loopback(g.http)} {
				wg.Go(func() {
					c, err := net.Dial("tcp", addr)
					if err != nil {
						t.Errorf("%s on %s: %v", name, proto, err)
						return
					}
					defer c.Close()
					c.SetDeadline(time.Now().Add(2 * patience))
					c.Write(b)
					c.(*net.TCPConn).CloseWrite()
					if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("%s on %s: the gateway did not close the connection", name, proto)
					}
				})
			}
		}
		wg.Wait()
		g.moved(before, "garbage")
		by.end()
		g.wantHistory("site/a/c", 0)
	})
}

// watchMemory samples a process' memory until the returned function is called, which gives the
// most it grew.
func watchMemory(t testing.TB, p *process) (stop func() int64) {
	t.Helper()
	start := p.rss(t)
	most := start
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-p.done:
				return
			case <-tick.C:
				most = max(most, p.rss(t))
			}
		}
	}()
	return func() int64 {
		close(quit)
		<-done
		return most - start
	}
}

func wantBounded(t testing.TB, what string, grown int64) {
	t.Helper()
	t.Logf("%s: memory grew by %.1f MiB", what, float64(grown)/(1<<20))
	if grown > 64<<20 {
		t.Errorf("%s: memory grew by %d MiB, want less than 64", what, grown>>20)
	}
}

// TestOversized: who announces 250 MB is refused before they are kept.
func TestOversized(t *testing.T) {
	const huge = 250_000_000
	standing(t, func(t *testing.T, g *spookgw) {
		g.program = plainProgram(t)
		g.start()
		by := startBystanders(t, g)
		by.goOn(200)
		before := g.events()
		grown := watchMemory(t, g.process)
		block := bytes.Repeat([]byte("x"), 1<<20)

		// pour writes until the other side has had enough, then reads what it has to say.
		pour := func(c net.Conn) string {
			c.SetDeadline(time.Now().Add(2 * patience))
			for sent := 0; sent < huge; sent += len(block) {
				if _, err := c.Write(block); err != nil {
					break
				}
			}
			var said bytes.Buffer
			if _, err := io.Copy(&said, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the gateway neither refused nor closed")
			}
			return said.String()
		}
		for _, v5 := range []bool{false, true} {
			c := dialMQTT(t, g.mqttAddr(), mqttOptions{v5: v5, id: fmt.Sprintf("huge-%v", v5)})
			c.Write(binary.AppendUvarint([]byte{mPublish | 2}, huge))
			c.Write(text("sensors/berlin/huge"))
			c.Write(u16(1))
			if v5 {
				c.Write(props())
			}
			said := pour(c.Conn)
			t.Logf("MQTT v5=%v: it said % x", v5, said)
			c.Close()
		}
		for _, head := range []string{
			fmt.Sprintf("PUT /v1/berlin/huge HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", huge),
			fmt.Sprintf("PUT /v1/berlin/huge HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", huge),
			fmt.Sprintf("PUT /v1/berlin/huge HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", huge),
		} {
			c, err := net.Dial("tcp", loopback(g.http))
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, head)
			c.SetDeadline(time.Now().Add(patience))
			// Its answer comes before the body, or while the body is on its way.
			answer := make(chan string, 1)
			go func() {
				b := make([]byte, 12)
				n, _ := io.ReadFull(c, b)
				answer <- string(b[:n])
				drainAll(c)
			}()
			for sent := 0; sent < huge && len(answer) == 0; sent += len(block) {
				if _, err := c.Write(block); err != nil {
					break
				}
			}
			if got := <-answer; got != "HTTP/1.1 413" {
				t.Errorf("%.60q…: got %q, want a 413", head, got)
			}
			c.Close()
		}
		by.goOn(20)
		wantBounded(t, "250 MB announced", grown())
		g.moved(before, "250 MB announced")
		by.end()
		g.wantHistory("site/berlin/huge", 0)
	})
}

// TestStoppedReader: peers that stop reading cost a bounded amount of memory, and nobody waits for them.
func TestStoppedReader(t *testing.T) {
	g := newGateway(t, virtualWrappers, sensorMapping)
	g.program = plainProgram(t)
	g.start()
	by := startBystanders(t, g)
	unit := string(bytes.Repeat([]byte("u"), 50_000))
	pub := dialMQTT(t, g.mqttAddr(), mqttOptions{v5: true, id: "publisher"})
	put := func(n int) {
		if code := pub.publish(t, fmt.Sprintf("sensors/big/%d", n%5), fmt.Sprintf(`{"value":%d,"unit":"%s"}`, n, unit), false); code != 0 {
			t.Fatalf("publish %d: reason code %#x", n, code)
		}
	}
	// Storage has its own buffers: let them fill before memory is measured.
	for n := range 1500 {
		put(n)
	}

	for _, qos := range []byte{0, 1} {
		c := dialMQTT(t, g.mqttAddr(), mqttOptions{v5: true, id: fmt.Sprintf("stopped-%d", qos)})
		c.subscribe(t, "sensors/big/+", qos)
	}
	for range 2 {
		c, err := net.Dial("tcp", loopback(g.http))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "GET /v1/big/0 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
		c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(c, make([]byte, 12)); err != nil {
			t.Fatalf("event stream: %v", err)
		}
	}
	reader := watchTopic(t, g.mqttAddr(), "sensors/big/+")
	before := g.events()
	grown := watchMemory(t, g.process)
	const more = 1500 // 75 MB for each of the four
	for n := range more {
		put(1500 + n)
	}
	last := fmt.Sprintf(`{"value":%d,`, 1500+more-1)
	reader.until(t, "the last message", func(m message) bool { return bytes.HasPrefix([]byte(m.payload), []byte(last)) })
	by.goOn(20)
	wantBounded(t, "four stopped readers", grown())
	g.moved(before, "stopped readers")
	by.end()
}

// TestStoppedReaderBehindRelay: a relay does not read faster than its client does.
func TestStoppedReaderBehindRelay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/endless" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		served.Add(1)
		defer served.Done()
		block := make([]byte, 1<<20)
		for range 1 << 10 {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})}
	go srv.Serve(l)
	defer srv.Close()
	g := newGateway(t, fmt.Sprintf(`
wrapper "http" "erp" {
  listen   = "127.0.0.1:$http"
  upstream = "http://%s"
}
`, l.Addr()), `
register "site/{site}/{sensor}" {
  bind "http" "/v1/{site}/{sensor}" {}
}
`)
	g.program = plainProgram(t)
	g.start()
	c := keepAlive(t)
	request(t, c, "PUT", g.httpURL()+"/v1/berlin/oven", `{"value":1}`)
	grown := watchMemory(t, g.process)
	var stuck []net.Conn
	for range 8 {
		conn, err := net.Dial("tcp", loopback(g.http))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
		conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(conn, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		stuck = append(stuck, conn)
	}
	for n := range 500 {
		if status, _, body := request(t, c, "PUT", g.httpURL()+"/v1/berlin/oven", fmt.Sprintf(`{"value":%d}`, n)); status != http.StatusNoContent {
			t.Fatalf("PUT beside stopped readers: got %d %s", status, body)
		}
	}
	wantBounded(t, "eight stopped readers of 1 GiB", grown())
	for _, conn := range stuck {
		conn.Close()
	}
	ended := make(chan struct{})
	go func() { served.Wait(); close(ended) }()
	if !arrives(ended) {
		t.Error("the server's side of a connection outlives its client")
	}
}

// TestNoMoreFiles: without file descriptors for new peers, old ones go on, storage too, and new
// ones are served when there is room again.
func TestNoMoreFiles(t *testing.T) {
	g := newGateway(t, virtualWrappers, sensorMapping)
	g.limit = 150
	g.start()
	by := startBystanders(t, g)
	old := keepAlive(t)
	request(t, old, "PUT", g.httpURL()+"/v1/berlin/big", `{"value":0}`)
	before := g.events()
	// Peers that say nothing, then such as have every right to be there.
	var flood []net.Conn
	for i := range 600 {
		addr := g.mqttAddr()
		if i%2 == 0 {
			addr = loopback(g.http)
		}
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			flood = append(flood, c)
		}
	}
	hello := func(i int) []byte {
		return frame(mConnect, text("MQTT"), []byte{4, 2}, u16(0), text(fmt.Sprintf("flood-%d", i)))
	}
	for i := range 600 {
		c, err := net.DialTimeout("tcp", g.mqttAddr(), time.Second)
		if err != nil {
			continue // the backlog is full as well
		}
		c.Write(hello(i))
		flood = append(flood, c)
		h, err := net.DialTimeout("tcp", loopback(g.http), time.Second)
		if err != nil {
			continue
		}
		io.WriteString(h, "GET /v1/by/http HTTP/1.1\r\nHost: x\r\n\r\n")
		flood = append(flood, h)
	}
	t.Logf("%d connections opened, the gateway has %d files open", len(flood), g.openFiles(t))
	// Storage needs files of its own while none are to be had: make it turn its logs over.
	unit := string(bytes.Repeat([]byte("u"), 50_000))
	for n := range 1500 {
		if status, _, body := request(t, old, "PUT", g.httpURL()+"/v1/berlin/big", fmt.Sprintf(`{"value":%d,"unit":"%s"}`, n, unit)); status/100 != 2 {
			t.Fatalf("PUT without file descriptors: got %d %s", status, body)
		}
	}
	by.goOn(50)
	for _, c := range flood {
		c.Close()
	}
	again := took(func() {
		eventually(t, "a new client is served", func() bool {
			c, _, err := tryDialMQTT(g.mqttAddr(), mqttOptions{id: "after"})
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		eventually(t, "a new client is served", func() bool {
			status, _, _, err := tryRequest(t.Context(), oneShot, "GET", g.httpURL()+"/v1/by/http", "")
			return err == nil && status == http.StatusOK
		})
	})
	if again > 5*time.Second {
		t.Errorf("new clients were served %v after the flood, want at most 5s", again)
	}
	g.moved(before, "no file descriptors")
	by.end()
}
