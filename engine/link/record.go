package link

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// A Record is what this node keeps of a pair: its own half of it.
type Record struct {
	Endpoint  engine.EndpointID // of the peer
	Name      string            // what the operator calls it
	Key       [32]byte          // SHA-256 of the peer's public key (SubjectPublicKeyInfo), pinned when the pair was made
	Address   string            // where it is called; "": it calls
	Secret    []byte            // of the invitation, until the first connection
	Made      time.Time
	Dissolved bool // final; kept so that the peer can be told
}

const (
	pairTable     = "pair"
	recordVersion = 1
)

func keyOf(e engine.EndpointID) string { return hex.EncodeToString(e[:]) }

func (r *Record) encode() []byte {
	dst := lattice.AppendUint(lattice.AppendArray(nil, 8), recordVersion)
	dst = lattice.AppendText(lattice.AppendBytes(dst, r.Endpoint[:]), r.Name)
	dst = lattice.AppendText(lattice.AppendBytes(dst, r.Key[:]), r.Address)
	return appendBool(lattice.AppendInt(lattice.AppendBytes(dst, r.Secret), r.Made.UnixMilli()), r.Dissolved)
}

func parseRecord(raw []byte) (*Record, error) {
	r := lattice.NewReader(raw)
	r.Array(8)
	if v := r.Uint(); v != recordVersion {
		r.Fail("a pair of version %d", v)
	}
	p := &Record{}
	r.Fixed(p.Endpoint[:])
	p.Name = r.Text()
	r.Fixed(p.Key[:])
	p.Address, p.Secret, p.Made, p.Dissolved = r.Text(), append([]byte(nil), r.Bytes()...), time.UnixMilli(r.Int()).UTC(), readBool(r)
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("a kept pair: %w", err)
	}
	return p, nil
}

// loadRecords reads all pairs.
func loadRecords(e *engine.Engine) ([]*Record, error) {
	var list []*Record
	for kept, err := range e.EachKept(pairTable, "") {
		if err != nil {
			return nil, err
		}
		r, err := parseRecord(kept.Value)
		if err == nil && keyOf(r.Endpoint) != kept.Key {
			err = errors.New("a kept pair under another's name")
		}
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}
