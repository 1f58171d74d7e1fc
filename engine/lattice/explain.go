package lattice

import (
	"fmt"
	"slices"
)

// A FieldStory says which entries live under one field, and why its value is what it is.
type FieldStory struct {
	Field   string
	Rule    Rule
	Value   Value
	Entries []StoryEntry
	Why     string // one sentence for people
}

// A StoryEntry is a live entry, and whether the field's value is it, or holds it.
type StoryEntry struct {
	Entry
	Wins bool
}

// Explain tells the story of each field, also of those that a delete hides.
func (g *Register) Explain(d *Decl, eye *Eye) (stories []FieldStory) {
	if g == nil {
		return nil
	}
	for b := range g.bundles {
		rule := d.Rule(b.field)
		v := rule.resolve(&b, eye)
		s := FieldStory{Field: b.field, Rule: rule, Value: v.value}
		b.all(func(e *Entry, item bool) {
			wins := v.winner == nil || v.winner.Dot == e.Dot || item && v.value.Kind() == SetKind
			s.Entries = append(s.Entries, StoryEntry{*e, wins})
		})
		slices.SortStableFunc(s.Entries, func(a, b StoryEntry) int {
			switch {
			case a.Wins != b.Wins && a.Wins:
				return -1
			case a.Wins != b.Wins:
				return 1
			case later(&a.Entry, &b.Entry):
				return -1
			}
			return 1
		})
		s.Why = rule.why(&b, &v, len(s.Entries))
		stories = append(stories, s)
	}
	return stories
}

func (r *Rule) why(b *bundle, v *verdict, n int) string {
	if n == 1 {
		switch r.Kind {
		case Latest, Ask:
			return "nobody has written another value without having seen this one"
		case Max:
			return "it is the highest that was written; what was lower did not get in, and what it beat was replaced"
		case Min:
			return "it is the lowest that was written; what was higher did not get in, and what it beat was replaced"
		case Sum:
			return "it is the total of what was counted, all of it by one node"
		case Union:
			return "one item was added and not removed"
		case Priority:
			if rank := r.Rank(v.winner.By); rank < len(r.Ranks) {
				return fmt.Sprintf("its writer matches %q, number %d in the order, and it was the latest of those", r.Ranks[rank], rank+1)
			}
			return "nobody who is in the order has written"
		}
	}
	switch r.Kind {
	case First:
		if v.provisional {
			return fmt.Sprintf("it was written first, of %d, as far as is known: a member of the domain who was not heard since may still have been earlier", n)
		}
		if n == 1 {
			return "it was written first; what came later did not get in"
		}
		return fmt.Sprintf("it was written first, of %d who did not know of each other", n)
	case Max:
		return fmt.Sprintf("%s is the highest of %d", v.value, n)
	case Min:
		return fmt.Sprintf("%s is the lowest of %d", v.value, n)
	case Sum:
		return fmt.Sprintf("it is the total of what %d nodes, or runs of one, have counted", n)
	case Union:
		return fmt.Sprintf("it is the %d items that were added and not removed", v.value.Len())
	case Priority:
		rank := r.Rank(v.winner.By)
		if rank == len(r.Ranks) {
			return fmt.Sprintf("none of %d writers is in the order; this was the latest", n)
		}
		return fmt.Sprintf("its writer matches %q, number %d in the order, ahead of %d", r.Ranks[rank], rank+1, n-1)
	case Ask:
		if v.siblings {
			return fmt.Sprintf("%d writers did not know of each other: somebody has to choose, by writing the field", n)
		}
		return fmt.Sprintf("%d writers did not know of each other and wrote the same", n)
	}
	return fmt.Sprintf("%d writers did not know of each other; this was the latest by their clocks", n)
}
