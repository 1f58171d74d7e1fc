package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// A Status is the gateway in a screenful.
type Status struct {
	Version    string    `json:"version"`
	PID        int       `json:"pid"`
	Started    time.Time `json:"started"`
	Ready      bool      `json:"ready"`
	Draining   bool      `json:"draining"`
	Domain     string    `json:"domain"`
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
	Parked      int             `json:"parked"`
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
	stateFailed   = "failed"  // waits to be started again
	stateNoPort   = "no port" // its address could not be listened on
	stateDraining = "draining"
	stateStopped  = "stopped"
)

// Status gives the figures of this moment.
func (g *Gateway) Status(ctx context.Context) Status {
	gen := g.generation.Load()
	s := Status{
		Version: g.options.Version, PID: g.pid, Started: g.started,
		Ready: g.Ready() == nil, Draining: g.draining.Load(),
		Domain: gen.config.Domain, Data: g.data, Config: gen.config.File,
		Generation: gen.Number, Hash: gen.Hash, Loaded: gen.loaded,
		Wrappers: g.wrapperStatus(), Binds: g.figures.bindFigures(),
		Lag: g.links.Lag(), Contacts: g.links.Contacts(),
	}
	if why := g.reloadError.Load(); why != nil {
		s.ReloadError = *why
	}
	if parked, err := g.links.Parked(ctx); err == nil {
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
	s := snapshot{wrappers: g.wrapperStatus(), lag: g.links.Lag(), generation: g.generation.Load().Number, parked: map[string]int{}}
	s.engine, s.engineErr = g.store.Status(ctx)
	if parked, err := g.links.Parked(ctx); err == nil {
		for _, p := range parked {
			s.parked[p.Wrapper]++
		}
	}
	return s
}

// Ready says what is not ready, nil when all is.
func (g *Gateway) Ready() error {
	if g.draining.Load() {
		return fmt.Errorf("draining")
	}
	for _, w := range g.wrapperStatus() {
		if w.State != stateServing {
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
		if _, err := g.store.Cursor(r.Context()); err != nil {
			http.Error(w, "the engine does not answer: "+err.Error(), http.StatusServiceUnavailable)
			return
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
