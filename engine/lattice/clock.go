package lattice

import "time"

// A Stamp is a time of a hybrid logical clock: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
// It breaks ties between writers who did not know of each other, and nothing else.
type Stamp uint64

// StampOf is the first stamp of t's millisecond. Times outside 1970 to 10889 are moved to the nearest end.
func StampOf(t time.Time) Stamp {
	return Stamp(min(max(t.UnixMilli(), 0), 1<<48-1)) << 16
}

// Time is the wall clock's part of s, in UTC.
func (s Stamp) Time() time.Time { return time.UnixMilli(int64(s >> 16)).UTC() }

// Counter orders the stamps of one millisecond.
func (s Stamp) Counter() uint16 { return uint16(s) }

// MaxAhead is how far another's stamp may be ahead of the wall clock to be followed.
const MaxAhead = time.Minute

// A Clock is a hybrid logical clock (Kulkarni and others, 2014). It is told the wall clock's time and never goes back,
// whatever that does.
type Clock struct{ last Stamp }

// NewClock continues behind a stamp that may have been given before.
func NewClock(last Stamp) Clock { return Clock{last: last} }

// Tick gives the stamp of a new event: higher than all before it.
func (c *Clock) Tick(wall time.Time) Stamp {
	c.last = max(StampOf(wall), c.last+1)
	return c.last
}

// Follow moves the clock behind another's stamp, and says whether it did: not when that is further than MaxAhead ahead
// of the wall. One wild clock must not make all others wild.
func (c *Clock) Follow(s Stamp, wall time.Time) bool {
	if s > StampOf(wall.Add(MaxAhead)) {
		return false
	}
	c.last = max(c.last, s)
	return true
}
