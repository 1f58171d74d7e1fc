package engine_test

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/enginetest"
)

func open(t *testing.T, o engine.Options) *engine.Engine {
	t.Helper()
	if o.FS == nil {
		o.FS = vfs.NewMem()
	}
	if o.Dir == "" {
		o.Dir = "data"
	}
	e, err := engine.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil && !errors.Is(err, engine.ErrClosed) {
			t.Error(err)
		}
	})
	return e
}

func TestState(t *testing.T) {
	enginetest.Run(t, func(t *testing.T) engine.State { return open(t, engine.Options{}) })
}

// With hardly any memory everything is read back from disk.
func TestStateFromDisk(t *testing.T) {
	enginetest.Run(t, func(t *testing.T) engine.State {
		return open(t, engine.Options{Dir: t.TempDir(), FS: vfs.Default, RecentBytes: 1, FeedBytes: 1, MemTableBytes: 256 << 10})
	})
}

func TestHost(t *testing.T) {
	enginetest.RunHost(t, func(t *testing.T) enginetest.Host { return open(t, engine.Options{}) })
}

func TestRules(t *testing.T) {
	enginetest.RunRules(t, func(t *testing.T) (engine.State, engine.Declarer) {
		e := open(t, engine.Options{Dir: t.TempDir(), FS: vfs.Default})
		return e, e
	})
}

func TestRulesFromDisk(t *testing.T) {
	enginetest.RunRules(t, func(t *testing.T) (engine.State, engine.Declarer) {
		e := open(t, engine.Options{Dir: t.TempDir(), FS: vfs.Default, RecentBytes: 1, FeedBytes: 1, MemTableBytes: 256 << 10})
		return e, e
	})
}

func TestRulesHost(t *testing.T) {
	enginetest.RunRulesHost(t, func(t *testing.T) (enginetest.Host, engine.Declarer) {
		e := open(t, engine.Options{})
		return e, e
	})
}
