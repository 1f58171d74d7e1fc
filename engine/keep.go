package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/spooksystems/gateway/engine/store"
)

// keep adds records to a batch.
func keep(b store.Batch, records []Record) error {
	for _, r := range records {
		var err error
		if key := store.Kept(r.Table, r.Key); r.Value == nil {
			err = b.Delete(key)
		} else {
			err = b.Set(key, r.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// KeepRecords stores records; durable when it returns if sync, else with the next commit that is. While the disk is
// almost full only deletes are taken. Limit: 16 MiB in one call.
func (e *Engine) KeepRecords(ctx context.Context, sync bool, records ...Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkRecords(records); err != nil {
		return err
	}
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	if e.store.Full() {
		for _, r := range records {
			if r.Value != nil {
				return ErrFull
			}
		}
	}
	b := e.store.NewBatch()
	if err := keep(b, records); err != nil {
		return errors.Join(err, b.Close())
	}
	if err := e.store.Apply(b, sync); err != nil {
		return e.fail(fmt.Errorf("write of the log: %w", err))
	}
	if e.failed.Load() != nil {
		return e.failure()
	}
	return b.Close()
}

// Kept gives one record's value, nil if there is none.
func (e *Engine) Kept(table, key string) ([]byte, error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	var out []byte
	_, err := e.get(store.Kept(table, key), func(value []byte) error {
		out = append([]byte{}, value...)
		return nil
	})
	return out, err
}

// EachKept yields the records of a table whose key has the prefix, in key order. What changes meanwhile may or may not
// be seen.
func (e *Engine) EachKept(table, prefix string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		lower := store.Kept(table, prefix)
		upper := store.Behind(lower)
		for {
			records, err := e.keptChunk(table, lower, upper)
			for _, r := range records {
				if !yield(r, nil) {
					return
				}
			}
			if err != nil {
				yield(Record{}, err)
				return
			}
			if len(records) < chunk {
				return
			}
			lower = append(store.Kept(table, records[chunk-1].Key), 0)
		}
	}
}

func (e *Engine) keptChunk(table string, lower, upper []byte) (records []Record, err error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	for row, err := range e.scan(lower, upper, false) {
		if err != nil {
			return records, err
		}
		records = append(records, Record{Table: table, Key: store.KeptKey(row.Key, table), Value: append([]byte{}, row.Value...)})
		if len(records) == chunk {
			break
		}
	}
	return records, nil
}
