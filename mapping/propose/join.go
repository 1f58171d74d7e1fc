package propose

import (
	"cmp"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
)

// A bind is one to be proposed.
type bind struct {
	route   *route
	group   *group
	form    form
	comma   string // of CSV
	root    string // of XML
	members map[string]*seen
	scalar  *seen
	reads   int
	writes  int
	verbs   map[wrappers.Verb]bool
	field   string // the one field of a payload that is one value
	prefix  string // before the names of fields: of a command
	key     []string
	each    bool
	rows    bool              // of a table, whose protocol knows the form of a row
	rename  map[string]string // from the route's captures to the register's
	others  int               // writes whose payload has another form
}

// A group is binds of one wrapper that are about the same thing.
type group struct {
	protocol, wrapper string
	base              []part
	key               []string // members that tell the register, behind the captures
	binds             []*bind
	captures          []string
	tuples            map[string]bool
}

// A register is one to be proposed.
type register struct {
	groups   []*group
	captures []string
}

var commands = wordSet("set cmd command commands cmnd desired control")

// registers makes groups of routes, and joins those that carry the same thing.
func (p *proposer) registers(routes []*route) []*register {
	groups := map[string]*group{}
	var order []*group
	bases := map[string]bool{}
	for _, r := range routes {
		bases[r.protocol+"\x00"+r.wrapper+"\x00"+baseText(r.parts)] = true
	}
	for _, r := range routes {
		b := bindOf(r)
		base := b.settle(func(parts []part) bool { return bases[r.protocol+"\x00"+r.wrapper+"\x00"+baseText(parts)] })
		b.findKey(p)
		k := strings.Join([]string{r.protocol, r.wrapper, baseText(base), strings.Join(b.key, "\x01")}, "\x00")
		if len(r.params) > 0 {
			k += "\x00" + b.queryKey()
		}
		g := groups[k]
		if g == nil {
			g = &group{protocol: r.protocol, wrapper: r.wrapper, base: base, key: b.key, tuples: map[string]bool{}}
			groups[k] = g
			order = append(order, g)
		}
		b.group = g
		g.binds = append(g.binds, b)
	}
	for _, g := range order {
		g.finish()
	}
	return joined(order)
}

// baseText is parts whose captures are equal whatever they are called.
func baseText(parts []part) string {
	var b strings.Builder
	for _, p := range parts {
		if p.isCapture() {
			b.WriteString("{}" + p.suffix)
		} else {
			b.WriteString(p.literal)
		}
		b.WriteByte('/')
	}
	return b.String()
}

// bindOf gathers what was sent on a route.
func bindOf(r *route) *bind {
	b := &bind{route: r, members: map[string]*seen{}, verbs: map[wrappers.Verb]bool{}, rename: map[string]string{}}
	forms := map[form]int{}
	for _, s := range r.samples {
		b.verbs[s.verb] = true
		if !s.verb.Writes() {
			b.reads++
			continue
		}
		b.writes++
		if f := s.payload.form; f != none {
			if f == jsonForm && !s.payload.object {
				f = "json value"
			}
			forms[f]++
		}
	}
	best := 0
	for _, f := range []form{jsonForm, cborForm, formForm, xmlForm, csvForm, numberForm, "json value", textForm, bytesForm} {
		if forms[f] > best {
			b.form, best = f, forms[f]
		}
	}
	// Numbers among texts are texts.
	if b.form == numberForm && forms[textForm] > 0 {
		b.form = textForm
	}
	object := b.form != "json value"
	if !object {
		b.form = jsonForm
	}
	for _, s := range r.samples {
		pay := &s.payload
		if !s.verb.Writes() || pay.form == none {
			continue
		}
		switch {
		case b.form == textForm && pay.form == numberForm:
			b.one(string(*s.op.Text))
		case pay.form != b.form, pay.form == jsonForm && pay.object != object, pay.form == csvForm && b.comma != "" && pay.comma != b.comma, b.root != "" && pay.root != b.root:
			b.others++
		case pay.form == csvForm:
			b.comma = pay.comma
			for _, row := range pay.rows {
				b.object(row)
			}
		case pay.object:
			b.root = pay.root
			b.object(pay.members)
		default:
			b.one(pay.scalar)
		}
	}
	if len(r.params) > 0 {
		for _, s := range r.samples {
			for _, q := range s.query {
				b.member(q.name).add(q.value)
			}
		}
	}
	return b
}

func (b *bind) member(name string) *seen {
	m := b.members[name]
	if m == nil {
		m = &seen{}
		b.members[name] = m
	}
	return m
}

func (b *bind) object(members map[string]any) {
	for name, v := range members {
		b.member(name).add(v)
	}
}

func (b *bind) one(v any) {
	if b.scalar == nil {
		b.scalar = &seen{}
	}
	b.scalar.add(v)
}

// settle says which part of the address is the register's: the last word of an address with one value names a field, and a command is a field
// of what it commands.
func (b *bind) settle(there func([]part) bool) []part {
	parts := b.route.parts
	last := parts[len(parts)-1]
	if len(b.route.params) > 0 {
		return parts
	}
	if last.literal != "" && commands[strings.ToLower(last.literal)] && len(parts) > 1 {
		base := parts[:len(parts)-1]
		prev := base[len(base)-1]
		switch {
		case b.scalar != nil && prev.literal != "" && len(base) > 1:
			b.field = "wanted_" + identifier(prev.literal)
			return base[:len(base)-1]
		case b.scalar != nil && prev.isCapture():
			b.field = "wanted"
			return base
		case len(b.members) > 0 && there(base):
			b.prefix = "wanted_"
			return base
		}
	}
	if b.scalar == nil {
		return parts
	}
	b.field = "value"
	if last.literal != "" && len(parts) > 1 {
		b.field = identifier(last.literal)
		return parts[:len(parts)-1]
	}
	return parts
}

func (b *bind) isObject() bool { return b.scalar == nil && len(b.members) > 0 }

// finish lists the captures of a group, and which values they had together.
func (g *group) finish() {
	for _, p := range g.base {
		if p.isCapture() {
			g.captures = append(g.captures, p.capture)
		}
	}
	n := len(g.captures)
	used := wordSet(strings.Join(g.captures, " "))
	for _, k := range g.key {
		name := identifier(k)
		for used[name] {
			name += "_"
		}
		used[name] = true
		g.captures = append(g.captures, name)
	}
	queried := ""
	if len(g.binds[0].route.params) > 0 {
		if queried = g.binds[0].queryKey(); queried != "" {
			g.captures = append(g.captures, queried)
		}
	}
	for _, b := range g.binds {
		i := 0
		for _, p := range b.route.parts[:min(len(g.base), len(b.route.parts))] {
			if p.isCapture() {
				b.rename[p.capture] = g.captures[i]
				i++
			}
		}
		for _, s := range b.route.samples {
			values := b.route.values(s)
			values = values[:min(n, len(values))]
			switch {
			case queried != "":
				for _, q := range b.route.params {
					if q.value == queried {
						for _, have := range s.query {
							if have.name == q.name {
								values = append(values, have.value)
							}
						}
					}
				}
				g.note(values)
			case b.each:
				for _, row := range s.payload.rows {
					v, _ := row[g.key[0]].(string)
					g.note(append(slices.Clone(values), v))
				}
			case b.rows:
				for _, k := range g.key {
					for _, q := range s.query {
						if unescaped(q.name) == k {
							values = append(values, unescaped(q.value))
						}
					}
				}
				g.note(values)
			case len(g.key) > 0:
				for _, k := range g.key {
					values = append(values, scalarText(s.payload.members[k]))
				}
				g.note(values)
			default:
				g.note(values)
			}
		}
	}
}

const maxTuples = 10_000

func (g *group) note(values []string) {
	if len(values) == len(g.captures) && len(g.tuples) < maxTuples {
		g.tuples[strings.Join(values, "\x00")] = true
	}
}

func scalarText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case interface{ String() string }:
		return v.String()
	}
	return ""
}

// fields are the names of all fields of a group.
func (g *group) fields() map[string]bool {
	out := map[string]bool{}
	for _, b := range g.binds {
		if b.scalar != nil {
			out[b.field] = true
			continue
		}
		for m := range b.members {
			if !slices.Contains(b.key, m) {
				out[strings.ToLower(b.prefix+m)] = true
			}
		}
	}
	return out
}

func (g *group) written() bool {
	return slices.ContainsFunc(g.binds, func(b *bind) bool { return b.writes > 0 })
}

// joined makes one register of groups that carry the same thing: of other wrappers, or told by the payload what others tell by the address.
func joined(groups []*group) []*register {
	slices.SortStableFunc(groups, func(a, b *group) int {
		// What says most about names comes first: an address that tells the register, with literals that mean something.
		return cmp.Or(cmp.Compare(len(a.key), len(b.key)), cmp.Compare(len(b.literals()), len(a.literals())))
	})
	var out []*register
	for _, g := range groups {
		var best *register
		var order []int
		most := 0.0
		for _, r := range out {
			for _, o := range r.groups {
				if o.protocol == g.protocol && o.wrapper == g.wrapper && len(o.key) == len(g.key) {
					continue
				}
				if score, perm := same(o, g); score > most {
					best, order, most = r, perm, score
				}
				break // the first one gave the captures their names
			}
		}
		if best == nil {
			out = append(out, &register{groups: []*group{g}, captures: g.captures})
			continue
		}
		// g's capture i is the register's order[i].
		renamed := map[string]string{}
		for i, c := range g.captures {
			renamed[c] = best.captures[order[i]]
		}
		for _, b := range g.binds {
			for from, to := range b.rename {
				b.rename[from] = renamed[to]
			}
		}
		for i, c := range g.captures {
			g.captures[i] = renamed[c]
		}
		best.groups = append(best.groups, g)
	}
	return out
}

func (g *group) literals() []string {
	var out []string
	for _, p := range g.base {
		if p.literal != "" && !isGeneric(p.literal) {
			out = append(out, p.literal)
		}
	}
	return out
}

// same scores how far b is about the same things as a; perm says which of a's captures each of b's is. 0: not at all.
func same(a, b *group) (score float64, perm []int) {
	n := len(a.captures)
	if n == 0 || n != len(b.captures) || len(a.tuples) == 0 || len(b.tuples) == 0 {
		return 0, nil
	}
	fa, fb := a.fields(), b.fields()
	common, total := 0, len(fb)
	for f := range fa {
		if fb[f] {
			common++
		} else {
			total++
		}
	}
	if a.written() && b.written() && common == 0 {
		return 0, nil
	}
	alike := 0.5
	if total > 0 && common > 0 {
		alike = float64(common) / float64(total)
	}
	for _, order := range orders(n) {
		hits := 0
		for t := range b.tuples {
			values := strings.Split(t, "\x00")
			turned := make([]string, n)
			for i, v := range values {
				turned[order[i]] = v
			}
			if a.tuples[strings.Join(turned, "\x00")] {
				hits++
			}
		}
		share := float64(hits) / float64(min(len(a.tuples), len(b.tuples)))
		if share >= 0.5 && share*(0.2+alike) > score {
			score, perm = share*(0.2+alike), order
		}
	}
	if alike < 0.25 {
		return 0, nil
	}
	return score, perm
}

// orders are the permutations of so many; of more than four only the one as they stand.
func orders(n int) [][]int {
	id := make([]int, n)
	for i := range id {
		id[i] = i
	}
	if n > 4 {
		return [][]int{id}
	}
	out := [][]int{id}
	var swap func(k int, p []int)
	swap = func(k int, p []int) {
		if k == n {
			if !slices.Equal(p, id) {
				out = append(out, slices.Clone(p))
			}
			return
		}
		for i := k; i < n; i++ {
			p[k], p[i] = p[i], p[k]
			swap(k+1, p)
			p[k], p[i] = p[i], p[k]
		}
	}
	swap(0, slices.Clone(id))
	return out
}
