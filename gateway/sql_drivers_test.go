package gateway

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDrivers runs a script of each driver that is installed; the others are skipped by name.
func TestDrivers(t *testing.T) {
	const python = "/usr/bin/python3" // the one that Debian's packages are for
	const jdbc = "/usr/share/java/postgresql.jar"
	modules := []string{"/usr/share/nodejs", "/usr/local/lib/node_modules", "/usr/lib/node_modules"}
	if given := os.Getenv("NODE_PATH"); given != "" {
		modules = append([]string{given}, modules...)
	}
	env := append(os.Environ(), "NODE_PATH="+strings.Join(modules, ":"), "PYTHONDONTWRITEBYTECODE=1")
	for _, d := range []struct {
		name, script string
		there        []string // a command that fails where the driver is not
		run          []string // the command before the script
	}{
		{"psycopg2", "client.py", []string{python, "-c", "import psycopg2"}, []string{python}},
		{"psycopg3", "client3.py", []string{python, "-c", "import psycopg"}, []string{python}},
		{"SQLAlchemy", "reflect.py", []string{python, "-c", "import sqlalchemy, psycopg2"}, []string{python}},
		{"node-postgres", "client.js", []string{"node", "-e", "require('pg')"}, []string{"node"}},
		{"pgjdbc", "Client.java", []string{"java", "-cp", jdbc, "--list-modules"}, []string{"java", "-Xshare:auto", "-cp", jdbc}},
	} {
		t.Run(d.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			command := func(args ...string) *exec.Cmd {
				cmd := exec.CommandContext(ctx, args[0], args[1:]...)
				cmd.Env = env
				return cmd
			}
			out, err := command(d.there...).CombinedOutput()
			if err == nil && d.run[0] == "java" {
				// A script in Java is compiled first.
				if _, err = os.Stat(jdbc); err == nil && !strings.Contains(string(out), "jdk.compiler") {
					err = exec.ErrNotFound
				}
			}
			if err != nil {
				t.Skipf("%s is not installed: %v", d.name, err)
			}
			_, _, addr := sqlWorld(t, nil)
			host, port, _ := net.SplitHostPort(addr)
			out, err = command(append(d.run, filepath.Join("testdata", "sql", d.script), host, port)...).CombinedOutput()
			if err != nil || string(out) != "ok\n" {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
