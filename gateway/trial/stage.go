package trial

import (
	"context"
	"iter"

	"github.com/spooksystems/gateway/engine"
)

// A stage is the engine as the links see it. Who follows it with a context that is caughtUp hears of everything up to
// now, and then the sequence ends instead of waiting.
type stage struct{ *engine.Engine }

// caughtUp is a context that is done only for who would wait.
type caughtUp struct{ context.Context }

var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Done implements context.Context.
func (caughtUp) Done() <-chan struct{} { return closed }

// Observe is the engine's.
func (s stage) Observe(ctx context.Context, f engine.Filter, from engine.Cursor) iter.Seq2[engine.QDelta, error] {
	return func(yield func(engine.QDelta, error) bool) {
		for d, err := range s.Engine.Observe(ctx, f, from) {
			if err == nil && d.Of == 0 {
				return // it would have waited, and caughtUp has no error
			}
			if !yield(d, err) {
				return
			}
		}
	}
}
