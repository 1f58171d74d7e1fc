package lattice

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// An EndpointID says who writes. It is minted once per node, as SHA-512(UUIDv4 ‖ salt).
type EndpointID [64]byte

// String is its short form: the first 16 hexadecimal digits.
func (e EndpointID) String() string { return hex.EncodeToString(e[:8]) }

// An Origin is one run of an endpoint. The incarnation is drawn anew at every start, so that a restored backup or a
// cloned disk never uses a number twice.
type Origin struct {
	Endpoint    EndpointID
	Incarnation [16]byte
}

// ID is what stands for o in dots: the first 16 bytes of SHA-256 over endpoint and incarnation.
func (o Origin) ID() OriginID {
	var both [80]byte
	copy(both[:], o.Endpoint[:])
	copy(both[64:], o.Incarnation[:])
	sum := sha256.Sum256(both[:])
	return OriginID(sum[:16])
}

// An OriginID stands for an Origin.
type OriginID [16]byte

// String is its 32 hexadecimal digits.
func (o OriginID) String() string { return hex.EncodeToString(o[:]) }

// Compare orders origins bytewise.
func (o OriginID) Compare(p OriginID) int { return bytes.Compare(o[:], p[:]) }

// A Dot names one candidate for ever. Seq is dense from 1; the zero Dot names none.
type Dot struct {
	Origin OriginID
	Seq    uint64
}

// IsZero says that d names no candidate.
func (d Dot) IsZero() bool { return d.Seq == 0 }

// Compare orders dots by origin, then by seq.
func (d Dot) Compare(e Dot) int { return cmp.Or(d.Origin.Compare(e.Origin), cmp.Compare(d.Seq, e.Seq)) }

// String is "origin.seq", in hexadecimal and decimal; "" for the zero Dot. ParseDot reads it.
func (d Dot) String() string {
	if d.IsZero() {
		return ""
	}
	return d.Origin.String() + "." + strconv.FormatUint(d.Seq, 10)
}

// ParseDot reads what Dot.String wrote.
func ParseDot(s string) (Dot, error) {
	if s == "" {
		return Dot{}, nil
	}
	origin, seq, _ := strings.Cut(s, ".")
	var d Dot
	n, err := hex.Decode(d.Origin[:], []byte(origin[:min(len(origin), 2*len(d.Origin))]))
	if err == nil && n == len(d.Origin) && len(origin) == 2*n {
		if d.Seq, err = parseDecimal(seq); err == nil && d.Seq > 0 {
			return d, nil
		}
	}
	return Dot{}, fmt.Errorf("%w: dot %.60q", ErrInvalid, s)
}

// A StateID names a state of one register. Rank counts this node's commits to the register and only rises; Digest is
// over the live entries and equal on every node that holds the same ones. Zero: never written.
type StateID struct {
	Rank   uint64
	Digest [16]byte
}

// IsZero says that s is that of a register that was never written.
func (s StateID) IsZero() bool { return s == StateID{} }

// String is "rank.digest", in decimal and hexadecimal. ParseStateID reads it.
func (s StateID) String() string {
	dst := strconv.AppendUint(make([]byte, 0, 54), s.Rank, 10)
	return string(hex.AppendEncode(append(dst, '.'), s.Digest[:]))
}

// ParseStateID reads what StateID.String wrote.
func ParseStateID(s string) (StateID, error) {
	rank, digest, _ := strings.Cut(s, ".")
	var id StateID
	n, err := hex.Decode(id.Digest[:], []byte(digest[:min(len(digest), 2*len(id.Digest))]))
	if err == nil && n == len(id.Digest) && len(digest) == 2*n {
		if id.Rank, err = parseDecimal(rank); err == nil {
			return id, nil
		}
	}
	return StateID{}, fmt.Errorf("%w: state id %.60q", ErrInvalid, s)
}

// parseDecimal takes one spelling per number, as these ids are compared as text elsewhere.
func parseDecimal(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err == nil && strconv.FormatUint(n, 10) != s {
		err = ErrInvalid
	}
	return n, err
}
