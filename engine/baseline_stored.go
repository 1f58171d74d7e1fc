package engine

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/spooksystems/gateway/engine/lattice"
)

// The stored form: CBOR arrays, as short as the names allow, since one is written per capture.
type storedBaseline struct {
	_       struct{} `cbor:",toarray"`
	Version string
	Bind    string
	Fields  []storedField
	Exists  []storedDot
	Whole   bool
	Told    uint64
	Sent    []storedSent
	Others  []storedOther // left out, with what follows, where there are none
	Lacks   []int         // places in Fields; left out where there are none
}

// An array that leaves out its last elements is storedLeast of storedMost long at least.
const (
	storedLeast = 7
	storedMost  = 9
	cborArray   = 0x80 // of up to 23 elements, whose number is added
	cborNull    = 0xf6
)

type storedOther struct {
	_     struct{} `cbor:",toarray"`
	Sent  int      // of which write on its way, from 1; 0: of the baseline itself
	Field int      // place
	As    []byte   // CBOR; empty: absent
}

type storedField struct {
	_     struct{} `cbor:",toarray"`
	Field string
	Value []byte // CBOR; empty: absent
	Dots  []storedDot
}

type storedSent struct {
	_      struct{} `cbor:",toarray"`
	Fields []storedField
	Exists []storedDot
	Gone   bool
	Taken  bool
}

type storedDot struct {
	_      struct{} `cbor:",toarray"`
	Origin []byte
	Seq    uint64
}

// AppendTo appends the stored form.
func (b *Baseline) AppendTo(dst []byte) ([]byte, error) {
	s := storedBaseline{Version: b.Version, Bind: b.Bind, Fields: storeFields(b.Fields), Exists: storeDots(b.Exists), Whole: b.Whole, Told: b.Told}
	for _, w := range b.Sent {
		s.Sent = append(s.Sent, storedSent{Fields: storeFields(w.Fields), Exists: storeDots(w.Exists), Gone: w.Gone, Taken: w.Taken})
	}
	others := appendOthers(nil, 0, b.Fields)
	for i, w := range b.Sent {
		others = appendOthers(others, i+1, w.Fields)
	}
	var lacks []int
	for i, f := range b.Fields {
		if f.Lacks {
			lacks = append(lacks, i)
		}
	}
	s.Others, s.Lacks = others, lacks
	raw, err := cbor.Marshal(s)
	if err != nil {
		return dst, err
	}
	short := 0
	if len(lacks) == 0 {
		if short = 1; len(others) == 0 {
			short = 2
		}
	}
	raw[0] -= byte(short)
	return append(dst, raw[:len(raw)-short]...), nil // each is one byte, null
}

// ParseBaseline reads the stored form.
func ParseBaseline(raw []byte) (Baseline, error) {
	if len(raw) > 0 && raw[0] >= cborArray|storedLeast && raw[0] < cborArray|storedMost {
		n := int(raw[0] &^ cborArray)
		raw = append([]byte{cborArray | storedMost}, raw[1:]...)
		for ; n < storedMost; n++ {
			raw = append(raw, cborNull)
		}
	}
	var s storedBaseline
	err := cbor.Unmarshal(raw, &s)
	if err != nil {
		return Baseline{}, fmt.Errorf("baseline: %w", err)
	}
	b := Baseline{Version: s.Version, Bind: s.Bind, Whole: s.Whole, Told: s.Told}
	var err1, err2 error
	b.Fields, err1 = loadFields(s.Fields)
	b.Exists, err2 = loadDots(s.Exists)
	for _, w := range s.Sent {
		f, err3 := loadFields(w.Fields)
		d, err4 := loadDots(w.Exists)
		err1 = errors.Join(err1, err3, err4)
		b.Sent = append(b.Sent, Sent{Fields: f, Exists: d, Gone: w.Gone, Taken: w.Taken})
	}
	for _, i := range s.Lacks {
		if i < 0 || i >= len(b.Fields) {
			err1 = errors.Join(err1, errors.New("no such field"))
			break
		}
		b.Fields[i].Lacks = true
	}
	if err := errors.Join(err1, err2, b.loadOthers(s.Others)); err != nil {
		return Baseline{}, fmt.Errorf("baseline: %w", err)
	}
	return b, nil
}

func appendOthers(dst []storedOther, sent int, fields []BaselineField) []storedOther {
	for i, f := range fields {
		if f.Other {
			o := storedOther{Sent: sent, Field: i}
			if !f.As.IsAbsent() {
				o.As = f.As.AppendCBOR(nil)
			}
			dst = append(dst, o)
		}
	}
	return dst
}

func (b *Baseline) loadOthers(others []storedOther) error {
	for _, o := range others {
		fields := b.Fields
		if o.Sent > 0 && o.Sent <= len(b.Sent) {
			fields = b.Sent[o.Sent-1].Fields
		}
		if o.Sent < 0 || o.Sent > len(b.Sent) || o.Field < 0 || o.Field >= len(fields) {
			return errors.New("no such field")
		}
		f := &fields[o.Field]
		f.Other = true
		if len(o.As) > 0 {
			var err error
			if f.As, err = lattice.ParseCBOR(o.As); err != nil {
				return err
			}
		}
	}
	return nil
}

func storeFields(fields []BaselineField) []storedField {
	out := make([]storedField, len(fields))
	for i, f := range fields {
		out[i] = storedField{Field: f.Field, Dots: storeDots(f.Dots)}
		if !f.Value.IsAbsent() {
			out[i].Value = f.Value.AppendCBOR(nil)
		}
	}
	return out
}

func loadFields(fields []storedField) ([]BaselineField, error) {
	var out []BaselineField
	for _, f := range fields {
		d, err := loadDots(f.Dots)
		if err != nil {
			return nil, err
		}
		b := BaselineField{Field: f.Field, Dots: d}
		if len(f.Value) > 0 {
			if b.Value, err = lattice.ParseCBOR(f.Value); err != nil {
				return nil, err
			}
		}
		out = append(out, b)
	}
	return out, nil
}

func storeDots(dots []Dot) []storedDot {
	var out []storedDot
	for _, d := range dots {
		out = append(out, storedDot{Origin: d.Origin[:], Seq: d.Seq})
	}
	return out
}

func loadDots(dots []storedDot) ([]Dot, error) {
	var out []Dot
	for _, s := range dots {
		var d Dot
		if len(s.Origin) != len(d.Origin) {
			return nil, errors.New("origin of the wrong length")
		}
		copy(d.Origin[:], s.Origin)
		d.Seq = s.Seq
		out = append(out, d)
	}
	return out, nil
}
