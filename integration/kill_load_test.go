package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spooksystems/gateway/engine"
)

// killUnderLoad kills a gateway that is attached to a server again and again, and starts it anew, while commands write straight
// at the server, of which nothing may be lost, and registers are written that are to reach it. It returns when the feed stands
// and both have ended.
func killUnderLoad(t testing.TB, g *spookgw, stands func(feeds int), straight func(ctx context.Context, i int) *exec.Cmd) (kills int) {
	t.Helper()
	kills = 20
	if testing.Short() {
		kills = 5
	}
	if n, err := strconv.Atoi(os.Getenv("KILLS")); err == nil {
		kills = n
	}
	g.program = plainProgram(t)
	g.start()
	stands(1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	loads := make(chan error, 2)
	go func() {
		for i := 0; ; i++ {
			out, err := straight(ctx, i).CombinedOutput()
			if ctx.Err() != nil {
				loads <- nil
				return
			}
			if err != nil {
				loads <- fmt.Errorf("%w: %s", err, out)
				return
			}
		}
	}()
	go func() {
		for i := 0; ctx.Err() == nil; i++ {
			_, _, _, _ = tryRequest(ctx, oneShot, "PUT", fmt.Sprintf("%s/v1/web/w%d", g.httpURL(), i%50), fmt.Sprintf(`{"value":%d}`, i)) // it is killed under it
		}
		loads <- nil
	}()
	for range kills {
		select {
		case <-time.After(300 * time.Millisecond):
		case <-g.done:
			t.Fatalf("spookgw ended by itself: %v", g.err)
		}
		g.kill()
		g.start()
	}
	stands(1)
	cancel()
	for range 2 {
		if err := <-loads; err != nil {
			t.Fatal(err)
		}
	}
	return kills
}

// onlyGrows checks that a register whose writes are numbered never went back.
func onlyGrows(t testing.TB, register string, history []engine.QDelta) {
	t.Helper()
	last := -1
	for _, e := range history {
		if !e.After.Exists {
			continue
		}
		v, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(string(e.After.Value.AppendJSON(nil)), `{"value":`), "}"))
		if err != nil || v <= last {
			t.Errorf("%s went from %d to %s", register, last, e.After.Value.AppendJSON(nil))
		}
		last = v
	}
}
