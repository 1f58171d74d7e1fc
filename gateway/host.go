package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spooksystems/gateway/engine"
	pairlink "github.com/spooksystems/gateway/engine/link"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// Options are what a Gateway is started with.
type Options struct {
	Load    LoadRequest
	Version string
	Log     *slog.Logger // nil: as the configuration's log block says, to stderr
	Data    string       // instead of the configuration's
	Socket  string       // instead of the configuration's and of the default place
	// Watch sees every event, from the first; it must not block.
	Watch func(Event)
	// Lenient: a wrapper whose address is taken says so and stays away, the others start.
	Lenient bool
}

// A Gateway is the running process.
type Gateway struct {
	options Options
	log     *slog.Logger
	sink    *logSink
	pid     int
	started time.Time
	data    string
	mark    string

	domains   domains
	users     userTable
	figures   *figures
	hub       eventHub
	recorders recorderHub
	door      *door
	siteDoor  *pairlink.Listener // nil: no other site calls
	webAddr   string
	webDone   chan struct{}
	webStop   func(context.Context) error

	generation  atomic.Pointer[inForce]
	reloadError atomic.Pointer[string]
	draining    atomic.Bool
	fatal       chan error

	// change is held by whatever starts or stops wrappers.
	change  sync.Mutex
	sockets map[string]*socket

	mu      sync.Mutex // of wrappers: the map, and what status reads of each
	running map[string]*running
	order   []string
}

// inForce is a Generation and where it came from.
type inForce struct {
	*Generation
	config *Config
	loaded time.Time
}

// running is one wrapper block at work.
type running struct {
	block  WrapperBlock
	cert   certificateHolder
	listen []*socket
	cancel context.CancelFunc
	done   chan struct{}

	// Of Gateway.mu:
	state       string
	since       time.Time
	restarts    int
	lastError   string
	lastErrorAt time.Time
}

// Start loads the configuration, opens the engine and the sockets, and starts the wrappers. A
// configuration with mistakes starts nothing: the error is ErrConfig, the findings say why.
func Start(ctx context.Context, o Options) (*Gateway, diag.Diagnostics, error) {
	config, report := LoadConfig(o.Load)
	if config == nil {
		return nil, report, ErrConfig
	}
	g := &Gateway{
		options: o, log: o.Log, pid: os.Getpid(), started: time.Now(),
		figures: newFigures(o.Version), fatal: make(chan error, 1),
		sockets: map[string]*socket{}, running: map[string]*running{},
	}
	if g.log == nil {
		g.sink = newLogSink(os.Stderr, config.Log)
		g.log = slog.New(g.sink)
	}
	if err := g.start(ctx, config); err != nil {
		g.stopWrappers(slices.Clone(g.order))
		_ = g.abandon() // what kept it from starting is the better news
		return nil, report, err
	}
	return g, report, nil
}

// ErrConfig means that the findings hold errors.
var ErrConfig = errors.New("the configuration has mistakes")

func (g *Gateway) start(ctx context.Context, config *Config) error {
	g.data = config.Data
	if g.options.Data != "" {
		g.data = g.options.Data
	}
	var err error
	g.domains.list, err = openDomains(g.data, config.Domains, func(dir string) engine.Options { return g.engineOptions(config, dir) })
	if err != nil {
		return err
	}
	status, err := g.domains.first().store.Status(ctx)
	if err != nil {
		return err
	}
	g.mark = "spookgw/" + config.Domains[0] + "/" + status.Endpoint.String()
	g.domains.link(config.Sites.Name, g.log, g.emit, g.figures.count, &g.recorders)
	if err := g.openSockets(ctx, config.Wrappers, g.options.Lenient); err != nil {
		return err
	}
	if err := g.domains.declare(ctx, config.Set); err != nil {
		return fmt.Errorf("the registers' rules: %w", err)
	}
	g.takeUp(config)
	// Before anybody can ask for them.
	if err := g.openSites(ctx, config.Sites); err != nil {
		return err
	}
	if err := g.openDoor(ctx, config); err != nil {
		return err
	}
	if err := g.openWeb(ctx, config.Daemon.WebSocket); err != nil {
		return err
	}
	g.figures.registry.MustRegister(gaugeCollector{g.snapshot})
	for i := range config.Wrappers {
		g.startWrapper(config.Wrappers[i])
	}
	if err := g.domains.err(); err != nil {
		return fmt.Errorf("open intents of the last run: %w", err)
	}
	for _, d := range g.domains.list {
		d.twins = watchTwins(d.store)
	}
	gen := g.generation.Load()
	g.log.Info("started", "version", g.options.Version, "generation", gen.Number, "hash", gen.Hash,
		"data", g.data, "socket", g.door.path, "endpoint", status.Endpoint.String())
	return nil
}

// takeUp makes config the generation in force for the links and the users; wrappers are the
// caller's.
func (g *Gateway) takeUp(config *Config) {
	number := uint64(1)
	if now := g.generation.Load(); now != nil {
		number = now.Number + 1
	}
	gen := &Generation{Number: number, Hash: config.Hash, Set: config.Set, Access: config.Policy}
	g.users.use(config.Users)
	g.domains.use(gen)
	g.generation.Store(&inForce{gen, config, time.Now()})
}

// emit is where the links' events go. It is called on the way of every operation.
func (g *Gateway) emit(e Event) {
	if e.Source == "" && e.Address != "" && (e.Kind == In || e.Kind == Asked) {
		if at, ok := g.generation.Load().Set.At(e.Wrapper, e.Server, e.Address); ok {
			e.Source = at.Bind.Source()
		}
	}
	g.figures.note(e)
	if d := g.domains.named(e.Domain); d != nil {
		d.book.note(e)
	}
	g.hub.emit(e)
	if g.options.Watch != nil {
		g.options.Watch(e)
	}
	if g.log.Enabled(context.Background(), slog.LevelDebug) {
		g.log.Debug("operation", e.attrs()...)
	}
}

// socketKey is how the host remembers an address. Port 0 is a new port for each wrapper.
func socketKey(wrapper, address string) string {
	if _, port, _ := net.SplitHostPort(address); port == "0" {
		return wrapper + " " + address
	}
	return address
}

// openSockets opens those that are not open yet, all or none; lenient leaves out what is taken.
func (g *Gateway) openSockets(ctx context.Context, blocks []WrapperBlock, lenient bool) error {
	var opened []string
	for i := range blocks {
		b := &blocks[i]
		for _, a := range b.Listen {
			key := socketKey(b.Name, a)
			if g.sockets[key] != nil {
				continue
			}
			s, err := openSocket(ctx, a, g.log.With("protocol", b.Protocol.Name, "wrapper", b.Name))
			if err != nil {
				if lenient {
					g.log.Error("wrapper can't listen", "protocol", b.Protocol.Name, "wrapper", b.Name, "error", err)
					continue
				}
				for _, k := range opened {
					g.sockets[k].shut()
					delete(g.sockets, k)
				}
				return fmt.Errorf("wrapper %q: %w", b.Name, err)
			}
			g.sockets[key] = s
			opened = append(opened, key)
		}
	}
	return nil
}

// closeUnused closes the sockets that no block names.
func (g *Gateway) closeUnused(blocks []WrapperBlock) {
	used := map[string]bool{}
	for i := range blocks {
		for _, a := range blocks[i].Listen {
			used[socketKey(blocks[i].Name, a)] = true
		}
	}
	for k, s := range g.sockets {
		if !used[k] {
			s.shut()
			delete(g.sockets, k)
		}
	}
}

// startWrapper starts one block. Its sockets are open.
func (g *Gateway) startWrapper(b WrapperBlock) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{block: b, cancel: cancel, done: make(chan struct{}), state: stateStarting, since: time.Now()}
	for _, a := range b.Listen {
		if s := g.sockets[socketKey(b.Name, a)]; s != nil {
			r.listen = append(r.listen, s)
		}
	}
	g.mu.Lock()
	if g.running[b.Name] == nil {
		g.order = append(g.order, b.Name)
	}
	g.running[b.Name] = r
	g.mu.Unlock()
	if len(b.Listen) > 0 && len(r.listen) == 0 {
		g.setState(r, stateNoPort, fmt.Errorf("nothing to listen on: %v taken", b.Listen))
		close(r.done)
		return
	}
	if site := g.generation.Load().config.Sites.Name; b.standsBy(site) {
		g.setState(r, stateStandsBy, nil)
		close(r.done)
		return
	}
	link, err := g.domains.open(b.link())
	if err != nil { // the engine is of no use any more, and says so itself
		g.setState(r, stateFailed, err)
		close(r.done)
		return
	}
	go g.supervise(ctx, r, link)
}

// The pauses before a wrapper that failed is started again.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
	goodRun    = time.Minute // after it, pauses begin anew
)

// supervise runs a wrapper until ctx ends, again after each failure.
func (g *Gateway) supervise(ctx context.Context, r *running, link wrappers.Link) {
	defer close(r.done)
	log := g.log.With("protocol", r.block.Protocol.Name, "wrapper", r.block.Name)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		began := time.Now()
		err := g.runOnce(ctx, r, link, log)
		if ctx.Err() != nil {
			if err != nil {
				log.Error("wrapper did not stop well", "error", err)
			}
			g.setState(r, stateStopped, nil)
			return
		}
		if err == nil {
			err = errors.New("it ended by itself")
		}
		if time.Since(began) > goodRun {
			pause = firstPause
		}
		log.Error("wrapper failed; starting it again", "error", err, "in", pause.String())
		g.setState(r, stateFailed, err)
		g.figures.restarts.WithLabelValues(r.block.Name).Inc()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			g.setState(r, stateStopped, nil)
			return
		}
	}
}

// runOnce makes and serves one wrapper. A panic in it is this wrapper's failure and no more.
func (g *Gateway) runOnce(ctx context.Context, r *running, link wrappers.Link, log *slog.Logger) (err error) {
	c := g.wrapperConfig(r, log)
	defer func() {
		if c.Listener != nil {
			_ = c.Listener.Close()
		}
		if p := recover(); p != nil {
			log.Error("panic in a wrapper", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	w, err := r.block.Protocol.New(c)
	if err != nil {
		return err
	}
	g.setState(r, stateServing, nil)
	return w.Serve(ctx, link)
}

func (g *Gateway) wrapperConfig(r *running, log *slog.Logger) wrappers.Config {
	b := &r.block
	c := wrappers.Config{
		Protocol: b.Protocol.Name, Name: b.Name, Refuse: b.Refuse, Anonymous: b.Anonymous,
		Logon: g.users.logon(b.Protocol.Name), Limits: b.Limits, Options: b.Options,
		Drain: b.Drain, Endpoint: g.mark, Log: log,
	}
	if len(r.listen) > 0 {
		l := lend(r.listen)
		if limit := filesLimit(); limit > 0 {
			l.files = filesFor(limit, b.Relay())
			l.away = func() { g.figures.count(b.Name, "refused_files", 1) }
		}
		c.Listener = l
	}
	if b.TLS != nil {
		c.TLS = r.cert.config(b.TLS)
	}
	for _, u := range b.Upstreams {
		up := wrappers.Upstream{Server: u.Server, Scheme: u.Scheme, Addr: u.Addr, Path: u.Path, User: u.User, Password: u.Password.Reveal}
		if u.TLS != nil {
			up.TLS = u.TLS.config(u.Addr)
		}
		c.Upstreams = append(c.Upstreams, up)
	}
	return c
}

func (g *Gateway) setState(r *running, state string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.state != state {
		r.state, r.since = state, time.Now()
	}
	if state == stateFailed {
		r.restarts++
	}
	if err != nil {
		r.lastError, r.lastErrorAt = err.Error(), time.Now()
	}
}

// stopWrappers drains the named ones at once and waits for them, each as long as its block says
// and a little more.
func (g *Gateway) stopWrappers(names []string) {
	var wait sync.WaitGroup
	for _, n := range names {
		g.mu.Lock()
		r := g.running[n]
		if r != nil && (r.state == stateServing || r.state == stateStarting) {
			r.state, r.since = stateDraining, time.Now()
		}
		g.mu.Unlock()
		if r == nil {
			continue
		}
		r.cancel()
		wait.Go(func() {
			select {
			case <-r.done:
			case <-time.After(r.block.Drain + time.Second):
				g.log.Error("wrapper does not stop; going on without it", "protocol", r.block.Protocol.Name, "wrapper", n)
			}
		})
	}
	wait.Wait()
	for _, n := range names {
		g.domains.shut(n)
	}
}

func (g *Gateway) wrapperStatus() []WrapperStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]WrapperStatus, 0, len(g.order))
	for _, n := range g.order {
		r := g.running[n]
		t := g.figures.wrapperTally(n)
		s := WrapperStatus{
			Name: n, Protocol: r.block.Protocol.Name, Mode: r.block.mode(), State: r.state, Since: r.since,
			Restarts: r.restarts, In: t.in, Out: t.out, Asked: t.asked, Refused: t.refused, Sessions: t.sessions,
			LastError: r.lastError, LastErrorAt: r.lastErrorAt,
		}
		if t.lastErrorAt.After(s.LastErrorAt) {
			s.LastError, s.LastErrorAt = t.lastError, t.lastErrorAt
		}
		for _, l := range r.listen {
			s.Listen = append(s.Listen, l.Addr().String())
		}
		for _, u := range r.block.Upstreams {
			s.Upstream = append(s.Upstream, u.Scheme+"://"+u.Addr+u.Path)
		}
		out = append(out, s)
	}
	return out
}

// openWeb serves /healthz, /readyz and /metrics.
func (g *Gateway) openWeb(ctx context.Context, address string) error {
	if address == "" {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("daemon.websocket: %w", err)
	}
	server := &http.Server{
		Handler: g.web(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelWarn),
	}
	g.webDone, g.webStop = make(chan struct{}), server.Shutdown
	g.webAddr = l.Addr().String()
	go func() {
		defer close(g.webDone)
		_ = server.Serve(l)
	}()
	return nil
}

// Wait returns when the engine can't go on, or when ctx ends.
func (g *Gateway) Wait(ctx context.Context) error {
	select {
	case err := <-g.fatal:
		return err
	case <-ctx.Done():
		return nil
	}
}

// Stop drains: wrappers take nothing new and finish what is in flight, then the door closes, then
// the engine. It takes little more than the configuration's drain.
func (g *Gateway) Stop() error {
	g.draining.Store(true)
	g.change.Lock()
	defer g.change.Unlock()
	g.log.Info("draining")
	drain := g.generation.Load().config.Drain
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		g.mu.Lock()
		names := append([]string(nil), g.order...)
		g.mu.Unlock()
		g.stopWrappers(names)
	}()
	select {
	case <-drained:
	case <-time.After(drain):
		g.log.Error("not everything stopped in time; ending", "drain", drain.String())
	}
	return g.abandon()
}

// abandon closes what is open, in the order of need.
func (g *Gateway) abandon() error {
	if g.door != nil {
		g.door.close()
	}
	if g.webStop != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = g.webStop(ctx)
		cancel()
		<-g.webDone
	}
	for _, s := range g.sockets {
		s.shut()
	}
	g.sockets = nil
	err := g.closeSites()
	g.domains.stop()
	return errors.Join(err, g.domains.close())
}

// SocketPath is where the door is, and DataDir where the data are.
func (g *Gateway) SocketPath() string { return g.door.path }
