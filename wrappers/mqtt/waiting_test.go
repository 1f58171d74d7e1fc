package mqtt

import (
	"context"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
)

// waiting is a link to registers of which those that end in "waits" are collapsed later.
type waiting struct{ wrappers.Link }

func (w waiting) Start(ctx context.Context, op wrappers.Operation) (func() (wrappers.Result, error), error) {
	if strings.HasSuffix(op.Address, "waits") {
		return func() (wrappers.Result, error) { return wrappers.Result{Cursor: "1.1", Waiting: true}, nil }, nil
	}
	return w.Link.Start(ctx, op)
}

// TestPublishThatWaits: it is acknowledged, and nobody hears of it.
func TestPublishThatWaits(t *testing.T) {
	rig := startVirtual(t, waiting{newLink()}, nil)
	p := connectPeer(t, rig.Addr, connect{level: level311, clean: true})
	p.subscribe(request{"sensors/#", 1})
	for _, topic := range []string{"sensors/a/waits", "sensors/a/b"} {
		if code, err := p.publish(msg(topic, "{}", 1)); err != nil || code != 0 {
			t.Fatalf("%s: got %d, %v", topic, code, err)
		}
	}
	if got := string(p.messages(1)[0].topic); got != "sensors/a/b" {
		t.Errorf("got %s, want only what does not wait", got)
	}
}
