package gateway

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/spooksystems/gateway/engine"
)

// figures are the counters behind /metrics and `status`. Labels are bounded: wrappers and binds
// come from the configuration, verbs and outcomes from the code, and addresses or registers are
// never labels.
type figures struct {
	registry *prometheus.Registry

	operations *prometheus.CounterVec   // wrapper, bind, verb, outcome
	taken      *prometheus.HistogramVec // wrapper, bind: until durable
	told       *prometheus.CounterVec   // wrapper, bind, outcome
	spread     *prometheus.HistogramVec // wrapper, bind: from visible to told
	events     *prometheus.CounterVec   // wrapper, event
	restarts   *prometheus.CounterVec   // wrapper
	daemon     *prometheus.CounterVec   // method, outcome

	mu    sync.Mutex
	tally map[string]*tally // by wrapper
	binds map[[2]string]*BindFigures
}

// A tally is a wrapper's figures for `status`.
type tally struct {
	in, out, asked, passed, refused uint64
	sessions                        uint64
	lastError                       string
	lastErrorAt                     time.Time
}

// BindFigures are one bind's figures.
type BindFigures struct {
	Wrapper     string    `json:"wrapper"`
	Bind        string    `json:"bind"` // file:line
	In          uint64    `json:"in"`
	Out         uint64    `json:"out"`
	Errors      uint64    `json:"errors"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
}

// maxBinds bounds the bind label: what a long row of reloads leaves behind counts as "other".
const maxBinds = 2000

const namespace = "spookgw"

// quick are the histograms' buckets: 50 µs to 10 s.
var quick = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}

func newFigures(version string) *figures {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: quick}, labels)
	}
	f := &figures{
		registry:   prometheus.NewRegistry(),
		operations: counter("operations_total", "Operations of peers that concern a register.", "wrapper", "bind", "verb", "outcome"),
		taken:      histogram("operation_seconds", "From a peer's write until it is durable.", "wrapper", "bind"),
		told:       counter("told_total", "Changes written to servers or told to subscribers.", "wrapper", "bind", "outcome"),
		spread:     histogram("told_seconds", "From a commit being visible until it was told.", "wrapper", "bind"),
		events:     counter("wrapper_events_total", "What wrappers count of themselves.", "wrapper", "event"),
		restarts:   counter("wrapper_restarts_total", "Wrappers started again after a failure.", "wrapper"),
		daemon:     counter("daemon_calls_total", "Calls over the daemon's socket.", "method", "outcome"),
		tally:      map[string]*tally{},
		binds:      map[[2]string]*BindFigures{},
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "Always 1; the label is the version.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	f.registry.MustRegister(f.operations, f.taken, f.told, f.spread, f.events, f.restarts, f.daemon, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return f
}

// count is the links' Count.
func (f *figures) count(wrapper, event string, n int) {
	if n <= 0 { // a counter that fell would be taken for a restart
		return
	}
	f.events.WithLabelValues(wrapper, event).Add(float64(n))
	if event == "sessions" {
		f.mu.Lock()
		f.tallyOf(wrapper).sessions += uint64(n)
		f.mu.Unlock()
	}
}

func (f *figures) tallyOf(wrapper string) *tally {
	t := f.tally[wrapper]
	if t == nil {
		t = &tally{}
		f.tally[wrapper] = t
	}
	return t
}

// note takes one event of the links into the figures.
func (f *figures) note(e Event) {
	if e.Kind == Set {
		return // counted as a call of the daemon
	}
	outcome := "ok"
	if e.Outcome != "" {
		outcome = "error"
	}
	bind := f.tallyUp(e)
	switch e.Kind {
	case In, Asked:
		f.operations.WithLabelValues(e.Wrapper, bind, e.Verb.String(), outcome).Inc()
		if e.Kind == In && e.Outcome == "" {
			f.taken.WithLabelValues(e.Wrapper, bind).Observe(e.Took.Seconds())
		}
	case Out:
		f.told.WithLabelValues(e.Wrapper, bind, outcome).Inc()
		if e.Outcome == "" {
			f.spread.WithLabelValues(e.Wrapper, bind).Observe(e.Took.Seconds())
		}
	}
}

// tallyUp keeps what `status` shows, and gives the bind's label.
func (f *figures) tallyUp(e Event) (bind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tallyOf(e.Wrapper)
	key := [2]string{e.Wrapper, e.Source}
	b := f.binds[key]
	if b == nil && e.Source != "" {
		if len(f.binds) >= maxBinds {
			key[1] = "other"
			b = f.binds[key]
		}
		if b == nil {
			b = &BindFigures{Wrapper: e.Wrapper, Bind: key[1]}
			f.binds[key] = b
		}
	}
	switch {
	case e.Kind == Passed:
		t.passed++
	case e.Outcome != "":
		t.refused++
		t.lastError, t.lastErrorAt = e.Outcome, e.Time
	case e.Kind == In:
		t.in++
	case e.Kind == Out:
		t.out++
	case e.Kind == Asked:
		t.asked++
	}
	if b == nil {
		return ""
	}
	switch {
	case e.Outcome != "" && e.Kind != Passed:
		b.Errors++
		b.LastError, b.LastErrorAt = e.Outcome, e.Time
	case e.Kind == In:
		b.In++
	case e.Kind == Out:
		b.Out++
	}
	return b.Bind
}

// wrapperTally gives a copy of a wrapper's figures.
func (f *figures) wrapperTally(name string) tally {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.tally[name]; t != nil {
		return *t
	}
	return tally{}
}

// forget drops a wrapper that the configuration no longer has.
func (f *figures) forget(wrapper string) {
	f.mu.Lock()
	delete(f.tally, wrapper)
	for k := range f.binds {
		if k[0] == wrapper {
			delete(f.binds, k)
		}
	}
	f.mu.Unlock()
	gone := prometheus.Labels{"wrapper": wrapper}
	f.operations.DeletePartialMatch(gone)
	f.taken.DeletePartialMatch(gone)
	f.told.DeletePartialMatch(gone)
	f.spread.DeletePartialMatch(gone)
	f.events.DeletePartialMatch(gone)
	f.restarts.DeletePartialMatch(gone)
}

func (f *figures) bindFigures() []BindFigures {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]BindFigures, 0, len(f.binds))
	for _, b := range f.binds {
		out = append(out, *b)
	}
	return out
}

// snapshot is what the gauges are made of at a scrape.
type snapshot struct {
	engine     engine.Status
	engineErr  error
	wrappers   []WrapperStatus
	lag        []LagStatus
	parked     map[string]int
	generation uint64
	sites      []*Sites
}

// A gaugeCollector asks for the gauges' values when a scrape wants them.
type gaugeCollector struct{ take func() snapshot }

var (
	descGeneration = gaugeDesc("config_generation", "Configurations taken since the start.")
	descUp         = gaugeDesc("wrapper_up", "1 while the wrapper serves.", "wrapper", "protocol", "mode")
	descParked     = gaugeDesc("parked", "Operations that could not be applied.", "wrapper")
	descBehind     = gaugeDesc("lag_commits", "Commits a wrapper's write-back has not looked at yet.", "wrapper")
	descWaiting    = gaugeDesc("lag_addresses", "Addresses with a change not yet written back.", "wrapper")
	descRegisters  = gaugeDesc("engine_registers", "Registers that exist.")
	descObservers  = gaugeDesc("engine_observers", "Observers of the commit log.")
	descDisk       = gaugeDesc("engine_disk_bytes", "Bytes of the data directory.")
	descFree       = gaugeDesc("engine_free_bytes", "Bytes free on its disk.")
	descFull       = gaugeDesc("engine_full", "1 while writes are refused for want of room.")
	descCommit     = gaugeDesc("engine_commit_ordinal", "Ordinal of the newest visible commit.")
	descCandidates = gaugeDesc("engine_candidates", "Candidates stored.")
	descFsyncs     = prometheus.NewDesc(namespace+"_engine_fsyncs_total", "Syncs of the log since the start.", nil, nil)
)

func gaugeDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
}

// Describe leaves the collector unchecked: its figures depend on the configuration.
func (gaugeCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (g gaugeCollector) Collect(ch chan<- prometheus.Metric) {
	s := g.take()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(descGeneration, float64(s.generation))
	for _, w := range s.wrappers {
		up := 0.0
		if w.State == stateServing {
			up = 1
		}
		gauge(descUp, up, w.Name, w.Protocol, w.Mode)
		gauge(descParked, float64(s.parked[w.Name]), w.Name)
	}
	for _, l := range s.lag {
		gauge(descBehind, float64(l.Behind), l.Wrapper)
		gauge(descWaiting, float64(l.Waiting), l.Wrapper)
	}
	collectSites(ch, s.sites)
	if s.engineErr != nil {
		return
	}
	gauge(descRegisters, float64(s.engine.Registers))
	gauge(descObservers, float64(s.engine.Observers))
	gauge(descDisk, float64(s.engine.DiskBytes))
	gauge(descFree, float64(s.engine.FreeBytes))
	gauge(descCommit, float64(s.engine.Cursor.Ordinal))
	gauge(descCandidates, float64(s.engine.Candidates))
	full := 0.0
	if s.engine.Full {
		full = 1
	}
	gauge(descFull, full)
	ch <- prometheus.MustNewConstMetric(descFsyncs, prometheus.CounterValue, float64(s.engine.Fsyncs))
}
