package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// Limits of large values.
const (
	MaxChunk = 256 << 10 // bytes of one chunk
	MaxBlob  = 2 << 30   // bytes of one value in chunks
)

// chunkGrace is how long a chunk that nothing refers to is kept: what refers to it may be on its way.
const chunkGrace = time.Hour

const chunkDir = "chunks"

// chunks are the parts of large values, beside the log: files named by their SHA-256. A value's own hash is that of a
// chunk too, which lists the others.
type chunks struct {
	mu      sync.Mutex
	whole   map[lattice.Hash]struct{}  // values all of whose chunks are here
	unused  map[lattice.Hash]time.Time // since when nothing is known to refer to a chunk
	swept   time.Time
	waiting map[string]struct{} // registers that wait for chunks
}

const maxWhole = 100_000

func (e *Engine) chunkPath(h lattice.Hash) (dir, name string) {
	text := hex.EncodeToString(h[:])
	fs := e.fs()
	return fs.PathJoin(e.options.Dir, chunkDir, text[:2]), text
}

// PutBlob keeps a large value: in chunks, durable when it returns. What it returns is what a write puts into a field.
func (e *Engine) PutBlob(ctx context.Context, from io.Reader, mediaType string) (Value, error) {
	blob := lattice.Blob{Type: mediaType}
	var list []byte
	room := make([]byte, MaxChunk)
	for {
		if err := ctx.Err(); err != nil {
			return Value{}, err
		}
		n, err := io.ReadFull(from, room)
		if n > 0 {
			if blob.Size += uint64(n); blob.Size > MaxBlob {
				return Value{}, tooLarge("a value of more than %d bytes", uint64(MaxBlob))
			}
			h := lattice.Hash(sha256.Sum256(room[:n]))
			if err := e.PutChunk(ctx, h, room[:n]); err != nil {
				return Value{}, err
			}
			list = append(list, h[:]...)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return Value{}, err
		}
	}
	blob.Hash = sha256.Sum256(list)
	return blob.Value(), e.PutChunk(ctx, blob.Hash, list)
}

// PutChunk keeps one chunk, durable when it returns. ErrInvalid: the hash is another.
func (e *Engine) PutChunk(ctx context.Context, h lattice.Hash, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(data) > MaxChunk {
		return tooLarge("a chunk of %d bytes; the limit is %d", len(data), MaxChunk)
	}
	if sha256.Sum256(data) != h {
		return invalid("a chunk whose hash is not %x", h[:8])
	}
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	c := &e.chunks
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.unused, h)
	fs := e.fs()
	dir, name := e.chunkPath(h)
	if _, err := fs.Stat(fs.PathJoin(dir, name)); err == nil {
		return nil
	}
	if e.store.Full() {
		return ErrFull
	}
	// The name is given when all of it is on the disk: a chunk is whole, or it isn't there.
	err := fs.MkdirAll(dir, 0o700)
	if err == nil {
		err = writeFile(fs, dir, name+".new", data)
	}
	if err == nil {
		err = fs.Rename(fs.PathJoin(dir, name+".new"), fs.PathJoin(dir, name))
	}
	if err = errors.Join(err, syncDir(fs, dir), syncDir(fs, fs.PathDir(dir)), syncDir(fs, e.options.Dir)); err != nil {
		return fmt.Errorf("%w: chunk %x: %w", ErrUnavailable, h[:8], err)
	}
	if len(c.waiting) > 0 {
		e.windows.nudge()
	}
	return nil
}

// Chunk gives one chunk. ErrNotFound: it isn't here.
func (e *Engine) Chunk(h lattice.Hash) ([]byte, error) {
	dir, name := e.chunkPath(h)
	raw, err := readFile(e.fs(), dir, name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%w: chunk %x", ErrNotFound, h[:8])
	case err != nil:
		return nil, damaged("chunk %x: %w", h[:8], err)
	case sha256.Sum256(raw) != h:
		return nil, damaged("chunk %x has another hash", h[:8])
	}
	return raw, nil
}

// MissingChunks lists what of a large value isn't here yet; as long as the list of its chunks is missing, that alone.
func (e *Engine) MissingChunks(v Value) (missing []lattice.Hash, err error) {
	blob, ok := lattice.BlobOf(v)
	if !ok {
		return nil, invalid("not a value in chunks")
	}
	list, err := e.Chunk(blob.Hash)
	if errors.Is(err, ErrNotFound) {
		return []lattice.Hash{blob.Hash}, nil
	}
	if err != nil || len(list)%len(lattice.Hash{}) != 0 {
		return nil, errors.Join(err, damaged("the list of chunks of %x", blob.Hash[:8]))
	}
	fs := e.fs()
	for ; len(list) > 0; list = list[len(lattice.Hash{}):] {
		h := lattice.Hash(list[:len(lattice.Hash{})])
		dir, name := e.chunkPath(h)
		if _, err := fs.Stat(fs.PathJoin(dir, name)); err != nil {
			missing = append(missing, h)
		}
	}
	return missing, nil
}

// OpenBlob reads a large value. ErrNotFound: a part isn't here yet.
func (e *Engine) OpenBlob(ctx context.Context, v Value) (io.Reader, error) {
	blob, ok := lattice.BlobOf(v)
	if !ok {
		return nil, invalid("not a value in chunks")
	}
	list, err := e.Chunk(blob.Hash)
	if err != nil {
		return nil, err
	}
	return &blobReader{e: e, ctx: ctx, list: list}, nil
}

type blobReader struct {
	e    *Engine
	ctx  context.Context
	list []byte
	rest bytes.Reader
}

// Read implements io.Reader.
func (r *blobReader) Read(p []byte) (int, error) {
	for r.rest.Len() == 0 {
		if len(r.list) < len(lattice.Hash{}) {
			return 0, io.EOF
		}
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		chunk, err := r.e.Chunk(lattice.Hash(r.list[:len(lattice.Hash{})]))
		if err != nil {
			return 0, err
		}
		r.list = r.list[len(lattice.Hash{}):]
		r.rest.Reset(chunk)
	}
	return r.rest.Read(p)
}

// missing says whether a part of a value is not on this node yet.
func (e *Engine) missing(v Value) bool {
	blob, ok := lattice.BlobOf(v)
	if !ok {
		return false
	}
	c := &e.chunks
	c.mu.Lock()
	_, whole := c.whole[blob.Hash]
	c.mu.Unlock()
	if whole {
		return false
	}
	missing, err := e.MissingChunks(v)
	if err != nil || len(missing) > 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.whole == nil || len(c.whole) >= maxWhole {
		c.whole = map[lattice.Hash]struct{}{}
	}
	c.whole[blob.Hash] = struct{}{}
	return false
}

// comeIn tells of the registers whose large values have come.
func (e *Engine) comeIn(ctx context.Context) error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	var names []string
	for r, err := range e.eachInternal(incomingTable) {
		if err != nil {
			return err
		}
		names = append(names, r.Key)
	}
	c := &e.chunks
	c.mu.Lock()
	c.waiting = map[string]struct{}{}
	for _, n := range names {
		c.waiting[n] = struct{}{}
	}
	c.mu.Unlock()
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		behind, err := e.comeInOne(n)
		if err == nil {
			err = e.settleHere(behind)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) comeInOne(name string) (behind uint64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed.Load() != nil {
		return 0, e.failure()
	}
	v, err := e.newest(name)
	if err != nil || e.sight(v).block.Incoming {
		return e.seqr.ordinal, err
	}
	key := store.Internal(incomingTable, name)
	d := e.begin(new(commit), Dot{}, e.seqr.core.Clock(), Cause{Protocol: "engine", Verb: "incoming"}, 0)
	if err := d.reproject(name); err != nil {
		return 0, errors.Join(err, d.c.batch.Close())
	}
	if len(d.c.deltas) == 0 {
		return e.seqr.ordinal, errors.Join(d.c.batch.Close(), e.setAlone(key, nil))
	}
	return d.c.ordinal, d.submit(nil, [][]byte{key})
}

// sweepChunks removes the chunks that neither a register nor history refers to, when it has found them twice, some time
// apart. It looks at everything there is, and therefore seldom.
func (e *Engine) sweepChunks(ctx context.Context) error {
	now := e.options.Now()
	c := &e.chunks
	c.mu.Lock()
	due := c.swept.IsZero() || now.Sub(c.swept) >= chunkGrace
	c.mu.Unlock()
	if !due {
		return nil
	}
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	fs := e.fs()
	all, err := e.allChunks(fs)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.swept = now
	c.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	used, err := e.usedChunks(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unused == nil {
		c.unused = map[lattice.Hash]time.Time{}
	}
	for _, h := range all {
		if _, yes := used[h]; yes {
			delete(c.unused, h)
			continue
		}
		since, known := c.unused[h]
		if !known {
			c.unused[h] = now
		} else if now.Sub(since) >= chunkGrace {
			dir, name := e.chunkPath(h)
			if err := fs.Remove(fs.PathJoin(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			delete(c.unused, h)
			delete(c.whole, h)
		}
	}
	return nil
}

func (e *Engine) allChunks(fs vfs.FS) (all []lattice.Hash, err error) {
	top := fs.PathJoin(e.options.Dir, chunkDir)
	dirs, err := fs.List(top)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return nil, err
	}
	for _, d := range dirs {
		names, err := fs.List(fs.PathJoin(top, d))
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if raw, err := hex.DecodeString(n); err == nil && len(raw) == len(lattice.Hash{}) {
				all = append(all, lattice.Hash(raw))
			}
		}
	}
	return all, nil
}

// usedChunks are those that the registers and their history refer to.
func (e *Engine) usedChunks(ctx context.Context) (map[lattice.Hash]struct{}, error) {
	used := map[lattice.Hash]struct{}{}
	use := func(v Value) {
		if blob, ok := lattice.BlobOf(v); ok {
			used[blob.Hash] = struct{}{}
			if list, err := e.Chunk(blob.Hash); err == nil {
				for ; len(list) >= len(blob.Hash); list = list[len(blob.Hash):] {
					used[lattice.Hash(list[:len(blob.Hash)])] = struct{}{}
				}
			}
		}
	}
	for row, err := range e.names("", "") {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		v, err := e.parse(store.RegisterName(row.Key), row.Value)
		if err != nil {
			return nil, err
		}
		v.reg.Values(use)
	}
	history := store.HistoryPrefix("")[:1]
	for row, err := range e.scan(history, store.Behind(history), false) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		d, err := parseDelta("", Cursor{}, row.Value)
		if err != nil {
			return nil, err
		}
		use(d.After.Value)
		for _, m := range d.After.Value.Members() {
			use(m.Value)
		}
	}
	return used, nil
}

// copyChunks puts the chunks into a backup.
func (e *Engine) copyChunks(to string) error {
	fs := e.fs()
	all, err := e.allChunks(fs)
	if err != nil {
		return err
	}
	made := map[string]bool{}
	for _, h := range all {
		from, name := e.chunkPath(h)
		dir := fs.PathJoin(to, chunkDir, name[:2])
		if !made[dir] {
			if err := fs.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			made[dir] = true
		}
		if err := vfs.LinkOrCopy(fs, fs.PathJoin(from, name), fs.PathJoin(dir, name)); err != nil {
			return err
		}
	}
	for dir := range made {
		if err := syncDir(fs, dir); err != nil {
			return err
		}
	}
	if len(made) > 0 {
		return errors.Join(syncDir(fs, fs.PathJoin(to, chunkDir)), syncDir(fs, to))
	}
	return nil
}
