package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/gateway"
	mappings "github.com/spooksystems/gateway/mappings.d"
	"github.com/spooksystems/gateway/wrappers"
)

func initVerb(a *app) *cobra.Command {
	var from, traffic string
	c := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a first configuration",
		Long: `Writes a commented gateway.hcl and a first mapping into DIR, or here. Files that are there are
never overwritten. With --from HOST it asks which protocols HOST answers to, and puts a relay in
front of each; without it the gateway itself answers, on loopback.

With --from-traffic FILE the first mapping is proposed from what "record" wrote: which addresses are one
template, what their payloads are, and what is the same thing in several protocols. It goes to
mappings.d/traffic.hcl, and gateway.hcl is written only where there is none; beside mappings that are
there it proposes for what these do not map. All of the proposal has been tried on the recording.`,
		Example: "  spookgw init\n  spookgw init --from 10.0.0.5 plant\n  spookgw init --from-traffic traffic.jsonl",
		Args:    cobra.MaximumNArgs(1),
	}
	c.Flags().StringVar(&from, "from", "", "the host whose servers to stand in front of")
	c.Flags().StringVar(&traffic, "from-traffic", "", "propose the mapping from this recording")
	c.RunE = func(c *cobra.Command, args []string) error {
		dir := "."
		if len(args) == 1 {
			dir = args[0]
		}
		if traffic != "" {
			return a.initFromTraffic(c.Context(), dir, from, traffic)
		}
		text := firstConfig(from, a.answers(c.Context(), from), nil)
		config, first := filepath.Join(dir, gateway.DefaultFile), filepath.Join(dir, "mappings.d", "sensors.hcl")
		for _, path := range []string{config, first} {
			if _, err := os.Lstat(path); err == nil {
				return fmt.Errorf("%s is there already; nothing was written", path)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := os.MkdirAll(filepath.Dir(first), 0o755); err != nil {
			return err
		}
		// The mapping first: a gateway.hcl that is there is whole.
		for _, f := range []struct{ path, text string }{{first, firstMapping()}, {config, text}} {
			if err := writeNew(f.path, f.text); err != nil {
				return err
			}
		}
		if a.json {
			return a.print(map[string]any{"written": []string{config, first}})
		}
		for _, path := range []string{config, first} {
			fmt.Fprintln(a.out, path)
		}
		a.say("Next: spookgw validate %s && spookgw run --config %s", config, config)
		return nil
	}
	return c
}

func writeNew(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// answers tells which protocols' usual ports answer at host.
func (a *app) answers(ctx context.Context, host string) map[string]bool {
	up := map[string]bool{}
	if host == "" {
		return up
	}
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, p := range protocols {
		wait.Go(func() {
			d := net.Dialer{Timeout: 2 * time.Second}
			conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(p.Schemes[0].Port)))
			if err != nil {
				return
			}
			_ = conn.Close()
			mu.Lock()
			up[p.Name] = true
			mu.Unlock()
		})
	}
	wait.Wait()
	for _, p := range protocols {
		if !up[p.Name] {
			a.say("%s does not answer to %s at port %d: the gateway itself will", host, p.Name, p.Schemes[0].Port)
		}
	}
	return up
}

// firstConfig is a gateway.hcl with a wrapper of each protocol, of its own name or of those given.
func firstConfig(host string, up map[string]bool, names map[string][]string) string {
	var b strings.Builder
	b.WriteString(`# Where the gateway stands. What means what is in mappings.d/.
# After a change: spookgw validate, then spookgw reload.

data = "spookgw-data" # a directory; relative paths are relative to this file
`)
	for _, p := range protocols {
		own := names[p.Name]
		if len(own) == 0 {
			own = []string{p.Name}
		}
		for i, name := range own {
			firstWrapper(&b, p, name, freePort(p)+i, host, up[p.Name])
		}
	}
	b.WriteString(`
daemon {
  websocket = "127.0.0.1:8600" # /healthz, /readyz and /metrics
  # socket  = "/run/spookgw/daemon.sock" # where spookgw get, set, status … find the gateway
}

# Who may log on to what the gateway itself answers:
# user "ann" {
#   password = file("/run/secrets/ann")
# }
`)
	return b.String()
}

func firstWrapper(b *strings.Builder, p wrappers.Protocol, name string, port int, host string, up bool) {
	s := p.Schemes[0]
	fmt.Fprintf(b, "\nwrapper %q %q {\n", p.Name, name)
	listen := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if up {
		fmt.Fprintf(b, "  listen   = %q # where clients point; other machines need an address they reach\n", listen)
		fmt.Fprintf(b, "  upstream = %q # the real server\n", s.Name+"://"+behindScheme(p, net.JoinHostPort(host, strconv.Itoa(s.Port))))
		if p.Upstream == "" {
			b.WriteString("  # user     = \"gateway\" # the gateway's own logon there\n")
		}
		b.WriteString("  # password = file(\"/run/secrets/" + p.Name + "\")\n  # unmapped = \"refuse\" # default: what no bind maps passes untouched\n")
	} else {
		fmt.Fprintf(b, "  listen = %q # the gateway itself answers; on loopback everybody may write\n", listen)
		fmt.Fprintf(b, "  # upstream = %q # with a server: what clients do passes through to it\n", s.Name+"://"+behindScheme(p, net.JoinHostPort("10.0.0.5", strconv.Itoa(s.Port))))
		b.WriteString("  # anonymous = \"read\" # needed, or users, as soon as it listens for other machines\n")
	}
	b.WriteString("}\n")
}

// behindScheme is an upstream as its protocol wants it written.
func behindScheme(p wrappers.Protocol, addr string) string {
	if p.Upstream == "" {
		return addr
	}
	return fmt.Sprintf(p.Upstream, addr)
}

// freePort is the protocol's own port, or one that needs no privilege.
func freePort(p wrappers.Protocol) int {
	port := p.Schemes[0].Port
	if port < 1024 {
		port += 8000
	}
	return port
}

func firstMapping() string {
	if b, err := fs.ReadFile(mappings.FS, "sensors.hcl"); err == nil {
		return string(b)
	}
	return ""
}
