// Package trial runs mappings without servers: the real engine in memory, the real links, and peers and servers that
// are made up. Nothing listens, nothing is dialled, no disk is touched, and time passes only when told to.
package trial

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/gateway"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// Options are what a Trial begins with.
type Options struct {
	Set      *mapping.Set
	Wrappers []gateway.LinkInfo // as Config.Links gives them
	Now      time.Time          // the clock stands there; zero: Start
	// Stock is what the servers behind relays and attached wrappers have before the first contact.
	Stock []Document
	// Registers exist before the first contact.
	Registers []Register
}

// Start is where the clock stands if nobody sets it.
var Start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A Document is what a server has at an address.
type Document struct {
	Wrapper, Server, Address string
	Payload                  wrappers.Payload
}

// A Register is a register with its value; an absent one: it does not exist.
type Register struct {
	Name  string
	Value engine.Value
}

// A Told is one change that a peer or a server is told.
type Told struct {
	Protocol, Wrapper string
	Server, Address   string
	Register          string // "" if no bind has the address
	Bind              *mapping.Bind
	Payload           wrappers.Payload
	Gone              bool
	Echo              bool // to who listens at the very address where it was said
	Create            bool // the server did not have the address
}

// An Outcome is what came of one operation.
type Outcome struct {
	Err     error // refused, with a reason for the peer
	Passed  bool  // no bind maps it, and the server in front of which the gateway stands took it
	Result  wrappers.Result
	Deltas  []engine.QDelta      // what became of registers, in order
	Told    []Told               // by wrapper, server and address
	Parked  []gateway.ParkedItem // what could not be applied
	Dropped int                  // members that no field takes
}

// A Trial is one gateway that is tried. It is for one goroutine.
type Trial struct {
	o       Options
	store   stage
	links   *gateway.Links
	servers map[string]*server
	doors   map[string]wrappers.Link // of virtual wrappers
	stop    context.CancelFunc
	running sync.WaitGroup

	// First is what the first contact of the servers came to.
	First Outcome

	mu      sync.Mutex
	now     time.Time
	gen     *gateway.Generation
	dropped int
}

// mostTold bounds what one operation may lead to at one server.
const mostTold = 10_000

// patience is how long an operation may take to come to an end. Nothing here waits for anybody: it only ends what would
// not end.
const patience = time.Minute

var errNoRest = errors.New("the gateway and its servers do not come to rest: binds feed each other")

// New makes a gateway with the registers and servers as the options say, and waits until the two have met.
func New(ctx context.Context, o Options) (*Trial, error) {
	t := &Trial{o: o, now: o.Now, servers: map[string]*server{}, doors: map[string]wrappers.Link{}}
	if t.now.IsZero() {
		t.now = Start
	}
	var seed [32]byte
	e, err := engine.Open(engine.Options{
		Dir: "trial", FS: vfs.NewMem(), MinFree: 1, Now: t.clock, Random: rand.NewChaCha8(seed), Passive: true,
		MemTableBytes: 1 << 20, CacheBytes: 1 << 20, RecentBytes: 1 << 20,
		Fatal: func(err error) { panic(err) }, // there is no disk
	})
	if err != nil {
		return nil, err
	}
	t.store = stage{e}
	if err := t.begin(ctx); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func (t *Trial) begin(ctx context.Context) error {
	t.links = gateway.NewLinks(gateway.LinksOptions{Store: t.store, Now: t.clock, Count: t.count, Unpaced: true})
	if err := t.store.Declare(ctx, t.o.Set.Rules()); err != nil {
		return fmt.Errorf("the registers' rules: %w", err)
	}
	t.use(t.o.Set)
	for _, r := range t.o.Registers {
		if err := t.given(ctx, r.Name, r.Value); err != nil {
			return err
		}
	}
	run, stop := context.WithCancel(context.Background())
	t.stop = stop
	for _, info := range t.o.Wrappers {
		if !info.Relay && !info.Attached {
			info.Anonymous = wrappers.WriteAccess // who may log on is not tried
			t.doors[info.Name] = t.links.Open(info)
			continue
		}
		s := &server{t: t, info: info, link: t.links.Open(info), docs: map[spot]wrappers.Payload{}}
		t.servers[info.Name] = s
	}
	for _, d := range t.o.Stock {
		s := t.servers[d.Wrapper]
		if s == nil {
			return fmt.Errorf("wrapper %q has no server", d.Wrapper)
		}
		s.docs[spot{d.Server, d.Address}] = d.Payload
	}
	if err := t.links.Err(); err != nil {
		return err
	}
	var err error
	t.First, err = t.watch(ctx, func() (Outcome, error) {
		for _, s := range t.inOrder() {
			if err := s.list(ctx); err != nil {
				return Outcome{}, err
			}
			t.running.Go(func() { s.follow(run) })
		}
		return Outcome{}, nil
	})
	return err
}

// Close ends it.
func (t *Trial) Close() {
	if t.stop != nil {
		t.stop()
	}
	t.running.Wait()
	_ = t.store.Close() // nothing of it is kept
}

func (t *Trial) inOrder() []*server {
	out := make([]*server, 0, len(t.servers))
	for _, info := range t.o.Wrappers {
		if s := t.servers[info.Name]; s != nil {
			out = append(out, s)
		}
	}
	return out
}

func (t *Trial) clock() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

func (t *Trial) set() *mapping.Set {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.gen.Set
}

func (t *Trial) use(set *mapping.Set) {
	t.mu.Lock()
	gen := &gateway.Generation{Number: 1, Set: set}
	t.gen = gen
	t.mu.Unlock()
	t.links.Use(gen)
}

func (t *Trial) count(_, event string, n int) {
	if event == "dropped_members" {
		t.mu.Lock()
		t.dropped += n
		t.mu.Unlock()
	}
}

// given makes a register have exactly this value, as an application would write it.
func (t *Trial) given(ctx context.Context, register string, v engine.Value) error {
	w := engine.Write{Ops: mapping.Become(register, v), By: engine.Cause{Protocol: "daemon", Wrapper: "given"}}
	if err := t.set().Check(register, w.Ops); err != nil {
		return err
	}
	_, err := t.store.WriteState(ctx, w)
	if errors.Is(err, engine.ErrDenied) {
		// Registers with writers are given by one of them.
		for _, by := range writers(t.set(), register) {
			w.By = by
			if _, err = t.store.WriteState(ctx, w); !errors.Is(err, engine.ErrDenied) {
				break
			}
		}
	}
	return err
}

// writers are those who may write a register, as the files say.
func writers(set *mapping.Set, register string) (out []engine.Cause) {
	for _, d := range set.Rules() {
		if ok, err := regexp.MatchString("^(?:"+d.Pattern+")$", register); err != nil || !ok {
			continue
		}
		for _, w := range d.Writers {
			if user, ok := strings.CutPrefix(w, "user:"); ok {
				out = append(out, engine.Cause{Principal: user, Verified: true})
			} else if protocol, wrapper, ok := strings.Cut(w, "/"); ok {
				out = append(out, engine.Cause{Protocol: protocol, Wrapper: strings.ReplaceAll(wrapper, "*", "given")})
			}
		}
	}
	return out
}

// Do performs an operation at a wrapper: as its peer if it is virtual or a relay, and as its server would show it if
// it is attached. The error is the trial's own; what the peer hears is in the Outcome.
func (t *Trial) Do(ctx context.Context, wrapper string, op wrappers.Operation) (Outcome, error) {
	return t.watch(ctx, func() (out Outcome, err error) {
		switch s, door := t.servers[wrapper], t.doors[wrapper]; {
		case door != nil:
			out.Result, out.Err = door.Do(ctx, op)
		case s != nil:
			out.Result, out.Passed, out.Err = s.operate(ctx, op)
		default:
			err = fmt.Errorf("no wrapper is called %q", wrapper)
		}
		return out, err
	})
}

// Collapse settles what waits on a register, as `spookgw collapse` does.
func (t *Trial) Collapse(ctx context.Context, register string) (Outcome, error) {
	return t.watch(ctx, func() (out Outcome, err error) {
		_, out.Err = t.store.Collapse(ctx, register, engine.Cause{Protocol: "daemon"})
		return out, nil
	})
}

// Pass lets time pass: the clock goes on, and what was to happen meanwhile happens.
func (t *Trial) Pass(ctx context.Context, d time.Duration) (Outcome, error) {
	return t.watch(ctx, func() (Outcome, error) {
		t.mu.Lock()
		t.now = t.now.Add(d)
		t.mu.Unlock()
		return Outcome{}, t.store.Tend(ctx)
	})
}

// State gives a register.
func (t *Trial) State(ctx context.Context, register string) (engine.StateBlock, error) {
	return t.store.ReadState(ctx, register)
}

// List yields the registers that exist, by name.
func (t *Trial) List(ctx context.Context) iter.Seq2[engine.StateBlock, error] {
	return t.store.List(ctx, "", "", 0)
}

// watch does something, waits until nothing moves any more, and tells what came of it.
func (t *Trial) watch(ctx context.Context, do func() (Outcome, error)) (Outcome, error) {
	from, err := t.store.Cursor(ctx)
	if err != nil {
		return Outcome{}, err
	}
	parked, err := t.links.Parked(ctx)
	if err != nil {
		return Outcome{}, err
	}
	t.mu.Lock()
	t.dropped = 0
	t.mu.Unlock()
	out, err := do()
	if err == nil {
		err = t.rest(ctx)
	}
	if err != nil {
		return out, err
	}
	for d, err := range t.store.Observe(caughtUp{ctx}, engine.Filter{}, from) {
		if err != nil {
			return out, err
		}
		out.Deltas = append(out.Deltas, d)
	}
	for _, info := range t.o.Wrappers {
		if door := t.doors[info.Name]; door != nil {
			for c, err := range door.Follow(caughtUp{ctx}, wrappers.Notify, wrappers.Cursor(from.String())) {
				if err != nil {
					return out, err
				}
				out.Told = append(out.Told, t.told(info, &c))
			}
			continue
		}
		s := t.servers[info.Name]
		s.mu.Lock()
		out.Told, s.told = append(out.Told, s.told...), nil
		s.mu.Unlock()
	}
	slices.SortStableFunc(out.Told, func(a, b Told) int {
		if a.Wrapper != b.Wrapper {
			return strings.Compare(a.Wrapper, b.Wrapper)
		}
		return order(a.Server, a.Address, b.Server, b.Address)
	})
	now, err := t.links.Parked(ctx)
	for _, p := range now {
		if !slices.Contains(parked, p) {
			out.Parked = append(out.Parked, p)
		}
	}
	t.mu.Lock()
	out.Dropped = t.dropped
	t.mu.Unlock()
	return out, err
}

func (t *Trial) told(info gateway.LinkInfo, c *wrappers.Change) Told {
	told := Told{
		Protocol: info.Protocol.Name, Wrapper: info.Name, Server: c.Server, Address: c.Address,
		Payload: wrappers.Payload{Raw: slices.Clone(c.Payload.Raw), Type: c.Payload.Type, Meta: c.Payload.Meta},
		Gone:    c.Gone, Echo: c.Echo,
	}
	if at, ok := t.set().At(info.Name, c.Server, c.Address); ok {
		told.Register, told.Bind = at.Register, at.Bind
	}
	return told
}

// rest waits until every server has been told and heard: then nothing moves by itself.
func (t *Trial) rest(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errNoRest)
	defer cancel()
	for pause := 20 * time.Microsecond; len(t.servers) > 0; pause = min(2*pause, 2*time.Millisecond) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		before, err := t.store.Cursor(ctx)
		if err != nil {
			return err
		}
		heard := false
		for _, s := range t.inOrder() {
			any, err := s.hear(ctx)
			if err != nil {
				return err
			}
			heard = heard || any
			s.mu.Lock()
			restless := len(s.told) > mostTold
			s.mu.Unlock()
			if restless {
				return errNoRest
			}
		}
		if heard {
			continue
		}
		resting, err := t.links.Resting(ctx)
		if err != nil {
			return err
		}
		if resting {
			after, err := t.store.Cursor(ctx)
			if err != nil {
				return err
			}
			if after == before && !t.unheard() {
				return nil
			}
		}
		time.Sleep(pause)
	}
	return nil
}

func (t *Trial) unheard() bool {
	return slices.ContainsFunc(t.inOrder(), func(s *server) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.shown) > 0 || s.err != nil
	})
}

// order compares two addresses, the servers first.
func order(server, address, server2, address2 string) int {
	if server != server2 {
		return strings.Compare(server, server2)
	}
	return strings.Compare(address, address2)
}
