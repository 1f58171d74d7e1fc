package ldap

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// A feed makes observations of what a directory says has become of its entries, whichever way it says so. Entries are
// known by an identity that survives renaming (entryUUID, objectGUID), since that is all that a deletion shows.
//
// What it knows of each entry is durable together with what the entry became: the name it had, so that a deletion or a
// renaming needs no look at the directory, and its version, so that nothing is shown twice.
type feed struct {
	a     *attached
	binds *binds
	id    string // the attribute that identifies entries; "": their name
	csn   string // the attribute that versions them; "": they have none

	// turn is held while events become observations and are reported, so that a read-back fits between two batches.
	turn   sync.Mutex
	batch  []event
	bytes  int
	cookie []byte // to be stored, and borne by no observation
	told   time.Time
	where  string // what the cookie belongs to
	noted  map[string]known
	holder map[string]string // by path; of this batch, "": nobody
	after  []wrappers.Record // stored after the batch

	refused int               // entries that were missing when it was last said that they are too many
	polls   bool              // the server is asked, and does not say anything by itself
	began   time.Time         // when it was asked, in this round
	reached map[string]string // by server id: the newest version that has come

	ahead map[string]string // entries that were read, and the versions they had: the feed has still to come there
}

// An event is one thing the directory said.
type event struct {
	uuid    string // identity, in any form
	gone    bool
	entry   *ldapwire.SearchResultEntry // nil when gone
	csn     string                      // version, "" if it has none
	cookie  []byte                      // stored with it
	listed  bool                        // part of a listing of everything
	read    bool                        // it was asked for, and did not come by itself
	foreign bool                        // somebody else has made this version
	alone   bool                        // what is below it has been looked at
	began   time.Time                   // when the server was asked, where that is what it takes
}

const (
	batchEvents = 256
	batchBytes  = 1 << 20
)

// Keys of the wrapper's own records.
const (
	cookieKey = "feed/cookie"
	entryKey  = "entry/" // by identity
	placeKey  = "at/"    // by path: the identity of who is there
	asKey     = "as/"    // by path: what the server made of values
)

func newFeed(a *attached, b *binds) *feed {
	return &feed{a: a, binds: b, noted: map[string]known{}, holder: map[string]string{}, ahead: map[string]string{}}
}

// resume gives the cookie to go on from; nil: everything has to be listed.
func (f *feed) resume(ctx context.Context, where string) ([]byte, error) {
	f.where = where
	for rec, err := range f.a.link.Kept(ctx, cookieKey) {
		if err != nil {
			return nil, err
		}
		var k keptCookie
		if rec.Key == cookieKey && json.Unmarshal(rec.Value, &k) == nil && k.Where == where && k.Binds == f.binds.hash {
			return k.Cookie, nil
		}
	}
	return nil, nil
}

func (f *feed) forget(ctx context.Context) error {
	return f.a.link.Keep(ctx, wrappers.Record{Key: cookieKey})
}

func (f *feed) cookieRecord(cookie []byte) wrappers.Record {
	raw, _ := json.Marshal(keptCookie{f.where, f.binds.hash, cookie}) // texts and bytes: it can't fail
	return wrappers.Record{Key: cookieKey, Value: raw}
}

// add takes an event.
func (f *feed) add(ctx context.Context, ev event) error {
	if len(f.batch) > 0 && f.batch[len(f.batch)-1].listed != ev.listed {
		if err := f.flush(ctx); err != nil {
			return err
		}
	}
	ev.began = f.began
	f.batch = append(f.batch, ev)
	if ev.entry != nil {
		f.bytes += sizeOf(ev.entry.Attributes)
	}
	if len(f.batch) >= batchEvents || f.bytes >= batchBytes {
		return f.flush(ctx)
	}
	return nil
}

func sizeOf(attributes []ldapwire.PartialAttribute) int {
	n := 0
	for i := range attributes {
		n += 16 + len(attributes[i].Type)
		for _, v := range attributes[i].Vals {
			n += 8 + len(v)
		}
	}
	return n
}

// cookieEvery bounds how often a cookie is stored that came with nothing else: what is lost with it is sent again.
const cookieEvery = time.Second

// keepCookie notes a cookie that came alone.
func (f *feed) keepCookie(cookie []byte) {
	if len(cookie) > 0 {
		f.cookie = cookie
	}
}

// flush reports what has come.
func (f *feed) flush(ctx context.Context) error {
	batch := f.batch
	f.batch, f.bytes = nil, 0
	if len(batch) == 0 {
		if f.cookie != nil && time.Since(f.told) > cookieEvery {
			rec := f.cookieRecord(f.cookie)
			f.cookie, f.told = nil, time.Now()
			return f.a.link.Keep(ctx, rec)
		}
		return nil
	}
	f.cookie = nil // those of the batch are newer
	for i := range batch {
		if err := f.a.own.settled(ctx, f, &batch[i]); err != nil {
			return err
		}
	}
	f.turn.Lock()
	defer f.turn.Unlock()
	at := f.position()
	if batch[0].listed {
		at.Snapshot = wrappers.SnapshotPart
	}
	return f.report(ctx, at, batch)
}

func (f *feed) position() wrappers.Position { return wrappers.Position{Feed: true, Asked: f.polls} }

// report makes observations of events, and reports them. The turn is ours.
func (f *feed) report(ctx context.Context, at wrappers.Position, batch []event) error {
	defer func() { clear(f.noted); clear(f.holder) }()
	var out []wrappers.Observation
	for i := range batch {
		n := len(out)
		var err error
		if out, err = f.observe(ctx, out, &batch[i]); err != nil {
			return err
		}
		for j := n; j < len(out); j++ {
			out[j].Began = batch[i].began
		}
	}
	at.Keep, f.after = f.after, nil
	if len(out) == 0 && len(at.Keep) == 0 {
		return nil
	}
	return f.a.seen(ctx, at, out)
}

// attributes are those to ask for.
func (f *feed) attributes() []string {
	out := f.binds.attributes()
	for _, a := range []string{f.id, f.csn, "modifiersName"} {
		if a != "" {
			out = append(out, a)
		}
	}
	return out
}

// vanished reports what a listing of everything did not show: it is gone, unless it is so much that it can't be meant.
func (f *feed) vanished(ctx context.Context, there map[string]bool, listed bool) error {
	if err := f.flush(ctx); err != nil {
		return err
	}
	var lost []event
	had, gone := 0, 0
	for rec, err := range f.a.link.Kept(ctx, entryKey) {
		if err != nil {
			return err
		}
		id, err := hex.DecodeString(strings.TrimPrefix(rec.Key, entryKey))
		if err != nil {
			continue
		}
		mapped := f.a.link.Maps(wrappers.Delete, "", parseKnown(rec.Value).address)
		if mapped {
			had++
		}
		if there[string(id)] {
			continue
		}
		if mapped {
			gone++
		}
		lost = append(lost, event{uuid: string(id), gone: true, listed: listed})
	}
	if int64(gone)*100 > int64(had)*f.a.opts.maxLost {
		if f.refused == gone {
			return nil // it was said
		}
		f.refused = gone
		f.a.link.Count("mass_deletes_refused", 1)
		f.a.log().Error("entries have gone while the gateway did not listen, more than max_lost allows: their registers stay, and are not written back. Delete them by hand, or raise max_lost and restart",
			"gone", gone, "of", had, "max_lost", f.a.opts.maxLost)
		return nil
	}
	f.refused = 0
	for _, ev := range lost {
		if err := f.add(ctx, ev); err != nil {
			return err
		}
	}
	return f.flush(ctx)
}

// listed says that all is shown that the directory had; the cookie is where it goes on.
func (f *feed) listed(ctx context.Context, cookie []byte) error {
	if err := f.flush(ctx); err != nil {
		return err
	}
	f.turn.Lock()
	defer f.turn.Unlock()
	at := f.position()
	at.Snapshot = wrappers.SnapshotEnd
	if len(cookie) > 0 {
		at.Keep = []wrappers.Record{f.cookieRecord(cookie)}
	}
	return f.a.seen(ctx, at, nil)
}

// show reports what a read has found at an address, nil: nothing. It fits between two batches, and what the feed has not
// said yet of older states of the entry is passed over when it does.
func (f *feed) show(ctx context.Context, address string, e *ldapwire.SearchResultEntry) error {
	f.turn.Lock()
	defer f.turn.Unlock()
	if e == nil {
		// Who was there stays known until the feed says what became of it.
		return f.a.seen(ctx, f.position(), []wrappers.Observation{{Verb: wrappers.Delete, Address: address}})
	}
	return f.report(ctx, f.position(), []event{{uuid: f.identity(e), entry: e, csn: f.version(e), read: true}})
}

// seen reports until the link has taken it: what it can't store now the directory keeps for us.
func (a *attached) seen(ctx context.Context, at wrappers.Position, what []wrappers.Observation) error {
	pause := 50 * time.Millisecond
	for {
		err := a.link.Seen(ctx, at, what)
		if err == nil || ctx.Err() != nil {
			return err
		}
		a.link.Count("feed_paused", 1)
		a.log().Error("feed paused: what the directory shows can't be stored", "err", err, "again_in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(2*pause, 5*time.Second)
	}
}

var errLookAgain = errors.New("the binds have changed")
