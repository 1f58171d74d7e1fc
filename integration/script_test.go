package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/*.txtar: commands of real clients, and what they print. Beyond the
// usual commands of a script there are
//
//	gateway                    starts a virtual gateway over sensors (or over the script's own
//	                           wrappers.hcl and mapping.hcl), and sets HTTP, HTTP_PORT and MQTT_PORT
//	killgateway                kill -9, and starts it again
//	subscribe NAME N ARGS...   starts mosquitto_sub for N messages and waits until it is subscribed
//	received NAME              waits until it has them; they become stdout
//	hangup NAME                breaks its connection
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			tb := env.T().(testing.TB)
			path := plainProgram(tb)
			env.Setenv("PATH", filepath.Dir(path)+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Values[stageKey{}] = &stage{tb: tb, subs: map[string]*process{}}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"gateway":     scriptGateway,
			"killgateway": scriptKillGateway,
			"subscribe":   scriptSubscribe,
			"received":    scriptReceived,
			"hangup":      scriptHangup,
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

type stageKey struct{}

// A stage is what one script has running.
type stage struct {
	tb   testing.TB
	g    *spookgw
	subs map[string]*process
}

func onStage(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

func scriptGateway(ts *testscript.TestScript, neg bool, args []string) {
	s := onStage(ts)
	if neg || len(args) > 0 || s.g != nil {
		ts.Fatalf("usage: gateway, once")
	}
	own := func(name, otherwise string) string {
		b, err := os.ReadFile(ts.MkAbs(name))
		if err != nil {
			return otherwise
		}
		return string(b)
	}
	s.g = newGateway(s.tb, own("wrappers.hcl", virtualWrappers), own("mapping.hcl", sensorMapping)).start()
	ts.Setenv("HTTP", s.g.httpURL())
	ts.Setenv("HTTP_PORT", strconv.Itoa(s.g.http))
	ts.Setenv("MQTT_PORT", strconv.Itoa(s.g.mqtt))
	ts.Setenv("SPOOKGW_SOCKET", s.g.socket)
	ts.Setenv("GATEWAY_DIR", s.g.dir)
}

func scriptKillGateway(ts *testscript.TestScript, neg bool, args []string) {
	g := onStage(ts).g
	g.kill()
	g.start()
}

func scriptSubscribe(ts *testscript.TestScript, neg bool, args []string) {
	s := onStage(ts)
	if neg || len(args) < 3 {
		ts.Fatalf("usage: subscribe NAME N ARGS...")
	}
	all := append([]string{"-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", ts.Getenv("MQTT_PORT"), "-W", "30", "-d", "-C", args[1]}, args[2:]...)
	p := startProcess(s.tb, "mosquitto_sub "+args[0], exec.Command("stdbuf", all...))
	s.subs[args[0]] = p
	p.saysText(s.tb, "received SUBACK")
}

func scriptReceived(ts *testscript.TestScript, neg bool, args []string) {
	s := onStage(ts)
	p := s.subs[args[0]]
	if p == nil {
		ts.Fatalf("no subscriber %s", args[0])
	}
	p.wait(s.tb)
	all, _ := p.out.text()
	if p.err != nil {
		ts.Fatalf("mosquitto_sub: %v\n%s", p.err, all)
	}
	for line := range strings.Lines(all) {
		if strings.HasPrefix(line, "Client ") || strings.HasPrefix(line, "Subscribed ") {
			continue
		}
		fmt.Fprint(ts.Stdout(), line)
	}
}

func scriptHangup(ts *testscript.TestScript, neg bool, args []string) {
	p := onStage(ts).subs[args[0]]
	if p == nil {
		ts.Fatalf("no subscriber %s", args[0])
	}
	p.kill()
}
