package wrappers

import "errors"

// The kinds of error a Link returns. Each wrapper's errors.go is a table from these to the
// protocol's codes; the text behind them is for the operator's log.
var (
	ErrUnmapped    = errors.New("no bind maps this address")
	ErrInvalid     = errors.New("invalid")
	ErrNotFound    = errors.New("not found")
	ErrDenied      = errors.New("denied")
	ErrConflict    = errors.New("conflict") // a precondition failed
	ErrTooLarge    = errors.New("too large")
	ErrUnavailable = errors.New("unavailable") // for now: disk full, draining, upstream down
)

// A Refusal is an error whose Reason may be shown to the peer: what is missing or wrong, in the
// user's own terms, without internals.
type Refusal struct {
	Kind   error // one of the sentinels above
	Reason string
}

func (r *Refusal) Error() string { return r.Kind.Error() + ": " + r.Reason }
func (r *Refusal) Unwrap() error { return r.Kind }

// Refuse makes a Refusal.
func Refuse(kind error, reason string) error { return &Refusal{Kind: kind, Reason: reason} }

// Reason gives what a peer may be told of err: a Refusal's reason, or its bare kind.
func Reason(err error) string {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return Kind(err).Error()
}

// Kind gives the sentinel behind err, ErrUnavailable if it is none of them.
func Kind(err error) error {
	for _, k := range []error{ErrUnmapped, ErrInvalid, ErrNotFound, ErrDenied, ErrConflict, ErrTooLarge, ErrUnavailable} {
		if errors.Is(err, k) {
			return k
		}
	}
	return ErrUnavailable
}
