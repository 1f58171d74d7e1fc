package mqttload

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

func TestFrames(t *testing.T) {
	var wire []byte
	wire = appendConnect(wire, "me")
	wire = appendSubscribe(wire, "a/b", 1)
	long := bytes.Repeat([]byte("x"), 300)
	wire = appendPublish(wire, "a/b", 1, 0x1234, long)
	wire = appendPuback(wire, 0x1234)

	fr := newFrameReader(bytes.NewReader(wire))
	for _, want := range []struct {
		first byte
		size  int
		id    uint16
	}{
		{connect, 14, 0},
		{subscribe, 8, 0},
		{publish | 2, 307, 0x1234},
		{puback, 2, 0x1234},
	} {
		f, err := fr.next()
		if err != nil {
			t.Fatal(err)
		}
		if f.first != want.first || len(f.body) != want.size {
			t.Errorf("got %x with %d bytes, want %x with %d", f.first, len(f.body), want.first, want.size)
		}
		if want.id != 0 {
			if id, err := f.id(); id != want.id || err != nil {
				t.Errorf("%x: got id %x, %v, want %x", f.first, id, err, want.id)
			}
		}
	}
	if _, err := fr.next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: got %v, want EOF", err)
	}
}

func TestFramesRefused(t *testing.T) {
	for name, wire := range map[string][]byte{
		"five length bytes": {publish, 0xff, 0xff, 0xff, 0xff, 1},
		"too long":          {publish, 0xff, 0xff, 0xff, 0x7f},
	} {
		if _, err := newFrameReader(bytes.NewReader(wire)).next(); !errors.Is(err, errFrame) {
			t.Errorf("%s: got %v, want errFrame", name, err)
		}
	}
	if _, err := (frame{publish | 2, []byte{0, 9, 'x'}}).id(); !errors.Is(err, errFrame) {
		t.Errorf("a topic beyond the frame: got %v, want errFrame", err)
	}
}

// A broker of one topic: acknowledges what it gets and passes it to every subscriber.
func broker(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	type message struct{ wire []byte }
	subscribers := make(chan chan message, 16)
	messages := make(chan message)
	go func() {
		var all []chan message
		for {
			select {
			case s := <-subscribers:
				all = append(all, s)
			case m := <-messages:
				for _, s := range all {
					s <- m
				}
			}
		}
	}()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				fr := newFrameReader(conn)
				for {
					f, err := fr.next()
					if err != nil {
						return
					}
					switch f.first & 0xf0 {
					case connect:
						conn.Write([]byte{connack, 2, 0, 0})
					case subscribe & 0xf0:
						conn.Write([]byte{suback, 3, 0, 1, 1})
						mine := make(chan message, 1024)
						subscribers <- mine
						go func() {
							for m := range mine {
								conn.Write(m.wire)
							}
						}()
					case publish:
						messages <- message{appendFrame(nil, f.first, f.body)}
						if id, err := f.id(); err == nil && f.first&6 != 0 {
							conn.Write(appendPuback(nil, id))
						}
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

func TestRun(t *testing.T) {
	for _, qos := range []byte{0, 1} {
		begun, ended := 0, 0
		f, err := Run(t.Context(), Job{
			Addr: broker(t), Publishers: 1, Subscribers: 3, QoS: qos, Window: 8,
			Topics:   func(int, int) string { return "a/b" },
			Filter:   func(int) string { return "a/b" },
			Payload:  func(int, int) []byte { return []byte("x") },
			Duration: 50 * time.Millisecond,
			Begin:    func() { begun++ },
			End:      func() { ended++ },
		})
		if err != nil {
			t.Fatal(err)
		}
		if begun != 1 || ended != 1 {
			t.Errorf("QoS %d: Begin %d and End %d times, want once each", qos, begun, ended)
		}
		// Whatever the pace, a message reaches each of the three, and at most a window is under way.
		if f.Published == 0 || f.Delivered < 3*(f.Published-16) || f.Delivered > 3*(f.Published+16) {
			t.Errorf("QoS %d: got %d deliveries of %d messages, want three each", qos, f.Delivered, f.Published)
		}
	}
}

func TestRunTellsOfAServerThatBreaksOff(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		newFrameReader(conn).next()
		conn.Write([]byte{connack, 2, 0, 0})
		newFrameReader(conn).next()
		conn.Close()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = Run(ctx, Job{
		Addr: listener.Addr().String(), Publishers: 1, QoS: 1, Window: 1,
		Topics:   func(int, int) string { return "a/b" },
		Payload:  func(int, int) []byte { return nil },
		Duration: 5 * time.Second,
	})
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the connection's end", err)
	}
}
