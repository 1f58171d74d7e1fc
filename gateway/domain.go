package gateway

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spooksystems/gateway/engine"
	pairlink "github.com/spooksystems/gateway/engine/link"
	"github.com/spooksystems/gateway/engine/link/hub"
	"github.com/spooksystems/gateway/engine/link/hub/embedded"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// A domain is one QDomain's part of a gateway: an engine of its own, in a directory of its own, and the wrappers' doors to
// it. Nothing of one domain is ever in the storage of another.
type domain struct {
	name  string
	store *engine.Engine
	links *Links
	book  toldBook
	twins *twins
	site  *pairlink.Site // nil until it is opened
	dir   string
	hub   *hub.Hub         // nil: it is on none
	own   *embedded.Server // the hub that this process runs; nil: none
}

// domains are those of a gateway, the default one first. They are fixed while it runs.
type domains struct {
	list []*domain
	mu   sync.Mutex
	// joints are the doors of wrappers, by name, where there are several domains.
	joints map[string]*joint
	whole  *mapping.Set
}

// domainsDir holds the directories of the domains that have not the data directory itself.
const domainsDir = "domains"

// domainFile names the domain that a directory is of.
const domainFile = "DOMAIN"

// domainPlaces gives each domain its directory. The data directory itself is that of the domain it was made for, whatever
// the order in which domains are named now.
func domainPlaces(data string, names []string) (map[string]string, error) {
	held := names[0]
	raw, err := os.ReadFile(filepath.Join(data, domainFile))
	switch {
	case err == nil:
		held = strings.TrimSpace(string(raw))
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if !slices.Contains(names, held) {
		// A domain that nobody had named yet is named now.
		if _, err := os.Stat(filepath.Join(data, domainsDir, names[0])); held != defaultDomain || err == nil {
			return nil, fmt.Errorf("%s holds registers of the domain %q, which `domains` does not name: name it, or use another data directory", data, held)
		}
		held = names[0]
	}
	places := map[string]string{}
	for _, n := range names {
		if places[n] = filepath.Join(data, domainsDir, n); n == held {
			places[n] = data
		}
	}
	return places, nil
}

// openDomains opens an engine for each domain.
func openDomains(data string, names []string, options func(dir string) engine.Options) ([]*domain, error) {
	places, err := domainPlaces(data, names)
	if err != nil {
		return nil, err
	}
	var list []*domain
	for _, n := range names {
		store, err := openDomain(places[n], n, options)
		if err != nil {
			for _, d := range list {
				_ = d.store.Close() // the other error says why
			}
			return nil, fmt.Errorf("%s: %w", places[n], err)
		}
		list = append(list, &domain{name: n, store: store, dir: places[n]})
	}
	return list, nil
}

func openDomain(dir, name string, options func(dir string) engine.Options) (*engine.Engine, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	store, err := engine.Open(options(dir))
	if err != nil {
		return nil, err
	}
	// Behind Open: only who has the directory may say whose it is.
	file := filepath.Join(dir, domainFile)
	if raw, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(raw)) != name {
		if err := os.WriteFile(file, []byte(name+"\n"), 0o600); err != nil {
			return nil, errors.Join(err, store.Close())
		}
	}
	return store, nil
}

// link makes the doors of every domain.
func (ds *domains) link(site string, log *slog.Logger, emit func(Event), count func(wrapper, event string, n int), recorders *recorderHub) {
	ds.joints = map[string]*joint{}
	for _, d := range ds.list {
		d.links = NewLinks(LinksOptions{Store: d.store, Log: log, Site: site, Emit: func(e Event) {
			e.Domain = d.name
			emit(e)
		}, Count: count, recorders: recorders})
	}
}

func (ds *domains) first() *domain { return ds.list[0] }

func (ds *domains) named(name string) *domain {
	for _, d := range ds.list {
		if d.name == name {
			return d
		}
	}
	return nil
}

// declare tells each engine the rules of its registers.
func (ds *domains) declare(ctx context.Context, set *mapping.Set) error {
	for _, d := range ds.list {
		if err := d.store.Declare(ctx, set.Of(d.name).Rules()); err != nil {
			return err
		}
	}
	return nil
}

// use puts a configuration in force.
func (ds *domains) use(g *Generation) {
	for _, d := range ds.list {
		view := *g
		view.Set = g.Set.Of(d.name)
		d.links.Use(&view)
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.whole = g.Set
	for _, j := range ds.joints {
		j.set.Store(g.Set)
		j.turns.turn()
	}
}

// open gives a wrapper its door: to its one domain, or to all of them at once.
func (ds *domains) open(info LinkInfo) (wrappers.Link, error) {
	if len(ds.list) == 1 {
		return ds.first().links.Open(info), nil
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	var links []*link
	var names []string
	for _, d := range ds.list {
		names = append(names, d.name)
		links = append(links, d.links.Open(info).(*link))
	}
	if j := ds.joints[info.Name]; j != nil && slices.Equal(j.links, links) {
		return j, nil
	}
	j, err := newJoint(links, names, ds.whole)
	if err != nil {
		return nil, err
	}
	if former := ds.joints[info.Name]; former != nil {
		former.order.stop()
	}
	ds.joints[info.Name] = j
	return j, nil
}

func (ds *domains) shut(wrapper string) {
	for _, d := range ds.list {
		d.links.Shut(wrapper)
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if j := ds.joints[wrapper]; j != nil {
		j.order.stop()
		delete(ds.joints, wrapper)
	}
}

// err says whether every link found its records.
func (ds *domains) err() error {
	var err error
	for _, d := range ds.list {
		err = errors.Join(err, d.links.Err())
	}
	return err
}

func (ds *domains) contacts() []ContactStatus {
	out := []ContactStatus{}
	for _, d := range ds.list {
		out = append(out, d.links.Contacts()...)
	}
	return out
}

// lag adds up, over domains, how far each wrapper is behind.
func (ds *domains) lag() []LagStatus {
	var out []LagStatus
	for _, d := range ds.list {
		for _, l := range d.links.Lag() {
			i := slices.IndexFunc(out, func(o LagStatus) bool { return o.Wrapper == l.Wrapper })
			if i < 0 {
				out = append(out, l)
				continue
			}
			out[i].Behind += l.Behind
			out[i].Waiting += l.Waiting
		}
	}
	return out
}

func (ds *domains) parked(ctx context.Context) ([]ParkedItem, error) {
	var out []ParkedItem
	for _, d := range ds.list {
		items, err := d.links.Parked(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, items...)
	}
	slices.SortStableFunc(out, func(a, b ParkedItem) int {
		return strings.Compare(a.Wrapper+"\x00"+a.Address+a.ID, b.Wrapper+"\x00"+b.Address+b.ID)
	})
	return out, nil
}

// parkedItem does something with a parked operation, in the domain that has it.
func (ds *domains) parkedItem(ctx context.Context, id string, do func(*Links, context.Context, string) error) error {
	var err error
	for _, d := range ds.list {
		if err = do(d.links, ctx, id); !errors.Is(err, engine.ErrNotFound) {
			return err
		}
	}
	return err
}

// stop ends what runs beside the engines, close the engines themselves.
func (ds *domains) stop() {
	ds.mu.Lock()
	for name, j := range ds.joints {
		j.order.stop()
		delete(ds.joints, name)
	}
	ds.mu.Unlock()
	for _, d := range ds.list {
		if d.twins != nil {
			d.twins.stop()
		}
	}
}

func (ds *domains) close() error {
	var err error
	for _, d := range ds.list {
		err = errors.Join(err, d.store.Close())
	}
	return err
}

// backup copies every domain: the default into dir, the others below it where a data directory has them.
func (ds *domains) backup(ctx context.Context, dir string) (engine.BackupInfo, error) {
	info, err := ds.first().store.Backup(ctx, dir)
	for _, d := range ds.list {
		if err != nil {
			return info, err
		}
		into := dir
		if d != ds.first() {
			var more engine.BackupInfo
			into = filepath.Join(dir, domainsDir, d.name)
			more, err = d.store.Backup(ctx, into)
			info.Bytes += more.Bytes
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(into, domainFile), []byte(d.name+"\n"), 0o600)
		}
	}
	return info, err
}
