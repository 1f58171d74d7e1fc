package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A siteLine is the line between two sites. Cut, it refuses and breaks; dead, it takes everything and carries nothing, as
// a line does whose other end lost its power.
type siteLine struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	cut   bool
	dead  [2]chan struct{} // by way, while it is dead: closed when it is not any more
	conns []net.Conn
}

func newSiteLine(t testing.TB, to string) *siteLine {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &siteLine{l: l, to: to}
	var wait sync.WaitGroup
	wait.Go(s.run)
	t.Cleanup(func() { s.revive(); s.set(true); _ = l.Close(); wait.Wait() })
	return s
}

func (s *siteLine) addr() string { return s.l.Addr().String() }

func (s *siteLine) run() {
	for {
		in, err := s.l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.cut {
			s.mu.Unlock()
			_ = in.Close()
			continue
		}
		out, err := net.Dial("tcp", s.to)
		if err != nil {
			s.mu.Unlock()
			_ = in.Close()
			continue
		}
		s.conns = append(s.conns, in, out)
		s.mu.Unlock()
		go s.carry(in, out, toCalled)
		go s.carry(out, in, toCaller)
	}
}

// The ways of a line.
const (
	toCalled = iota
	toCaller
)

func (s *siteLine) carry(from, to net.Conn, way int) {
	defer from.Close()
	defer to.Close()
	room := make([]byte, 32<<10)
	for {
		n, err := from.Read(room)
		s.mu.Lock()
		dead := s.dead[way]
		s.mu.Unlock()
		if dead != nil {
			<-dead // what was on its way is lost with the connection
			return
		}
		if n > 0 {
			if _, err := to.Write(room[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// set cuts the line, or puts it back.
func (s *siteLine) set(cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut = cut; cut {
		for _, c := range s.conns {
			_ = c.Close()
		}
		s.conns = nil
	}
}

func (s *siteLine) kill(ways ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, way := range ways {
		s.dead[way] = make(chan struct{})
	}
}

func (s *siteLine) revive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for way, dead := range s.dead {
		if dead != nil {
			close(dead)
			s.dead[way] = nil
		}
	}
}

// sitesOf is what `spookgw sites --json` prints.
type sitesOf struct {
	Root  string `json:"root"`
	Sites []struct {
		Name, State, Root string
		LacksThere        uint64 `json:"lacks_there"`
		LacksHere         uint64 `json:"lacks_here"`
	} `json:"sites"`
}

func (g *spookgw) sites() (s sitesOf) {
	g.t.Helper()
	if err := json.Unmarshal([]byte(g.cli("sites", "--json")), &s); err != nil {
		g.t.Fatal(err)
	}
	return s
}

// newSites makes two gateways with a line between them, paired: b calls a.
func newSites(t testing.TB, wrappers [2]string, mapping string) (a, b *spookgw, line *siteLine) {
	t.Helper()
	door := freePort(t)
	a = newGateway(t, wrappers[0]+fmt.Sprintf("\nsites {\n  listen = \"127.0.0.1:%d\"\n}\n", door), mapping)
	b = newGateway(t, wrappers[1], mapping)
	line = newSiteLine(t, loopback(door))
	a.start()
	b.start()
	out := strings.Fields(a.cli("pair", "offer", "--name", "b", "--address", line.addr()))
	b.cli("pair", "accept", "--name", "a", out[len(out)-1])
	return a, b, line
}

// agree waits until both hold the same, and know it. What is deleted may still be tidied away meanwhile, which is a write of
// either: so both are asked until nothing has come between.
func agree(t testing.TB, a, b *spookgw) {
	t.Helper()
	var x, y sitesOf
	var out, errs string
	var code int
	if !within(patience, func() bool {
		x, y = a.sites(), b.sites()
		if x.Root != y.Root || x.Sites[0].State != "entangled" || y.Sites[0].State != "entangled" {
			return false
		}
		out, errs, code = b.try("verify", "a")
		return code == 0 && strings.Contains(out, x.Root)
	}) {
		t.Fatalf("they don't agree:\n%+v\n%+v\nverify: exit %d\n%s%s", x, y, code, out, errs)
	}
}

// rounds is how often something is done: few where time is short, as many as the environment says.
func rounds(t testing.TB, usual int) int {
	if n, err := strconv.Atoi(os.Getenv("ROUNDS")); err == nil {
		return n
	}
	if testing.Short() {
		return min(usual, 2)
	}
	return usual
}

func diceOf(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	if n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// TestSites: whatever happens to the line and to either process, both sites hold the same in the end, nothing that was
// acknowledged is lost, what was deleted stays so, and no command is needed.
func TestSites(t *testing.T) {
	dice := diceOf(t)
	a, b, line := newSites(t, [2]string{virtualWrappers, virtualWrappers}, sensorMapping)
	both := []*spookgw{a, b}
	agree(t, a, b)
	owed := map[string]string{} // what was acknowledged and nobody touched since
	c := oneShot
	put := func(g *spookgw, name, value string) {
		t.Helper()
		if status, _, body := request(t, c, "PUT", g.httpURL()+"/v1/"+name, `{"value":`+value+`}`); status/100 != 2 {
			t.Fatalf("PUT %s: %d %s", name, status, body)
		}
	}
	n := 0
	for round := range rounds(t, 3) {
		cut := dice.IntN(4) > 0
		if cut {
			line.set(true)
		}
		for range 20 {
			n++
			which := dice.IntN(2)
			g := both[which]
			name := fmt.Sprintf("own/%d", n)
			put(g, name, fmt.Sprint(n))
			owed[name] = fmt.Sprintf(`{"value":%d}`, n)
			put(g, fmt.Sprintf("shared/%d", dice.IntN(5)), fmt.Sprint(n))
			if names := slices.Sorted(maps.Keys(owed)); dice.IntN(4) == 0 && !cut {
				gone := names[dice.IntN(len(names))]
				if g.read("site/"+gone) != "" { // else it has not come yet, and there is nothing to delete
					if status, _, body := request(t, c, "DELETE", g.httpURL()+"/v1/"+gone, ""); status/100 != 2 {
						t.Fatalf("DELETE %s: %d %s", gone, status, body)
					}
					owed[gone] = ""
				}
			}
			switch dice.IntN(40) {
			case 0:
				both[dice.IntN(2)].kill()
			case 1:
				line.set(!cut)
				line.set(cut)
			}
			for _, g := range both {
				select {
				case <-g.done:
					g.start()
				default:
				}
			}
		}
		both[round%2].kill()
		line.set(false)
		both[round%2].start()
		agree(t, a, b)
		for name, want := range owed {
			for i, g := range both {
				if got := g.read("site/" + name); got != want {
					t.Fatalf("round %d: gateway %d has %q as %q, want %q", round, i, name, got, want)
				}
			}
			if want == "" {
				delete(owed, name)
			}
		}
	}
}

// TestSitesDeadLine: a line that takes everything and carries nothing, or carries it one way alone, is noticed on both sides, both
// go on, and the next one is taken.
func TestSitesDeadLine(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for silence")
	}
	for _, test := range []struct {
		name string
		ways []int
	}{{"both ways", []int{toCalled, toCaller}}, {"to the called", []int{toCalled}}, {"to the caller", []int{toCaller}}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			a, b, line := newSites(t, [2]string{virtualWrappers, virtualWrappers}, sensorMapping)
			agree(t, a, b)
			line.kill(test.ways...)
			for i, g := range []*spookgw{a, b} {
				g.putAt(fmt.Sprintf("dead/%d", i), 1)
			}
			began := time.Now()
			eventually(t, "the silence is noticed", func() bool {
				return a.sites().Sites[0].State == "decohered" || b.sites().Sites[0].State == "decohered"
			})
			if took := time.Since(began); took < 8*time.Second || took > 20*time.Second {
				t.Errorf("noticed after %v", took)
			}
			line.revive()
			agree(t, a, b)
			for i := range 2 {
				for _, g := range []*spookgw{a, b} {
					if got := g.read(fmt.Sprintf("site/dead/%d", i)); got != `{"value":1}` {
						t.Errorf("dead/%d is %q", i, got)
					}
				}
			}
		})
	}
}
