package integration

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// An eventStream is a client of Server-Sent Events.
type eventStream struct {
	resp *http.Response
	r    *bufio.Reader
}

func openEvents(t testing.TB, url, lastID string) *eventStream {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		t.Fatalf("events: got %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	return &eventStream{resp, bufio.NewReader(resp.Body)}
}

// next waits for an event that carries data.
func (e *eventStream) next(t testing.TB) (id, data string) {
	t.Helper()
	type event struct {
		id, data string
		err      error
	}
	got := make(chan event, 1)
	go func() {
		var ev event
		for {
			line, err := e.r.ReadString('\n')
			if err != nil {
				ev.err = err
				break
			}
			line = strings.TrimRight(line, "\r\n")
			if v, ok := strings.CutPrefix(line, "id:"); ok {
				ev.id = strings.TrimSpace(v)
			}
			if v, ok := strings.CutPrefix(line, "data:"); ok {
				ev.data += strings.TrimSpace(v)
			}
			if line == "" && ev.data != "" {
				break
			}
		}
		got <- ev
	}()
	ev := within1(t, "event", got)
	if ev.err != nil {
		t.Fatalf("event stream: %v", ev.err)
	}
	return ev.id, ev.data
}

// TestEventsResume: a client that comes back with the last id it has misses nothing, although the
// gateway was killed in between.
func TestEventsResume(t *testing.T) {
	g := newGateway(t, virtualWrappers, sensorMapping).start()
	url := g.httpURL() + "/v1/berlin/oven-3"
	put := func(n int) {
		t.Helper()
		if status, _, body := request(t, oneShot, "PUT", url, fmt.Sprintf(`{"value":%d}`, n)); status/100 != 2 {
			t.Fatalf("PUT %d: %d %s", n, status, body)
		}
	}
	put(1)
	e := openEvents(t, url, "")
	// What is there comes first, then each change.
	if _, data := e.next(t); data != `{"value":1}` {
		t.Errorf("first event: got %s, want the state", data)
	}
	put(2)
	id, data := e.next(t)
	if data != `{"value":2}` || id == "" {
		t.Fatalf("event: got id %q data %s", id, data)
	}
	e.resp.Body.Close()
	put(3)
	g.kill()
	g.start()
	put(4)
	e = openEvents(t, url, id)
	for want := 3; want <= 4; want++ {
		if _, data := e.next(t); data != fmt.Sprintf(`{"value":%d}`, want) {
			t.Errorf("after the last id: got %s, want value %d", data, want)
		}
	}
	request(t, oneShot, "DELETE", url, "")
	put(5)
	for {
		_, data := e.next(t)
		if data == `{"value":5}` {
			break
		}
	}
}

// TestSessionResume: a persistent MQTT session gets what was written while its client was away,
// by whichever protocol, although the gateway was killed in between.
func TestSessionResume(t *testing.T) {
	for _, v5 := range []bool{false, true} {
		t.Run(fmt.Sprintf("v5=%v", v5), func(t *testing.T) {
			g := newGateway(t, virtualWrappers, sensorMapping).start()
			o := mqttOptions{v5: v5, id: "sleeper", persist: true}
			c := dialMQTT(t, g.mqttAddr(), o)
			c.subscribe(t, "sensors/berlin/+", 1)
			put := func(n int) {
				t.Helper()
				if status, _, body := request(t, oneShot, "PUT", fmt.Sprintf("%s/v1/berlin/oven-%d", g.httpURL(), n), fmt.Sprintf(`{"value":%d}`, n)); status/100 != 2 {
					t.Fatalf("PUT %d: %d %s", n, status, body)
				}
			}
			put(0)
			if m := c.message(t); m.payload != `{"value":0}` {
				t.Fatalf("live: got %+v", m)
			}
			c.Close()
			put(1)
			g.kill()
			g.start()
			put(2)
			p := dialMQTT(t, g.mqttAddr(), mqttOptions{id: "publisher"})
			p.publish(t, "sensors/berlin/oven-3", `{"value":3}`, false)
			c, present, err := tryDialMQTT(g.mqttAddr(), o)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if !present {
				t.Error("the session is gone")
			}
			missed := map[string]int{}
			for len(missed) < 3 {
				m := c.message(t)
				// What was delivered but not seen to be acknowledged may come again (MQTT 5.0, section 4.4).
				if m.payload != `{"value":0}` {
					missed[m.payload]++
				}
			}
			for n := 1; n <= 3; n++ {
				if missed[fmt.Sprintf(`{"value":%d}`, n)] != 1 {
					t.Errorf("got %v, want each of three messages once", missed)
				}
			}
		})
	}
}
