package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const sensorMapping = `
register "site/{site}/{sensor}" {
  fields = { value = number, unit = string }
  bind "mqtt" "sensors/{site}/{sensor}" {}
  bind "http" "/v1/{site}/{sensor}" {}
}
`

// A plant is a gateway as a relay in front of a real broker and a real HTTP server.
type plant struct {
	*spookgw
	broker     *process
	brokerDir  string
	brokerPort int
	http       *backend
	client     *http.Client
}

func newPlant(t testing.TB, etag bool) *plant {
	t.Helper()
	p := &plant{brokerDir: t.TempDir(), brokerPort: freePort(t), client: keepAlive(t)}
	p.brokerUp(t)
	p.http = startBackend(t, freePort(t), etag)
	p.spookgw = newGateway(t, fmt.Sprintf(`
wrapper "mqtt" "floor" {
  listen   = "127.0.0.1:$mqtt"
  upstream = "tcp://127.0.0.1:%d"
}
wrapper "http" "erp" {
  listen   = "127.0.0.1:$http"
  upstream = "http://%s"
}
`, p.brokerPort, p.http.addr), sensorMapping)
	return p
}

func (p *plant) brokerUp(t testing.TB) { p.broker = startMosquitto(t, p.brokerDir, p.brokerPort) }

func (p *plant) brokerAddr() string { return loopback(p.brokerPort) }

func (p *plant) pub(args ...string) []string {
	return append([]string{"-h", "127.0.0.1", "-q", "1"}, args...)
}

// settled waits until every wrapper has written back what there was to write.
func (p *plant) settled(t testing.TB) {
	t.Helper()
	eventually(t, "nothing waits to be written back", func() bool {
		lag, _ := p.status()["lag"].([]any)
		for _, l := range lag {
			m := l.(map[string]any)
			if m["behind"] != float64(0) || m["waiting"] != float64(0) {
				return false
			}
		}
		return true
	})
}

// quiet passes a write through each side, and back to the other, after which everything that an
// earlier write had set off has happened too: links work in commit order.
func (p *plant) quiet(t testing.TB, box *inbox) {
	t.Helper()
	for round := range 2 {
		a := fmt.Sprintf("%s-%d-%d", "fence", round, time.Now().UnixNano())
		request(t, p.client, "PUT", p.httpURL()+"/v1/fence/"+a, `{"value":1}`)
		box.until(t, "the fence at the broker", func(m message) bool { return m.topic == "sensors/fence/"+a })
		c := dialMQTT(t, p.mqttAddr(), mqttOptions{id: a})
		c.publish(t, "sensors/fence/"+a+"m", `{"value":2}`, true)
		c.Close()
		p.http.becomes(t, "/v1/fence/"+a+"m", `{"value":2}`)
	}
	p.settled(t)
}

// TestRelayOneWriteEachSide: a write on any side is one history entry and one write on each other side.
func TestRelayOneWriteEachSide(t *testing.T) {
	mosquittoPub := peer(t, "mosquitto_pub", "mosquitto")
	curl := peer(t, "curl", "curl")
	for _, etag := range []bool{false, true} {
		t.Run(fmt.Sprintf("etag=%v", etag), func(t *testing.T) {
			p := newPlant(t, etag)
			p.start()
			box := watchTopic(t, p.brokerAddr(), "sensors/#")

			ways := []struct {
				name, oven, value string
				write             func(oven, body string)
			}{
				{"mqtt 3.1.1 through the gateway", "oven-1", "21.5", func(oven, body string) {
					must(t, mosquittoPub, p.pub("-p", fmt.Sprint(p.mqtt), "-r", "-t", "sensors/berlin/"+oven, "-m", body)...)
				}},
				{"mqtt 5 through the gateway", "oven-2", "22", func(oven, body string) {
					must(t, mosquittoPub, p.pub("-V", "5", "-p", fmt.Sprint(p.mqtt), "-r", "-t", "sensors/berlin/"+oven, "-m", body,
						"-D", "publish", "user-property", "shift", "night")...)
				}},
				{"mqtt not retained", "oven-3", "22.25", func(oven, body string) {
					must(t, mosquittoPub, p.pub("-p", fmt.Sprint(p.mqtt), "-t", "sensors/berlin/"+oven, "-m", body)...)
				}},
				{"mqtt qos 2", "oven-4", "22.5", func(oven, body string) {
					must(t, mosquittoPub, "-h", "127.0.0.1", "-q", "2", "-p", fmt.Sprint(p.mqtt), "-r", "-t", "sensors/berlin/"+oven, "-m", body)
				}},
				{"straight to the broker", "oven-5", "23", func(oven, body string) {
					must(t, mosquittoPub, p.pub("-p", fmt.Sprint(p.brokerPort), "-r", "-t", "sensors/berlin/"+oven, "-m", body)...)
				}},
				{"http through the gateway", "oven-6", "24", func(oven, body string) {
					must(t, curl, "-sf", "-X", "PUT", p.httpURL()+"/v1/berlin/"+oven, "-H", "Content-Type: application/json", "-d", body)
				}},
			}
			for _, w := range ways {
				register, body := "site/berlin/"+w.oven, `{"value":`+w.value+`}`
				w.write(w.oven, body)
				p.becomes(register, body)
				p.http.becomes(t, "/v1/berlin/"+w.oven, body)
				box.until(t, w.name, func(m message) bool { return m.topic == "sensors/berlin/"+w.oven && m.payload == body })
			}
			p.quiet(t, box)
			for _, w := range ways {
				p.wantHistory("site/berlin/"+w.oven, 1)
				if got := p.http.wrote("/v1/berlin/" + w.oven); len(got) != 1 {
					t.Errorf("%s: writes at the HTTP server: got %v, want one", w.name, got)
				}
				if got := box.payloads("sensors/berlin/" + w.oven); len(got) != 1 {
					t.Errorf("%s: messages at the broker: got %v, want one", w.name, got)
				}
			}
			// Each entry says who did it.
			for oven, want := range map[string]string{"oven-1": "mqtt", "oven-5": "mqtt", "oven-6": "http"} {
				for _, d := range p.history("site/berlin/" + oven) {
					if d.Cause.Protocol != want || !strings.Contains(d.Cause.Source, "plant.hcl:") {
						t.Errorf("%s: cause %+v, want protocol %s and a line of plant.hcl", oven, d.Cause, want)
					}
				}
			}
		})
	}
}

// TestRelayNginx: the same with nginx's WebDAV as the server.
func TestRelayNginx(t *testing.T) {
	mosquittoPub := peer(t, "mosquitto_pub", "mosquitto")
	curl := peer(t, "curl", "curl")
	dir, port := t.TempDir(), freePort(t)
	startNginx(t, dir, port)
	brokerPort := freePort(t)
	startMosquitto(t, t.TempDir(), brokerPort)
	g := newGateway(t, fmt.Sprintf(`
wrapper "mqtt" "floor" {
  listen   = "127.0.0.1:$mqtt"
  upstream = "tcp://127.0.0.1:%d"
}
wrapper "http" "dav" {
  listen   = "127.0.0.1:$http"
  upstream = "http://127.0.0.1:%d"
}
`, brokerPort, port), sensorMapping).start()
	box := watchTopic(t, loopback(brokerPort), "sensors/#")

	must(t, mosquittoPub, "-h", "127.0.0.1", "-p", fmt.Sprint(g.mqtt), "-q", "1", "-r", "-t", "sensors/berlin/oven-3", "-m", `{"value":21.5}`)
	g.becomes("site/berlin/oven-3", `{"value":21.5}`)
	file := filepath.Join(dir, "docs", "v1", "berlin", "oven-3")
	eventually(t, "nginx has the document", func() bool {
		b, err := os.ReadFile(file)
		return err == nil && string(b) == `{"value":21.5}`
	})
	if got := must(t, curl, "-sf", g.httpURL()+"/v1/berlin/oven-3"); got != `{"value":21.5}` {
		t.Errorf("curl through the gateway: got %s", got)
	}

	must(t, curl, "-sf", "-X", "PUT", g.httpURL()+"/v1/berlin/oven-3", "-d", `{"value":22}`)
	box.until(t, "the PUT at the broker", func(m message) bool { return m.payload == `{"value":22}` })
	g.becomes("site/berlin/oven-3", `{"value":22}`)

	must(t, curl, "-sf", "-X", "DELETE", g.httpURL()+"/v1/berlin/oven-3")
	box.until(t, "the retained message cleared", func(m message) bool { return m.topic == "sensors/berlin/oven-3" && m.payload == "" })
	g.wantHistory("site/berlin/oven-3", 3)
	log, err := os.ReadFile(filepath.Join(dir, "access.log"))
	if err != nil {
		t.Fatal(err)
	}
	puts, deletes := strings.Count(string(log), `"PUT /v1/berlin/oven-3 `), strings.Count(string(log), `"DELETE /v1/berlin/oven-3 `)
	if puts != 2 || deletes != 1 {
		t.Errorf("nginx saw %d PUTs and %d DELETEs, want 2 and 1:\n%s", puts, deletes, log)
	}
}

// openSensors maps whatever fields a sensor has.
const openSensors = `
bind "mqtt" "sensors/{site}/{sensor}" {
  register = "site/{site}/{sensor}"
}
bind "http" "/v1/{site}/{sensor}" {
  register = "site/{site}/{sensor}"
}
`

// TestRelayClearsAField: a field that a PUT leaves out is told to the broker once, and the other way
// round a document that lost one is written once.
func TestRelayClearsAField(t *testing.T) {
	mosquittoPub := peer(t, "mosquitto_pub", "mosquitto")
	curl := peer(t, "curl", "curl")
	for _, retain := range []bool{true, false} {
		t.Run(fmt.Sprintf("retain=%v", retain), func(t *testing.T) {
			p := newPlant(t, true)
			p.mapping(openSensors)
			p.start()
			box := watchTopic(t, p.brokerAddr(), "sensors/#")
			say := func(body string) {
				args := p.pub("-p", fmt.Sprint(p.mqtt), "-t", "sensors/berlin/oven-3", "-m", body)
				if retain {
					args = append(args, "-r")
				}
				must(t, mosquittoPub, args...)
			}
			say(`{"value":1,"at":"x"}`)
			p.http.becomes(t, "/v1/berlin/oven-3", `{"at":"x","value":1}`)
			must(t, curl, "-sf", "-X", "PUT", p.httpURL()+"/v1/berlin/oven-3", "-d", `{"value":2}`)
			box.until(t, "the PUT at the broker", func(m message) bool { return m.payload == `{"value":2}` })
			p.becomes("site/berlin/oven-3", `{"value":2}`)
			say(`{"value":3,"unit":"C"}`)
			p.http.becomes(t, "/v1/berlin/oven-3", `{"unit":"C","value":3}`)
			say(`{"unit":null}`)
			p.http.becomes(t, "/v1/berlin/oven-3", `{"value":3}`)
			p.quiet(t, box)
			want := []string{`{"value":1,"at":"x"}`, `{"value":2}`, `{"value":3,"unit":"C"}`, `{"unit":null}`}
			if retain { // the broker keeps the last: it is told the whole again
				want = append(want, `{"value":3}`)
				p.wantOneState(t, "berlin/oven-3")
			}
			if got := box.payloads("sensors/berlin/oven-3"); !slices.Equal(got, want) {
				t.Errorf("%d messages at the broker: got %.300q, want %q", len(got), got, want)
			}
			if got := p.http.wrote("/v1/berlin/oven-3"); len(got) != 4 {
				t.Errorf("writes at the HTTP server: got %v, want 4", got)
			}
		})
	}
}

// TestRelayKeepsTheWhole: a retained message with some of the fields leaves the broker with all of them, with one entry in
// the history, whoever published it and however often.
func TestRelayKeepsTheWhole(t *testing.T) {
	mosquittoPub := peer(t, "mosquitto_pub", "mosquitto")
	curl := peer(t, "curl", "curl")
	p := newPlant(t, true)
	p.mapping(openSensors)
	p.start()
	must(t, curl, "-sf", "-X", "PUT", p.httpURL()+"/v1/berlin/oven-3", "-d", `{"shelf":"s1","stock":15}`)
	p.wantOneState(t, "berlin/oven-3")
	entries := 1
	for i, args := range [][]string{p.pub("-p", fmt.Sprint(p.mqtt)), p.pub("-p", fmt.Sprint(p.brokerPort))} {
		for range 2 { // the second is no news, and the broker is left with a part all the same
			box := watchTopic(t, p.brokerAddr(), "sensors/#")
			must(t, mosquittoPub, append(args, "-t", "sensors/berlin/oven-3", "-r", "-m", fmt.Sprintf(`{"stock":%d}`, 16+i))...)
			whole := fmt.Sprintf(`{"shelf":"s1","stock":%d}`, 16+i)
			part := false
			box.until(t, "the whole register at the broker", func(m message) bool {
				part = part || m.payload == fmt.Sprintf(`{"stock":%d}`, 16+i)
				return part && m.payload == whole
			})
			p.wantOneState(t, "berlin/oven-3")
			p.quiet(t, box)
		}
		entries++
		if got := p.read("site/berlin/oven-3"); got != fmt.Sprintf(`{"shelf":"s1","stock":%d}`, 16+i) {
			t.Errorf("the register has %s", got)
		}
	}
	p.wantHistory("site/berlin/oven-3", entries+1) // a peer's write on the wire of what was there already is one of its own
}

// TestRelayDelete: a cleared retained message deletes at the HTTP server, and the other way round.
func TestRelayDelete(t *testing.T) {
	p := newPlant(t, true)
	p.start()
	box := watchTopic(t, p.brokerAddr(), "sensors/#")
	c := dialMQTT(t, p.mqttAddr(), mqttOptions{id: "deleter"})

	c.publish(t, "sensors/berlin/a", `{"value":1}`, true)
	p.http.becomes(t, "/v1/berlin/a", `{"value":1}`)
	c.publish(t, "sensors/berlin/a", "", true)
	p.http.becomes(t, "/v1/berlin/a", "")
	p.becomes("site/berlin/a", "")
	if got := p.http.wrote("/v1/berlin/a"); len(got) != 2 || got[1].method != "DELETE" {
		t.Errorf("retained clear: writes at the HTTP server: got %v, want a PUT and a DELETE", got)
	}

	request(t, p.client, "PUT", p.httpURL()+"/v1/berlin/b", `{"value":2}`)
	box.until(t, "b at the broker", func(m message) bool { return m.topic == "sensors/berlin/b" && m.payload == `{"value":2}` })
	if status, _, _ := request(t, p.client, "DELETE", p.httpURL()+"/v1/berlin/b", ""); status != http.StatusNoContent {
		t.Errorf("DELETE: got %d, want 204", status)
	}
	box.until(t, "b cleared at the broker", func(m message) bool { return m.topic == "sensors/berlin/b" && m.payload == "" })
	p.becomes("site/berlin/b", "")
	p.quiet(t, box)
	// The broker holds nothing back for who comes late.
	late := watchTopic(t, p.brokerAddr(), "sensors/berlin/#")
	must(t, peer(t, "mosquitto_pub", "mosquitto"), p.pub("-p", fmt.Sprint(p.brokerPort), "-t", "sensors/berlin/last", "-m", `{"value":9}`)...)
	late.until(t, "the last message", func(m message) bool { return m.topic == "sensors/berlin/last" })
	if len(late.all) != 1 {
		t.Errorf("late subscriber: got %v, want only the last message", late.all)
	}
	p.wantHistory("site/berlin/a", 2)
	p.wantHistory("site/berlin/b", 2)
}

// TestRelayRefusedWrite: what the server refuses never becomes state.
func TestRelayRefusedWrite(t *testing.T) {
	p := newPlant(t, true)
	p.start()
	box := watchTopic(t, p.brokerAddr(), "sensors/#")
	request(t, p.client, "PUT", p.httpURL()+"/v1/berlin/oven", `{"value":1}`)
	status, _, _ := request(t, p.client, "PUT", p.httpURL()+"/v1/berlin/oven", `{"value":2}`, "If-Match", `"never"`)
	if status != http.StatusPreconditionFailed {
		t.Errorf("got %d, want the server's own 412", status)
	}
	p.quiet(t, box)
	p.wantHistory("site/berlin/oven", 1)
	if got := p.read("site/berlin/oven"); got != `{"value":1}` {
		t.Errorf("register: got %s, want the value that was accepted", got)
	}
}

// TestRelayTwoPutsAtOnce: whatever order the server takes two writes in, the register ends as the
// server does.
func TestRelayTwoPutsAtOnce(t *testing.T) {
	p := newPlant(t, false)
	p.start()
	rounds := 1000
	if testing.Short() {
		rounds = 100
	}
	clients := []*http.Client{keepAlive(t), keepAlive(t)}
	url := p.httpURL() + "/v1/berlin/oven-3"
	s := p.state()
	for round := range rounds {
		var wg sync.WaitGroup
		for who, c := range clients {
			wg.Go(func() {
				body := fmt.Sprintf(`{"value":%d}`, 2*round+who)
				status, _, _, err := tryRequest(t.Context(), c, "PUT", url, body)
				if err != nil || status/100 != 2 {
					t.Errorf("PUT %s: %d %v", body, status, err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		server, register := p.http.doc("/v1/berlin/oven-3"), readRegister(t, s, "site/berlin/oven-3")
		if server != register {
			t.Fatalf("round %d: the server has %s, the register %s", round, server, register)
		}
	}
	p.wantHistory("site/berlin/oven-3", 2*rounds)
	if got := len(p.http.wrote("/v1/berlin/oven-3")); got != 2*rounds {
		t.Errorf("writes at the server: got %d, want %d", got, 2*rounds)
	}
}

// TestRelayWriteBackAfterOutage: while a server is down its neighbours go on; when it is back it
// gets the newest state, not every step.
func TestRelayWriteBackAfterOutage(t *testing.T) {
	p := newPlant(t, true)
	p.start()
	box := watchTopic(t, p.brokerAddr(), "sensors/#")
	c := dialMQTT(t, p.mqttAddr(), mqttOptions{id: "publisher"})
	c.publish(t, "sensors/berlin/oven", `{"value":0}`, true)
	p.http.becomes(t, "/v1/berlin/oven", `{"value":0}`)

	p.http.down()
	status, _, _ := request(t, p.client, "PUT", p.httpURL()+"/v1/berlin/other", `{"value":1}`)
	if status != http.StatusBadGateway {
		t.Errorf("PUT while the server is down: got %d, want 502", status)
	}
	for i := range 20 {
		c.publish(t, "sensors/berlin/oven", fmt.Sprintf(`{"value":%d}`, i+1), true)
	}
	p.becomes("site/berlin/oven", `{"value":20}`)
	p.wantHistory("site/berlin/other", 0)
	p.http.up(t)
	p.http.becomes(t, "/v1/berlin/oven", `{"value":20}`)
	p.quiet(t, box)
	if got := p.http.wrote("/v1/berlin/oven"); len(got) > 6 {
		t.Errorf("after the outage the server got every step: %v", got)
	}
	p.wantHistory("site/berlin/oven", 21)

	// The broker's turn.
	p.broker.stop(t)
	request(t, p.client, "PUT", p.httpURL()+"/v1/berlin/oven", `{"value":30}`)
	request(t, p.client, "PUT", p.httpURL()+"/v1/berlin/oven", `{"value":31}`)
	p.brokerUp(t)
	late := watchTopic(t, p.brokerAddr(), "sensors/berlin/oven")
	late.until(t, "the newest state at the broker", func(m message) bool { return m.payload == `{"value":31}` })
	p.becomes("site/berlin/oven", `{"value":31}`)
	p.wantHistory("site/berlin/oven", 23)
}

// TestRelayGatewayRestart: what is published at the broker while the gateway is away arrives,
// once, when it is back.
func TestRelayGatewayRestart(t *testing.T) {
	for _, how := range []string{"stopped", "killed"} {
		t.Run(how, func(t *testing.T) {
			mosquittoPub := peer(t, "mosquitto_pub", "mosquitto")
			p := newPlant(t, true)
			p.start()
			box := watchTopic(t, p.brokerAddr(), "sensors/#")
			p.quiet(t, box)
			if how == "stopped" {
				p.stop(t)
			} else {
				p.kill()
			}
			for i := range 5 {
				must(t, mosquittoPub, p.pub("-p", fmt.Sprint(p.brokerPort), "-t", fmt.Sprintf("sensors/berlin/live-%d", i), "-m", fmt.Sprintf(`{"value":%d}`, i))...)
				must(t, mosquittoPub, p.pub("-p", fmt.Sprint(p.brokerPort), "-r", "-t", "sensors/berlin/kept", "-m", fmt.Sprintf(`{"value":%d}`, i))...)
			}
			p.start()
			for i := range 5 {
				p.becomes(fmt.Sprintf("site/berlin/live-%d", i), fmt.Sprintf(`{"value":%d}`, i))
			}
			p.becomes("site/berlin/kept", `{"value":4}`)
			p.http.becomes(t, "/v1/berlin/kept", `{"value":4}`)
			p.quiet(t, box)
			for i := range 5 {
				p.wantHistory(fmt.Sprintf("site/berlin/live-%d", i), 1)
				if got := p.http.wrote(fmt.Sprintf("/v1/berlin/live-%d", i)); len(got) != 1 {
					t.Errorf("live-%d: writes at the HTTP server: got %v, want one", i, got)
				}
			}
			p.wantHistory("site/berlin/kept", 5)
			if got := p.metrics(); got == nil {
				t.Error("no metrics after the restart")
			}
		})
	}
}

// TestRelayBacklog: what has queued up at the broker while the gateway was away keeps no client
// waiting, and all of it arrives.
func TestRelayBacklog(t *testing.T) {
	p := newPlant(t, true)
	p.program = plainProgram(t)
	p.start()
	box := watchTopic(t, p.brokerAddr(), "sensors/fence/#")
	p.quiet(t, box)
	p.kill()
	backlog := 6000
	if testing.Short() {
		backlog = 1000
	}
	c := dialMQTT(t, p.brokerAddr(), mqttOptions{id: "busy"})
	for n := 1; n <= backlog; n++ {
		c.Write(c.publishFrame("sensors/berlin/busy", fmt.Appendf(nil, `{"value":%d}`, n), 1, false, uint16(n%60000+1), false))
		if n%100 == 0 {
			for range 100 {
				c.expect(t, mPuback)
			}
		}
	}
	p.start()
	through := dialMQTT(t, p.mqttAddr(), mqttOptions{id: "through"})
	waited := took(func() { through.publish(t, "sensors/berlin/through", `{"value":1}`, true) })
	t.Logf("a publish behind a backlog of %d messages was acknowledged after %v", backlog, waited.Round(time.Millisecond))
	if waited > 10*time.Second {
		t.Errorf("a publish waited %v for the backlog; capture_wait is 5s", waited)
	}
	p.becomes("site/berlin/through", `{"value":1}`)
	p.becomes("site/berlin/busy", fmt.Sprintf(`{"value":%d}`, backlog))
	p.http.becomes(t, "/v1/berlin/busy", fmt.Sprintf(`{"value":%d}`, backlog))
	p.wantHistory("site/berlin/busy", backlog)
}
