package engine

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// findings are what an operator has to know of. They outlive a restart.
type findings struct {
	mu   sync.Mutex
	have []Finding // by code and subject
}

// maxFindings bounds them: more of one kind say no more.
const maxFindings = 1000

func compareFindings(a, b Finding) int {
	return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Subject, b.Subject))
}

func (f *findings) all() []Finding {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.have)
}

func (f *findings) search(code, subject string) (int, bool) {
	return slices.BinarySearchFunc(f.have, Finding{Code: code, Subject: subject}, compareFindings)
}

// find notes a finding, once. Its text stays as it was first said.
func (e *Engine) find(found Finding) {
	f := &e.findings
	f.mu.Lock()
	defer f.mu.Unlock()
	i, known := f.search(found.Code, found.Subject)
	if known || len(f.have) >= maxFindings {
		return
	}
	found.Since = e.options.Now()
	f.have = slices.Insert(f.have, i, found)
	e.options.Log.Error("finding", "code", found.Code, "subject", found.Subject, "text", found.Text)
	record := lattice.AppendInt(lattice.AppendText(nil, found.Text), found.Since.UnixMilli())
	e.keepInternal(findingTable, found.Code+"\x00"+found.Subject, record)
}

// unfind takes a finding back.
func (e *Engine) unfind(code, subject string) {
	f := &e.findings
	f.mu.Lock()
	defer f.mu.Unlock()
	if i, known := f.search(code, subject); known {
		f.have = slices.Delete(f.have, i, i+1)
		e.keepInternal(findingTable, code+"\x00"+subject, nil)
	}
}

func (e *Engine) loadFindings() error {
	for r, err := range e.eachInternal(findingTable) {
		if err != nil {
			return err
		}
		reader := lattice.NewReader(r.Value)
		text, at := reader.Text(), reader.Int()
		code, subject, _ := strings.Cut(r.Key, "\x00")
		if err := reader.End(); err != nil {
			return damaged("finding %q: %w", r.Key, err)
		}
		if code == "opaque" {
			if v, err := e.load(subject); err != nil || v == nil || !v.reg.Opaque() {
				if err == nil {
					err = e.setAlone(store.Internal(findingTable, r.Key), nil) // this program knows what it is
				}
				if err != nil {
					return err
				}
				continue
			}
		}
		e.findings.have = append(e.findings.have, Finding{Code: code, Subject: subject, Text: text, Since: time.UnixMilli(at).UTC()})
	}
	slices.SortFunc(e.findings.have, compareFindings)
	return nil
}

// alarm makes a finding of what the core has proven.
func (e *Engine) alarm(a lattice.Alarm) {
	f := Finding{Text: a.Text}
	switch a.Kind {
	case lattice.ForkAlarm:
		f.Code, f.Subject = "fork", a.Dot.String()
		f.Text += ". Find the machine that runs a copy of the other's data and stop it; what it wrote behind the fork is not merged."
	case lattice.CloneAlarm:
		f.Code, f.Subject = "clone", a.Dot.Origin.String()+" "+a.Other.Origin.String()
		f.Text += ". Both sides' writes are kept. Stop one of the two, and give it an empty data directory; if it was restored from a backup, the other is what it was before, and all is well."
	case lattice.ClockAlarm:
		f.Code, f.Subject = "clock", a.Dot.Origin.String()
		f.Text += ". It loses nothing and wins only over writers who had not seen it; set that node's clock."
	case lattice.TailAlarm:
		f.Code, f.Subject = "restored", a.Dot.Origin.String()
		f.Text += ". They are taken back from the other nodes."
	}
	e.find(f)
}

// Records of the engine's own.
const (
	findingTable   = "finding"
	reprojectTable = "reproject"
	memberTable    = "member"
	incomingTable  = "incoming"
)

// keepInternal stores a record of the engine's own, durable with the next commit that is; nil deletes it.
func (e *Engine) keepInternal(kind, key string, value []byte) {
	b := e.store.NewBatch()
	var err error
	if value == nil {
		err = b.Delete(store.Internal(kind, key))
	} else {
		err = b.Set(store.Internal(kind, key), value)
	}
	if err = errors.Join(err, e.store.Apply(b, false)); err != nil {
		_ = e.fail(fmt.Errorf("write of the log: %w", err))
		return
	}
	_ = b.Close() // it is applied
}

// eachInternal yields the records of a kind.
func (e *Engine) eachInternal(kind string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		lower := store.Internal(kind, "")
		for row, err := range e.scan(lower, store.Behind(lower), false) {
			if err != nil {
				yield(Record{}, err)
				return
			}
			if !yield(Record{Table: kind, Key: string(row.Key[len(lower):]), Value: slices.Clone(row.Value)}, nil) {
				return
			}
		}
	}
}
