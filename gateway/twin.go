package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// A twin is another process on this machine that runs a copy of the same data directory: one endpoint, twice. Nodes that
// exchange candidates notice a clone by those; two on one machine need not exchange anything. Whoever is first has the
// endpoint's own place, and whoever finds it taken asks there.
type twins struct {
	store  *engine.Engine
	place  string
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// twinWord is what one tells the other, as a line of JSON.
type twinWord struct {
	Endpoint string `json:"endpoint"` // all of it
	Origin   string `json:"origin"`
}

const (
	twinPatience = 2 * time.Second
	twinLook     = 10 * time.Second // how often the place is tried again
)

// watchTwins begins to look for twins. What it can't do it leaves: it guards against a mistake, and nothing rests on it.
func watchTwins(store *engine.Engine) *twins {
	ctx, cancel := context.WithCancel(context.Background())
	t := &twins{store: store, cancel: cancel}
	own, err := t.word(ctx)
	if err != nil {
		return t
	}
	t.place = twinPlace(own.Endpoint[:32])
	t.wait.Go(func() { t.run(ctx) })
	return t
}

// twinPlace is the endpoint's place on this machine. On Linux it is a name without a file, which nothing can leave behind.
func twinPlace(endpoint string) string {
	if runtime.GOOS == "linux" {
		return "@spookgw-" + endpoint
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("spookgw-%d-%s", os.Getuid(), endpoint[:16]))
}

func (t *twins) stop() {
	t.cancel()
	t.wait.Wait()
}

func (t *twins) run(ctx context.Context) {
	for ctx.Err() == nil {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "unix", t.place)
		if err == nil {
			t.answer(ctx, l)
			return
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			if t.ask(ctx) != nil && t.place[0] != '@' {
				_ = os.Remove(t.place) // nobody answers: it was left by a process that is gone
				continue
			}
		}
		select {
		case <-time.After(twinLook):
		case <-ctx.Done():
		}
	}
}

// answer tells everybody who asks.
func (t *twins) answer(ctx context.Context, l net.Listener) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for ctx.Err() == nil {
		c, err := l.Accept()
		if err != nil {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		t.talk(ctx, c)
	}
	_ = l.Close()
}

// ask asks whoever has the place.
func (t *twins) ask(ctx context.Context) error {
	d := net.Dialer{Timeout: twinPatience}
	c, err := d.DialContext(ctx, "unix", t.place)
	if err != nil {
		return err
	}
	t.talk(ctx, c)
	return nil
}

// talk says who this is and hears who that is: one line each, of the same user's processes only.
func (t *twins) talk(ctx context.Context, c net.Conn) {
	defer c.Close()
	if uid, known := peerUID(c); known && uid != os.Getuid() && uid != 0 {
		return
	}
	_ = c.SetDeadline(time.Now().Add(twinPatience))
	own, err := t.word(ctx)
	if err != nil || json.NewEncoder(c).Encode(own) != nil {
		return
	}
	var other twinWord
	if json.NewDecoder(io.LimitReader(c, 1024)).Decode(&other) != nil || other.Endpoint != own.Endpoint {
		return
	}
	if d, err := lattice.ParseDot(other.Origin + ".1"); err == nil {
		_ = t.store.Twin(ctx, d.Origin) // that it is closing is no finding
	}
}

func (t *twins) word(ctx context.Context) (twinWord, error) {
	s, err := t.store.Summary(ctx)
	if err != nil {
		return twinWord{}, err
	}
	return twinWord{fmt.Sprintf("%x", s.Endpoint[:]), s.Origin.String()}, nil
}
