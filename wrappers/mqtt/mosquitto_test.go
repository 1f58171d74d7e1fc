package mqtt

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// freeAddr gives a loopback address that was free a moment ago.
func freeAddr(t testing.TB) string {
	t.Helper()
	ln := listen(t)
	defer ln.Close()
	return ln.Addr().String()
}

// A mosquitto is a real broker.
type mosquitto struct {
	addr string
	cmd  *exec.Cmd
	stop func()
}

// startMosquitto runs the real broker with these lines of configuration besides its listener.
func startMosquitto(t testing.TB, addr string, lines ...string) *mosquitto {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/mosquitto"); err != nil {
			t.Skip("mosquitto not installed")
		}
	}
	if addr == "" {
		addr = freeAddr(t)
	}
	_, port, _ := net.SplitHostPort(addr)
	conf := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n%s\n", port, strings.Join(lines, "\n"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &mosquitto{addr: addr, cmd: exec.Command(path, "-c", conf, "-v")}
	out, err := m.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	running := make(chan bool, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			if strings.HasSuffix(sc.Text(), "running") {
				running <- true
			}
			if os.Getenv("MQTT_TEST_LOG") != "" {
				fmt.Fprintln(os.Stderr, sc.Text())
			}
		}
		close(running)
	}()
	m.stop = sync.OnceFunc(func() {
		_ = m.cmd.Process.Kill()
		<-read
		_ = m.cmd.Wait()
	})
	t.Cleanup(m.stop)
	if !<-running {
		t.Fatal("mosquitto does not start")
	}
	return m
}

// A watched broker counts what is published, as wrappertest.Server asks.
type watched struct {
	t    testing.TB
	pub  *peer
	sub  *peer
	pong int
	mu   sync.Mutex
	held map[string][]byte
	n    map[string]int
	set  map[string]int
	came sync.Cond
}

func watch(t testing.TB, addr string) *watched {
	w := &watched{t: t, held: map[string][]byte{}, n: map[string]int{}, set: map[string]int{}}
	w.came.L = &w.mu
	sub := connectPeer(t, addr, connect{clean: true})
	sub.connack()
	sub.subscribe(request{"#", 2})
	w.sub = sub
	w.pub = connectPeer(t, addr, connect{clean: true})
	w.pub.connack()
	go func() {
		for at := 0; ; {
			k, next, err := sub.await(at, func(k packet) bool { return k.kind() == typePublish || k.kind() == typePingresp })
			if err != nil {
				if sub.ended() {
					return
				}
				continue
			}
			at = next
			w.mu.Lock()
			if k.kind() == typePingresp {
				w.pong++
				w.came.Broadcast()
				w.mu.Unlock()
				continue
			}
			p, _ := parsePublish(k.first, k.body, true)
			w.n[string(p.topic)]++
			if len(p.payload) == 0 {
				delete(w.held, string(p.topic))
			} else {
				w.held[string(p.topic)] = p.payload
			}
			w.came.Broadcast()
			w.mu.Unlock()
		}
	}()
	return w
}

func (p *peer) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err != nil
}

// look waits until what the broker has taken so far has been seen. w.mu is held.
func (w *watched) look() {
	before := w.pong
	w.sub.send([]byte{typePingreq << 4, 0})
	for w.pong == before {
		w.came.Wait()
	}
}

func (w *watched) Value(address string) ([]byte, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look()
	b, ok := w.held[address]
	return b, ok
}

func (w *watched) put(address string, payload []byte) {
	w.mu.Lock()
	w.set[address]++
	before := w.n[address]
	w.mu.Unlock()
	if code, err := w.pub.publish(publish{qos: 1, retain: true, topic: []byte(address), payload: payload}); err != nil || code >= 0x80 {
		w.t.Errorf("publishing behind the gateway's back: 0x%02x, %v", code, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.n[address] == before {
		w.came.Wait()
	}
}

func (w *watched) Set(address string, payload []byte) { w.put(address, payload) }
func (w *watched) Remove(address string)              { w.put(address, nil) }

func (w *watched) Writes(address string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look()
	return w.n[address] - w.set[address]
}

func (w *watched) Fail(wrappertest.Failure) bool { return false }

// upstream is a Config's way to a broker.
func upstream(addr string) []wrappers.Upstream {
	return []wrappers.Upstream{{Scheme: "tcp", Addr: addr}}
}

func TestRelayContract(t *testing.T) {
	for _, level := range []byte{level311, level5} {
		t.Run(fmt.Sprintf("level %d", level), func(t *testing.T) {
			wrappertest.Run(t, wrappertest.Suite{
				Templates:  []string{"sensors/{site}/{name}"},
				Address:    func(n int) string { return fmt.Sprintf("sensors/berlin/oven-%d", n) },
				Unmapped:   "other/topic",
				Deletes:    true,
				RelayHolds: wrappertest.CallSeen,
				Garbage:    []byte("\x10\xff\xff\xff\xff\x7fgarbage"),
				Relay: func(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) wrappertest.Rig {
					m := startMosquitto(t, "")
					rig := startWrapper(t, link, wrappers.Config{Listener: listen(t), Upstreams: upstream(m.addr)}, tune)
					rig.Server = watch(t, m.addr)
					link.Await(t, "the feed", func() bool { return link.Counted("feed_up") > 0 })
					rig.Dial = func(t *testing.T) wrappertest.Client {
						p := connectPeer(t, rig.Addr, connect{level: level, clean: true})
						if a := p.connack(); a.code != 0 {
							t.Fatalf("CONNACK 0x%02x", a.code)
						}
						return suiteClient{p, rig.Addr}
					}
					return rig
				},
			})
		})
	}
}

func TestAttachedContract(t *testing.T) {
	wrappertest.Run(t, wrappertest.Suite{
		Templates: []string{"sensors/{site}/{name}"},
		Address:   func(n int) string { return fmt.Sprintf("sensors/berlin/oven-%d", n) },
		Unmapped:  "other/topic",
		Deletes:   true,
		Attached: func(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) wrappertest.Rig {
			m := startMosquitto(t, "")
			rig := startWrapper(t, link, wrappers.Config{Upstreams: upstream(m.addr)}, tune)
			rig.Server = watch(t, m.addr)
			link.Await(t, "the feed", func() bool { return link.Counted("feed_up") > 0 })
			return rig
		},
	})
}
