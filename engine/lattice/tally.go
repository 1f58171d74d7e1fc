package lattice

import (
	"encoding/binary"
	"math/bits"
)

// A Tally is a hash over a set of registers that can be kept up as they change: the sum of their hashes modulo 2^256
// (Bellare and Micciancio, 1997). It is equal wherever the same registers hold the same entries.
type Tally [4]uint64

func words(h Hash) (w [4]uint64) {
	for i := range w {
		w[i] = binary.BigEndian.Uint64(h[24-8*i:])
	}
	return w
}

// Add puts a register's hash in.
func (s *Tally) Add(h Hash) {
	w, carry := words(h), uint64(0)
	for i := range s {
		s[i], carry = bits.Add64(s[i], w[i], carry)
	}
}

// Remove takes a register's hash out.
func (s *Tally) Remove(h Hash) {
	w, borrow := words(h), uint64(0)
	for i := range s {
		s[i], borrow = bits.Sub64(s[i], w[i], borrow)
	}
}

// Join is the sum over both sets.
func (s *Tally) Join(o Tally) { s.Add(o.Hash()) }

// Hash is the sum as bytes.
func (s Tally) Hash() (h Hash) {
	for i := range s {
		binary.BigEndian.PutUint64(h[24-8*i:], s[i])
	}
	return h
}

// TallyOf reads what Hash wrote.
func TallyOf(h Hash) Tally { return words(h) }
