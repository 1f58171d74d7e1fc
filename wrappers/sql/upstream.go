package sql

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// database is the wrapper in front of, or inside, a real server. Either way it hears every
// committed row by logical replication, which alone makes candidates, and writes rows. In front of
// one there is a relay as well.
type database struct {
	w       *wrapper
	link    wrappers.Link
	log     *slog.Logger
	acts    acts
	marks   *marks
	passing *passing
	renders *renders
	watch   atomic.Pointer[tableWatch]
	pure    atomic.Pointer[harmless] // nil until the server was asked
	seal    []byte                   // key of sayings; nil: attribute is not exact
	exact   atomic.Bool              // every client may write them
	notice  *notice                  // of statements, where they are captured; nil: there is a feed
	asker   asker

	mu       sync.Mutex
	up       chan struct{} // closed while the feed stands
	upNow    bool
	troubles map[string]string // what was said of each table, so that it is said once
	stale    map[tableName]bool
	stood    time.Time // since when the feed stands, or stood
	unread   bool      // the slot has changes that can't be decoded any more
}

// serveUpstream works in front of, or inside, a real server.
func (w *wrapper) serveUpstream(ctx context.Context, link wrappers.Link) error {
	var run [8]byte
	if _, err := rand.Read(run[:]); err != nil {
		return err
	}
	d := &database{
		w: w, link: link, log: w.log(), marks: newMarks(hex.EncodeToString(run[:])), passing: newPassing(), renders: &renders{link: link},
		up: make(chan struct{}), troubles: map[string]string{}, stale: map[tableName]bool{},
	}
	if err := d.renders.load(ctx); err != nil {
		return err
	}
	if w.statements {
		d.notice = newNotice()
	}
	if w.attribute == "exact" {
		var err error
		if d.seal, err = loadSeal(ctx, link); err != nil {
			return err
		}
	}
	b := readBinds(link)
	d.watch.Store(b.watch())
	// The feed outlives the relay's drain: commits may still wait for it.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var bg sync.WaitGroup
	bg.Go(func() { d.keepPassing(work) })
	if d.notice != nil {
		defer d.asker.close()
		bg.Go(func() { d.keepReading(work) })
	} else {
		bg.Go(func() { d.keepFeed(work) })
		bg.Go(func() { d.writeMarks(work) })
	}
	serve, end := context.WithCancel(ctx)
	defer end()
	parts := []func(context.Context) error{d.writeBack}
	if w.cfg.Relay() {
		parts = append(parts, d.relayServer().Serve)
	}
	ended := make(chan error, len(parts))
	for _, part := range parts {
		go func() { ended <- part(serve) }()
	}
	var err error
	for range parts {
		err = errors.Join(err, <-ended)
		end() // without one of them the wrapper is not whole
	}
	stop()
	bg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (d *database) watched() *tableWatch { return d.watch.Load() }

// captured waits until the registers have what a session has just committed.
func (d *database) captured(s *relay.Session) {
	d.mu.Lock()
	up := d.upNow
	d.mu.Unlock()
	if !up {
		d.link.Count("capture_not_waited", 1) // the server's log owes it to us
		return
	}
	if !d.marks.await(s.Context(), d.w.captureWait) {
		d.link.Count("capture_late", 1)
	}
}

// keepFeed keeps the feed standing.
func (d *database) keepFeed(ctx context.Context) {
	pause := time.Duration(0)
	said := ""
	for ctx.Err() == nil {
		err := d.feedOnce(ctx)
		stood := d.stoodFor()
		d.fell()
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errLookAgain) {
			pause, said = 0, ""
			continue
		}
		d.link.Count("feed_down", 1)
		if sqlState(err) == "42704" && stood > 0 {
			// What was changed while there was no publication can't be decoded later either: the plugin looks it up as of then.
			d.mu.Lock()
			d.unread = true
			d.mu.Unlock()
		}
		if stood > pause {
			pause = 0
		}
		pause = min(max(2*pause, 100*time.Millisecond), 10*time.Second)
		if text := err.Error(); text != said { // the same again is no news
			said = text
			d.link.Trouble(aboutFeed, text)
			d.log.Error("feed: rows that change are not heard of until this is mended; the server keeps what comes meanwhile if the slot exists", "err", err, "again_in", pause)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// errLookAgain: the mappings, or the tables, have changed.
var errLookAgain = errors.New("the tables are to be looked at again")

// stands notes that the server sends.
func (d *database) stands(f *feed) {
	d.mu.Lock()
	if !d.upNow {
		d.upNow = true
		close(d.up)
	}
	d.stood = time.Now()
	d.mu.Unlock()
	d.marks.stands(true)
	d.link.Trouble(aboutFeed, "")
	d.link.Count("feed_up", 1)
	d.log.Info("feed stands", "slot", d.w.slot, "tables", len(f.since))
}

// stoodFor is how long the feed has stood that has just ended; 0: it did not.
func (d *database) stoodFor() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.upNow {
		return 0
	}
	return time.Since(d.stood)
}

func (d *database) fell() {
	d.marks.stands(false)
	d.mu.Lock()
	if d.upNow {
		d.upNow, d.up = false, make(chan struct{})
	}
	d.mu.Unlock()
}

// trouble says, once, what is wrong with a table.
func (d *database) trouble(t tableName, what string) {
	d.mu.Lock()
	known := d.troubles[t.String()] == what
	d.troubles[t.String()] = what
	d.mu.Unlock()
	if known {
		return
	}
	d.link.Trouble(t.String(), what)
	d.link.Count("table_troubles", 1)
	d.log.Error("a mapped table can't be followed as it is", "table", t.String(), "why", what)
}

// aboutFeed is the feed, and aboutKept the log that the server keeps for it, as `spookgw status` names them.
const (
	aboutFeed = "feed"
	aboutKept = "max_slot_wal_keep_size"
)

// well takes back what was said of a table.
func (d *database) well(t tableName) {
	d.mu.Lock()
	_, was := d.troubles[t.String()]
	delete(d.troubles, t.String())
	d.mu.Unlock()
	if was {
		d.link.Trouble(t.String(), "")
	}
}

// forgetTable has the writer read the catalogue anew.
func (d *database) forgetTable(t tableName) {
	d.mu.Lock()
	d.stale[t] = true
	d.mu.Unlock()
}

func (d *database) takeStale() []tableName {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []tableName
	for t := range d.stale {
		out = append(out, t)
	}
	clear(d.stale)
	return out
}
