package integration

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestDemo runs `spookgw demo` and the lines it prints, as somebody would in the first minute.
func TestDemo(t *testing.T) {
	peer(t, "mosquitto_pub", "mosquitto")
	peer(t, "curl", "curl")
	peer(t, "psql", "postgresql-client")
	peer(t, "ldapmodify", "ldap-utils")
	path := plainProgram(t)
	dir, err := os.MkdirTemp("", "sg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(path, "demo", "--any-port", "--socket", socket)
	begin := time.Now()
	demo := startProcess(t, "spookgw demo", cmd)

	// What it prints: each client's name, then a line to copy; the program's own lines have no name.
	lines := map[string]string{}
	printed := regexp.MustCompile(`(?m)^\s+(?:http|ldap|mqtt|sql)?\s+((?:curl|ldapsearch|printf|mosquitto_|psql|spookgw ).*)$`)
	kinds := map[string]string{"put": "curl -X PUT", "get": "curl http", "events": "curl -N", "sub": "mosquitto_sub", "pub": "mosquitto_pub", "psql": "psql", "ldapsearch": "ldapsearch", "ldapmodify": "printf", "watch": "spookgw watch", "history": "spookgw history"}
	demo.says(t, "a line for each client", func(all string) bool {
		for _, m := range printed.FindAllStringSubmatch(all, -1) {
			for kind, begins := range kinds {
				if strings.HasPrefix(strings.Replace(m[1], "curl -s ", "curl ", 1), begins) {
					lines[kind] = m[1]
				}
			}
		}
		return len(lines) == len(kinds)
	})
	shell := func(line string) *exec.Cmd {
		if rest, own := strings.CutPrefix(line, "spookgw "); own {
			line = path + " " + rest
		}
		if !strings.Contains(line, " | ") {
			line = "exec " + line
		}
		return exec.Command("sh", "-c", line)
	}
	sh := func(line string) string {
		t.Helper()
		out, errs, code := run(t, "", "sh", shell(line).Args[1:]...)
		if code != 0 {
			t.Fatalf("%s: exit %d\n%s%s", line, code, out, errs)
		}
		return out
	}

	// The first result across protocols, by the printed lines alone.
	sh(lines["pub"])
	if got := sh(lines["psql"]); !strings.Contains(got, "21.5") { // the last of its lines, a SELECT
		t.Errorf("psql: got %s", got)
	}
	if got := sh(lines["get"]); !strings.Contains(got, "21.5") {
		t.Errorf("%s: got %q, want the 21.5 that was published", lines["get"], got)
	}
	sh(lines["ldapmodify"])
	if got := sh(lines["ldapsearch"]); !strings.Contains(got, "description: 22.5") {
		t.Errorf("%s: got %s", lines["ldapsearch"], got)
	}
	if got := sh(lines["get"]); !strings.Contains(got, "22.5") {
		t.Errorf("%s: got %q, want the 22.5 that ldapmodify wrote", lines["get"], got)
	}
	if first := time.Since(begin); first > 10*time.Second {
		t.Errorf("from the command to the first result across protocols: %v, want less than 10s", first)
	} else {
		t.Logf("from the command to the first result across protocols: %v", first.Round(time.Millisecond))
	}

	// Those that go on, then a write in each protocol. None says when it begins to listen, so the
	// writes are repeated until it shows one.
	sub := startProcess(t, "mosquitto_sub", shell("stdbuf -oL "+lines["sub"]))
	events := startProcess(t, "curl", shell(lines["events"]))
	watch := startProcess(t, "spookgw watch", shell(lines["watch"]))
	put := strings.Replace(lines["put"], "21.5", "21.75", 1)
	pub := strings.Replace(lines["pub"], "21.5", "22", 1)
	seen := func(p *process, value string) bool {
		text, _ := p.out.text()
		return strings.Contains(text, `{"value":`+value+`}`)
	}
	eventually(t, "the PUT is received by mosquitto_sub, curl's event stream and spookgw watch", func() bool {
		sh(put)
		return seen(sub, "21.75") && seen(events, "21.75") && seen(watch, "21.75")
	})
	eventually(t, "the message is received by mosquitto_sub, curl's event stream and spookgw watch", func() bool {
		sh(pub)
		return seen(sub, "22") && seen(events, "22") && seen(watch, "22")
	})
	if got := sh(lines["get"]); strings.TrimSpace(got) != `{"value":22}` {
		t.Errorf("%s: got %q, want what mosquitto_pub wrote", lines["get"], got)
	}

	history := sh(lines["history"])
	byHTTP, byMQTT := false, false
	for line := range strings.Lines(history) {
		if !strings.Contains(line, "127.0.0.1") || !strings.Contains(line, "sensors.hcl:") {
			continue
		}
		byHTTP = byHTTP || strings.Contains(line, "http") && strings.Contains(line, "21.75")
		byMQTT = byMQTT || strings.Contains(line, "mqtt") && strings.Contains(line, "-> 22")
	}
	if !byHTTP || !byMQTT {
		t.Errorf("spookgw history: no line of HTTP and of MQTT with protocol, peer, mapping line and value:\n%s", history)
	}

	// It shows each write live: who wrote, what, and who was told.
	demo.says(t, "a live line for the PUT", func(all string) bool {
		for sc := bufio.NewScanner(strings.NewReader(all)); sc.Scan(); {
			l := sc.Text()
			if strings.Contains(l, "site/berlin/oven-3") && strings.Contains(l, "21.75") && strings.Contains(l, "http") && strings.Contains(l, "mqtt") && strings.Contains(l, "ms") {
				return true
			}
		}
		return false
	})

	demo.cmd.Process.Signal(os.Interrupt)
	demo.wait(t)
	if demo.err != nil {
		t.Errorf("Ctrl-C: spookgw demo ended with %v", demo.err)
	}
}
