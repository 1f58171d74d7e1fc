package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// zone is that of times without one, and of what is shown: this machine's.
var zone = time.Local

// momentHelp says what parseMoment takes.
const momentHelp = `a time (2026-11-25T03:40:01Z, "2026-11-25 03:40:01", -2h, "3d ago"), a state id, or a commit, as history shows it`

// A moment is what a user named of a register's past. Log is that of a whole cursor, else 0.
type moment struct {
	engine.Moment
	log uint64
}

// parseMoment reads a moment. Times without a zone are this machine's.
func parseMoment(text string, now time.Time) (moment, error) {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseUint(text, 10, 64); err == nil && n > 0 {
		return moment{Moment: engine.Moment{Ordinal: n}}, nil
	}
	if id, err := lattice.ParseStateID(text); err == nil && !id.IsZero() {
		return moment{Moment: engine.Moment{ID: id}}, nil
	}
	if c, err := engine.ParseCursor(text); err == nil && c.Ordinal > 0 {
		return moment{Moment: engine.Moment{Ordinal: c.Ordinal}, log: c.Log}, nil
	}
	ago, relative := strings.CutPrefix(text, "-")
	if !relative {
		ago, relative = strings.CutSuffix(text, " ago")
	}
	if relative {
		d, err := parseAgo(ago)
		if err != nil {
			return moment{}, err
		}
		return moment{Moment: engine.Moment{Time: now.Add(-d)}}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil && !t.IsZero() {
		return moment{Moment: engine.Moment{Time: t}}, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, zone); err == nil {
			return moment{Moment: engine.Moment{Time: t}}, nil
		}
	}
	return moment{}, fmt.Errorf("%.60q is neither %s", text, momentHelp)
}

// parseAgo reads a duration as Go has it, and days and weeks, which have 24 and 168 hours.
func parseAgo(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	for unit, hours := range map[string]uint64{"d": 24, "w": 168} {
		if digits, ok := strings.CutSuffix(text, unit); ok {
			if n, err := strconv.ParseUint(digits, 10, 16); err == nil {
				return time.Duration(n*hours) * time.Hour, nil
			}
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%.60q is not a duration like 90s, 2h or 3d", text)
	}
	return d, nil
}

// here refuses a commit of another log than the gateway's: its number means something else there.
func (m moment) here(ctx context.Context, client *daemonclient.Client) (engine.Moment, error) {
	if m.log == 0 {
		return m.Moment, nil
	}
	now, err := client.Cursor(ctx)
	if err == nil && now.Log != m.log {
		err = fmt.Errorf("%w: commit %s is of another log; this gateway's is %x", engine.ErrNotFound, engine.Cursor{Log: m.log, Ordinal: m.Ordinal}, now.Log)
	}
	return m.Moment, err
}
