package engine

import (
	"bytes"
	"context"
	"errors"
	"regexp"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// reproject looks through the registers of a declaration that has changed: where what they show is another value now,
// observers and history are told, without a candidate.
func (e *Engine) reproject(ctx context.Context) error {
	tasks, err := e.reprojections()
	if err != nil {
		return err
	}
	for _, t := range tasks {
		if err := e.reprojectOne(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) reprojections() (tasks []Record, err error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	for r, err := range e.eachInternal(reprojectTable) {
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, r)
	}
	return tasks, nil
}

func (e *Engine) reprojectOne(ctx context.Context, t Record) error {
	r := lattice.NewReader(t.Value)
	for range 2 { // what was declared before, and what is now
		prefix, pattern := r.Text(), r.Text()
		re, err := regexp.Compile("^(?:" + pattern + ")$")
		if err != nil || pattern == "" {
			continue
		}
		after := ""
		for done := false; !done; {
			behind, last, err := e.reprojectSome(ctx, prefix, after, re)
			if err == nil {
				err = e.settle(behind)
			}
			if err != nil {
				return err
			}
			after, done = last, last == ""
		}
	}
	if err := r.End(); err != nil {
		return damaged("a changed declaration: %w", err)
	}
	return e.reprojected(t)
}

// reprojected forgets a task, unless the declaration has changed again meanwhile: that is another one under its name.
func (e *Engine) reprojected(t Record) error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	e.mu.Lock()
	defer e.mu.Unlock()
	key := store.Internal(reprojectTable, t.Key)
	same := false
	if _, err := e.get(key, func(value []byte) error {
		same = bytes.Equal(value, t.Value)
		return nil
	}); err != nil || !same {
		return err
	}
	return e.setAlone(key, nil)
}

func (e *Engine) reprojectSome(ctx context.Context, prefix, after string, re *regexp.Regexp) (behind uint64, last string, err error) {
	if err := ctx.Err(); err != nil {
		return 0, "", err
	}
	if err := e.enter(); err != nil {
		return 0, "", err
	}
	defer e.leave()
	var names []string
	n := 0
	for row, err := range e.names(prefix, after) {
		if err != nil {
			return 0, "", err
		}
		name := store.RegisterName(row.Key)
		if re.MatchString(name) && !reservedName(name) {
			names = append(names, name)
		}
		if n++; n == some {
			last = name
			break
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed.Load() != nil {
		return 0, "", e.failure()
	}
	d := e.begin(new(commit), Dot{}, e.seqr.core.Clock(), Cause{Protocol: "engine", Verb: "rule"}, 0)
	for _, name := range names {
		if err := d.reproject(name); err != nil {
			return 0, "", errors.Join(err, d.c.batch.Close())
		}
	}
	if len(d.c.deltas) == 0 {
		return e.seqr.ordinal, last, d.c.batch.Close()
	}
	return d.c.ordinal, last, d.submit(nil, nil)
}

// reproject tells of a register whose value is not what was last told.
func (d *delivery) reproject(name string) error {
	e := d.e
	v, err := e.newest(name)
	if err != nil || v.ordinal == 0 || v.unit != "" {
		return err
	}
	was, err := e.newestTold(name)
	if err != nil {
		return err
	}
	now, err := e.state(name)
	if err != nil || was.Exists == now.Exists && was.Value.Equal(now.Value) {
		return err
	}
	if e.unitOf(v) != "" { // it has come into a group
		return d.tell(&was, &now, false)
	}
	next := newVersion(v.name, d.c.ordinal, v.rank+1, v.at, v.reg, v.size)
	next.hash = v.hash
	next.prev.Store(v)
	e.seqr.out, _ = appendRegister(e.seqr.out[:0], next)
	err = d.c.batch.Set(store.Register(name), e.seqr.out)
	d.c.versions = append(d.c.versions, next)
	after := e.look(next, d.rules, e.sight(v).decl)
	return errors.Join(err, d.tell(&was, &after.block, false))
}

// newestTold is what history says last of a register. The caller holds e.mu.
func (e *Engine) newestTold(name string) (StateBlock, error) {
	b, _, err := e.blockAt(name, e.seqr.ordinal)
	return b, err
}
