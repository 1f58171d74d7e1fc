package integration_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The unit is read as systemd reads it; where systemd is installed, it reads it itself too.
func TestSystemdUnit(t *testing.T) {
	text, err := os.ReadFile("../deploy/spookgw.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := map[string][]string{}
	section := ""
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '[' {
			section = strings.Trim(line, "[]")
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section == "" {
			t.Fatalf("deploy/spookgw.service:%d: got %q, want key=value in a section", n+1, line)
		}
		unit[section+"."+key] = append(unit[section+"."+key], value)
	}
	for _, want := range []string{"ExecStart", "ExecStartPre", "ExecReload"} {
		lines := unit["Service."+want]
		if len(lines) != 1 {
			t.Errorf("%s: got %d lines, want 1", want, len(lines))
			continue
		}
		checkCommand(t, strings.Fields(lines[0]))
	}
	for key, want := range map[string]string{
		"Service.NoNewPrivileges":       "yes",
		"Service.ProtectSystem":         "strict",
		"Service.DynamicUser":           "yes",
		"Service.CapabilityBoundingSet": "CAP_NET_BIND_SERVICE",
		"Service.KillSignal":            "SIGTERM",
	} {
		if !slices.Equal(unit[key], []string{want}) {
			t.Errorf("%s: got %q, want %q", key, unit[key], want)
		}
	}

	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return
	}
	// The program is not installed at its place on the machine of the test: it stands in for it.
	staged := t.TempDir() + "/spookgw.service"
	if err := os.WriteFile(staged, []byte(strings.ReplaceAll(string(text), "/usr/bin/spookgw", spookgw(t))), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), analyze, "verify", staged).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "spookgw.service") {
			t.Errorf("systemd-analyze verify: %s", strings.TrimSpace(line))
		}
	}
	if err != nil && !t.Failed() {
		t.Logf("systemd-analyze verify: %v\n%s", err, out) // about the machine's other units
	}
}

func TestContainerfile(t *testing.T) {
	text, err := os.ReadFile("../deploy/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	var entry, command []string
	for line := range strings.Lines(string(text)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		var into *[]string
		switch word {
		case "ENTRYPOINT":
			into = &entry
		case "CMD":
			into = &command
		default:
			continue
		}
		if err := json.Unmarshal([]byte(rest), into); err != nil {
			t.Fatalf("%s: %v", word, err)
		}
	}
	checkCommand(t, append(entry, command...))
}

// checkCommand holds a command line of a deployment file against the program: its verb and flags
// exist.
func checkCommand(t *testing.T, args []string) {
	t.Helper()
	if len(args) < 2 || args[0] != "/usr/bin/spookgw" {
		t.Errorf("got %q, want /usr/bin/spookgw with a verb", args)
		return
	}
	out, err := exec.CommandContext(t.Context(), spookgw(t), args[1], "--help").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "spookgw "+args[1]) {
		t.Errorf("%q: spookgw %s --help: %v\n%s", args, args[1], err, out)
	}
	for _, arg := range args[2:] {
		if strings.HasPrefix(arg, "-") && !strings.Contains(string(out), arg) {
			t.Errorf("%q: spookgw %s has no %s:\n%s", args, args[1], arg, out)
		}
	}
}
