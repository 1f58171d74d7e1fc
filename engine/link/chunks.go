package link

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// Chunks of large values travel on request, beside everything else.

const (
	openChunks  = 8    // asked for and not come
	servedMost  = 1024 // asked for by the peer and not given
	absentPause = 10 * time.Second
)

// wanting is what of large values is under way.
type wanting struct {
	open   map[lattice.Hash]bool
	absent map[lattice.Hash]time.Time // the peer hasn't got it: asked again later
	serve  []lattice.Hash             // what the peer asks for
}

func (w *wanting) begin() {
	w.open, w.absent = map[lattice.Hash]bool{}, map[lattice.Hash]time.Time{}
}

// askChunks asks for chunks that registers wait for.
func (s *Session) askChunks(ctx context.Context, again bool) error {
	s.mu.Lock()
	w := &s.large
	if again {
		for h, at := range w.absent {
			if s.o.now().Sub(at) >= absentPause {
				delete(w.absent, h)
			}
		}
	}
	room := openChunks - len(w.open)
	s.mu.Unlock()
	if room <= 0 {
		return nil
	}
	list, err := s.e.Incoming(ctx, room, func(h lattice.Hash) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		_, absent := w.absent[h]
		return absent || w.open[h]
	})
	if err != nil || len(list) == 0 {
		return err
	}
	s.mu.Lock()
	for _, h := range list {
		w.open[h] = true
	}
	s.mu.Unlock()
	s.send(&frame{kind: kindChunkAsk, chunks: list})
	return nil
}

// chunksAsked notes what the peer asks for.
func (s *Session) chunksAsked(list []lattice.Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range list {
		if !slices.Contains(s.large.serve, h) {
			s.large.serve = append(s.large.serve, h)
		}
	}
	if len(s.large.serve) > servedMost {
		return invalid("more than %d chunks asked for at once", servedMost)
	}
	return nil
}

// nextChunk gives one of them.
func (s *Session) nextChunk(context.Context) (*frame, error) {
	s.mu.Lock()
	if len(s.large.serve) == 0 {
		s.mu.Unlock()
		return nil, nil
	}
	h := s.large.serve[0]
	s.large.serve = s.large.serve[1:]
	s.mu.Unlock()
	data, err := s.e.Chunk(h)
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return nil, err
	}
	s.mu.Lock()
	s.count.ChunksOut++
	s.mu.Unlock()
	return &frame{kind: kindChunk, chunk: &chunkFrame{Hash: h, Found: err == nil, Data: data}}, nil
}

// chunkCame keeps a chunk, and asks for more.
func (s *Session) chunkCame(ctx context.Context, c *chunkFrame) error {
	s.mu.Lock()
	asked := s.large.open[c.Hash]
	if delete(s.large.open, c.Hash); asked && !c.Found {
		s.large.absent[c.Hash] = s.o.now()
	}
	s.mu.Unlock()
	switch {
	case !asked:
		return invalid("chunk %x, which nobody asked for", c.Hash[:8])
	case c.Found:
		switch err := s.e.PutChunk(ctx, c.Hash, c.Data); {
		case errors.Is(err, engine.ErrFull):
			s.mu.Lock()
			s.large.absent[c.Hash] = s.o.now()
			s.mu.Unlock()
		case err != nil:
			return err
		}
		s.mu.Lock()
		s.count.ChunksIn++
		s.mu.Unlock()
	}
	return s.askChunks(ctx, false)
}
