package wire

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// A Pending is an engine.Pending.
type Pending struct {
	Register string   `json:"register"`
	Dot      string   `json:"dot"`
	Stamp    string   `json:"stamp,omitempty"`
	Time     string   `json:"time,omitempty"` // of the stamp, for people
	Cause    *Cause   `json:"cause,omitempty"`
	Would    []Change `json:"would,omitempty"`
	Deletes  bool     `json:"deletes,omitempty"`
	Mode     string   `json:"mode"` // "manual", the length of the window, or "auto"
	// TooLarge: what it would change did not fit into a message and is left out.
	TooLarge bool `json:"tooLarge,omitempty"`
}

// FromPending gives a Pending's form.
func FromPending(p engine.Pending) Pending {
	w := Pending{
		Register: p.Register, Dot: p.Dot.String(), Stamp: fromStamp(p.Time), Time: timeOf(p.Time),
		Would: fromChanges(p.Would), Deletes: p.Deletes, Mode: p.Mode.String(),
	}
	if p.Cause != (engine.Cause{}) {
		w.Cause = FromCause(p.Cause)
	}
	return w
}

// WithoutValues leaves out what makes a Pending large.
func (p Pending) WithoutValues() Pending {
	p.TooLarge, p.Would = true, nil
	return p
}

// ParsePending reads a Pending's form. For one whose values were left out it gives the rest and an
// error that is engine.ErrTooLarge.
func ParsePending(raw []byte) (engine.Pending, error) {
	var (
		p                engine.Pending
		dot, stamp, mode string
		cause            json.RawMessage
		would            []json.RawMessage
		tooLarge         bool
	)
	err := Members(raw,
		Member{"register", &p.Register}, Member{"dot", &dot}, Member{"stamp", &stamp}, Member{"cause", &cause},
		Member{"would", &would}, Member{"deletes", &p.Deletes}, Member{"mode", &mode}, Member{"tooLarge", &tooLarge})
	if err != nil {
		return p, err
	}
	if p.Dot, err = lattice.ParseDot(dot); err != nil {
		return p, err
	}
	if p.Time, err = toStamp(stamp); err != nil {
		return p, err
	}
	if p.Cause, err = ParseCause(cause); err != nil {
		return p, err
	}
	if p.Would, err = toChanges(would); err != nil {
		return p, err
	}
	if p.Mode, err = toMode(mode); err != nil {
		return p, err
	}
	if tooLarge {
		return p, fmt.Errorf("%w: what waits on %q does not fit into one message", engine.ErrTooLarge, p.Register)
	}
	return p, nil
}

// toMode reads what CommitMode.String wrote.
func toMode(s string) (engine.CommitMode, error) {
	switch s {
	case "", "auto":
		return engine.CommitMode{}, nil
	case "manual":
		return engine.CommitMode{Manual: true}, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return engine.CommitMode{}, fmt.Errorf("mode %.60q", s)
	}
	return engine.CommitMode{Window: d}, nil
}

// A Moment is an engine.Moment: exactly one of its members is there.
type Moment struct {
	Time    *time.Time `json:"time,omitempty"`
	ID      string     `json:"id,omitempty"`
	Ordinal uint64     `json:"ordinal,omitempty"`
}

// FromMoment gives a Moment's form.
func FromMoment(m engine.Moment) Moment {
	w := Moment{ID: fromStateID(m.ID), Ordinal: m.Ordinal}
	if !m.Time.IsZero() {
		t := m.Time.UTC()
		w.Time = &t
	}
	return w
}

// ParseMoment reads a Moment's form. Errors are engine.ErrInvalid.
func ParseMoment(raw []byte) (engine.Moment, error) {
	var m engine.Moment
	var id string
	err := Members(raw, Member{"time", &m.Time}, Member{"id", &id}, Member{"ordinal", &m.Ordinal})
	if err == nil {
		m.ID, err = toStateID(id)
	}
	if err != nil {
		return m, fmt.Errorf("%w: moment: %w", engine.ErrInvalid, err)
	}
	set := 0
	for _, is := range []bool{!m.Time.IsZero(), !m.ID.IsZero(), m.Ordinal != 0} {
		if is {
			set++
		}
	}
	if set != 1 {
		return m, fmt.Errorf("%w: a moment has exactly one of time, id and ordinal", engine.ErrInvalid)
	}
	return m, nil
}

// A BackupInfo is an engine.BackupInfo.
type BackupInfo struct {
	Dir    string    `json:"dir"`
	Cursor string    `json:"cursor"` // of the newest commit in it
	Time   time.Time `json:"time"`
	Bytes  uint64    `json:"bytes"`
}

// FromBackup gives a BackupInfo's form.
func FromBackup(b engine.BackupInfo) BackupInfo {
	return BackupInfo{Dir: b.Dir, Cursor: b.Cursor.String(), Time: b.Time.UTC(), Bytes: b.Bytes}
}

// ParseBackup reads a BackupInfo's form.
func ParseBackup(raw []byte) (b engine.BackupInfo, err error) {
	var cursor string
	if err := Members(raw, Member{"dir", &b.Dir}, Member{"cursor", &cursor}, Member{"time", &b.Time}, Member{"bytes", &b.Bytes}); err != nil {
		return b, err
	}
	b.Cursor, err = engine.ParseCursor(cursor)
	return b, err
}
