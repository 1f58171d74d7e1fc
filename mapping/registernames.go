package mapping

import (
	"fmt"
	"strings"
)

// RegisterNames finds which of several templates of registers' names a name matches. The zero value has none.
type RegisterNames struct {
	tree   tree
	leaves []*leaf
	at     map[*leaf]int
}

// Add takes the next template; the first has the number 0. An overlap is the number of one that has names in common with
// it, none of the two being the more specific one, and -1 if there is none.
func (n *RegisterNames) Add(template string) (overlap int, err error) {
	t, err := parseTemplate(template, &registerSyntax, false)
	if err != nil {
		return -1, fmt.Errorf("%s", sentence(err))
	}
	if n.at == nil {
		n.tree.separator, n.at = registerSyntax.Separator, map[*leaf]int{}
	}
	l := &leaf{template: t}
	overlap = -1
	n.tree.eachOverlapping(l, func(o *leaf) {
		if r := relate(l, o); r == equal || r == overlapping {
			overlap = n.at[o]
		}
	})
	n.at[l] = len(n.leaves)
	n.leaves = append(n.leaves, l)
	n.tree.insert(l)
	return overlap, nil
}

// Find gives the number of the most specific template that a register's name matches.
func (n *RegisterNames) Find(register string) (int, bool) {
	if len(n.leaves) == 0 {
		return 0, false
	}
	var f finding
	if !n.tree.find(register, &f) {
		return 0, false
	}
	return n.at[f.leaf], true
}

// Of lists the numbers of the templates that may have registers of a bind; d, if it is not nil, is the one of its
// documents that is meant.
func (n *RegisterNames) Of(b *Bind, d *Document) []int {
	var out []int
	if len(n.leaves) > 0 {
		n.tree.eachOverlapping(&leaf{template: b.register}, func(o *leaf) {
			if d != nil {
				if p := o.template.prefix(); !strings.HasPrefix(p, d.prefix) && !strings.HasPrefix(d.prefix, p) {
					return
				}
			}
			if relate(&leaf{template: b.register}, o) != disjoint {
				out = append(out, n.at[o])
			}
		})
	}
	return out
}

// Bind gives the bind of an address, also where it takes a payload to tell the register.
func (s *Set) Bind(wrapper, address string) *Bind {
	w := s.wrappers[wrapper]
	if w == nil {
		return nil
	}
	var f finding
	if e := w.lookup(address, &f); e != nil {
		return e.bind
	}
	return nil
}

// Has tells whether a register is one of the bind's, by its name.
func (b *Bind) Has(register string) bool {
	var f finding
	return b.regTree.find(register, &f)
}

// RegisterPrefix is what all names of the bind's registers begin with.
func (b *Bind) RegisterPrefix() string { return b.register.prefix() }
