package engine

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// Options says how an engine is opened. All but Dir may be zero.
type Options struct {
	Dir           string // made with mode 0700 if need be; one process at a time
	FS            vfs.FS // nil: the disk
	Log           *slog.Logger
	Now           func() time.Time // the wall clock
	MinFree       uint64           // bytes; below, writes are refused with ErrFull; default 256 MiB
	CacheBytes    int64            // of what was read from disk; default 16 MiB
	MemTableBytes uint64           // of what was not sorted to disk yet, up to four times; default 16 MiB
	RecentBytes   int              // of registers written lately; default 8 MiB
	FeedBytes     int              // of commits that observers are given from memory; default 4 MiB
	// HistoryAge is how long history and log are kept where no declaration says otherwise; 0: 30 days, negative: without end.
	HistoryAge time.Duration
	// PurgeAfter is how long what a delete hides is kept at least, and until every member knows of it; default an hour.
	PurgeAfter time.Duration
	// HeldBytes bounds the candidates that wait for others; default 64 MiB: MaxBulk fits in.
	HeldBytes int
	// Random gives the randomness of identities; default crypto/rand. Only a simulation sets it.
	Random io.Reader
	// Passive: nothing happens by itself; whoever opened it calls Tend.
	Passive bool
	// Fatal is told that what was to be durable may not be: the disk refused a write or a sync. The default logs it
	// and ends the process with status 1: a restart finds what the disk has, going on is never safe.
	Fatal func(error)
}

// An Engine is the shared state of one domain in this process. It satisfies State, Submitter and Keeper.
type Engine struct {
	options Options
	store   *store.Store
	origin  lattice.Origin
	self    OriginID // stands for origin
	log     uint64   // id of the commit log
	started time.Time

	mu       sync.Mutex // guards seqr, and changes of recent
	seqr     sequencer
	recent   recent
	lately   lately
	feed     feed
	rules    atomic.Pointer[ruleTable]
	held     holding
	members  members
	windows  windows
	trimming trimming
	findings findings
	floor    atomic.Pointer[floor]
	tending  sync.Mutex // one Tend at a time
	lastTend time.Time  // tend's own
	purged   []byte     // where the next purge goes on; nil: at the beginning. Guarded by tending
	chunks   chunks

	observers atomic.Int64
	failed    atomic.Pointer[error]
	life      sync.RWMutex // held for reading while the storage is in use
	closed    bool
	closing   chan struct{}
	watching  sync.WaitGroup
	exports   sync.WaitGroup
}

// Names of what there is one of.
const (
	metaFormat   = "format"   // of everything below
	metaEndpoint = "endpoint" // the EndpointID
	metaLog      = "log"      // id of the commit log
	metaSelf     = "self"     // OriginID of the last incarnation that wrote
	metaFloor    = "floor"    // where the log begins
	metaJoin     = "join"     // the Snapshot of a join that is under way
	metaBackup   = "backup"   // this is one, or was made of one
)

const format = 2

// ErrInUse says that another process has the directory open.
var ErrInUse = store.ErrInUse

// Open opens the directory, or makes a new node of an empty one. Each Open is a new incarnation.
func Open(o Options) (*Engine, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.RecentBytes == 0 {
		o.RecentBytes = 8 << 20
	}
	if o.FeedBytes == 0 {
		o.FeedBytes = 4 << 20
	}
	if o.HistoryAge == 0 {
		o.HistoryAge = 30 * 24 * time.Hour
	}
	if o.PurgeAfter == 0 {
		o.PurgeAfter = time.Hour
	}
	if o.HeldBytes == 0 {
		o.HeldBytes = 64 << 20
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Fatal == nil {
		log := o.Log
		o.Fatal = func(err error) {
			log.Error("the disk can't be relied on: ending, a restart finds what it has", "error", err)
			os.Exit(1)
		}
	}
	e := &Engine{windows: windows{timed: map[string]Stamp{}, wake: make(chan struct{}, 1)}, options: o, started: o.Now(), closing: make(chan struct{}), feed: feed{limit: o.FeedBytes}}
	e.recent.init(o.RecentBytes)
	e.rules.Store(&ruleTable{})
	e.floor.Store(&floor{})
	s, err := store.Open(store.Options{
		Dir: o.Dir, FS: o.FS, Log: o.Log, MinFree: o.MinFree, CacheBytes: o.CacheBytes, MemTableBytes: o.MemTableBytes,
		Fatal: func(err error) { e.fail(err) },
	})
	if err != nil {
		return nil, err
	}
	e.store = s
	for _, step := range []func() error{e.identify, e.resume, e.meetEnd, e.loadRules, e.loadPending, e.loadHeld, e.loadMembers, e.loadFindings, e.meetBackup, e.resumeJoin} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("data directory %s: %w", o.Dir, err), s.Close(store.End{}))
	}
	if !o.Passive {
		e.watching.Go(e.tend)
	}
	return e, nil
}

// meetEnd holds what the storage shows against where the last run ended, if that was a clean stop.
func (e *Engine) meetEnd() error {
	if end, ok := e.store.LastEnd(); ok && (end.Log != e.log || end.Ordinal > e.seqr.ordinal) {
		return damaged("the storage's list of files: it ends at commit %d of log %x, the last run ended at %d of %x", e.seqr.ordinal, e.log, end.Ordinal, end.Log)
	}
	return e.store.ForgetEnd()
}

// meta reads something there is one of; nil if there is none.
func (e *Engine) meta(name string) ([]byte, error) {
	var out []byte
	_, err := e.get(store.Meta(name), func(value []byte) error {
		out = append([]byte{}, value...)
		return nil
	})
	return out, err
}

// identify finds who this node is, or mints it, and begins a new incarnation.
func (e *Engine) identify() error {
	endpoint, err1 := e.meta(metaEndpoint)
	log, err2 := e.meta(metaLog)
	version, err3 := e.meta(metaFormat)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if version == nil {
		var seed [32]byte // a UUIDv4 (RFC 9562, section 5.4), then the salt
		if _, err := io.ReadFull(e.options.Random, seed[:]); err != nil {
			return err
		}
		seed[6], seed[8] = seed[6]&0x0f|0x40, seed[8]&0x3f|0x80
		id := sha512.Sum512(seed[:])
		endpoint, version = id[:], []byte{format}
		if log, err3 = e.newLog(); err3 != nil {
			return err3
		}
		b := e.store.NewBatch()
		err := errors.Join(b.Set(store.Meta(metaEndpoint), endpoint), b.Set(store.Meta(metaLog), log), b.Set(store.Meta(metaFormat), version), e.store.Apply(b, true), b.Close())
		if err != nil {
			return err
		}
	}
	switch {
	case len(version) != 1 || version[0] == 0 || len(endpoint) != len(e.origin.Endpoint) || len(log) != 8:
		return damaged("the node's identity")
	case version[0] < format:
		return fmt.Errorf("it was written by an earlier version of this program (format %d), which this one (format %d) can't read", version[0], format)
	case version[0] > format:
		return fmt.Errorf("it was written by a newer version of this program (format %d; this one knows %d)", version[0], format)
	}
	copy(e.origin.Endpoint[:], endpoint)
	if _, err := io.ReadFull(e.options.Random, e.origin.Incarnation[:]); err != nil {
		return err
	}
	e.self, e.log = e.origin.ID(), binary.BigEndian.Uint64(log)
	return nil
}

// newLog draws the id of a commit log.
func (e *Engine) newLog() ([]byte, error) {
	log := make([]byte, 8)
	for binary.BigEndian.Uint64(log) == 0 {
		if _, err := io.ReadFull(e.options.Random, log); err != nil {
			return nil, err
		}
	}
	return log, nil
}

// resume finds where the log ends, and makes sure that its end is whole: a damaged one must not be written to.
func (e *Engine) resume() error {
	self, err := e.meta(metaSelf)
	if err != nil {
		return err
	}
	s := &e.seqr
	clock := Stamp(0)
	for row, err := range e.scan(store.Commit(0), store.Behind(store.Commit(0)[:1]), true) {
		if err != nil {
			return err
		}
		ordinal, ok := store.CommitOrdinal(row.Key)
		if !ok {
			return damaged("the commit log")
		}
		c, err := parseCommit(ordinal, row.Value)
		if err != nil {
			return err
		}
		if s.ordinal == 0 {
			clock, s.ordinal, s.registers, s.candidates = c.clock, ordinal, c.registers, c.candidates
			e.feed.published.Store(ordinal)
		}
		// Behind the last commit that observers see there are few of the engine's own.
		if slices.ContainsFunc(c.names, func(name string) bool { return !reservedName(name) }) {
			e.feed.shown.Store(ordinal)
			break
		}
	}
	k := lattice.Knowledge{Self: e.origin, Clock: clock, Heads: map[OriginID]lattice.Head{}, Retired: map[OriginID]uint64{}, Owners: map[OriginID]lattice.Intro{}}
	if err := e.loadOrigins(&k); err != nil {
		return err
	}
	if err := e.loadFloor(); err != nil {
		return err
	}
	if self != nil {
		if len(self) != len(OriginID{}) {
			return damaged("the origin of the last commit")
		}
		origin := OriginID(self)
		head, err := e.chainEnd(origin, k.Heads[origin])
		if err != nil {
			return err
		}
		k.Before, k.Heads[origin] = Dot{Origin: origin, Seq: head.Seq}, head
	}
	s.core = lattice.NewCore(k)
	return nil
}

// loadOrigins reads who has written what.
func (e *Engine) loadOrigins(k *lattice.Knowledge) error {
	for row, err := range e.scan(store.Origin(OriginID{})[:1], store.Behind(store.Origin(OriginID{})[:1]), false) {
		if err != nil {
			return err
		}
		intro, err := parseIntro(row.Value)
		o, ok := store.OriginOf(row.Key)
		if err != nil || !ok || intro.Origin.ID() != o {
			return damaged("the origins")
		}
		k.Owners[o] = intro
	}
	for row, err := range e.scan(store.Head(OriginID{})[:1], store.Behind(store.Head(OriginID{})[:1]), false) {
		if err != nil {
			return err
		}
		head, err := parseHead(row.Value)
		o, ok := store.OriginOf(row.Key)
		if err != nil || !ok {
			return damaged("the heads of the origins")
		}
		k.Heads[o] = head
	}
	for row, err := range e.names(lattice.OriginPrefix, "") {
		if err != nil {
			return err
		}
		v, err := e.parse(store.RegisterName(row.Key), row.Value)
		if err != nil {
			return err
		}
		for _, entry := range v.reg.Entries("") {
			if d, err := lattice.ParseDot(fmt.Sprintf("%s.%d", v.name[len(lattice.OriginPrefix):], entry.Value.Int())); err == nil {
				if k.Heads[d.Origin].Seq > d.Seq {
					continue // a clone took it for its own past, and it went on
				}
				k.Retired[d.Origin] = max(k.Retired[d.Origin], d.Seq)
				delete(k.Heads, d.Origin)
			}
		}
	}
	for row, err := range e.scan(store.Shard(0)[:1], store.Behind(store.Shard(0)[:1]), false) {
		if err != nil {
			return err
		}
		if len(row.Key) != 2 || len(row.Value) != len(lattice.Hash{}) {
			return damaged("the hashes over the registers")
		}
		e.seqr.shards[row.Key[1]] = lattice.TallyOf(lattice.Hash(row.Value))
	}
	return nil
}

// chainEnd is the last candidate of an origin, if it continues the one before it. What was noted is where all of them have
// been trimmed, or where a state has brought what is behind them.
func (e *Engine) chainEnd(origin OriginID, noted lattice.Head) (head lattice.Head, err error) {
	var last *QCandidate
	whole := false
	first := store.Candidate(Dot{Origin: origin})
	for row, err := range e.scan(first, store.Behind(first[:17]), true) {
		if err != nil {
			return head, err
		}
		if last != nil {
			if d, ok := store.DotOf(row.Key); !ok || d.Seq != last.Dot.Seq-1 {
				break
			}
			if lattice.Hash(sha256.Sum256(row.Value)) != last.Prev {
				return head, damaged("candidate %s does not continue the one before it", last.Dot)
			}
			whole = true
			break
		}
		if last, err = lattice.ParseCandidate(row.Value); err != nil {
			return head, damaged("the last candidate of %s: %w", origin, err)
		}
		head = lattice.Head{Seq: last.Dot.Seq, Hash: sha256.Sum256(row.Value)}
		whole = last.Dot.Seq == 1
	}
	switch {
	case noted.Seq > head.Seq:
		return noted, nil
	case last == nil, !whole && !e.floor.Load().vector.Covers(Dot{Origin: origin, Seq: last.Dot.Seq - 1}):
		return head, damaged("the candidates of %s are missing", origin)
	}
	return head, nil
}

// enter begins a use of the storage, which leave ends. Nobody else's code runs between them.
func (e *Engine) enter() error {
	e.life.RLock()
	if e.closed || e.failed.Load() != nil {
		defer e.life.RUnlock()
		if e.closed {
			return ErrClosed
		}
		return e.failure()
	}
	return nil
}

func (e *Engine) leave() { e.life.RUnlock() }

// fail is the end: nothing is acknowledged or shown after it.
func (e *Engine) fail(err error) error {
	if e.failed.CompareAndSwap(nil, &err) {
		e.options.Fatal(err)
		e.feed.shut()
	}
	return e.failure()
}

func (e *Engine) failure() error {
	return fmt.Errorf("%w: the disk can't be relied on: %v", ErrUnavailable, *e.failed.Load())
}

// Close waits for the writes that are under way and closes the directory. Observers end with ErrClosed.
func (e *Engine) Close() error {
	e.mu.Lock()
	last := e.seqr.ordinal
	e.mu.Unlock()
	err := e.settle(last)
	e.life.Lock()
	if e.closed {
		e.life.Unlock()
		return ErrClosed
	}
	e.closed = true
	e.life.Unlock()
	close(e.closing)
	e.feed.shut()
	e.watching.Wait()
	e.exports.Wait()
	if e.failed.Load() != nil {
		return err // the storage is in an unknown state: nothing more is done to it
	}
	return errors.Join(err, e.store.Close(store.End{Log: e.log, Ordinal: last}))
}

// Cursor is the place of the newest commit that observers of everything see.
func (e *Engine) Cursor(context.Context) (Cursor, error) {
	if err := e.enter(); err != nil {
		return Cursor{}, err
	}
	defer e.leave()
	return Cursor{e.log, e.feed.shown.Load()}, nil
}

// Status gives the figures.
func (e *Engine) Status(context.Context) (Status, error) {
	if err := e.enter(); err != nil {
		return Status{}, err
	}
	defer e.leave()
	e.mu.Lock()
	registers, candidates, root := e.seqr.registers, e.seqr.candidates, e.seqr.root()
	e.mu.Unlock()
	usage := e.store.Usage()
	return Status{
		Endpoint:    e.origin.Endpoint,
		Incarnation: hex.EncodeToString(e.origin.Incarnation[:]),
		Cursor:      Cursor{e.log, e.feed.shown.Load()},
		Registers:   registers,
		Candidates:  candidates - e.floor.Load().candidates,
		Observers:   int(e.observers.Load()),
		DiskBytes:   usage.DiskBytes,
		FreeBytes:   usage.FreeBytes,
		Full:        usage.Full,
		Fsyncs:      usage.Fsyncs,
		Started:     e.started,
		Root:        hex.EncodeToString(root[:]),
		Pending:     e.windows.count(),
		Held:        e.held.count(),
		Floor:       e.floor.Load().ordinal,
		Findings:    e.findings.all(),
	}, nil
}
