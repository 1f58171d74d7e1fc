// Package lattice is the pure core of the engine: values, candidates, and the causal dot store that they collapse into.
// It has no goroutines, clock, randomness or I/O: the same candidates give the same state everywhere, in any causal
// order, any number of times.
package lattice
