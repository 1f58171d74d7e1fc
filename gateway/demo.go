package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

// DemoOptions are what the demo is started with.
type DemoOptions struct {
	Protocols []wrappers.Protocol
	Mappings  fs.FS  // *.hcl
	Data      string // "": a temporary directory that is removed afterwards
	Socket    string // "": the default place
	AnyPort   bool   // whatever is free instead of the usual ports
	Version   string
	Out       io.Writer // lines to copy, and what happens
	Errors    io.Writer
	// Event, where set, gets each finished delta instead of a line on Out.
	Event func(DemoDelta) error
}

// A DemoDelta is one write and who heard of it.
type DemoDelta struct {
	Time      time.Time  `json:"time"`
	Protocol  string     `json:"protocol"`
	Peer      string     `json:"peer,omitempty"`
	Registers []string   `json:"registers"`
	Became    string     `json:"became"`
	DurableMS float64    `json:"durable_ms"`
	Told      []DemoTold `json:"told"`
}

// DemoTold is one protocol that was told.
type DemoTold struct {
	Protocol string  `json:"protocol"`
	MS       float64 `json:"ms"`
	Error    string  `json:"error,omitempty"`
}

// demoWeb is where the demo has /healthz, /readyz and /metrics.
const demoWeb = "127.0.0.1:18600"

// Demo runs every protocol as a virtual wrapper on loopback over the shipped mappings, until ctx
// ends. It prints a line to copy for each client, and each write as it happens.
func Demo(ctx context.Context, o DemoOptions) error {
	data := o.Data
	if data == "" {
		dir, err := os.MkdirTemp("", "spookgw-demo-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		data = dir
	}
	show := newDemoShow(o)
	files, err := demoFiles(o)
	if err != nil {
		return err
	}
	options := Options{
		Load:    LoadRequest{File: demoFile, Sources: files, Protocols: o.Protocols},
		Version: o.Version, Data: data, Socket: o.Socket, Watch: show.event, Lenient: true,
		Log: slog.New(slog.NewTextHandler(o.Errors, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if c, err := net.DialTimeout("unix", DefaultSocket(data), time.Second); err == nil && o.Socket == "" {
		// Another gateway has the usual place: verbs find this one by --socket.
		_ = c.Close()
		options.Socket = filepath.Join(data, "daemon.sock")
	}
	g, found, err := Start(ctx, options)
	if errors.Is(err, ErrConfig) {
		return found.Err()
	}
	if err != nil {
		return err
	}
	show.begin(g)
	err = g.Wait(ctx)
	show.end()
	return errors.Join(err, g.Stop())
}

const demoFile = "demo/gateway.hcl"

// demoFiles is the demo's configuration: text like anybody's, in memory.
func demoFiles(o DemoOptions) (memory, error) {
	m := memory{}
	var b strings.Builder
	web := demoWeb
	for _, p := range o.Protocols {
		listen := p.Demo.Listen
		if listen == "" {
			continue // it can't be a server of its own
		}
		if o.AnyPort {
			listen, web = "127.0.0.1:0", "127.0.0.1:0"
		}
		fmt.Fprintf(&b, "wrapper %q %q {\n  listen    = %q\n  anonymous = \"write\"\n", p.Name, p.Name, listen)
		for _, name := range slices.Sorted(maps.Keys(p.Demo.Settings)) {
			fmt.Fprintf(&b, "  %s = %q\n", name, p.Demo.Settings.String(name))
		}
		b.WriteString("}\n")
	}
	if !o.AnyPort {
		// It is no reason not to start when something else is there.
		if l, err := net.Listen("tcp", web); err != nil {
			fmt.Fprintf(o.Errors, "/metrics is not served: %v\n", err)
			web = ""
		} else {
			_ = l.Close()
		}
	}
	if web != "" {
		fmt.Fprintf(&b, "daemon {\n  websocket = %q\n}\n", web)
	}
	b.WriteString("user \"demo\" {\n  password = \"demo\"\n}\n")
	m[demoFile] = []byte(b.String())
	names, err := fs.Glob(o.Mappings, "*.hcl")
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if m["demo/mappings.d/"+n], err = fs.ReadFile(o.Mappings, n); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// memory is Sources without a disk.
type memory map[string][]byte

func (m memory) ReadFile(path string) ([]byte, error) {
	if b, ok := m[path]; ok {
		return b, nil
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
}

func (m memory) Glob(pattern string) ([]string, error) {
	var out []string
	for path := range m {
		if ok, err := filepath.Match(pattern, path); err != nil {
			return nil, err
		} else if ok {
			out = append(out, path)
		}
	}
	sort.Strings(out)
	return out, nil
}

// A demoShow gathers what is told of one commit, and prints it as one line.
type demoShow struct {
	o      DemoOptions
	mu     sync.Mutex
	open   map[engine.Cursor]*DemoDelta
	queue  chan engine.Cursor
	done   chan struct{}
	closed bool
	lost   int
}

// demoPatience is how long after a write its line waits for those who are told.
const demoPatience = 150 * time.Millisecond

// demoQueue is how many writes wait for their line; beyond it they are counted.
const demoQueue = 256

func newDemoShow(o DemoOptions) *demoShow {
	return &demoShow{o: o, open: map[engine.Cursor]*DemoDelta{}, queue: make(chan engine.Cursor, demoQueue), done: make(chan struct{})}
}

// begin prints the lines to copy, and then what happens.
func (s *demoShow) begin(g *Gateway) {
	if s.o.Event == nil {
		s.lines(g)
	}
	go s.run()
}

func (s *demoShow) lines(g *Gateway) {
	ports := map[string]string{}
	for _, w := range g.wrapperStatus() {
		if len(w.Listen) > 0 {
			_, ports[w.Protocol], _ = net.SplitHostPort(w.Listen[0])
		}
	}
	out := s.o.Out
	fmt.Fprintf(out, "One register, site/berlin/oven-3, for each client in its own words. Copy a line:\n\n")
	for _, p := range s.o.Protocols {
		port, up := ports[p.Name]
		if !up {
			fmt.Fprintf(out, "  %-5s not started: %s is taken\n", p.Name, p.Demo.Listen)
			continue
		}
		_, usual, _ := net.SplitHostPort(p.Demo.Listen)
		whole := regexp.MustCompile(`\b` + regexp.QuoteMeta(usual) + `\b`)
		for _, line := range p.Demo.Lines {
			fmt.Fprintf(out, "  %-5s %s\n", p.Name, whole.ReplaceAllString(line, port))
		}
	}
	flag := ""
	if g.SocketPath() != FindSocket() {
		flag = " --socket " + g.SocketPath()
	}
	fmt.Fprintf(out, "\n  %-5s spookgw watch site/%s\n  %-5s spookgw history site/berlin/oven-3%s\n", "", flag, "", flag)
	if s.o.Data != "" {
		fmt.Fprintf(out, "\nData are kept in %s.", s.o.Data)
	} else {
		fmt.Fprintf(out, "\nData are gone when it ends; --data DIR keeps them.")
	}
	if g.webAddr != "" {
		fmt.Fprintf(out, " Figures: http://%s/metrics", g.webAddr)
	}
	fmt.Fprintf(out, "\nEach write shows below. Ctrl-C ends.\n\n")
}

// event is the gateway's Watch.
func (s *demoShow) event(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ms := float64(e.Took.Microseconds()) / 1000
	switch {
	case s.closed:
	case (e.Kind == In || e.Kind == Set) && e.Outcome == "" && len(e.Registers) > 0:
		d := s.at(e.Cursor)
		if d == nil {
			return
		}
		d.Time, d.Protocol, d.Peer, d.Registers, d.Became, d.DurableMS = e.Time, e.Protocol, e.Peer, e.Registers, e.Text, ms
	case e.Kind == Out && e.Cursor != engine.Cursor{}:
		if d := s.at(e.Cursor); d != nil {
			for i := range d.Told { // several subscribers of one protocol are one entry, the slowest
				if d.Told[i].Protocol == e.Protocol {
					d.Told[i].MS = max(d.Told[i].MS, ms)
					return
				}
			}
			d.Told = append(d.Told, DemoTold{Protocol: e.Protocol, MS: ms, Error: e.Outcome})
		}
	}
}

// at finds or begins the delta of a commit: subscribers may be told before the writer is.
func (s *demoShow) at(c engine.Cursor) *DemoDelta {
	if d := s.open[c]; d != nil {
		return d
	}
	d := &DemoDelta{Time: time.Now(), Told: []DemoTold{}}
	select {
	case s.queue <- c:
		s.open[c] = d
		return d
	default:
		s.lost++
		return nil
	}
}

func (s *demoShow) end() {
	s.mu.Lock()
	s.closed = true
	close(s.queue)
	s.mu.Unlock()
	<-s.done
}

// run prints deltas in the order they began, each when its time is up.
func (s *demoShow) run() {
	defer close(s.done)
	for c := range s.queue {
		s.mu.Lock()
		wait, closed := time.Until(s.open[c].Time.Add(demoPatience)), s.closed
		s.mu.Unlock()
		if wait > 0 && !closed {
			time.Sleep(wait)
		}
		s.mu.Lock()
		d, lost := s.open[c], s.lost
		delete(s.open, c)
		s.lost = 0
		s.mu.Unlock()
		if lost > 0 {
			fmt.Fprintf(s.o.Errors, "%d writes were too fast to show\n", lost)
		}
		if len(d.Registers) == 0 {
			continue // told of a commit from before
		}
		if s.o.Event != nil {
			if s.o.Event(*d) != nil {
				return
			}
			continue
		}
		fmt.Fprintln(s.o.Out, d.line())
	}
}

func (d *DemoDelta) line() string {
	told := make([]string, 0, len(d.Told))
	for _, t := range d.Told {
		if t.Error != "" {
			told = append(told, t.Protocol+" ("+t.Error+")")
			continue
		}
		told = append(told, fmt.Sprintf("%s after %.1f ms", t.Protocol, t.MS))
	}
	who := "nobody was listening"
	if len(told) > 0 {
		who = "told " + strings.Join(told, ", ")
	}
	return fmt.Sprintf("%s  %-6s wrote %s = %s  durable in %.1f ms, %s", d.Time.Local().Format("15:04:05.000"), d.Protocol, strings.Join(d.Registers, " "), d.Became, d.DurableMS, who)
}
