package mapping

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/hashicorp/hcl/v2"
)

// ownNames are the names that expressions know without a capture.
var ownNames = []string{"payload", "now", "raw", "meta", "verb", "peer", "who", "self", "row", "exists", "true", "false", "null"}

// checkNames finds captures that hide other names, and captures written as other tools write them.
func (l *loader) checkNames(b *Bind, at hcl.Range, address *template) {
	for _, t := range []*template{address, b.register} {
		where := at
		if t == b.register {
			where = b.rng
		}
		for _, n := range t.names {
			if slices.Contains(ownNames, n) && (t == address || !slices.Contains(address.names, n)) {
				l.Error("MAP120", where, fmt.Sprintf("the capture {%s} has the name of something else", n),
					fmt.Sprintf("In expressions %s is known already. Give the capture another name, as {%s_name}.", n, n))
			}
			if t == b.register && b.decl != nil && b.decl.fields[n] != nil {
				l.Warn("MAP121", b.decl.places[n], fmt.Sprintf("%q is a field, and {%s} a part of the register's name", n, n),
					fmt.Sprintf("The two can differ, and in expressions %s is the part of the name. Take the field out, or rename one of them.", n))
			}
		}
	}
	l.foreign(at, address)
}

// foreignCaptures are the forms in which routers and brokers write what {name} is here.
var foreignCaptures = regexp.MustCompile(`^(?::[A-Za-z_]\w*|<[A-Za-z_][\w:]*>|\*{1,2}|\$[A-Za-z_]\w*|\$[0-9]|%[sdv]|\[[A-Za-z_]\w*\]|\(\.[*+]\)|\+|#)$`)

// foreign warns of a segment that looks like a capture of another tool: it is a literal here.
func (l *loader) foreign(at hcl.Range, t *template) {
	for _, s := range t.segments {
		if s.literal != "" && foreignCaptures.MatchString(s.literal) {
			l.Warn("MAP007", at, fmt.Sprintf("%q in an address is nothing but these characters", s.literal),
				"A capture is written {name}, and {name...} where it takes several segments.")
		}
	}
}
