package integration

import (
	"fmt"
	"testing"
)

// TestAttached: without a listener the gateway is a client of both servers, and keeps them equal.
func TestAttached(t *testing.T) {
	mosquittoPub := peer(t, "mosquitto_pub", "mosquitto")
	brokerPort := freePort(t)
	startMosquitto(t, t.TempDir(), brokerPort)
	server := startBackend(t, freePort(t), true)
	must(t, mosquittoPub, "-h", "127.0.0.1", "-p", fmt.Sprint(brokerPort), "-q", "1", "-r", "-t", "sensors/berlin/earlier", "-m", `{"value":2}`)
	g := newGateway(t, fmt.Sprintf(`
wrapper "mqtt" "floor" {
  upstream = "tcp://127.0.0.1:%d"
}
wrapper "http" "erp" {
  upstream = "http://%s"
  poll_ms  = 50
}
`, brokerPort, server.addr), `
register "site/{site}/{sensor}" {
  fields = { value = number }
  bind "mqtt" "sensors/{site}/{sensor}" {}
  bind "http" "/v1/{site}/{sensor}" {}
}
`).start()
	box := watchTopic(t, loopback(brokerPort), "sensors/#")

	// What the broker retained before the gateway came goes to the HTTP server.
	server.becomes(t, "/v1/berlin/earlier", `{"value":2}`)
	// A change at the broker, live.
	must(t, mosquittoPub, "-h", "127.0.0.1", "-p", fmt.Sprint(brokerPort), "-q", "1", "-r", "-t", "sensors/berlin/earlier", "-m", `{"value":3}`)
	server.becomes(t, "/v1/berlin/earlier", `{"value":3}`)
	// A change at the HTTP server, behind everybody's back, is found by the poll.
	server.put("/v1/berlin/earlier", `{"value":4}`)
	box.until(t, "the poll's find at the broker", func(m message) bool { return m.topic == "sensors/berlin/earlier" && m.payload == `{"value":4}` })
	g.becomes("site/berlin/earlier", `{"value":4}`)
	// The operator's write reaches both.
	g.cli("set", "site/berlin/earlier", `{"value":5}`)
	server.becomes(t, "/v1/berlin/earlier", `{"value":5}`)
	box.until(t, "the operator's write at the broker", func(m message) bool { return m.topic == "sensors/berlin/earlier" && m.payload == `{"value":5}` })
	// Members that nothing maps stay where they are.
	must(t, mosquittoPub, "-h", "127.0.0.1", "-p", fmt.Sprint(brokerPort), "-q", "1", "-r", "-t", "sensors/berlin/later", "-m", `{"value":6}`)
	server.becomes(t, "/v1/berlin/later", `{"value":6}`)
	server.put("/v1/berlin/later", `{"owner":"plant","value":6}`)
	must(t, mosquittoPub, "-h", "127.0.0.1", "-p", fmt.Sprint(brokerPort), "-q", "1", "-r", "-t", "sensors/berlin/later", "-m", `{"value":7}`)
	server.becomes(t, "/v1/berlin/later", `{"owner":"plant","value":7}`)
	g.wantHistory("site/berlin/earlier", 4)
	g.wantHistory("site/berlin/later", 2)
}
