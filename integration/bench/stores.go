package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// A storeWriter commits to another store, one commit after the other. Commits are durable when
// Write returns.
type storeWriter interface {
	Write(sets []keyValue) error
	io.Closer
}

type keyValue struct{ key, value []byte }

const storeRegisters = 1000 // as BenchmarkCommit has

// commitKeys gives commit n in as many bytes as one of the engine's takes: a log entry, the
// register and an entry of its history. Two keys are new, the register's is written again.
func commitKeys(n uint64, size int, room []byte) []keyValue {
	ordinal := binary.BigEndian.AppendUint64(nil, n)
	name := fmt.Appendf(nil, "site/berlin/oven-%03d", n%storeRegisters)
	sets := []keyValue{
		{key: append([]byte("c"), ordinal...)},
		{key: append([]byte("r"), name...)},
		{key: append(append([]byte("h"), name...), ordinal...)},
	}
	for _, s := range sets {
		size -= len(s.key)
	}
	for i := range room {
		room[i] = byte(n + uint64(i)*7)
	}
	for i := range sets {
		part := max(size, 0) / (len(sets) - i)
		sets[i].value, room = room[:part], room[part:]
		size -= part
	}
	return sets
}

// commits measures how many commits of a size some writers get durable on a store.
func commits(p *process, dial func(addr string) (storeWriter, error), writers, size int, length time.Duration, next *atomic.Uint64) (sample, error) {
	var opened []storeWriter
	defer func() {
		for _, w := range opened {
			w.Close()
		}
	}()
	for range writers {
		w, err := dial(p.addr)
		if err != nil {
			return sample{}, err
		}
		opened = append(opened, w)
	}
	var done atomic.Int64
	var group sync.WaitGroup
	errs := make(chan error, writers)
	cpu, began := p.cpu(), time.Now()
	end := began.Add(length)
	for _, w := range opened {
		group.Go(func() {
			room := make([]byte, size)
			for time.Now().Before(end) {
				if err := w.Write(commitKeys(next.Add(1), size, room)); err != nil {
					errs <- err
					return
				}
				done.Add(1)
			}
		})
	}
	group.Wait()
	took := time.Since(began)
	select {
	case err := <-errs:
		return sample{}, err
	default:
	}
	n := max(done.Load(), 1)
	return sample{rate: float64(n) / took.Seconds(), cpu: (p.cpu() - cpu) / time.Duration(n)}, nil
}
