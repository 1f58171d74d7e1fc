package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/spooksystems/gateway/engine"
)

// A Status is the gateway in a screenful.
type Status struct {
	Version    string    `json:"version"`
	PID        int       `json:"pid"`
	Started    time.Time `json:"started"`
	Ready      bool      `json:"ready"`
	Draining   bool      `json:"draining"`
	Domain     string    `json:"domain"` // the default one
	Data       string    `json:"data"`
	Config     string    `json:"config"`
	Generation uint64    `json:"generation"`
	Hash       string    `json:"hash"`
	Loaded     time.Time `json:"loaded"`
	// ReloadError is why the last reload was refused; "" if it was not.
	ReloadError string          `json:"reload_error,omitempty"`
	Wrappers    []WrapperStatus `json:"wrappers"`
	Binds       []BindFigures   `json:"binds"`
	Lag         []LagStatus     `json:"lag"`
	Contacts    []ContactStatus `json:"contacts"`
	Troubles    []TroubleStatus `json:"troubles"`
	Parked      int             `json:"parked"`
	Domains     []DomainStatus  `json:"domains"`
}

// A DomainStatus is one domain in figures.
type DomainStatus struct {
	Name      string `json:"name"`
	Endpoint  string `json:"endpoint"` // this node's, in that domain
	Registers uint64 `json:"registers"`
	Cursor    string `json:"cursor"` // newest commit
	Root      string `json:"root"`   // hash over all registers
	Pending   uint64 `json:"pending"`
	Findings  int    `json:"findings"`
}

func (ds *domains) status(ctx context.Context) []DomainStatus {
	out := make([]DomainStatus, 0, len(ds.list))
	for _, d := range ds.list {
		s, err := d.store.Status(ctx)
		if err != nil {
			continue // the engine answers for itself
		}
		out = append(out, DomainStatus{
			Name: d.name, Endpoint: s.Endpoint.String(), Registers: s.Registers, Cursor: s.Cursor.String(), Root: s.Root,
			Pending: s.Pending, Findings: len(s.Findings),
		})
	}
	return out
}

// A WrapperStatus is one wrapper in figures.
type WrapperStatus struct {
	Name        string    `json:"name"`
	Protocol    string    `json:"protocol"`
	Mode        string    `json:"mode"` // relay, virtual, attached
	State       string    `json:"state"`
	Listen      []string  `json:"listen,omitempty"`
	Upstream    []string  `json:"upstream,omitempty"`
	Since       time.Time `json:"since"` // of the state
	Restarts    int       `json:"restarts"`
	In          uint64    `json:"in"`    // writes of peers that became candidates
	Out         uint64    `json:"out"`   // changes told
	Asked       uint64    `json:"asked"` // reads answered
	Refused     uint64    `json:"refused"`
	Sessions    uint64    `json:"sessions"` // begun since the start
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
}

// The states of a wrapper.
const (
	stateStarting = "starting"
	stateServing  = "serving"
	stateFailed   = "failed"      // waits to be started again
	stateNoPort   = "no port"     // its address could not be listened on
	stateStandsBy = "standing by" // another gateway attends to its server
	stateDraining = "draining"
	stateStopped  = "stopped"
)

// Status gives the figures of this moment.
func (g *Gateway) Status(ctx context.Context) Status {
	gen := g.generation.Load()
	s := Status{
		Version: g.options.Version, PID: g.pid, Started: g.started,
		Ready: g.Ready() == nil, Draining: g.draining.Load(),
		Domain: gen.config.Domains[0], Data: g.data, Config: gen.config.File,
		Generation: gen.Number, Hash: gen.Hash, Loaded: gen.loaded,
		Wrappers: g.wrapperStatus(), Binds: g.figures.bindFigures(),
		Lag: g.domains.lag(), Contacts: g.domains.contacts(), Troubles: g.domains.troubles(), Domains: g.domains.status(ctx),
	}
	if why := g.reloadError.Load(); why != nil {
		s.ReloadError = *why
	}
	if parked, err := g.domains.parked(ctx); err == nil {
		s.Parked = len(parked)
	}
	sort.Slice(s.Binds, func(i, j int) bool {
		if s.Binds[i].Bind != s.Binds[j].Bind {
			return s.Binds[i].Bind < s.Binds[j].Bind
		}
		return s.Binds[i].Wrapper < s.Binds[j].Wrapper
	})
	return s
}

func (g *Gateway) snapshot() snapshot {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s := snapshot{wrappers: g.wrapperStatus(), lag: g.domains.lag(), generation: g.generation.Load().Number, parked: map[string]int{}}
	s.engine, s.engineErr = g.domains.figures(ctx)
	for _, d := range g.domains.list {
		if d.site == nil {
			continue
		}
		if sites, err := g.sitesOf(ctx, d); err == nil {
			s.sites = append(s.sites, sites)
		}
	}
	if parked, err := g.domains.parked(ctx); err == nil {
		for _, p := range parked {
			s.parked[p.Wrapper]++
		}
	}
	return s
}

// figures adds up the engines' figures for the gauges, which tell of the process.
func (ds *domains) figures(ctx context.Context) (sum engine.Status, err error) {
	for i, d := range ds.list {
		s, err := d.store.Status(ctx)
		if err != nil {
			return sum, err
		}
		if i == 0 {
			sum = s
			continue
		}
		sum.Registers += s.Registers
		sum.Candidates += s.Candidates
		sum.Observers += s.Observers
		sum.DiskBytes += s.DiskBytes
		sum.Fsyncs += s.Fsyncs
		sum.Cursor.Ordinal += s.Cursor.Ordinal
		sum.Full = sum.Full || s.Full
	}
	return sum, nil
}

// Ready says what is not ready, nil when all is.
func (g *Gateway) Ready() error {
	if g.draining.Load() {
		return fmt.Errorf("draining")
	}
	for _, w := range g.wrapperStatus() {
		if w.State != stateServing && w.State != stateStandsBy {
			return fmt.Errorf("wrapper %q is %s", w.Name, w.State)
		}
	}
	return nil
}

// web answers /healthz, /readyz and /metrics. The door for applications over WebSocket is not in
// this version, and says so.
func (g *Gateway) web() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		// Asking the engine shows that it still answers, not only that the process is there.
		for _, d := range g.domains.list {
			if _, err := d.store.Cursor(r.Context()); err != nil {
				http.Error(w, "the engine does not answer: "+err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := g.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(g.figures.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotImplemented)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"title": "Not in this version", "status": http.StatusNotImplemented,
			"detail": "The door for applications is the Unix socket; over WebSocket it comes with a later version.",
		})
	})
	return mux
}
