package http

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// serveAttached is the wrapper as a client of its servers.
func (w *wrapper) serveAttached(ctx context.Context, link wrappers.Link) error {
	if len(w.cfg.Upstreams) == 0 {
		return errors.New("an attached wrapper has an upstream")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	servers := make([]*server, len(w.cfg.Upstreams))
	var wg sync.WaitGroup
	for i := range w.cfg.Upstreams {
		s := w.client(&w.cfg.Upstreams[i])
		servers[i] = s
		wg.Go(func() { s.watch(ctx, link) })
	}
	wg.Go(func() { w.writeBack(ctx, link, servers) })
	<-ctx.Done()
	wg.Wait()
	for _, s := range servers {
		s.http.CloseIdleConnections()
	}
	return nil
}

// defaultPoll is how often an attached wrapper looks.
const defaultPoll = 5 * time.Second

// watch tells the link what the server says, by polling or by its stream of events, until ctx ends.
func (s *server) watch(ctx context.Context, link wrappers.Link) {
	every := time.Duration(s.w.cfg.Options.Int("poll_ms")) * time.Millisecond
	if every < 0 {
		every = 0
		if s.w.cfg.Attached() {
			every = defaultPoll
		}
	}
	events := s.w.cfg.Options.String("events")
	p := &poller{server: s, link: link, every: every, had: map[string]had{}, asked: map[string]time.Time{}}
	if err := p.restore(ctx); err != nil {
		s.w.log().Error("what was polled before", "err", err)
		return
	}
	if events != "" {
		p.stream(ctx, events)
		return
	}
	for {
		_, reloaded := link.Patterns()
		next, stop := p.next()
		if next != nil {
			p.round(ctx, false)
		}
		select {
		case <-next:
		case <-reloaded:
			p.whole = false // new addresses may have come
		case <-ctx.Done():
			stop()
			return
		}
		stop()
	}
}

// interval is how often an address is asked for: as its bind says, else as the wrapper does; 0: never.
func (p *poller) interval(ps []wrappers.Pattern, address string) time.Duration {
	for i := range ps {
		if ms := ps[i].Options.Int("poll_ms"); ms > 0 && ps[i].In && fits(&ps[i], p.up.Server, address) {
			return time.Duration(ms) * time.Millisecond
		}
	}
	return p.every
}

// next tells when the next round is due, if polling is wanted at all.
func (p *poller) next() (due <-chan time.Time, stop func()) {
	pause := p.every
	ps, _ := p.w.patterns(p.link)
	for i := range ps {
		if d := time.Duration(ps[i].Options.Int("poll_ms")) * time.Millisecond; d > 0 && ps[i].In && (pause == 0 || d < pause) {
			pause = d
		}
	}
	if pause == 0 {
		return nil, func() {}
	}
	t := time.NewTimer(pause)
	return t.C, func() { t.Stop() }
}

// A poller asks a server again and again for the addresses that binds have there.
type poller struct {
	*server
	link   wrappers.Link
	every  time.Duration // what the wrapper says
	had    map[string]had
	asked  map[string]time.Time // of the addresses of the last full round
	rounds int
	whole  bool // one round has listed everything since the binds changed
	silent bool // the last round found the server down
	empty  bool // the last round found it suddenly empty
}

// had is what is known of an address that the server had.
type had struct {
	tag  string // "" if it gives none
	told bool   // reported twice: an answer that met a write in flight is passed over
	away bool   // the last round missed it
}

// freshRound: every so many rounds nothing is taken to be known, so that what was passed over is heard after all.
const freshRound = 12

const keptPrefix = "polled/"

func (p *poller) key(address string) string { return keptPrefix + p.up.Server + address }

// restore learns what the server had before the last stop, so that what went meanwhile is missed.
func (p *poller) restore(ctx context.Context) error {
	prefix := keptPrefix + p.up.Server + "/"
	for r, err := range p.link.Kept(ctx, prefix) {
		if err != nil {
			return err
		}
		p.had[r.Key[len(prefix)-1:]] = had{}
	}
	return nil
}

// mostPolled bounds the addresses asked in one round.
const mostPolled = 100_000

// addresses are what to ask for: templates without a capture, what the server had, and the
// addresses of registers.
func (p *poller) addresses(ctx context.Context) ([]string, error) {
	seen := map[string]bool{}
	var out []string
	add := func(a string) {
		if !seen[a] && len(out) < mostPolled && p.link.Maps(wrappers.Put, p.up.Server, a) {
			seen[a] = true
			out = append(out, a)
		}
	}
	ps, _ := p.w.patterns(p.link)
	inward := false
	for i := range ps {
		if !ps[i].In || ps[i].Server != "" && ps[i].Server != p.up.Server {
			continue
		}
		inward = true
		if a, ok := literal(&ps[i]); ok {
			add(a)
		}
	}
	if !inward {
		return nil, nil
	}
	for a := range p.had {
		add(a)
	}
	prefixes := []string{"/"}
	for len(prefixes) > 0 && len(out) < mostPolled {
		op := wrappers.Operation{Verb: wrappers.List, Server: p.up.Server, Address: prefixes[0]}
		prefixes = prefixes[1:]
		for {
			res, err := p.link.Do(ctx, op)
			if errors.Is(err, wrappers.ErrUnmapped) || errors.Is(err, wrappers.ErrNotFound) {
				break
			}
			if err != nil {
				return nil, err
			}
			for _, it := range res.Items {
				if it.Prefix {
					prefixes = append(prefixes, it.Address)
				} else {
					add(it.Address)
				}
				op.After = it.Address
			}
			if !res.More || len(res.Items) == 0 {
				break
			}
		}
	}
	return out, nil
}

// literal gives the address of a template without a capture.
func literal(p *wrappers.Pattern) (string, bool) {
	var b strings.Builder
	for _, s := range p.Segments {
		if s.Kind != wrappers.LiteralSegment {
			return "", false
		}
		b.WriteByte('/')
		b.WriteString(s.Literal)
	}
	if strings.Contains(p.Suffix, "{") {
		return "", false
	}
	b.WriteString(p.Suffix)
	return b.String(), true
}

// A reply is what became of asking for one address.
type reply struct {
	address string
	o       *wrappers.Observation // nil: unchanged
	err     error
}

// batchMost bounds the observations reported at once.
const batchMost = 64

// round asks for every address once. What is missing is reported as gone only when the server
// is otherwise well: never when more than half of what it had is suddenly away, and only when
// two rounds have missed it.
//
// Without all, only those are asked whose time has come.
func (p *poller) round(ctx context.Context, all bool) {
	addresses, err := p.addresses(ctx)
	if err != nil {
		if ctx.Err() == nil {
			p.w.log().Warn("poll", "err", err)
		}
		return
	}
	if !all {
		addresses = p.due(addresses)
	}
	if len(addresses) == 0 {
		return
	}
	known := 0
	for _, a := range addresses {
		if _, ok := p.had[a]; ok {
			known++
		}
	}
	// Only what is true now is compared with what was; the first round takes everything.
	at := wrappers.Position{}
	if !p.whole {
		at.Snapshot = wrappers.SnapshotPart
	}
	p.rounds++
	began := time.Now()
	replies := p.askAll(ctx, addresses)
	var batch, gone []wrappers.Observation
	var failure error
	failures := 0
	report := func() bool {
		if len(batch) == 0 {
			return true
		}
		err := p.link.Seen(ctx, at, batch)
		batch = batch[:0]
		if err != nil && ctx.Err() == nil {
			p.w.log().Warn("poll", "err", err)
			p.forgetTags() // what was not taken is told again
		}
		return err == nil
	}
	taken := true
	for r := range replies {
		switch {
		case r.err != nil:
			failures++
			failure = r.err
		case r.o == nil:
			h := p.had[r.address]
			h.away = false
			p.had[r.address] = h
		case r.o.Verb == wrappers.Delete:
			if _, had := p.had[r.address]; had {
				r.o.Began, r.o.Keep = began, []wrappers.Record{{Key: p.key(r.address)}}
				gone = append(gone, *r.o)
			}
		default:
			if _, had := p.had[r.address]; !had {
				r.o.Keep = []wrappers.Record{{Key: p.key(r.address), Value: []byte{1}}}
			}
			r.o.Began = began
			p.has(r.address, r.o)
			if batch = append(batch, *r.o); len(batch) == batchMost {
				taken = report() && taken
			}
		}
	}
	p.say(ctx, failures, len(addresses), failure)
	if ctx.Err() != nil {
		return
	}
	if !all && len(gone) > 0 {
		// The answers to a few don't tell how the server is.
		report()
		if !p.empty || p.rounds%freshRound == 0 {
			p.round(ctx, true)
		}
		return
	}
	switch well := len(gone) <= max(1, known/2); {
	case len(gone) == 0:
		p.empty = false
	case well && failures == 0:
		p.empty = false
		for i := range gone {
			// Missed twice, because a server may be found in the middle of being emptied.
			if a := gone[i].Address; p.had[a].away {
				delete(p.had, a)
				batch = append(batch, gone[i])
			} else {
				p.had[a] = had{away: true}
			}
		}
	case !well && !p.empty:
		p.empty = true
		p.link.Count("suddenly_empty", 1)
		p.w.log().Warn("the server lacks most of what it had; nothing is deleted because of that", "server", p.base, "missing", len(gone), "of", known)
	}
	if !p.whole && failures == 0 && taken {
		at.Snapshot = wrappers.SnapshotEnd
		if err := p.link.Seen(ctx, at, batch); err == nil {
			p.whole = true
		} else {
			p.forgetTags()
		}
		return
	}
	report()
}

// due picks the addresses whose time has come.
func (p *poller) due(addresses []string) []string {
	ps, _ := p.w.patterns(p.link)
	now := time.Now()
	asked := make(map[string]time.Time, len(addresses))
	var out []string
	for _, a := range addresses {
		every := p.interval(ps, a)
		last, ok := p.asked[a]
		// A little early rather than a whole round late.
		if every == 0 || ok && p.whole && now.Sub(last) < every-every/10 {
			asked[a] = last
			continue
		}
		asked[a] = now
		out = append(out, a)
	}
	p.asked = asked
	return out
}

func (p *poller) forgetTags() {
	for a := range p.had {
		p.had[a] = had{}
	}
}

// has notes what the server has at an address.
func (p *poller) has(address string, o *wrappers.Observation) {
	tag := string(o.Version)
	p.had[address] = had{tag: tag, told: tag != "" && p.had[address].tag == tag}
}

// askAll asks for the addresses, as many at once as the server's slots allow. Replies come on
// the channel until all are in.
func (p *poller) askAll(ctx context.Context, addresses []string) <-chan reply {
	type question struct{ address, tag string }
	ask := make(chan question)
	replies := make(chan reply, len(addresses))
	var wg sync.WaitGroup
	for range min(cap(p.slots), len(addresses)) {
		wg.Go(func() {
			for q := range ask {
				o, err := p.ask(ctx, q.address, q.tag)
				replies <- reply{q.address, o, err}
			}
		})
	}
	questions := make([]question, len(addresses))
	for i, a := range addresses {
		questions[i].address = a
		if h := p.had[a]; p.whole && h.told && p.rounds%freshRound != 0 {
			questions[i].tag = h.tag
		}
	}
	go func() {
		for _, q := range questions {
			if ctx.Err() != nil {
				break
			}
			ask <- q
		}
		close(ask)
		wg.Wait()
		close(replies)
	}()
	return replies
}

// say logs that the server can't be asked, once, and that it can again.
func (p *poller) say(ctx context.Context, failures, of int, last error) {
	if ctx.Err() != nil {
		return
	}
	switch {
	case failures > 0:
		p.link.Count("poll_errors", failures)
		if !p.silent {
			p.w.log().Warn("poll", "server", p.base, "failed", failures, "of", of, "err", last)
		}
	case p.silent:
		p.w.log().Info("poll: the server answers again", "server", p.base)
	}
	p.silent = failures > 0
}

// stream listens to a stream of Server-Sent Events. An event whose data has an href names the
// address that changed; any other says that something has. Each connection begins with a round, so
// that nothing is missed in between; polling asks for everything again from time to time.
func (p *poller) stream(ctx context.Context, path string) {
	var last string
	pause := time.Second
	for ctx.Err() == nil {
		began := time.Now()
		err := p.listen(ctx, path, &last)
		if time.Since(began) > time.Minute {
			pause = time.Second
		}
		if ctx.Err() != nil {
			return
		}
		p.w.log().Warn("events", "server", p.base, "err", err, "again_in", pause)
		p.link.Count("stream_breaks", 1)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, time.Minute)
	}
}

// lineMost bounds a line of an event stream.
const lineMost = 256 << 10

func (p *poller) listen(ctx context.Context, path string, last *string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := http.Header{"Accept": {eventStream}, "Cache-Control": {"no-store"}}
	if *last != "" {
		h.Set("Last-Event-Id", *last)
	}
	r, err := p.request(ctx, http.MethodGet, path, nil, h)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: p.http.Transport, CheckRedirect: p.http.CheckRedirect}).Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), eventStream) {
		return fmt.Errorf("GET %s: %s, %s: this is no stream of events", path, resp.Status, resp.Header.Get("Content-Type"))
	}
	heard := make(chan string)
	ended := make(chan error, 1)
	go func() { ended <- readEvents(ctx, resp.Body, heard, last) }()
	p.round(ctx, true)
	tick, stop := p.next()
	defer func() { stop() }()
	for {
		_, reloaded := p.link.Patterns()
		select {
		case data := <-heard:
			p.heard(ctx, data)
		case <-tick:
			tick, stop = p.next()
			p.round(ctx, false)
		case <-reloaded:
			p.whole = false
			stop()
			tick, stop = p.next()
			p.round(ctx, true)
		case err := <-ended:
			return err
		}
	}
}

// readEvents reads a stream of events (HTML, section 9.2.6) and gives their data.
func readEvents(ctx context.Context, body io.Reader, heard chan<- string, last *string) error {
	sc := bufio.NewScanner(body)
	sc.Buffer(make([]byte, 0, 4096), lineMost)
	var data []string
	size := 0
	id := *last
	for sc.Scan() {
		field, value, _ := strings.Cut(sc.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case sc.Text() == "":
			if data == nil {
				continue
			}
			select {
			case heard <- strings.Join(data, "\n"):
			case <-ctx.Done():
				return ctx.Err()
			}
			*last, data, size = id, nil, 0
		case field == "data":
			if size += len(value); size > lineMost {
				return errors.New("an event is too large")
			}
			data = append(data, value)
		case field == "id" && !strings.ContainsRune(value, 0):
			id = value
		}
	}
	if err := sc.Err(); err != nil {
		return err
	}
	return io.EOF
}

// heard asks for what an event says has changed.
func (p *poller) heard(ctx context.Context, data string) {
	var e struct {
		Href string `json:"href"`
	}
	if json.Unmarshal([]byte(data), &e) != nil || e.Href == "" {
		p.round(ctx, true)
		return
	}
	address, err := canonical(pathOf(e.Href))
	if err != nil || !p.link.Maps(wrappers.Put, p.up.Server, address) {
		return
	}
	began := time.Now()
	o, err := p.ask(ctx, address, "")
	if err != nil {
		p.say(ctx, 1, 1, err)
		return
	}
	o.Began = began
	_, had := p.had[address]
	switch {
	case o.Verb == wrappers.Delete && !had:
		return
	case o.Verb == wrappers.Delete:
		delete(p.had, address)
		o.Keep = []wrappers.Record{{Key: p.key(address)}}
	default:
		if !had {
			o.Keep = []wrappers.Record{{Key: p.key(address), Value: []byte{1}}}
		}
		p.has(address, o)
	}
	if err := p.link.Seen(ctx, wrappers.Position{}, []wrappers.Observation{*o}); err != nil && ctx.Err() == nil {
		p.w.log().Warn("events", "address", address, "err", err)
		p.round(ctx, true)
	}
}
