package ldap

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// attached is the client of a directory server: it hears what changes there, and writes what changed elsewhere.
type attached struct {
	*wrapper
	link    wrappers.Link
	waits   patience
	own     *ownWrites
	docs    *documents
	renders *renders

	mu       sync.Mutex
	standing bool              // a feed stands
	writer   *writer           // the one that works; nil: none does
	feed     *feed             // the one that works; nil: none does
	passed   map[string]string // by server id: the newest change that is durable here
	caught   chan struct{}     // closed, and made anew, when passed has grown, a poll is over, or the feed fell
	asking   bool              // a poll is on its way
	rounds   uint64            // polls that are over
	hurry    chan struct{}     // asks for the next poll at once
	reads    *session          // for single reads
	root     *rootDSE          // of the last connection
}

func newAttached(w *wrapper) *attached {
	return &attached{wrapper: w, waits: usualPatience, own: newOwnWrites(w.up.User), docs: newDocuments(), passed: map[string]string{},
		caught: make(chan struct{}), hurry: make(chan struct{}, 1)}
}

// Serve implements wrappers.Wrapper, and source.
func (a *attached) Serve(ctx context.Context, link wrappers.Link) error {
	a.link, a.renders = link, &renders{link: link}
	if err := a.renders.load(ctx); err != nil {
		return err
	}
	var bg sync.WaitGroup
	work, stop := context.WithCancel(ctx)
	bg.Go(func() { a.keepFeed(work) })
	err := a.writeBack(ctx)
	stop()
	bg.Wait()
	a.mu.Lock()
	if a.reads != nil {
		a.reads.close()
		a.reads = nil
	}
	a.mu.Unlock()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// frameOfServer bounds the messages of the server, which is trusted more than peers are: a group with 100,000 members is one.
const frameOfServer = 256 << 20

// connect opens a session as the gateway's own account.
func (a *attached) connect(ctx context.Context) (*session, error) {
	plain, start := a.up.TLS, a.up.TLS
	if a.up.Scheme == schemeStartTLS {
		plain = nil
	} else {
		start = nil
	}
	s, err := dialSession(ctx, &a.up, plain, start, max(frameOfServer, a.cfg.Limits.Frame), a.waits)
	if err != nil {
		return nil, err
	}
	password := ""
	if a.up.Password != nil {
		password = a.up.Password()
	}
	if err := s.bind(ctx, a.up.User, password); err != nil {
		s.close()
		return nil, fmt.Errorf("logging on as %q: %w", a.up.User, err)
	}
	return s, nil
}

// side is a session beside the feed's.
func (a *attached) side(ctx context.Context) (*session, error) { return a.connect(ctx) }

// reader is the session of single reads. It is shared, and opened anew when it has ended.
func (a *attached) reader(ctx context.Context) (*session, error) {
	a.mu.Lock()
	s := a.reads
	a.mu.Unlock()
	if s != nil && s.ended() == nil {
		return s, nil
	}
	n, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.reads != nil && a.reads.ended() == nil { // somebody was faster
		n.close()
		return a.reads, nil
	}
	a.reads = n
	return n, nil
}

// keepFeed keeps a feed standing.
func (a *attached) keepFeed(ctx context.Context) {
	pause := time.Duration(0)
	said := ""
	for ctx.Err() == nil {
		began := time.Now()
		err := a.feedOnce(ctx)
		a.fell()
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errLookAgain) {
			pause, said = 0, ""
			continue
		}
		a.link.Count("feed_down", 1)
		if time.Since(began) > time.Minute {
			pause = 0
		}
		pause = min(max(2*pause, 100*time.Millisecond), 10*time.Second)
		if text := err.Error(); text != said { // the same again is no news
			said = text
			a.log().Error("feed: what changes is not heard of until this is mended; then it is made up for", "err", err, "again_in", pause)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// feedOnce sets a feed up and runs it until something ends it.
func (a *attached) feedOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	root, err := a.look(ctx, s)
	if err != nil {
		return err
	}
	b := readBinds(a.link, a.types.Load())
	go func() { // when the mappings change, entries are looked at anew
		select {
		case <-b.changed:
			cancel(errLookAgain)
		case <-ctx.Done():
		}
	}()
	err = a.runFeed(ctx, s, root, b)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// runFeed takes the first way of hearing of changes that the server has, or the one that is set.
func (a *attached) runFeed(ctx context.Context, s *session, root *rootDSE, b *binds) error {
	kind := a.opts.feed
	if kind == "syncrepl" || kind == "auto" && root.offers(ldapwire.OIDSyncRequest) {
		f := a.begin(b, "entryUUID", "entryCSN")
		err := f.runSyncrepl(ctx, s)
		if kind != "auto" || !errors.Is(err, errNoSyncrepl) {
			return err
		}
		a.log().Warn("the server offers content synchronization, but not where base is. In OpenLDAP the database lacks the overlay: moduleload syncprov, overlay syncprov. Until it has it the gateway asks again and again", "base", a.opts.base.String(), "err", err)
	}
	if kind == "dirsync" || kind == "auto" && root.offers(ldapwire.OIDDirSync) {
		return a.begin(b, objectGUID, usnChanged).runDirSync(ctx, s, root)
	}
	if kind == "auto" {
		a.log().Info("the server has no feed that the gateway knows (RFC 4533, DirSync): it is asked for what has changed", "every", a.opts.poll)
	}
	return a.begin(b, "", "").runPoll(ctx, s, root)
}

func (a *attached) begin(b *binds, id, csn string) *feed {
	f := newFeed(a, b)
	f.id, f.csn = id, csn
	a.mu.Lock()
	a.feed = f
	a.mu.Unlock()
	return f
}

// stands notes that the feed has shown all that there was, and goes on.
func (a *attached) stands(kind string) {
	a.mu.Lock()
	first := !a.standing
	a.standing = true
	a.mu.Unlock()
	if first {
		a.link.Count("feed_up", 1)
		a.log().Info("feed stands", "kind", kind, "base", a.opts.base.String())
	}
	a.wake()
}

func (a *attached) fell() {
	a.mu.Lock()
	a.standing, a.feed = false, nil
	clear(a.passed)
	a.mu.Unlock()
	a.wake()
}

// wake has those look again who wait for the feed to come somewhere.
func (a *attached) wake() {
	a.mu.Lock()
	close(a.caught)
	a.caught = make(chan struct{})
	a.mu.Unlock()
}

func (a *attached) current() *feed {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.feed
}

// modifier tells who has written an entry last: the peer whose write passed the relay, or whom the server names.
func (a *attached) modifier(e *ldapwire.SearchResultEntry) wrappers.Who {
	principal := value(e, "modifiersName")
	if name, err := dn.Parse(e.ObjectName); err == nil {
		if who, ok := a.wire.who(name.Key(), principal, sameName); ok {
			return who
		}
	}
	return wrappers.Who{Principal: a.principal(principal), Verified: principal != ""}
}

// remover tells who has deleted an entry, which the server doesn't say: the peer whose delete passed the relay.
func (a *attached) remover(address string) wrappers.Who {
	rel, err := dn.ParseAddress(address)
	if err != nil {
		return wrappers.Who{}
	}
	who, _ := a.wire.who(rel.Join(a.opts.base).Key(), "", sameName)
	return who
}

func sameName(a, b string) bool { return nameIdentity(a) == nameIdentity(b) }
