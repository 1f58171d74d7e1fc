package sql

import (
	"context"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/sql/sqlrow"
)

// A shape is how the rows of some tables are named: the columns of their keys, in order.
type shape struct {
	pattern *wrappers.Pattern
	key     []string
}

// binds are the mappings in force, as this wrapper sees them.
type binds struct {
	shapes  []shape
	changed <-chan struct{} // closed when a reload has changed them
}

func readBinds(link wrappers.Link) binds {
	patterns, changed := link.Patterns()
	b := binds{changed: changed}
	for i := range patterns {
		p := &patterns[i]
		s := shape{pattern: p}
		for piece := range strings.SplitSeq(strings.TrimPrefix(p.Suffix, "?"), "&") {
			name, _, _ := strings.Cut(piece, "=")
			s.key = append(s.key, unescapeQuery(name))
		}
		if len(p.Segments) == 2 && p.Suffix != "" {
			b.shapes = append(b.shapes, s)
		}
	}
	return b
}

// literal gives the one table that a pattern is of; false: it captures the name.
func (s *shape) literal() (tableName, bool) {
	segs := s.pattern.Segments
	if segs[0].Kind != wrappers.LiteralSegment || segs[1].Kind != wrappers.LiteralSegment {
		return tableName{}, false
	}
	return tableName{sqlrow.UnescapeName(segs[0].Literal), sqlrow.UnescapeName(segs[1].Literal)}, true
}

// of tells whether a pattern may have rows of a table.
func (s *shape) of(t tableName) bool {
	for i, part := range []string{t.schema, t.name} {
		seg := &s.pattern.Segments[i]
		if seg.Kind == wrappers.LiteralSegment && sqlrow.UnescapeName(seg.Literal) != part {
			return false
		}
	}
	return true
}

// shapesOf are the different keys that rows of a table have.
func (b *binds) shapesOf(t tableName) []shape {
	var out []shape
	for _, s := range b.shapes {
		if s.of(t) && !slices.ContainsFunc(out, func(o shape) bool { return slices.Equal(o.key, s.key) }) {
			out = append(out, s)
		}
	}
	return out
}

// hashOf names what all binds mean for a table.
func (b *binds) hashOf(t tableName, inward bool) string {
	var hashes []string
	for _, s := range b.shapes {
		if s.of(t) && (s.pattern.In || !inward) {
			hashes = append(hashes, s.pattern.Hash)
		}
	}
	slices.Sort(hashes)
	return strings.Join(hashes, " ")
}

// in tells whether any bind takes rows of a table in.
func (b *binds) in(t tableName) bool {
	return slices.ContainsFunc(b.shapes, func(s shape) bool { return s.of(t) && s.pattern.In })
}

// tables lists the tables with rows that come in: those that binds name, and those of the server
// that they capture.
func (b *binds) tables(ctx context.Context, c *catalog) ([]tableName, error) {
	var out []tableName
	captured := false
	for i := range b.shapes {
		s := &b.shapes[i]
		if !s.pattern.In {
			continue
		}
		if t, ok := s.literal(); !ok {
			captured = true
		} else if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	if captured {
		all, err := c.names(ctx)
		if err != nil {
			return nil, err
		}
		for _, t := range all {
			if b.in(t) && !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	slices.SortFunc(out, func(a, b tableName) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
}

// watch is what the relay looks for in statements.
func (b *binds) watch() *tableWatch {
	w := &tableWatch{}
	for i := range b.shapes {
		t, ok := b.shapes[i].literal()
		if !ok {
			w.all = true
			continue
		}
		name := []byte(strings.ToLower(t.name))
		if !slices.ContainsFunc(w.names, func(n []byte) bool { return string(n) == string(name) }) {
			w.names = append(w.names, name)
		}
	}
	return w
}

// columns gives the columns that binds speak of in a table; all: any.
func (b *binds) columns(t *table) (names []string, all bool) {
	for i := range b.shapes {
		s := &b.shapes[i]
		if !s.of(t.name) {
			continue
		}
		if s.pattern.Open {
			all = true
		}
		for _, m := range s.pattern.Members {
			if !slices.Contains(names, m.Name) {
				names = append(names, m.Name)
			}
		}
	}
	if all {
		names = names[:0]
		for _, c := range t.columns {
			names = append(names, c.name)
		}
	}
	return names, all
}
